"""The HTTP engine that `resilient_integrations.httpx` and `.httpx2` share. It imports neither of them."""
