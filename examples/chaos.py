"""How well does a pipeline hold? Chaos plays a service of which every third call fails or hangs."""

from random import Random

import anyio

from resilient import Chaos, Constant, Fallback, Pipeline, Retry, Timeout, configure_logging, record_timeline

RANDOM = Random(7)  # noqa: S311  seeded, so that the story is the same each time

chaos = Chaos(
    fault=ConnectionResetError,
    fault_rate=0.2,
    latency=60,
    latency_rate=0.1,
    random=RANDOM,
)
pipeline = Pipeline(
    Fallback("an older price"),
    Retry(on=(ConnectionError, TimeoutError), attempts=3, backoff=Constant(delay=0.001)),
    Timeout(0.02),
    chaos,  # innermost: in place of the service
)


@pipeline
async def price(article: int) -> str:
    """Ask the service."""
    return f"article {article}: 9.99"


async def ask(times: int) -> None:
    """Call the service, and show what its users saw."""
    with record_timeline() as timeline:
        answers = [await price(article) for article in range(times)]
    fresh = sum(answer != "an older price" for answer in answers)
    print(f"  {times} calls, {fresh} fresh answers, {times - fresh} older ones; {chaos!r}")
    worst = max(timeline.calls, key=lambda call: call.at - call.started)
    timeline.events = [event for event in timeline.events if event.call_id == worst.call_id]
    print("  the slowest call:\n" + timeline.render(width=20))


async def main() -> None:
    """Without chaos, and with it."""
    configure_logging(enabled=False)  # the story is printed instead
    print("chaos is off, as it is unless somebody enables it")
    await ask(100)

    print("\nchaos is on")
    chaos.enabled = True
    await ask(100)


if __name__ == "__main__":
    anyio.run(main)
