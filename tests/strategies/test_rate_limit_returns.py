"""The token bucket: what comes back, alone and together with others, in loops that come and go."""

import asyncio
import gc
import itertools
from typing import Any, Literal

import anyio
import pytest

from resilient import clock
from resilient.errors import CircuitOpen, RateLimited
from resilient.observe.events import Event, RetryStopped
from resilient.observe.listeners import listening
from resilient.outcome import CANCELLED, SUCCESS, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.lingering import Lingering
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.testing import disabled, virtual_time
from strategies.buckets import REFUSED, drain, fail, times
from strategies.callers import tasks, ticks

pytestmark = pytest.mark.anyio


# -- what comes back


class Body(Lingering):
    """A value that lives on, such as a streamed response."""


async def give(value: Any) -> Any:
    """Return it."""
    return value


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


@pytest.mark.parametrize("how", ["acquire", "acquire_nowait", "permit"])
async def test_time_goes_by_while_a_token_is_taken_by_hand(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No two looks at a real clock give the same time. What is refused in the block comes back all the same."""
    ticks = itertools.count(1_000)
    monkeypatch.setattr(clock, "now", lambda: next(ticks) / 1e6)
    bucket = TokenBucket(1e-6, burst=3)
    with pytest.raises(CircuitOpen):
        await hold_and_be_refused(bucket, how)

    assert round(bucket.statistics().tokens, 3) == 3


async def hold_and_be_refused(bucket: TokenBucket, how: str) -> None:
    """A block that is refused further in."""
    if how == "permit":
        async with bucket.permit():
            raise CircuitOpen
    with await bucket.acquire() if how == "acquire" else bucket.acquire_nowait():
        raise CircuitOpen


@pytest.mark.parametrize("others", [0, 1])
async def test_a_token_comes_back_from_a_call_that_waited_further_in(others: int) -> None:
    """It was taken before the wait. One that somebody took since, be it at its very end, stays spent."""
    bucket, bulkhead, breaker = TokenBucket(1, burst=1), Bulkhead(1, max_queue=1), CircuitBreaker(initial="isolated")
    async with tasks() as group:
        slot = bulkhead.acquire_nowait()
        group.start_soon(refused_in, Pipeline(bucket, bulkhead, breaker))
        await ticks(3)
        await anyio.sleep(1 if others else 0.5)
        for _ in range(others):
            bucket.acquire_nowait()
        slot.settle()
        await ticks(5)
        left = bucket.statistics().tokens

    assert left == (0 if others else 1)


async def refused_in(pipeline: Pipeline) -> None:
    """A call that the breaker refuses."""
    with pytest.raises(CircuitOpen):
        await pipeline.call(give, 1)


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


async def test_it_refuses_for_longer_while_others_wait() -> None:
    """A newcomer stands behind them."""
    bucket = TokenBucket(1, max_wait=4)
    drain(bucket)
    async with tasks() as group:
        for _ in range(4):
            group.start_soon(bucket.acquire)
        await ticks(2)
        ready_in = bucket.ready_in(clock.now())
        group.cancel_scope.cancel()

    assert ready_in == 1.0


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
