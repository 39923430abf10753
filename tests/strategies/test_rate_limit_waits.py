"""The token bucket: limits of the wait, and waiters that are cancelled."""

from random import Random

import anyio
import pytest

from resilient import clock
from resilient.context import deadline
from resilient.errors import CircuitOpen, DeadlineExceeded, RateLimited
from resilient.observe.events import CallRejected, Event
from resilient.observe.listeners import listening
from resilient.pipeline import Pipeline
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from strategies.buckets import Ideal, drain, fail, times
from strategies.callers import Caller, tasks, through, ticks, ways_to_cancel

pytestmark = pytest.mark.anyio


# -- limits of the wait


@pytest.mark.parametrize("face", ["block", "acquire", "acquire_nowait", "permit", "call"])
async def test_every_face_refuses_at_once_what_would_take_too_long(face: str) -> None:
    """No time passes; the error says when to come again; it is told to listeners; coming then succeeds."""
    bucket = TokenBucket(1, max_wait=0.0 if face == "acquire_nowait" else 0.5, name="api")
    drain(bucket)
    told: list[Event] = []

    async def never() -> None:
        raise AssertionError

    await anyio.sleep(0.25)
    with listening(told.append), pytest.raises(RateLimited) as raised:
        await through(face, bucket, never)
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


async def test_a_refusal_counts_all_tokens_that_are_wanted() -> None:
    """Whoever comes again when it says finds all of them, not the first."""
    bucket = TokenBucket(1, burst=5)
    drain(bucket)
    with pytest.raises(RateLimited) as raised, deadline(2.0):
        await bucket.acquire(3)

    assert raised.value.retry_after == 3.0


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
