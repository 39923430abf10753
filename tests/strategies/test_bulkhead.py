import asyncio
import gc
import itertools
import math
import pickle
import time
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest

from resilient.context import deadline
from resilient.errors import BulkheadFull, DeadlineExceeded, TimeoutExceeded
from resilient.keyed import Keyed
from resilient.observe.events import CallRejected, Event
from resilient.observe.listeners import listening
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.bulkhead import Bulkhead, BulkheadStatistics
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.lingering import Lingering
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout
from resilient.testing import disabled, virtual_time
from strategies.callers import Caller, How, tasks, ticks, ways_to_cancel

pytestmark = pytest.mark.anyio


def is_empty(bulkhead: Bulkhead) -> bool:
    """Nothing is held, nobody waits, and all slots can be had again."""
    now = bulkhead.statistics()
    leases = [bulkhead.acquire_nowait() for _ in range(bulkhead.max_concurrent)]
    for lease in leases:
        lease.settle()
    return (now.active, now.queued) == (0, 0) and bulkhead.statistics() == now


# -- settings


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"max_concurrent": 0}, ValueError, ["max_concurrent=0", "at least 1"]),
        ({"max_concurrent": 1.5}, TypeError, ["max_concurrent=1.5", "whole number"]),
        ({"max_concurrent": True}, TypeError, ["max_concurrent=True"]),
        ({"max_concurrent": 1, "max_queue": -1}, ValueError, ["max_queue=-1", "at least 0"]),
        ({"max_concurrent": 1, "max_queue": 1, "queue_timeout": -1}, ValueError, ["queue_timeout=-1", "at least 0"]),
        ({"max_concurrent": 1, "max_queue": 1, "queue_timeout": float("inf")}, ValueError, ["queue_timeout=inf", "finite"]),
        ({"max_concurrent": 1, "queue_timeout": 1.0}, ValueError, ["queue_timeout=1.0", "max_queue"]),
    ],
)
async def test_arguments_are_checked_at_construction(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    """The message names the parameter, the value and the range. A timeout without a queue would do nothing: it says so."""
    with pytest.raises(error) as raised:
        Bulkhead(**settings)

    assert all(word in str(raised.value) for word in words)


def test_it_is_made_outside_of_a_loop_and_shows_its_state() -> None:
    """A new one refuses who finds no slot, and never waits."""
    bulkhead = Bulkhead(2, max_queue=3, queue_timeout=timedelta(seconds=1), name="db")
    with bulkhead.acquire_nowait():
        shown = repr(bulkhead)

    assert shown == "<Bulkhead 'db': 1 of 2 active, 0 of 3 queued>"
    assert bulkhead.queue_timeout == 1.0
    assert (Bulkhead(1).max_queue, Bulkhead(1).queue_timeout) == (0, None)


def test_statistics_are_a_frozen_snapshot() -> None:
    """Later changes do not reach it."""
    bulkhead = Bulkhead(2, max_queue=3)
    before = bulkhead.statistics()
    bulkhead.acquire_nowait()

    assert before == BulkheadStatistics(active=0, queued=0, max_concurrent=2, max_queue=3)
    with pytest.raises(AttributeError):
        before.active = 1  # type: ignore[misc]  # that is the test


def test_a_bulkhead_takes_less_than_a_hundred_bytes() -> None:
    """There may be one for each of many keys: its line is made when somebody first waits."""
    template = Bulkhead(10, max_queue=5, queue_timeout=1.0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    siblings = [template.sibling() for _ in range(1000)]
    each = (tracemalloc.get_traced_memory()[0] - before) / len(siblings)
    tracemalloc.stop()

    assert each <= 8 + 100  # its place in the list, and itself


def test_siblings_have_the_same_settings_and_fresh_state() -> None:
    """A sibling is what a key gets."""
    bulkhead = Bulkhead(1, max_queue=2, queue_timeout=3.0, name="db")
    lease = bulkhead.acquire_nowait()
    sibling = bulkhead.sibling()

    assert sibling.statistics() == BulkheadStatistics(active=0, queued=0, max_concurrent=1, max_queue=2)
    assert (sibling.queue_timeout, sibling.name) == (3.0, "db")
    assert (sibling.is_fresh(0.0), bulkhead.is_fresh(0.0)) == (True, False)
    lease.settle()
    assert bulkhead.is_fresh(0.0)


def test_a_bulkhead_with_slots_out_is_never_forgotten() -> None:
    """A keyed bulkhead whose slots are out stays; an idle one makes room."""
    keyed = Keyed(Bulkhead(1), max_keys=2)
    lease = keyed["busy"].acquire_nowait()
    keyed["idle"].acquire_nowait().settle()
    keyed["new"].acquire_nowait()

    assert ("busy" in keyed, "idle" in keyed, "new" in keyed) == (True, False, True)
    lease.settle()


# -- who gets in


async def test_no_more_than_max_concurrent_run_at_a_time() -> None:
    """Fifty calls through four slots, and all of them get through."""
    bulkhead = Bulkhead(4, max_queue=50)
    running, peak, done = 0, 0, 0

    @bulkhead
    async def call() -> None:
        nonlocal running, peak, done
        running += 1
        peak = max(peak, running)
        await anyio.sleep(1)
        running -= 1
        done += 1

    async with tasks() as group:
        for _ in range(50):
            group.start_soon(call)

    assert (peak, done) == (4, 50)
    assert is_empty(bulkhead)


@pytest.mark.parametrize("face", ["block", "acquire", "acquire_nowait", "permit", "call", "decorator"])
async def test_every_face_refuses_when_all_slots_are_out(face: str) -> None:
    """The error says how many are inside and in line; the refusal is told to listeners; nothing was run."""
    bulkhead = Bulkhead(1, name="db")
    told: list[Event] = []

    async def never() -> None:
        raise AssertionError

    async def use() -> None:
        match face:
            case "block":
                async with bulkhead:
                    await never()
            case "acquire":
                await bulkhead.acquire()
            case "acquire_nowait":
                bulkhead.acquire_nowait()
            case "permit":
                async with bulkhead.permit():
                    await never()
            case "call":
                await bulkhead.call(never)
            case _:
                await bulkhead(never)()

    async with bulkhead:
        with listening(told.append), pytest.raises(BulkheadFull) as raised:
            await use()

    error = raised.value
    rejections = [event for event in told if isinstance(event, CallRejected)]
    assert (error.strategy, error.active, error.queued, error.waited, error.retry_after) == ("db", 1, 0, 0.0, None)
    assert [(event.strategy, event.reason) for event in rejections] == [("db", "bulkhead_full")]
    assert is_empty(bulkhead)


def test_the_error_survives_pickling() -> None:
    """It may cross the border of a process."""
    bulkhead = Bulkhead(1)
    bulkhead.acquire_nowait()
    with pytest.raises(BulkheadFull) as raised:
        bulkhead.acquire_nowait()
    copy = pickle.loads(pickle.dumps(raised.value))  # noqa: S301  our own bytes

    assert (copy.active, copy.queued, str(copy)) == (1, 0, str(raised.value))


async def test_the_queue_is_bounded() -> None:
    """Who finds the queue full is refused at once, and counts nowhere."""
    bulkhead = Bulkhead(1, max_queue=2)
    callers = [Caller(bulkhead) for _ in range(4)]
    async with tasks() as group:
        for caller in callers:
            group.start_soon(caller.run)
            await ticks(2)
        states = [caller.state for caller in callers]
        seen = bulkhead.statistics()
        for caller in callers:
            caller.leave.set()

    assert states == ["inside", "waiting", "waiting", "failed"]
    error = callers[3].error
    assert isinstance(error, BulkheadFull)
    assert (error.active, error.queued) == (1, 2)
    assert (seen.active, seen.queued) == (1, 2)
    assert is_empty(bulkhead)


async def test_waiters_are_served_first_come_first_served() -> None:
    """In the order in which they came, whatever they use to wait."""
    bulkhead = Bulkhead(1, max_queue=100)
    order: list[int] = []

    async def use(number: int) -> None:
        await anyio.sleep(number)
        match number % 4:
            case 0:
                async with bulkhead:
                    order.append(number)
            case 1:
                with await bulkhead.acquire():
                    order.append(number)
            case 2:
                async with bulkhead.permit():
                    order.append(number)
            case _:
                await bulkhead.call(note, number)

    async def note(number: int) -> None:
        order.append(number)

    async with tasks() as group:
        lease = bulkhead.acquire_nowait()
        for number in range(20):
            group.start_soon(use, number)
        await anyio.sleep(30)
        lease.settle()

    assert order == list(range(20))
    assert is_empty(bulkhead)


async def test_a_slot_that_was_handed_over_cannot_be_snatched() -> None:
    """Between the release and the moment when the waiter runs, nobody else gets in, waiting or not."""
    bulkhead = Bulkhead(1, max_queue=2)
    entered: list[Caller] = []
    waiter, newcomer = Caller(bulkhead, entered), Caller(bulkhead, entered)
    async with tasks() as group:
        lease = bulkhead.acquire_nowait()
        group.start_soon(waiter.run)
        await ticks(3)
        lease.settle()
        with pytest.raises(BulkheadFull):
            bulkhead.acquire_nowait()
        group.start_soon(newcomer.run)
        await ticks(5)
        states = waiter.state, newcomer.state
        waiter.leave.set()
        newcomer.leave.set()

    assert states == ("inside", "waiting")
    assert entered == [waiter, newcomer]
    assert is_empty(bulkhead)


async def test_a_release_and_a_nowait_in_one_tick_never_let_one_too_many_in() -> None:
    """Two slots come free while three wait: exactly two of them get in, the newcomer does not."""
    bulkhead = Bulkhead(2, max_queue=5)
    callers = [Caller(bulkhead) for _ in range(3)]
    async with tasks() as group:
        first, second = bulkhead.acquire_nowait(), bulkhead.acquire_nowait()
        for caller in callers:
            group.start_soon(caller.run)
        await ticks(3)
        first.settle()
        second.settle()
        with pytest.raises(BulkheadFull):
            bulkhead.acquire_nowait()
        await ticks(5)
        inside = sum(caller.state == "inside" for caller in callers)
        for caller in callers:
            caller.leave.set()

    assert inside == 2
    assert is_empty(bulkhead)


async def test_a_free_slot_is_taken_without_a_checkpoint() -> None:
    """Nobody else runs between asking for a free slot and having it."""
    bulkhead = Bulkhead(1)
    go, ran = anyio.Event(), False

    async def other() -> None:
        nonlocal ran
        await go.wait()
        ran = True

    async with tasks() as group:
        group.start_soon(other)
        await ticks(3)
        go.set()
        async with bulkhead:
            ran_in_between = ran

    assert not ran_in_between
    assert ran


# -- every way out


async def test_a_slot_comes_back_on_every_way_out() -> None:
    """A value, an exception of any kind, a cancellation, a coroutine that is closed or never resumed."""
    bulkhead = Bulkhead(1)

    async def fail(error: BaseException) -> None:
        raise error

    async def value() -> int:
        return 1

    async def stay() -> None:
        await anyio.sleep_forever()

    await bulkhead.call(value)
    after_value = is_empty(bulkhead)
    for error in (ValueError("x"), SystemExit(1), GeneratorExit()):
        with pytest.raises(type(error)):
            await bulkhead.call(fail, error)
    after_errors = is_empty(bulkhead)
    with anyio.move_on_after(1):
        await bulkhead.call(stay)

    assert (after_value, after_errors, is_empty(bulkhead)) == (True, True, True)


async def test_the_error_of_the_callee_surfaces_as_it_is() -> None:
    """The same object: nothing is wrapped."""
    bulkhead = Bulkhead(1)
    error = ValueError("from the callee")

    async def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="from the callee") as raised:
        await bulkhead.call(fail)

    assert raised.value is error


async def test_anything_that_returns_an_awaitable_can_be_called() -> None:
    """Lambdas and partials are not sent to a thread: what they return is awaited."""
    bulkhead = Bulkhead(1)

    async def double(number: int) -> int:
        return 2 * number

    assert await bulkhead.call(lambda: double(2)) == 4
    assert await bulkhead.call(partial(double, 3)) == 6


async def test_a_lease_is_settled_once() -> None:
    """Settling twice, or by hand inside of its block, frees one slot only."""
    bulkhead = Bulkhead(2)
    other = bulkhead.acquire_nowait()
    with bulkhead.acquire_nowait() as lease:
        lease.settle()
        lease.settle()

    assert bulkhead.statistics().active == 1
    other.settle()
    assert is_empty(bulkhead)


class Body(Lingering):
    """A value that lives on, such as a streamed response."""


async def test_a_value_that_lives_on_holds_its_slot_until_it_has_ended() -> None:
    """A response that is still read occupies the service: its slot comes back, once, when the body has ended."""
    bulkhead = Bulkhead(1, max_queue=1)
    waiter = Caller(bulkhead)

    async def respond() -> Body:
        return Body()

    async with tasks() as group:
        body = await bulkhead.call(respond)
        group.start_soon(waiter.run)
        await ticks(5)
        before = waiter.state
        body.ended()
        body.ended()
        await ticks(5)
        after = waiter.state
        waiter.leave.set()

    assert (before, after) == ("waiting", "inside")
    assert is_empty(bulkhead)


async def test_a_value_that_is_discarded_gives_its_slot_back() -> None:
    """Nobody reads it: it ends by being discarded."""
    bulkhead = Bulkhead(1)

    async def respond() -> Body:
        return Body()

    body = await bulkhead.call(respond)
    await body.discard()

    assert is_empty(bulkhead)


async def test_a_stream_holds_its_slot_until_it_is_exhausted_or_closed() -> None:
    """An async generator function can be wrapped too."""
    bulkhead = Bulkhead(1)

    @bulkhead
    async def tokens() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    held = [bulkhead.statistics().active async for _ in tokens()]
    exhausted = bulkhead.statistics().active
    async with aclosing(tokens()) as stream:
        async for _ in stream:
            break
        held.append(bulkhead.statistics().active)

    assert held == [1, 1, 1, 1]
    assert exhausted == 0
    assert is_empty(bulkhead)


# -- cancellation


@pytest.mark.parametrize("first", ["release", "cancel"])
async def test_a_waiter_cancelled_in_the_tick_of_its_grant_passes_it_on(first: Literal["release", "cancel"]) -> None:
    """In either order, by its scope or natively: the one behind it gets the slot, and none is lost."""
    for how in ways_to_cancel():
        bulkhead = Bulkhead(1, max_queue=2)
        doomed, behind = Caller(bulkhead), Caller(bulkhead)
        async with tasks() as group:
            lease = bulkhead.acquire_nowait()
            group.start_soon(doomed.run)
            await ticks(3)
            group.start_soon(behind.run)
            await ticks(3)
            for step in (first, "cancel" if first == "release" else "release"):
                if step == "release":
                    lease.settle()
                else:
                    doomed.cancel(how)
            await ticks(10)
            states = doomed.state, behind.state
            doomed.leave.set()
            behind.leave.set()

        assert states == ("cancelled", "inside"), how
        assert is_empty(bulkhead)


async def test_a_waiter_cancelled_after_the_release_leaves_a_slot_that_can_be_had_at_once() -> None:
    """With nobody behind it, the slot is free again."""
    for how in ways_to_cancel():
        bulkhead = Bulkhead(1, max_queue=1)
        waiter = Caller(bulkhead)
        async with tasks() as group:
            lease = bulkhead.acquire_nowait()
            group.start_soon(waiter.run)
            await ticks(3)
            lease.settle()
            waiter.cancel(how)
            await ticks(5)

        assert waiter.state == "cancelled"
        assert is_empty(bulkhead)


async def cancel_one_of_three(how: How, victim: int, cancel_at: int, release_at: int, *, release_first: bool) -> None:
    """Three callers queue behind a slot that is released at some tick; one of them is cancelled at some tick."""
    bulkhead = Bulkhead(1, max_queue=3)
    entered: list[Caller] = []
    callers = [Caller(bulkhead, entered) for _ in range(3)]
    lease = bulkhead.acquire_nowait()
    for caller in callers:
        caller.leave.set()  # who gets in leaves at once, or in the next tick
    async with tasks() as group:
        for tick in range(9):
            if tick < len(callers):  # one after the other: trio starts those of one tick in any order
                group.start_soon(callers[tick].run)
            if tick == release_at and release_first:
                lease.settle()
            if tick == cancel_at and callers[victim].state != "new":
                callers[victim].cancel(how)
            if tick == release_at and not release_first:
                lease.settle()
            await anyio.lowlevel.checkpoint()

    assert [caller.state for caller in callers if caller is not callers[victim]] == ["left", "left"]
    assert callers[victim].state in ("left", "cancelled")
    assert entered == [caller for caller in callers if caller in entered]  # first come, first served
    assert is_empty(bulkhead)


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_a_waiter_can_be_cancelled_at_every_point(victim: int) -> None:
    """Whoever is cancelled, whenever, and whenever the slot comes free: the others get in, in order, and no slot is lost."""
    cases = itertools.product(ways_to_cancel(), range(6), range(1, 6), (True, False))
    for how, cancel_at, release_at, release_first in cases:
        await cancel_one_of_three(how, victim, cancel_at, release_at, release_first=release_first)


async def test_all_waiters_can_be_cancelled_at_once() -> None:
    """Half of them in the tick in which a slot was handed over."""
    for how in ways_to_cancel():
        bulkhead = Bulkhead(2, max_queue=100)
        callers = [Caller(bulkhead) for _ in range(50)]
        async with tasks() as group:
            leases = [bulkhead.acquire_nowait(), bulkhead.acquire_nowait()]
            for caller in callers:
                group.start_soon(caller.run)
            await ticks(3)
            leases[0].settle()
            for caller in callers:
                caller.cancel(how)
            leases[1].settle()

        assert {caller.state for caller in callers} == {"cancelled"}
        assert is_empty(bulkhead)


async def test_a_cancelled_holder_gives_its_slot_to_the_next() -> None:
    """Cancellation of a call that runs is one more way out."""
    for how in ways_to_cancel():
        bulkhead = Bulkhead(1, max_queue=1)
        holder, waiter = Caller(bulkhead), Caller(bulkhead)
        async with tasks() as group:
            group.start_soon(holder.run)
            await ticks(3)
            group.start_soon(waiter.run)
            await ticks(3)
            holder.cancel(how)
            await ticks(5)
            states = holder.state, waiter.state
            waiter.leave.set()

        assert states == ("cancelled", "inside")
        assert is_empty(bulkhead)


async def test_who_is_cancelled_already_is_cancelled_and_not_refused() -> None:
    """A refusal in place of the cancellation would surface from a task group that shuts down."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=1.0)
    refused = False
    async with bulkhead:
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await bulkhead.acquire()
            except BulkheadFull:
                refused = True

    assert (refused, scope.cancelled_caught) == (False, True)
    assert is_empty(bulkhead)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_no_slot_is_lost_or_granted_twice(seed: int) -> None:
    """Random holders, waiters, timeouts, cancellations and failures on all faces; checked whenever somebody gets in."""
    random = Random(seed)
    slots, places = random.randint(1, 4), random.randint(1, 12)
    bulkhead = Bulkhead(slots, max_queue=places, queue_timeout=random.choice([None, 2.0]))
    running = 0

    @asynccontextmanager
    async def watched(face: int) -> AsyncGenerator[None]:
        nonlocal running
        block: Any = bulkhead if face == 0 else bulkhead.permit()
        async with block:
            running += 1
            now = bulkhead.statistics()
            try:
                assert running <= now.active <= slots
                assert now.queued <= places
                assert now.active == slots or not now.queued
                if random.random() < 0.3:
                    await anyio.sleep(random.choice([0, 1, random.random()]))
                yield
                if random.random() < 0.2:
                    raise ValueError
            finally:
                running -= 1

    callers = [Caller(watched(random.randrange(2))) for _ in range(40)]

    async def live(caller: Caller) -> None:
        await anyio.sleep(random.choice([0, 1, 2, 3 * random.random()]))
        with anyio.move_on_after(random.choice([1, 2, 100])):
            await caller.run()

    async def disturb(caller: Caller) -> None:
        await anyio.sleep(random.choice([1, 2, 5 * random.random()]))
        if random.random() < 0.5:
            caller.leave.set()
        elif caller.state != "new":
            caller.cancel(random.choice(ways_to_cancel()))
        await anyio.sleep(200)
        caller.leave.set()

    async with tasks() as group:
        for caller in callers:
            group.start_soon(live, caller)
            group.start_soon(disturb, caller)

    assert {type(caller.error) for caller in callers} <= {BulkheadFull, ValueError, type(None)}
    assert running == 0
    assert is_empty(bulkhead)


def test_fifty_thousand_cancelled_waiters_take_linear_time() -> None:
    """Ten times as many waiters take about ten times as long, in whatever order they leave the line."""

    async def seconds(number: int) -> float:
        bulkhead = Bulkhead(1, max_queue=number)
        lease = bulkhead.acquire_nowait()
        waiting = [bulkhead.wait(math.inf) for _ in range(number)]
        for coroutine in waiting:
            coroutine.send(None)
        Random(1).shuffle(waiting)
        started = time.thread_time()
        for coroutine in waiting:
            coroutine.close()
        took = time.thread_time() - started
        lease.settle()
        assert is_empty(bulkhead)
        return took

    few = min(asyncio.run(seconds(5_000)) for _ in range(3))
    many = asyncio.run(seconds(50_000))

    assert many < 40 * few  # in quadratic time: 100 times as long


# -- limits of the wait


async def test_a_waiter_gives_up_after_queue_timeout() -> None:
    """It is refused, and told how long it waited."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=2.5)
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
async def test_a_wait_that_is_over_leaves_no_timer_behind() -> None:
    """However it ended."""
    bulkhead = Bulkhead(1, max_queue=3, queue_timeout=100.0)
    served, cancelled = Caller(bulkhead), Caller(bulkhead)
    loop: Any = asyncio.get_running_loop()
    async with tasks() as group:
        lease = bulkhead.acquire_nowait()
        for caller in (served, cancelled):
            group.start_soon(caller.run)
            await ticks(2)
        during = [timer for timer in loop._scheduled if not timer.cancelled()]
        cancelled.cancel("native")
        lease.settle()
        served.leave.set()
    after = [timer for timer in loop._scheduled if not timer.cancelled()]

    assert (len(during), len(after)) == (2, 0)


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


# -- composition


async def test_a_refusal_is_no_failure_of_the_callee_and_is_not_retried() -> None:
    """A breaker outside learns nothing from it, and a retry hands it on at once."""
    breaker, bulkhead = CircuitBreaker(consecutive_failures=1), Bulkhead(1)
    pipeline = Pipeline(Retry(on=Exception, attempts=5), breaker, bulkhead)
    async with bulkhead:
        started = anyio.current_time()
        with pytest.raises(BulkheadFull):
            await pipeline.call(anyio.sleep, 0)
        took = anyio.current_time() - started

    assert took == 0.0
    assert breaker.statistics().state == "closed"
    assert is_empty(bulkhead)


async def test_a_slot_is_not_held_while_a_retry_outside_of_it_sleeps() -> None:
    """The canonical order puts the bulkhead inside of the retry."""
    bulkhead = Bulkhead(1)
    seen: list[int] = []

    async def fail() -> None:
        raise OSError

    async def look() -> None:
        await anyio.sleep(0.5)
        seen.append(bulkhead.statistics().active)

    pipeline = Pipeline(Retry(on=OSError, attempts=2, backoff=Constant(delay=1.0)), bulkhead)
    async with tasks() as group:
        group.start_soon(look)
        with pytest.raises(OSError):  # noqa: PT011  it has no words
            await pipeline.call(fail)

    assert seen == [0]


async def test_a_gate_further_in_that_refuses_gives_the_slot_back() -> None:
    """Permits come back on that way out too."""
    outer, inner = Bulkhead(1), Bulkhead(1)
    async with inner:
        with pytest.raises(BulkheadFull):
            await Pipeline(outer, inner).call(anyio.sleep, 0)

    assert is_empty(outer)
    assert is_empty(inner)


async def test_keys_have_slots_of_their_own() -> None:
    """A pipeline with a key keeps one bulkhead for each."""
    inside: list[str] = []

    def key_of(host: str) -> str:
        return host

    @Pipeline(Bulkhead(1), key=key_of)
    async def call(host: str) -> None:
        inside.append(host)
        await anyio.sleep(1)

    async with tasks() as group:
        for host in ("a", "b"):
            group.start_soon(call, host)
        await ticks(3)
        with pytest.raises(BulkheadFull) as raised:
            await call("a")

    assert sorted(inside) == ["a", "b"]
    assert raised.value.key == "a"


async def test_while_strategies_are_disabled_nobody_is_refused() -> None:
    """What is entered inside of such a block may be left after it: no slot is lost, and none too many is there."""
    bulkhead = Bulkhead(1)
    entered = Caller(bulkhead)
    async with bulkhead, tasks() as group:
        with disabled():
            await bulkhead.call(anyio.sleep, 0)
            bulkhead.acquire_nowait().settle()
            group.start_soon(entered.run)
            await ticks(3)
        state = entered.state
        with pytest.raises(BulkheadFull):
            bulkhead.acquire_nowait()
        entered.leave.set()

    assert state == "inside"
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
