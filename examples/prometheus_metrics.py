"""Prometheus: what is counted while a service has a bad minute, and what the gauges show.

Run it: python examples/prometheus_metrics.py
"""

import asyncio
import contextlib
import logging
import random

from prometheus_client import CollectorRegistry, generate_latest

from resilient import Bulkhead, CircuitBreaker, Pipeline, Rejected, Retry, RetryBudget, listening
from resilient_integrations.prometheus import Metrics

logging.getLogger("resilient").setLevel(logging.ERROR)  # the metrics show it

registry = CollectorRegistry()  # in a program: leave it out, and serve prometheus_client.make_asgi_app()
metrics = Metrics(registry)


def name_of(_order: int) -> str:
    """What is called: never an id."""
    return "orders"


pipeline = metrics.watch(
    Pipeline(
        Retry(on=ConnectionError, backoff=[0.001, 0.002], budget=RetryBudget(ratio=0.2, floor=1)),
        CircuitBreaker(minimum_calls=10, open_for=60),
        Bulkhead(10),
        key=name_of,
    ),
    "shop",
)
chance = random.Random(7)  # noqa: S311  the same bad minute each time


async def fetch(order: int) -> int:
    """A service that fails every other time."""
    await asyncio.sleep(0.001)
    if chance.random() < 1 / 2:
        msg = "reset by peer"
        raise ConnectionError(msg)
    return order


async def main() -> None:
    """Fifty calls, one after the other."""
    with listening(metrics):  # in a program: add_listener(metrics)
        for order in range(50):
            with contextlib.suppress(ConnectionError, Rejected):
                await pipeline.call(fetch, order)
    for line in generate_latest(registry).decode().splitlines():
        if line.startswith("resilience_") and not any(part in line for part in ("_bucket{", "_created", "_sum{", "} 0.0")):
            print(line)


asyncio.run(main())
