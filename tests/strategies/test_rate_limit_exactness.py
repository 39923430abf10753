"""The token bucket: exact at every rate."""

import anyio
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from resilient.strategies.flow import FlowSettings
from resilient.strategies.rate_limit import TokenBucket
from strategies.buckets import drain, times

pytestmark = pytest.mark.anyio


unhurried = settings(deadline=None, max_examples=100)
whole = st.integers(1, 10**6)
rates = st.one_of(whole.map(float), st.floats(0.01, 10_000, allow_nan=False), st.sampled_from([0.1, 1 / 3, 2.5, 1e-3, 99.99]))
gaps = st.one_of(st.just(0), st.integers(0, 10**4), st.integers(0, 5 * 10**9))


async def test_a_burst_then_one_token_each_interval() -> None:
    """A hundred a second with a burst of ten: forty callers at once are through after 300 ms, evenly."""
    got = await times(TokenBucket(100, burst=10), 40)

    assert got == [pytest.approx(max(0, number - 9) * 0.01, abs=2e-6) for number in range(40)]


async def test_a_burst_of_one_never_lets_more_than_the_rate_into_any_window() -> None:
    """No burst on the first second: evenly spaced from the start."""
    got = [round(at * 1e9) for at in await times(TokenBucket(10, burst=1), 35)]
    fullest = max(sum(start <= at < start + 10**9 for at in got) for start in got)

    assert got[:3] == [0, pytest.approx(10**8, abs=2000), pytest.approx(2 * 10**8, abs=2000)]
    assert fullest == 10


def test_an_order_to_leave_tokens_is_exact_after_years() -> None:
    """So many are there at that very time, and not a token more."""
    bucket, later = TokenBucket(10, burst=5), 1e8
    bucket._leave(later, 2)  # pyright: ignore[reportPrivateUsage]  for limits that follow what a server says

    assert [bucket.admit(later, 2) is None, bucket.admit(later) is None] == [False, True]


def test_settings_are_remembered_up_to_a_number() -> None:
    """Equal ones are one object; a program that makes them up does not grow."""
    for rate in range(1, 1000):
        TokenBucket(rate)

    assert FlowSettings.of.cache_info().currsize <= 300
    assert FlowSettings.of(2.0, 1.0, 2, None) is FlowSettings.of(2.0, 1.0, 2, None)


async def test_an_idle_bucket_saves_up_one_burst_and_no_more() -> None:
    """However long it was idle."""
    bucket = TokenBucket(10, burst=5)
    await anyio.sleep(3600)
    got = await times(bucket, 7)

    assert got == [pytest.approx(at, abs=2e-6) for at in (0, 0, 0, 0, 0, 0.1, 0.2)]


async def test_fractions_of_a_token_flow_in() -> None:
    """No whole-second refills: half a second brings half of the tokens."""
    bucket = TokenBucket(4)
    drain(bucket)
    await anyio.sleep(0.5)

    assert bucket.statistics().tokens == 2.0


async def test_rates_below_one_and_long_periods_work() -> None:
    """Three an hour, one at a time: every twenty minutes."""
    got = await times(TokenBucket(3, per=3600, burst=1), 4)

    assert got == [pytest.approx(at, abs=1e-5) for at in (0, 1200, 2400, 3600)]


async def test_a_bucket_that_lives_through_another_clock_is_empty_at_worst() -> None:
    """A module's bucket in tests: each test starts its clock anew."""
    bucket = TokenBucket(10, burst=2)
    bucket.admit(1e6)
    bucket.admit(1e6)
    seen = bucket.statistics().tokens
    got = await times(bucket, 2)

    assert seen == 0.0
    assert got == [pytest.approx(0.1, abs=2e-6), pytest.approx(0.2, abs=2e-6)]
