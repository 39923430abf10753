"""Middleware for servers: how `resilient_integrations.asgi` is made."""
