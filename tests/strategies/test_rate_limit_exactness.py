"""The token bucket: exact at every rate."""

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.strategies.gate import Permit
from resilient.strategies.rate_limit import TokenBucket
from strategies.buckets import REFUSED, Ideal, drain, taken, times

pytestmark = pytest.mark.anyio


unhurried = settings(deadline=None, max_examples=100)
whole = st.integers(1, 10**6)
rates = st.one_of(whole.map(float), st.floats(0.01, 10_000, allow_nan=False), st.sampled_from([0.1, 1 / 3, 2.5, 1e-3, 99.99]))
gaps = st.one_of(st.just(0), st.integers(0, 10**4), st.integers(0, 5 * 10**9))


@unhurried
@given(
    rate=rates,
    per=st.sampled_from([0.25, 1.0, 60.0, 3600.0]),
    burst=st.integers(1, 50),
    calls=st.lists(st.tuples(st.one_of(gaps, st.sampled_from(["in time", "early"])), st.integers(1, 50)), max_size=60),
)
def test_every_decision_is_that_of_an_ideal_bucket(
    rate: float, per: float, burst: int, calls: list[tuple[int | str, int]]
) -> None:
    """To the nanosecond and to the token, at every rate; and so the limit holds in every stretch of time."""
    bucket, ideal = TokenBucket(rate, per=per, burst=burst, max_wait=0), Ideal(rate, per, burst)
    at, admitted = 0, list[tuple[int, int]]()
    for when, wish in calls:
        tokens = min(wish, burst)
        in_time = ideal.delay(tokens)
        at += when if isinstance(when, int) else max(0, in_time - (when == "early"))
        if at > 2**52:
            break  # 52 days: from there on floats do not tell one nanosecond from the next
        ideal.refill(at)
        expected = ideal.delay(tokens)
        assert bucket.refuse(at / 1e9, tokens).retry_after == expected / 1e9
        if taken(bucket, at / 1e9, tokens) is None:
            assert expected > 0
        else:
            assert expected == 0
            ideal.level -= tokens
            admitted.append((at, tokens))

    assert ideal.holds(admitted)


@unhurried
@given(
    burst=st.integers(1, 3),
    steps=st.lists(
        st.tuples(st.sampled_from([0, 1]), st.sampled_from(["call", "call", "refuse first", "refuse last"])), min_size=20
    ),
)
def test_what_is_put_back_lets_nobody_exceed_the_limit(burst: int, steps: list[tuple[float, str]]) -> None:
    """Calls that were refused further in, at any time later, count as never made; the others keep the limit everywhere."""
    bucket, ideal = TokenBucket(1, burst=burst, max_wait=0), Ideal(1, 1.0, burst)
    now, out = 0.0, list[tuple[int, int, Permit]]()
    for gap, step in steps:
        now += gap
        if step == "call":
            permit = taken(bucket, now, 1)
            if permit is not None:
                out.append((round(now * 10**9), 1, permit))
        elif out:
            _, _, refused = out.pop(0 if step == "refuse first" else -1)
            refused.settle(REFUSED, 0.0, now)

    assert ideal.holds([(at, tokens) for at, tokens, _ in out])


@unhurried
@given(rate=rates, burst=st.integers(1, 20), calls=st.lists(st.tuples(gaps, st.integers(1, 20)), min_size=1, max_size=20))
def test_a_call_that_was_refused_at_once_is_as_if_it_had_never_been(
    rate: float, burst: int, calls: list[tuple[int, int]]
) -> None:
    """Whatever the bucket went through before."""
    bucket, twin = TokenBucket(rate, burst=burst, max_wait=0), TokenBucket(rate, burst=burst, max_wait=0)

    at = 0
    for gap, wish in calls:
        at, tokens = at + gap, min(wish, burst)
        permit = taken(bucket, at / 1e9, tokens)
        if permit is not None:
            permit.settle(REFUSED, 0.0, at / 1e9)
        assert (taken(bucket, at / 1e9, tokens) is None) == (taken(twin, at / 1e9, tokens) is None)
        assert bucket.refuse(at / 1e9).retry_after == twin.refuse(at / 1e9).retry_after


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
