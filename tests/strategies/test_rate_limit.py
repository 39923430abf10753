"""The token bucket: its settings, and how one waits for tokens."""

import math
import tracemalloc
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import anyio
import pytest

from resilient import clock
from resilient.errors import RateLimited
from resilient.keyed import Keyed
from resilient.strategies.rate_limit import TokenBucket, TokenBucketStatistics
from resilient.strategies.waiting import Waiter
from strategies.buckets import Ideal, drain
from strategies.callers import enters_at_once, tasks, through, ticks

pytestmark = pytest.mark.anyio


# -- settings


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"rate": 0}, ValueError, ["rate=0", "greater than 0"]),
        ({"rate": float("inf")}, ValueError, ["rate=inf", "finite"]),
        ({"rate": "10"}, TypeError, ["rate='10'", "a number"]),
        ({"rate": 1, "per": 0}, ValueError, ["per=0", "greater than 0"]),
        ({"rate": 1, "burst": 0}, ValueError, ["burst=0", "at least 1"]),
        ({"rate": 1, "burst": 1.5}, TypeError, ["burst=1.5", "whole number"]),
        ({"rate": 1, "max_wait": -1}, ValueError, ["max_wait=-1", "at least 0"]),
    ],
)
async def test_arguments_are_checked_at_construction(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    """The message names the parameter, the value and the range."""
    with pytest.raises(error) as raised:
        TokenBucket(**settings)

    assert all(word in str(raised.value) for word in words)


def test_defaults() -> None:
    """The bucket holds what flows in during `per`, at least one token, and callers wait as long as they may."""
    bucket = TokenBucket(2.5, per=timedelta(minutes=1))

    assert (bucket.rate, bucket.per, bucket.burst, bucket.max_wait, bucket.name) == (2.5, 60.0, 2, None, "token_bucket")
    assert TokenBucket(0.1).burst == 1


@pytest.mark.parametrize("tokens", [0, -1, 11, 1.5])
async def test_more_tokens_than_the_bucket_ever_holds_are_an_error(tokens: Any) -> None:
    """Waiting for them would never end."""
    bucket = TokenBucket(10)
    with pytest.raises((ValueError, TypeError), match=f"tokens={tokens}"):
        await bucket.acquire(tokens)
    with pytest.raises((ValueError, TypeError), match=f"tokens={tokens}"):
        bucket.acquire_nowait(tokens)

    assert bucket.statistics().tokens == 10


async def test_it_shows_its_state_and_statistics_are_frozen() -> None:
    """Looking at it changes nothing."""
    bucket = TokenBucket(4, per=2.0, name="api")
    bucket.acquire_nowait(tokens=3)
    await anyio.sleep(0.25)

    assert repr(bucket) == "<TokenBucket 'api': 4 in 2 s, 1.5 of 4 tokens there, 0 queued>"
    assert bucket.statistics() == bucket.statistics() == TokenBucketStatistics(tokens=1.5, burst=4, queued=0)
    with pytest.raises(AttributeError):
        bucket.statistics().tokens = 1  # type: ignore[misc]  # that is the test


async def test_siblings_have_the_same_settings_and_fresh_state() -> None:
    """A sibling is what a key gets. A bucket that is full again equals a fresh one, and may be forgotten."""
    bucket = TokenBucket(10, max_wait=0, name="api")
    fresh_at_first = bucket.is_fresh(clock.now())
    drain(bucket)
    sibling = bucket.sibling()
    fresh_when_empty = bucket.is_fresh(clock.now())
    await anyio.sleep(0.9999)
    fresh_when_almost_full = bucket.is_fresh(clock.now())
    await anyio.sleep(0.0001)

    assert (fresh_at_first, fresh_when_empty, fresh_when_almost_full) == (True, False, False)
    assert bucket.is_fresh(clock.now())
    assert (sibling.statistics().tokens, sibling.rate, sibling.max_wait, sibling.name) == (10, 10.0, 0.0, "api")


def test_a_bucket_of_a_key_takes_less_than_a_hundred_and_fifty_bytes() -> None:
    """Siblings share their settings. The state is one number."""
    template = TokenBucket(100, max_wait=1.0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    siblings = [template.sibling() for _ in range(1000)]
    for sibling in siblings:
        sibling.acquire_nowait()
    each = (tracemalloc.get_traced_memory()[0] - before) / len(siblings)
    tracemalloc.stop()

    assert each <= 8 + 150  # its place in the list, and itself


async def test_an_empty_bucket_is_not_forgotten_by_a_keyed_one() -> None:
    """To forget it would give its key a new burst."""
    keyed = Keyed(TokenBucket(1), max_keys=2)
    keyed["busy"].acquire_nowait()
    keyed["idle"].statistics()
    keyed["new"].acquire_nowait()

    assert ("busy" in keyed, "idle" in keyed, "new" in keyed) == (True, False, True)


# -- waiting


@pytest.mark.parametrize("face", ["block", "acquire", "permit", "call", "decorator"])
async def test_every_face_waits_for_a_token(face: str) -> None:
    """And takes exactly one."""
    bucket = TokenBucket(1)
    bucket.acquire_nowait()
    ran: list[float] = []

    async def note() -> None:
        ran.append(anyio.current_time())

    await through(face, bucket, note)

    assert ran == [pytest.approx(1.0)]
    assert bucket.statistics().tokens == pytest.approx(0.0, abs=1e-5)


async def test_a_token_that_is_there_is_taken_without_a_checkpoint() -> None:
    """Nobody else runs between asking for it and having it."""
    assert await enters_at_once(TokenBucket(10))


async def test_a_block_takes_one_token() -> None:
    """However many there are."""
    bucket = TokenBucket(1, burst=3)
    async with bucket:
        during = bucket.statistics().tokens

    assert (during, bucket.statistics().tokens) == (2, 2)


async def test_waiters_are_served_first_come_first_served() -> None:
    """Whoever wants many is not starved by those who want one and came later."""
    bucket = TokenBucket(10, burst=5)
    drain(bucket)
    order: list[tuple[int, float]] = []

    async def call(tokens: int) -> None:
        await bucket.acquire(tokens)
        order.append((tokens, anyio.current_time()))

    async with tasks() as group:
        for tokens in (1, 5, 1, 1, 2):
            group.start_soon(call, tokens)
            await ticks(2)
        await anyio.sleep(0.35)
        with pytest.raises(RateLimited):
            bucket.acquire_nowait()  # two tokens are there, for the one who is first
        queued = bucket.statistics().queued

    assert queued == 4
    assert [tokens for tokens, _ in order] == [1, 5, 1, 1, 2]
    assert [at for _, at in order] == [pytest.approx(at, abs=5e-6) for at in (0.1, 0.6, 0.7, 0.8, 1.0)]


async def test_a_newcomer_stands_behind_those_who_wait() -> None:
    """Also in the tick in which the token of the first is there."""
    bucket = TokenBucket(1)
    drain(bucket)
    order: list[str] = []

    async def call(name: str, after: float) -> None:
        await anyio.sleep(after)
        async with bucket:
            order.append(name)

    async with tasks() as group:
        group.start_soon(call, "first", 0.0)
        group.start_soon(call, "second", 0.5)
        group.start_soon(call, "newcomer", 1.0)

    assert order == ["first", "second", "newcomer"]


async def test_only_the_first_in_line_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait to become first, without a timer."""
    bucket = TokenBucket(1)
    drain(bucket)
    limits: list[float] = []
    sleep = Waiter.sleep

    def spy(waiter: Waiter, limit: float) -> Awaitable[None]:
        limits.append(limit)
        return sleep(waiter, limit)

    monkeypatch.setattr(Waiter, "sleep", spy)
    async with tasks() as group:
        for _ in range(10):
            group.start_soon(bucket.acquire)
        await ticks(5)
        group.cancel_scope.cancel()

    assert limits == [1.0, *[math.inf] * 9]


async def test_late_wake_ups_do_not_overdraw(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop was blocked, and all is late: what was not taken then is not made up for beyond the burst."""
    bucket, lag = TokenBucket(10, burst=2), 0.0
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() + lag)
    got: list[float] = []

    async def call() -> None:
        await bucket.acquire()
        got.append(clock.now())

    async with tasks() as group:
        for _ in range(20):
            group.start_soon(call)
        for _ in range(5):
            await anyio.sleep(0.13)
            lag += 0.4

    ideal = Ideal(10, 1.0, 2)
    assert ideal.holds([(round(at * 1e9), 1) for at in got])
