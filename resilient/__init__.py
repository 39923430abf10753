"""Resilience for asyncio and trio: retries, circuit breakers, bulkheads, rate limits, and how they compose."""
