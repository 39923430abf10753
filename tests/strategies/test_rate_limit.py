"""The token bucket: exact at every rate, fair, and nobody who gave up leaves a trace."""

import asyncio
import gc
import math
import tracemalloc
from collections.abc import Awaitable
from datetime import timedelta
from fractions import Fraction
from random import Random
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient import clock
from resilient.context import deadline
from resilient.errors import CircuitOpen, DeadlineExceeded, RateLimited
from resilient.keyed import Keyed
from resilient.observe.events import CallRejected, Event, RetryStopped
from resilient.observe.listeners import listening
from resilient.outcome import CANCELLED, SUCCESS, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.gate import Permit
from resilient.strategies.lingering import Lingering
from resilient.strategies.rate_limit import TokenBucket, TokenBucketStatistics
from resilient.strategies.retry import Retry
from resilient.strategies.waiting import Waiter
from resilient.testing import disabled, virtual_time
from strategies.callers import Caller, tasks, ticks, ways_to_cancel

pytestmark = pytest.mark.anyio

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


# -- exactness

unhurried = settings(deadline=None, max_examples=100)
whole = st.integers(1, 10**6)
rates = st.one_of(whole.map(float), st.floats(0.01, 10_000, allow_nan=False), st.sampled_from([0.1, 1 / 3, 2.5, 1e-3, 99.99]))
gaps = st.one_of(st.just(0), st.integers(0, 10**4), st.integers(0, 5 * 10**9))


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


# -- waiting


@pytest.mark.parametrize("face", ["block", "acquire", "permit", "call", "decorator"])
async def test_every_face_waits_for_a_token(face: str) -> None:
    """And takes exactly one."""
    bucket = TokenBucket(1)
    bucket.acquire_nowait()
    ran: list[float] = []

    async def note() -> None:
        ran.append(anyio.current_time())

    match face:
        case "block":
            async with bucket:
                await note()
        case "acquire":
            await bucket.acquire()
            await note()
        case "permit":
            async with bucket.permit():
                await note()
        case "call":
            await bucket.call(note)
        case _:
            await bucket(note)()

    assert ran == [pytest.approx(1.0)]
    assert bucket.statistics().tokens == pytest.approx(0.0, abs=1e-5)


async def test_a_token_that_is_there_is_taken_without_a_checkpoint() -> None:
    """Nobody else runs between asking for it and having it."""
    bucket = TokenBucket(10)
    go, ran = anyio.Event(), False

    async def other() -> None:
        nonlocal ran
        await go.wait()
        ran = True

    async with tasks() as group:
        group.start_soon(other)
        await ticks(3)
        go.set()
        async with bucket:
            ran_in_between = ran

    assert not ran_in_between


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


# -- limits of the wait


@pytest.mark.parametrize("face", ["block", "acquire", "acquire_nowait", "permit", "call"])
async def test_every_face_refuses_at_once_what_would_take_too_long(face: str) -> None:
    """No time passes; the error says when to come again; it is told to listeners; coming then succeeds."""
    bucket = TokenBucket(1, max_wait=0.0 if face == "acquire_nowait" else 0.5, name="api")
    drain(bucket)
    told: list[Event] = []

    async def never() -> None:
        raise AssertionError

    async def use() -> None:
        match face:
            case "block":
                async with bucket:
                    await never()
            case "acquire":
                await bucket.acquire()
            case "acquire_nowait":
                bucket.acquire_nowait()
            case "permit":
                async with bucket.permit():
                    await never()
            case _:
                await bucket.call(never)

    await anyio.sleep(0.25)
    with listening(told.append), pytest.raises(RateLimited) as raised:
        await use()
    took = anyio.current_time() - 0.25
    rejections = [event for event in told if isinstance(event, CallRejected)]
    await anyio.sleep(raised.value.retry_after or 0.0)
    bucket.acquire_nowait()

    assert took == 0.0
    assert (raised.value.strategy, raised.value.retry_after) == ("api", 0.75)
    assert [(event.strategy, event.reason, event.retry_after) for event in rejections] == [("api", "rate_limited", 0.75)]


async def test_several_tokens_are_had_together_or_not_at_all() -> None:
    """A refusal takes none of them."""
    bucket = TokenBucket(10)
    bucket.acquire_nowait(tokens=8)
    with pytest.raises(RateLimited) as raised:
        bucket.acquire_nowait(tokens=5)

    assert raised.value.retry_after == 0.3
    assert bucket.statistics().tokens == 2


async def test_max_wait_counts_the_tokens_of_those_ahead() -> None:
    """A caller whose turn would come too late is refused when it comes, and not after a wait for nothing."""
    bucket = TokenBucket(1, burst=3, max_wait=5.0)
    drain(bucket)
    async with tasks() as group:
        group.start_soon(bucket.acquire, 3)
        await ticks(2)
        group.start_soon(bucket.acquire, 2)
        await ticks(2)
        started = anyio.current_time()
        with pytest.raises(RateLimited) as raised:
            await bucket.acquire()
        refused_after = anyio.current_time() - started
        group.cancel_scope.cancel()

    assert refused_after == 0.0
    assert raised.value.retry_after == 6.0


async def test_a_wait_of_exactly_max_wait_is_allowed() -> None:
    """The limit is the longest wait."""
    bucket = TokenBucket(10, burst=1, max_wait=0.3)
    drain(bucket)
    got = await times(bucket, 3)

    assert got == [pytest.approx(at, abs=5e-6) for at in (0.1, 0.2, 0.3)]


async def test_a_deadline_that_comes_before_the_token_refuses_at_once() -> None:
    """Of a block, and of the call; a wait that cannot end in time is not begun."""
    bucket = TokenBucket(1)
    drain(bucket)
    started = anyio.current_time()
    with pytest.raises(RateLimited) as by_block, deadline(0.5):
        async with bucket:
            raise AssertionError
    with pytest.raises(RateLimited):
        await Pipeline(Retry(on=OSError, timeout=0.5), bucket).call(anyio.sleep, 0)
    took = anyio.current_time() - started

    assert took == 0.0
    assert by_block.value.retry_after == 1.0
    assert bucket.statistics().queued == 0


async def test_a_deadline_counts_the_tokens_of_those_ahead() -> None:
    """A token that comes with the deadline, and not before, is of no use either."""
    bucket = TokenBucket(1)
    drain(bucket)
    async with tasks() as group:
        group.start_soon(bucket.acquire)
        await ticks(2)
        with pytest.raises(RateLimited) as raised, deadline(2.0):
            await bucket.acquire()
        refused_at = anyio.current_time()
        group.cancel_scope.cancel()

    assert (refused_at, raised.value.retry_after) == (0.0, 2.0)


async def test_a_deadline_that_leaves_time_is_no_hindrance() -> None:
    """The token comes in time, and the rest of the block still has its deadline."""
    bucket, got = TokenBucket(1), list[float]()
    drain(bucket)

    async def call() -> None:
        async with bucket:
            got.append(anyio.current_time())
            await anyio.sleep(10)

    with pytest.raises(DeadlineExceeded), deadline(1.5):
        await call()

    assert got == [pytest.approx(1.0)]
    assert anyio.current_time() == 1.5


async def test_who_is_cancelled_already_is_cancelled_and_not_refused() -> None:
    """A refusal in place of the cancellation would surface from a task group that shuts down."""
    bucket = TokenBucket(1)
    drain(bucket)
    refused = False
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await bucket.acquire()
        except RateLimited:
            refused = True

    assert (refused, scope.cancelled_caught) == (False, True)
    assert bucket.statistics().queued == 0


# -- cancellation


async def test_twenty_cancelled_waiters_leave_nothing_behind() -> None:
    """The next caller waits as if they had never been."""
    for how in ways_to_cancel():
        bucket = TokenBucket(10, burst=1)
        drain(bucket)
        waiters = [Caller(bucket) for _ in range(20)]
        async with tasks() as group:
            for waiter in waiters:
                group.start_soon(waiter.run)
            await ticks(3)
            queued = bucket.statistics().queued
            for waiter in waiters:
                waiter.cancel(how)
        retry_after = bucket.refuse(clock.now()).retry_after
        got = await times(bucket, 1)

        assert (queued, bucket.statistics().queued) == (20, 0)
        assert retry_after == pytest.approx(0.1)
        assert got == [pytest.approx(0.1, abs=2e-6)]


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_those_behind_a_cancelled_waiter_move_up(victim: int) -> None:
    """Whoever it is, and whenever: the others get their tokens as if it had never come."""
    for how in ways_to_cancel():
        for tenths in range(5):
            bucket, started = TokenBucket(10, burst=2), anyio.current_time()
            drain(bucket)
            left: list[float] = []

            async def call(caller: Caller, left: list[float] = left, started: float = started) -> None:
                caller.leave.set()
                await caller.run()
                if caller.state == "left":
                    left.append(anyio.current_time() - started)

            waiters = [Caller(bucket) for _ in range(3)]
            async with tasks() as group:
                for waiter in waiters:
                    group.start_soon(call, waiter)
                    await ticks(2)
                await anyio.sleep(tenths / 10)
                if waiters[victim].state == "waiting":
                    waiters[victim].cancel(how)

            through = [0.1, 0.2, 0.3] if waiters[victim].state == "left" else [0.1, 0.2]
            assert left == [pytest.approx(at, abs=5e-6) for at in through]
            assert bucket.statistics().queued == 0


async def test_a_waiter_cancelled_when_it_is_its_turn_wakes_the_next() -> None:
    """In the tick in which the one ahead of it left the line: it was woken, and passes its turn on."""
    for how in ways_to_cancel():
        bucket = TokenBucket(10, burst=2)
        drain(bucket)
        first, second, third = Caller(bucket), Caller(bucket), Caller(bucket)
        third.leave.set()
        async with tasks() as group:
            for caller in (first, second, third):
                group.start_soon(caller.run)
                await ticks(2)
            first.cancel(how)
            await ticks(1)
            second.cancel(how)

        assert (first.state, second.state, third.state) == ("cancelled", "cancelled", "left")
        assert bucket.statistics().queued == 0


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_the_limit_holds_and_nobody_is_stuck(seed: int) -> None:
    """Random callers, weights, cancellations, refusals further in: every stretch of time keeps the limit."""
    random = Random(seed)
    rate, burst = random.choice([3.0, 10.0, 77.7]), random.randint(1, 8)
    bucket = TokenBucket(rate, burst=burst, max_wait=random.choice([None, 1.0]))
    sent: list[tuple[int, int]] = []

    async def call() -> None:
        await anyio.sleep(random.choice([0, 0, 1, 3 * random.random()]))
        tokens = random.choice([1, 1, random.randint(1, burst)])
        try:
            with anyio.move_on_after(random.choice([0.3, 2, 1000])), await bucket.acquire(tokens):
                at = round(clock.now() * 1e9)
                await anyio.sleep(random.choice([0, 0, 0.1]))
                if random.random() < 0.3:
                    await fail(CircuitOpen())
                sent.append((at, tokens))
        except (RateLimited, CircuitOpen):
            pass

    async with tasks() as group:
        for _ in range(60):
            group.start_soon(call)

    assert sent
    assert Ideal(rate, 1.0, burst).holds(sorted(sent))
    assert bucket.statistics().queued == 0
    assert bucket._wanted == 0  # pyright: ignore[reportPrivateUsage]  # no ghosts


# -- what comes back


class Body(Lingering):
    """A value that lives on, such as a streamed response."""


async def give(value: Any) -> Any:
    """Return it."""
    return value


async def fail(error: BaseException) -> None:
    """Raise it."""
    raise error


async def test_a_call_that_an_inner_gate_refused_costs_no_token() -> None:
    """Nothing was sent: an open breaker or a full bulkhead does not use up the rate."""
    bucket, breaker, bulkhead = TokenBucket(10, burst=3), CircuitBreaker(), Bulkhead(1)
    breaker.isolate()
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            await Pipeline(bucket, breaker).call(give, 1)
    async with bulkhead:
        for _ in range(10):
            with pytest.raises(Exception, match="bulkhead"):
                await Pipeline(bucket, Retry(on=OSError), bulkhead).call(give, 1)

    assert bucket.statistics().tokens == 3


async def test_whatever_else_happens_the_token_is_spent() -> None:
    """A value, an error, a cancellation: something may have been sent."""
    bucket = TokenBucket(1, burst=5)
    await bucket.call(give, 1)
    body = await bucket.call(give, Body())
    body.ended(CircuitOpen())
    with pytest.raises(ValueError, match="sent"):
        await bucket.call(fail, ValueError("sent"))
    with anyio.move_on_after(0) as scope:
        await bucket.call(anyio.sleep_forever)

    assert scope.cancelled_caught
    assert bucket.statistics().tokens == 1


async def test_tokens_taken_by_hand_come_back_where_the_block_was_refused() -> None:
    """All of them."""
    bucket = TokenBucket(10)
    with pytest.raises(CircuitOpen), await bucket.acquire(tokens=4):
        raise CircuitOpen
    after_refusal = bucket.statistics().tokens
    with pytest.raises(OSError, match="sent"), bucket.acquire_nowait(tokens=4):
        raise OSError("sent")

    assert (after_refusal, bucket.statistics().tokens) == (10, 6)


async def test_a_token_that_others_have_built_upon_stays_spent() -> None:
    """The bucket was full when the second came. A late refund of the first would let a third through in the same second."""
    bucket = TokenBucket(1, burst=1, max_wait=0)
    first = bucket.admit(0.0)
    second = bucket.admit(1.0)
    assert first is not None
    assert second is not None
    first.settle(REFUSED, 1.0, 1.0)
    with pytest.raises(RateLimited):
        bucket.admit(1.0)
    second.settle(REFUSED, 0.0, 1.0)
    second.settle(REFUSED, 0.0, 1.0)

    assert bucket.admit(1.0) is not None
    with pytest.raises(RateLimited):
        bucket.admit(1.0)


async def test_who_waits_goes_on_at_once_when_tokens_come_back() -> None:
    """It does not sleep to the end of a wait that is no longer needed. No more come back than there is room for."""
    bucket = TokenBucket(1, burst=5)
    lease = bucket.acquire_nowait(tokens=5)
    got: list[float] = []

    async def call() -> None:
        await bucket.acquire(2)
        got.append(anyio.current_time())

    async with tasks() as group:
        group.start_soon(call)
        await anyio.sleep(0.5)
        lease.settle(CircuitOpen())

    assert got == [0.5]
    assert bucket.statistics().tokens == 3.0


@pytest.mark.parametrize("verdict", [SUCCESS, CANCELLED])
def test_other_verdicts_put_nothing_back(verdict: Verdict) -> None:
    """A success and a cancellation are spent."""
    bucket = TokenBucket(1, max_wait=0)
    permit = bucket.admit(0.0)
    assert permit is not None
    permit.settle(verdict, 0.0, 0.0)
    with pytest.raises(RateLimited):
        bucket.admit(0.0)

    assert not permit.lingers


# -- composition


async def test_a_retry_does_not_sleep_towards_a_refusal() -> None:
    """It knows that the bucket will refuse the next attempt, and hands on the callee's own error at once."""
    told: list[Event] = []
    pipeline = Pipeline(
        Retry(on=OSError, attempts=3, backoff=Constant(delay=0.5, jitter="none")), TokenBucket(1, per=10, max_wait=1.0)
    )
    with listening(told.append), pytest.raises(OSError, match="first"):
        await pipeline.call(fail, OSError("first"))

    assert anyio.current_time() == 0.0
    assert [event.reason for event in told if isinstance(event, RetryStopped)] == ["rate_limited"]


def test_it_knows_for_how_long_it_will_refuse() -> None:
    """Where callers may wait as long as they like, it refuses nobody for good."""
    patient, strict = TokenBucket(1, per=10), TokenBucket(1, per=10, max_wait=4)
    idle = strict.ready_in(0.0)
    patient.admit(0.0)
    strict.admit(0.0)

    assert idle == 0.0
    assert (patient.ready_in(1.0), strict.ready_in(1.0), strict.ready_in(7.0)) == (0.0, 5.0, 0.0)


async def test_a_refusal_is_no_failure_of_the_callee() -> None:
    """A breaker outside learns nothing from it, and a retry hands it on."""
    breaker, bucket = CircuitBreaker(consecutive_failures=1), TokenBucket(1, max_wait=0)
    drain(bucket)
    with pytest.raises(RateLimited):
        await Pipeline(Retry(on=Exception, attempts=5), breaker, bucket).call(give, 1)

    assert breaker.statistics().state == "closed"


async def test_every_attempt_of_a_retry_takes_a_token() -> None:
    """Inside of the retry, as in the canonical order."""
    bucket = TokenBucket(1, burst=10)
    with pytest.raises(OSError, match="down"):
        await Pipeline(Retry(on=OSError, attempts=3, backoff=Constant(delay=0)), bucket).call(fail, OSError("down"))

    assert bucket.statistics().tokens == 7


async def test_a_slot_waits_for_no_token_where_the_bucket_is_outside() -> None:
    """Nothing is held while waiting for tokens."""
    bucket, bulkhead = TokenBucket(1), Bulkhead(1)
    drain(bucket)
    seen: list[int] = []
    async with tasks() as group:

        async def call() -> None:
            await Pipeline(bucket, bulkhead).call(give, 1)

        group.start_soon(call)
        await anyio.sleep(0.5)
        seen.append(bulkhead.statistics().active)

    assert seen == [0]


async def test_while_strategies_are_disabled_no_token_is_taken() -> None:
    """Nobody waits, nobody is refused, and no state learns anything."""
    bucket = TokenBucket(1, max_wait=0)
    drain(bucket)
    full = TokenBucket(1)
    with disabled():
        for _ in range(3):
            async with bucket, full:
                await bucket.call(give, 1)
            bucket.acquire_nowait()

    assert full.statistics().tokens == 1


# -- loops


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_works_in_several_event_loops_in_turn(backend: Literal["asyncio", "trio"]) -> None:
    """It belongs to no loop: callers wait in one, and then in the next."""
    bucket, got = TokenBucket(10, burst=2), list[float]()

    async def main() -> None:
        got.extend(await times(bucket, 5))

    for _ in range(3):
        with virtual_time(backend) as virtual:
            virtual.run(main)

    assert len(got) == 15
    assert max(got) <= 0.51


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_waiters_that_die_with_their_loop_leave_nothing_behind(backend: Literal["asyncio", "trio"]) -> None:
    """The main task ends in an error while others wait."""
    bucket = TokenBucket(1, per=1000)

    async def main() -> None:
        async with tasks() as group:
            for _ in range(10):
                group.start_soon(bucket.acquire)
            await anyio.sleep(1)
            raise RuntimeError

    with virtual_time(backend) as virtual, pytest.raises(ExceptionGroup):
        virtual.run(main)

    assert bucket.statistics().queued == 0


@pytest.mark.parametrize("use", ["acquire", "acquire_nowait"])
def test_a_loop_that_is_closed_under_its_waiters_blocks_nobody(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who will never run again are passed over."""
    bucket = TokenBucket(1)
    monkeypatch.setattr(clock, "now", lambda: 0.0)
    bucket.acquire_nowait()

    async def wait() -> None:
        await bucket.acquire()

    async def later() -> int:
        if use == "acquire":
            await bucket.acquire()
        else:
            bucket.acquire_nowait()
        return bucket.statistics().queued

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # it would log that tasks were destroyed
    everybody = [loop.create_task(wait()) for _ in range(3)]
    loop.run_until_complete(asyncio.sleep(0))
    before = bucket.statistics().queued
    loop.close()
    monkeypatch.setattr(clock, "now", lambda: 1.0)
    after = asyncio.run(later())
    del everybody
    gc.collect()

    assert (before, after) == (3, 0)
    assert bucket._wanted == 0  # pyright: ignore[reportPrivateUsage]  # no ghosts


@pytest.mark.usefixtures("real_backend")
async def test_it_keeps_the_rate_in_real_time() -> None:
    """Also on uvloop: fifty callers, ten at once and the others at two thousand a second."""
    bucket, started = TokenBucket(2000, burst=10), clock.now()
    got = await times(bucket, 50)

    assert got == sorted(got)
    assert clock.now() - started >= 0.02 - 1e-6
