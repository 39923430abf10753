"""What `resilient_integrations.redis` is made of."""
