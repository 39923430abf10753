"""Integrations of `resilient`, one module each; nothing is imported here."""
