"""What `resilient_integrations.cache` is made of."""
