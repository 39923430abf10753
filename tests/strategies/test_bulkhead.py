"""The bulkhead: its settings, and who gets in."""

import pickle
import tracemalloc
from datetime import timedelta
from typing import Any

import anyio
import pytest

from resilient.errors import BulkheadFull
from resilient.keyed import Keyed
from resilient.observe.events import CallRejected, Event
from resilient.observe.listeners import listening
from resilient.strategies.bulkhead import Bulkhead, BulkheadStatistics
from strategies.bulkheads import is_empty
from strategies.callers import Caller, enters_at_once, tasks, through, ticks

pytestmark = pytest.mark.anyio


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

    async with bulkhead:
        with listening(told.append), pytest.raises(BulkheadFull) as raised:
            await through(face, bulkhead, never)

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
    assert await enters_at_once(Bulkhead(1))
