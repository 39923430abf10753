"""A bulkhead around a slow service: some calls run, some wait in line, the rest are refused at once."""

import anyio

from resilient import Bulkhead, BulkheadFull, configure_logging

bulkhead = Bulkhead(3, max_queue=2, queue_timeout=1.0, name="reports")


async def make_report(number: int) -> None:
    """Take a while."""
    async with bulkhead:
        print(f"  report {number} is being made: {bulkhead!r}")
        await anyio.sleep(0.05)


async def ask(number: int) -> None:
    """Ask for a report, and say what became of it."""
    try:
        await make_report(number)
        print(f"  report {number} is there")
    except BulkheadFull as full:
        print(f"  report {number} is refused: {full.active} are being made, {full.queued} wait")


async def main() -> None:
    """Seven users come at once: three are served, two wait, two are told to come again."""
    async with anyio.create_task_group() as users:
        for number in range(1, 8):
            users.start_soon(ask, number)
    print(f"In the end: {bulkhead!r}")


if __name__ == "__main__":
    configure_logging(enabled=False)  # the refusals are printed above
    anyio.run(main)
