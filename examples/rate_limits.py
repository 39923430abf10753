"""Twelve calls at once, at most four a second: when each limiter lets them go."""

import anyio

from resilient import LeakyBucket, RateLimited, SlidingWindow, TokenBucket, configure_logging
from resilient.strategies.limiter import Limiter
from resilient.testing import run_virtual

LIMITERS = {
    "TokenBucket(4)": TokenBucket(4),
    "TokenBucket(4, burst=1)": TokenBucket(4, burst=1),
    "SlidingWindow(4)": SlidingWindow(4),
    "SlidingWindow(4, exact=True)": SlidingWindow(4, exact=True),
    "LeakyBucket(4)": LeakyBucket(4),
    "LeakyBucket(4, shape=True)": LeakyBucket(4, shape=True),
}


async def show(name: str, limiter: Limiter) -> None:
    """Draw when the calls start: a column is an eighth of a second."""
    began, columns = anyio.current_time(), [0] * 32
    refused = 0

    async def call() -> None:
        nonlocal refused
        try:
            async with limiter:
                columns[int((anyio.current_time() - began) * 8 + 0.01)] += 1
        except RateLimited:
            refused += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(call)
    picture = "".join(str(column or "·") for column in columns)
    print(f"{name:30} {picture}{f'  {refused} refused' if refused else ''}")


async def main() -> None:
    """One limiter after the other."""
    print(f"{'':30} {'0 s':8}{'1 s':8}{'2 s':8}{'3 s':8}")
    for name, limiter in LIMITERS.items():
        await show(name, limiter)


if __name__ == "__main__":
    configure_logging(enabled=False)  # the refusals are printed above
    run_virtual(main)
