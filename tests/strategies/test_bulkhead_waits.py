"""The bulkhead: limits of the wait, and event loops that come and go."""

import asyncio
import gc
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest

from resilient.context import deadline
from resilient.errors import BulkheadFull, DeadlineExceeded, TimeoutExceeded
from resilient.pipeline import Pipeline
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout
from resilient.testing import virtual_time
from strategies.bulkheads import is_empty
from strategies.callers import Caller, tasks, ticks

pytestmark = pytest.mark.anyio


# -- limits of the wait


async def test_a_waiter_gives_up_after_queue_timeout() -> None:
    """It is refused, and told how long it waited."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=2.5)
    await anyio.sleep(10)
    async with bulkhead:
        started = anyio.current_time()
        with pytest.raises(BulkheadFull) as raised:
            await bulkhead.acquire()
        took = anyio.current_time() - started

    assert took == pytest.approx(2.5)
    assert raised.value.waited == pytest.approx(2.5)
    assert "after a wait of 2.5 s" in str(raised.value)
    assert is_empty(bulkhead)


async def test_waiters_that_gave_up_eat_no_slot() -> None:
    """However many gave up: all slots are there again."""
    bulkhead = Bulkhead(2, max_queue=10, queue_timeout=0.02)
    callers = [Caller(bulkhead) for _ in range(10)]
    leases = [bulkhead.acquire_nowait(), bulkhead.acquire_nowait()]
    async with tasks() as group:
        for caller in callers:
            group.start_soon(caller.run)
    for lease in leases:
        lease.settle()

    assert all(isinstance(caller.error, BulkheadFull) for caller in callers)
    assert is_empty(bulkhead)


async def test_a_queue_timeout_of_zero_refuses_at_once() -> None:
    """No time passes."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=0)
    async with bulkhead:
        started = anyio.current_time()
        with pytest.raises(BulkheadFull):
            await bulkhead.acquire()
        took = anyio.current_time() - started

    assert took == 0.0
    assert is_empty(bulkhead)


@pytest.mark.parametrize("early", [-0.001, 0.0, 0.001])
async def test_a_slot_that_comes_free_when_the_wait_ends_is_had_or_not_but_never_lost(early: float) -> None:
    """The release and the end of the wait may fall into one tick, in either order."""
    for release_is_started_first in (True, False):
        bulkhead = Bulkhead(1, max_queue=1, queue_timeout=1.0)
        waiter = Caller(bulkhead)
        waiter.leave.set()
        lease = bulkhead.acquire_nowait()

        async def release(lease: Any = lease) -> None:
            await anyio.sleep(1.0 + early)
            lease.settle()

        async with tasks() as group:
            if release_is_started_first:
                group.start_soon(release)
            group.start_soon(waiter.run)
            if not release_is_started_first:
                group.start_soon(release)

        if early < 0:
            assert waiter.state == "left"
        elif early > 0:
            assert isinstance(waiter.error, BulkheadFull)
        else:
            assert waiter.state == "left" or isinstance(waiter.error, BulkheadFull)
        assert is_empty(bulkhead)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_slot_handed_over_in_the_tick_in_which_the_wait_ended_is_taken() -> None:
    """The timer went off first, and the slot came before the caller ran: it has it, and is not refused."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=1.0)
    waiter = Caller(bulkhead)
    waiter.leave.set()
    async with tasks() as group:
        lease = bulkhead.acquire_nowait()
        group.start_soon(waiter.run)
        await ticks(3)
        asyncio.get_running_loop().call_later(1.0, lease.settle)

    assert anyio.current_time() == 1.0
    assert waiter.state == "left"
    assert is_empty(bulkhead)


@pytest.mark.parametrize("queue_timeout", [5.0, 0.7])
async def test_a_deadline_around_ends_the_wait_with_its_own_error(queue_timeout: float) -> None:
    """Also where both fall into one instant: it is not left to the order of timers which of them it is."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=queue_timeout)
    async with bulkhead:
        started = anyio.current_time()
        with pytest.raises(DeadlineExceeded), deadline(0.7):
            async with bulkhead:
                raise AssertionError
        with pytest.raises(TimeoutExceeded):
            await Pipeline(Timeout(0.7), bulkhead).call(anyio.sleep, 0)
        took = anyio.current_time() - started

    assert took == pytest.approx(1.4)
    assert is_empty(bulkhead)


async def test_a_scope_that_ends_in_the_instant_of_the_queue_timeout_comes_first() -> None:
    """Even where the timer of the wait is older: the caller is cancelled, and a refusal would hide that."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=0.7)
    waiter = Caller(bulkhead)
    async with bulkhead, tasks() as group:
        group.start_soon(waiter.run)
        await ticks(3)
        waiter.scope.deadline = anyio.current_time() + 0.7

    assert waiter.state == "cancelled"
    assert is_empty(bulkhead)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize(("queue_timeout", "timers"), [(100.0, 2), (None, 0)])
async def test_a_wait_that_is_over_leaves_no_timer_behind(
    queue_timeout: float | None, timers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it ended. There was a bare one, no cancel scope, and none where the wait is without limit."""
    bulkhead = Bulkhead(1, max_queue=3, queue_timeout=queue_timeout)
    served, cancelled = Caller(bulkhead), Caller(bulkhead)
    loop: Any = asyncio.get_running_loop()
    call_later, made = loop.call_later, list[object]()

    def noted(seconds: float, *args: Any) -> asyncio.TimerHandle:
        made.append(args[-1])
        timer: asyncio.TimerHandle = call_later(seconds, *args)
        return timer

    monkeypatch.setattr(loop, "call_later", noted)
    async with tasks() as group:
        lease = bulkhead.acquire_nowait()
        for caller in (served, cancelled):
            group.start_soon(caller.run)
            await ticks(2)
        cancelled.cancel("native")
        lease.settle()
        served.leave.set()
    after = [timer for timer in loop._scheduled if not timer.cancelled()]

    assert [isinstance(each, asyncio.Future) for each in made] == [True] * timers
    assert after == []


async def test_a_deadline_that_comes_later_leaves_the_queue_timeout_in_force() -> None:
    """Whatever ends first, ends the wait."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=0.5)
    async with bulkhead:
        with pytest.raises(BulkheadFull), deadline(5.0):
            await bulkhead.acquire()

    assert is_empty(bulkhead)


@pytest.mark.parametrize("queue_timeout", [None, 100.0])
async def test_the_deadline_of_the_call_ends_the_wait(queue_timeout: float | None) -> None:
    """A retry's limit on all its attempts is no cancel scope: the wait looks at it by itself."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=queue_timeout)
    pipeline = Pipeline(Retry(on=OSError, attempts=2, timeout=2.0), bulkhead)
    await anyio.sleep(10)
    async with bulkhead:
        started = anyio.current_time()
        with pytest.raises(BulkheadFull):
            await pipeline.call(anyio.sleep, 0)
        took = anyio.current_time() - started

    assert took == pytest.approx(2.0)
    assert is_empty(bulkhead)


async def test_entering_it_again_while_holding_its_last_slot_is_bounded_by_a_deadline() -> None:
    """It would wait for itself: the limits on waits apply."""
    bulkhead = Bulkhead(1, max_queue=1)

    async def enter_twice() -> None:
        async with bulkhead:
            with deadline(1.0):
                async with bulkhead:
                    raise AssertionError

    with pytest.raises(DeadlineExceeded):
        await enter_twice()

    assert is_empty(bulkhead)


# -- loops


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_works_in_several_event_loops_in_turn(backend: Literal["asyncio", "trio"]) -> None:
    """It belongs to no loop: contended in one, it is contended in the next."""
    bulkhead = Bulkhead(1, max_queue=20)
    done: list[int] = []

    async def call(number: int) -> None:
        async with bulkhead:
            await anyio.sleep(1)
            done.append(number)

    async def main() -> None:
        async with tasks() as group:
            for number in range(10):
                group.start_soon(call, number)

    for _ in range(3):
        with virtual_time(backend) as virtual:
            virtual.run(main)

    assert len(done) == 30
    assert is_empty(bulkhead)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_waiters_that_die_with_their_loop_leave_nothing_behind(backend: Literal["asyncio", "trio"]) -> None:
    """The main task ends in an error while others hold slots and wait."""
    bulkhead = Bulkhead(1, max_queue=20)

    async def stay() -> None:
        async with bulkhead:
            await anyio.sleep_forever()

    async def main() -> None:
        async with tasks() as group:
            for _ in range(10):
                group.start_soon(stay)
            await anyio.sleep(1)
            raise RuntimeError

    with virtual_time(backend) as virtual, pytest.raises(ExceptionGroup):
        virtual.run(main)

    assert is_empty(bulkhead)


def test_a_loop_that_is_closed_under_its_waiters_takes_no_slot_along() -> None:
    """Tasks that will never run again are passed over, and what they held comes back when they are collected."""
    bulkhead = Bulkhead(1, max_queue=5)

    async def stay() -> None:
        async with bulkhead:
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)  # it would log that tasks were destroyed
    everybody = [loop.create_task(stay()) for _ in range(3)]
    loop.run_until_complete(asyncio.sleep(0))
    before = bulkhead.statistics()
    loop.close()
    del everybody
    gc.collect()

    assert (before.active, before.queued) == (1, 2)
    assert is_empty(bulkhead)


@pytest.mark.usefixtures("real_backend")
async def test_it_works_in_real_time() -> None:
    """Also on uvloop."""
    bulkhead = Bulkhead(2, max_queue=100)
    done: list[int] = []

    async def call(number: int) -> None:
        async with bulkhead:
            await anyio.lowlevel.checkpoint()
            done.append(number)

    async with tasks() as group:
        for number in range(100):
            group.start_soon(call, number)

    assert sorted(done) == list(range(100))
    assert is_empty(bulkhead)
