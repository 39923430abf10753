"""The leaky bucket: a meter refuses what overflows, a shaper lets callers go one by one."""

from typing import Any

import anyio
import pytest

from resilient import clock
from resilient.context import deadline
from resilient.errors import CircuitOpen, RateLimited
from resilient.outcome import Health, Kind, Verdict
from resilient.strategies.leaky_bucket import LeakyBucket, LeakyBucketStatistics
from strategies.callers import Caller, tasks, ticks, ways_to_cancel

pytestmark = pytest.mark.anyio

REFUSED = Verdict(Kind.PERMANENT, Health.NEUTRAL, "circuit_open", rejected=True)


async def times(bucket: LeakyBucket, number: int, tokens: int = 1) -> list[float | None]:
    """When each of so many callers, who come at once, goes, in seconds from now; None for those that are refused."""
    started, got = anyio.current_time(), list[float | None]()

    async def call() -> None:
        try:
            await bucket.acquire(tokens)
            got.append(anyio.current_time() - started)
        except RateLimited:
            got.append(None)

    async with tasks() as group:
        for _ in range(number):
            group.start_soon(call)
    return sorted(got, key=lambda at: (at is None, at or 0.0))


def near(*expected: float | None) -> list[Any]:
    return [None if at is None else pytest.approx(at, abs=5e-6) for at in expected]


# -- settings


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"rate": 0}, ValueError, ["rate=0", "greater than 0"]),
        ({"rate": 1, "per": 0}, ValueError, ["per=0", "greater than 0"]),
        ({"rate": 1, "capacity": 0}, ValueError, ["capacity=0", "at least 1"]),
        ({"rate": 1, "shape": True, "max_wait": -1}, ValueError, ["max_wait=-1", "at least 0"]),
        ({"rate": 1, "max_wait": 1}, ValueError, ["max_wait=1", "no effect on a meter", "shape=True"]),
    ],
)
def test_arguments_are_checked_at_construction(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    """The message names the parameter, the value, and what to do."""
    with pytest.raises(error) as raised:
        LeakyBucket(**settings)

    assert all(word in str(raised.value) for word in words)


def test_defaults() -> None:
    """A meter that holds what leaks in `per`; a shaper waits as long as it may."""
    meter, shaper = LeakyBucket(2.5), LeakyBucket(0.1, shape=True)

    assert (meter.rate, meter.per, meter.capacity, meter.shape, meter.max_wait, meter.name) == (
        2.5,
        1.0,
        2,
        False,
        0.0,
        "leaky_bucket",
    )
    assert (shaper.capacity, shaper.shape, shaper.max_wait) == (1, True, None)


def test_more_tokens_than_it_holds_are_an_error() -> None:
    """The message says what to change."""
    with pytest.raises(ValueError, match="tokens=11 is out of range: 'api' never holds more than 10; raise capacity"):
        LeakyBucket(10, name="api").acquire_nowait(11)


async def test_it_shows_its_state() -> None:
    """What has not leaked yet, and who waits."""
    meter, shaper = LeakyBucket(4, per=2.0, name="api"), LeakyBucket(1, capacity=3, shape=True, name="jobs")
    meter.acquire_nowait(tokens=3)
    shaper.acquire_nowait()
    async with tasks() as group:
        group.start_soon(shaper.acquire, 2)
        await anyio.sleep(0.25)
        seen = shaper.statistics()
        shown = repr(meter), repr(shaper)
        group.cancel_scope.cancel()

    assert shown == (
        "<LeakyBucket 'api': meter, 4 in 2 s, 2.5 of 4 tokens in it, 0 queued>",
        "<LeakyBucket 'jobs': shaper, 1 in 1 s, 2.8 of 3 tokens in it, 1 queued>",
    )
    assert seen == LeakyBucketStatistics(level=2.75, capacity=3, queued=1)


@pytest.mark.parametrize("shape", [False, True])
async def test_siblings_have_the_same_settings_and_fresh_state(*, shape: bool) -> None:
    """One that has leaked empty equals a fresh one."""
    bucket = LeakyBucket(10, capacity=7, shape=shape, name="api")
    bucket.acquire_nowait()
    sibling = bucket.sibling()
    fresh = [bucket.is_fresh(clock.now()), sibling.is_fresh(clock.now())]
    await anyio.sleep(0.1)

    assert (fresh, bucket.is_fresh(clock.now())) == ([False, True], True)
    assert (sibling.rate, sibling.capacity, sibling.shape, sibling.max_wait) == (10.0, 7, shape, None if shape else 0.0)


# -- the meter


async def test_a_meter_refuses_what_overflows_and_nobody_waits() -> None:
    """Ten at once, then one each tenth of a second; the error says when there is room."""
    bucket = LeakyBucket(10)
    got = await times(bucket, 12)
    with pytest.raises(RateLimited) as raised:
        await bucket.acquire(2)

    assert got == near(*[0.0] * 10, None, None)
    assert (clock.now(), raised.value.retry_after) == (0.0, 0.2)
    assert bucket.ready_in(0.0) == 0.1


# -- the shaper


async def test_a_shaper_spaces_calls_evenly_and_refuses_whom_it_cannot_hold() -> None:
    """The first goes at once, five wait, the others overflow; an idle bucket saves nothing up."""
    bucket = LeakyBucket(10, capacity=5, shape=True)
    await anyio.sleep(100)
    got = await times(bucket, 8)

    assert got == near(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, None, None)


async def test_whoever_overflows_is_told_when_there_is_room() -> None:
    """When enough of those who wait have left; a retry outside is told so too."""
    bucket = LeakyBucket(1, capacity=3, shape=True)
    bucket.acquire_nowait()
    async with tasks() as group:
        for _ in range(3):
            group.start_soon(bucket.acquire)
        await ticks(3)
        with pytest.raises(RateLimited) as one:
            await bucket.acquire()
        with pytest.raises(RateLimited) as two:
            await bucket.acquire(2)
        ready_in = bucket.ready_in(clock.now())
        await anyio.sleep(one.value.retry_after or 0.0)
        await ticks(3)
        await bucket.acquire()

    assert (one.value.retry_after, two.value.retry_after, ready_in) == (1.0, 2.0, 1.0)
    assert one.value.strategy == "leaky_bucket"


async def test_a_shaper_that_has_room_is_ready_however_long_the_wait() -> None:
    """Callers may come, and wait."""
    bucket = LeakyBucket(1, capacity=3, shape=True)
    bucket.acquire_nowait(3)
    ready_in = list[float]()
    async with tasks() as group:
        for _ in range(2):
            group.start_soon(bucket.acquire)
            await ticks(3)
            ready_in.append(bucket.ready_in(clock.now()))
        group.cancel_scope.cancel()

    assert ready_in == [0.0, 0.0]


async def test_a_heavy_call_keeps_those_behind_it_waiting_for_longer() -> None:
    """Three tokens take three times as long to leak."""
    bucket, got = LeakyBucket(10, capacity=9, shape=True), list[tuple[int, float]]()

    async def call(tokens: int) -> None:
        await bucket.acquire(tokens)
        got.append((tokens, anyio.current_time()))

    async with tasks() as group:
        for tokens in (1, 3, 2, 1):
            group.start_soon(call, tokens)
            await ticks(2)

    assert got == [(1, 0.0), (3, *near(0.1)), (2, *near(0.4)), (1, *near(0.6))]


async def test_a_shaper_refuses_at_once_what_would_wait_too_long() -> None:
    """Longer than `max_wait`, or than the deadline; those ahead count, heavy ones too."""
    bucket = LeakyBucket(1, capacity=9, shape=True, max_wait=2.5)
    bucket.acquire_nowait()
    async with tasks() as group:
        group.start_soon(bucket.acquire, 2)
        await ticks(2)
        with pytest.raises(RateLimited) as by_setting:
            await bucket.acquire()
        with pytest.raises(RateLimited) as by_deadline, deadline(0.5):
            await bucket.acquire()
        group.cancel_scope.cancel()

    assert clock.now() == 0.0
    assert (by_setting.value.retry_after, by_deadline.value.retry_after) == (3.0, 3.0)


async def test_cancelled_waiters_leave_nothing_behind() -> None:
    """The next caller waits as if they had never been."""
    for how in ways_to_cancel():
        bucket = LeakyBucket(10, capacity=20, shape=True)
        bucket.acquire_nowait()
        waiters = [Caller(bucket) for _ in range(20)]
        async with tasks() as group:
            for waiter in waiters:
                group.start_soon(waiter.run)
            await ticks(3)
            for waiter in waiters:
                waiter.cancel(how)

        assert bucket.statistics().queued == 0
        assert await times(bucket, 1) == near(0.1)


async def test_a_call_that_was_not_sent_costs_nothing() -> None:
    """What a strategy further in refused takes no room."""
    for shape in (False, True):
        bucket = LeakyBucket(1, capacity=2, shape=shape)
        with pytest.raises(CircuitOpen):
            async with bucket.permit():
                raise CircuitOpen

        assert bucket.statistics().level == 0


async def test_a_bucket_that_lives_through_another_clock_is_full_at_worst() -> None:
    """A module's bucket in tests: each test starts its clock anew."""
    bucket = LeakyBucket(10, capacity=2, shape=True)
    bucket.admit(1e6, 2)
    got = await times(bucket, 2)

    assert got == near(0.2, 0.3)


# -- retuning


async def test_it_can_be_retuned_and_keeps_what_is_in_it() -> None:
    """Twice the rate: who waits goes in half the time; a bucket that is made smaller is full at worst."""
    bucket, got = LeakyBucket(1, capacity=4, shape=True), list[float]()
    bucket.acquire_nowait(2)

    async def call() -> None:
        await bucket.acquire()
        got.append(anyio.current_time())

    async with tasks() as group:
        group.start_soon(call)
        await anyio.sleep(1)
        assert bucket.retune(LeakyBucket(2, capacity=4, shape=True, name="new"))
    full = LeakyBucket(10)
    full.acquire_nowait(10)

    assert got == near(1.5)
    assert (bucket.rate, bucket.name) == (2.0, "new")
    assert full.retune(LeakyBucket(1, capacity=3))
    assert full.statistics().level == 3
