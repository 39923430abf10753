"""The quota of a limiter: what a server tells its clients of it."""

from typing import Any

import anyio
import pytest

from resilient import AdaptiveRate, Health, Kind, LeakyBucket, RateHint, SlidingWindow, TokenBucket, Verdict, clock
from resilient.strategies.limiter import Limiter, Quota

pytestmark = pytest.mark.anyio


def shown(limiter: Limiter) -> tuple[float, ...]:
    """The quota as numbers that can be compared."""
    quota = limiter.quota()
    return tuple(round(value, 6) for value in (quota.limit, quota.window, quota.remaining, quota.reset))


@pytest.mark.parametrize(
    ("limiter", "fresh", "after_two", "half_a_second_later"),
    [
        (TokenBucket(2, burst=4), (4, 2.0, 4.0, 0.0), (4, 2.0, 2.0, 1.0), (4, 2.0, 3.0, 0.5)),
        (TokenBucket(60, per=60, burst=10), (10, 10.0, 10.0, 0.0), (10, 10.0, 8.0, 2.0), (10, 10.0, 8.5, 1.5)),
        (LeakyBucket(2, capacity=4), (4, 2.0, 4.0, 0.0), (4, 2.0, 2.0, 1.0), (4, 2.0, 3.0, 0.5)),
        (SlidingWindow(4, exact=True), (4, 1.0, 4.0, 0.0), (4, 1.0, 2.0, 1.0), (4, 1.0, 2.0, 0.5)),
        (SlidingWindow(4), (4, 1.0, 4.0, 0.0), (4, 1.0, 2.0, 1.75), (4, 1.0, 2.0, 1.25)),
        (AdaptiveRate(2, burst=4), (4, 2.0, 4.0, 0.0), (4, 2.0, 2.0, 1.0), (4, 2.0, 3.0, 0.5)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Limiter) else "",
)
async def test_every_limiter_tells_what_is_left_and_when_all_is_there_again(
    limiter: Limiter, fresh: Any, after_two: Any, half_a_second_later: Any
) -> None:
    """At once, after two tokens were taken, and when some have come back."""
    limiter = limiter.sibling()
    before = shown(limiter)
    limiter.acquire_nowait(2)
    taken = shown(limiter)
    await anyio.sleep(0.5)

    assert (before, taken, shown(limiter)) == (fresh, after_two, half_a_second_later)


async def test_what_is_left_is_not_what_those_want_who_wait() -> None:
    """Whoever comes now stands behind them."""
    bucket = TokenBucket(1, burst=3)
    bucket.acquire_nowait(3)
    quotas: list[Quota] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bucket.acquire, 2)
        for wait in (1.5, 0.5):
            await anyio.sleep(wait)
            quotas.append(bucket.quota())

    assert quotas == [Quota(3, 3.0, 0.0, 3.5), Quota(3, 3.0, 0.0, 3.0)]


async def test_an_adaptive_rate_tells_what_its_own_server_leaves() -> None:
    """Nothing while that wants no calls, and not more than its quota."""
    rate = AdaptiveRate(10, burst=10)
    now = clock.now()
    rate.hear(Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", limits=RateHint(remaining=3, reset=60)), now, now)
    limited = rate.quota()
    rate.hear(Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", retry_after=5.0), now, now)
    shut = rate.quota()

    assert (limited.remaining, limited.reset) == (3, 60.0)
    assert (shut.remaining, shut.reset > 5) == (0.0, True)
