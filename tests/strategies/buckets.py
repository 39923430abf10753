"""What the tests of the token bucket share."""

import math
from fractions import Fraction

import anyio

from resilient.errors import RateLimited
from resilient.outcome import Health, Kind, Verdict
from resilient.strategies.gate import Permit
from resilient.strategies.rate_limit import TokenBucket
from strategies.callers import tasks

REFUSED = Verdict(Kind.PERMANENT, Health.NEUTRAL, "circuit_open", rejected=True)


def drain(bucket: TokenBucket) -> None:
    """Take all tokens that are there."""
    while bucket.statistics().tokens >= 1:
        bucket.acquire_nowait()


def taken(bucket: TokenBucket, now: float, tokens: int) -> Permit | None:
    """The permit for so many tokens, or None where they are not there."""
    try:
        return bucket.admit(now, tokens)
    except RateLimited:
        return None


async def times(bucket: TokenBucket, number: int, tokens: int = 1) -> list[float]:
    """When each of so many callers, who come at once, gets its tokens; in seconds from now."""
    started, got = anyio.current_time(), list[float]()

    async def call() -> None:
        await bucket.acquire(tokens)
        got.append(anyio.current_time() - started)

    async with tasks() as group:
        for _ in range(number):
            group.start_soon(call)
    return got


class Ideal:
    """What a token bucket is, in fractions: slow, and beyond doubt."""

    def __init__(self, rate: float, per: float, burst: int) -> None:
        self.flow = Fraction(str(rate)) / (Fraction(str(per)) * 10**9)  # tokens in a nanosecond
        self.burst = burst
        self.level = Fraction(burst)
        self.at = 0

    def refill(self, at: int) -> None:
        self.level = min(Fraction(self.burst), self.level + (at - self.at) * self.flow)
        self.at = at

    def delay(self, tokens: int) -> int:
        """Nanoseconds until so many are there."""
        return max(0, math.ceil((tokens - self.level) / self.flow))

    def holds(self, admitted: list[tuple[int, int]]) -> bool:
        """Whether no stretch of time let through more than `burst + rate × elapsed`."""
        for first, (start, _) in enumerate(admitted):
            total = 0
            for at, tokens in admitted[first:]:
                total += tokens
                if total > self.burst + (at - start) * self.flow:
                    return False
        return True


async def fail(error: BaseException) -> None:
    """Raise it."""
    raise error
