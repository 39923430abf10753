"""An adaptive rate and a server that takes twenty calls a second: it is found out, and the server's waits are kept."""

import anyio

from resilient import AdaptiveRate, Classifier, Health, Kind, Pipeline, RateLimited, TokenBucket, Verdict, configure_logging
from resilient.testing import run_virtual

server = TokenBucket(20, burst=5, max_wait=0, name="server")
rate = AdaptiveRate(50, name="api")


class TooMany(Exception):
    """What the server answers beyond its limit."""


def judge(error: Exception) -> Verdict | None:
    """What it means: too many calls, wait for half a second."""
    if isinstance(error, TooMany):
        return Verdict(Kind.RETRYABLE, Health.NEUTRAL, "too_many", retry_after=0.5, throttled=True)
    return None


async def fetch() -> None:
    """Call the server."""
    try:
        server.acquire_nowait()
    except RateLimited:
        raise TooMany from None


async def main() -> None:
    """A client that always has something to do, for a minute of virtual time."""
    pipeline = Pipeline(rate, classify=Classifier(judge))
    answered = refused = 0
    for second in range(10, 61, 10):
        while anyio.current_time() < second:
            try:
                await pipeline.call(fetch)
                answered += 1
            except TooMany:
                refused += 1
        print(f"  {second} s: {rate.rate:5.1f} a second; {answered} were answered so far, {refused} refused")
    print(f"In the end: {rate!r}")


if __name__ == "__main__":
    configure_logging(enabled=False)  # the refusals are counted above
    run_virtual(main)
