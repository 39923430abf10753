"""Policies: the declarative side. A policy is a value; it builds a pipeline in the canonical order."""
