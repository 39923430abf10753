"""An adaptive limit in front of a service with four workers: it finds out how many calls at a time the service takes."""

import anyio

from resilient import AdaptiveLimit, Bulkhead, BulkheadFull
from resilient.observe.events import Event, LimitChanged
from resilient.observe.listeners import listening
from resilient.testing import run_virtual

workers = Bulkhead(4, max_queue=1000)
limit = AdaptiveLimit(20, name="reports")


def tell(event: Event) -> None:
    """Print what the limit does."""
    if isinstance(event, LimitChanged):
        print(f"  {event.at:5.1f} s: {event.old:g} → {event.new:g} ({event.why})")


async def ask() -> None:
    """Ask the service: 50 ms of work, once a worker is free."""
    try:
        async with limit, workers:
            await anyio.sleep(0.05)
    except BulkheadFull:
        pass  # a hundred and sixty a second come, and the service can do eighty


async def main() -> None:
    """Half a minute of overload, in a moment of real time."""
    with listening(tell):
        async with anyio.create_task_group() as users:
            for _ in range(30 * 160):
                users.start_soon(ask)
                await anyio.sleep(1 / 160)
    print(f"In the end: {limit!r}")


if __name__ == "__main__":
    from resilient import configure_logging

    configure_logging(enabled=False)  # the refusals are what it is for
    run_virtual(main)
