"""The bulkhead: whoever is cancelled, whenever, no slot is lost."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest

from resilient.errors import BulkheadFull
from resilient.strategies.bulkhead import Bulkhead
from strategies.bulkheads import is_empty
from strategies.callers import Caller, How, tasks, ticks, ways_to_cancel

pytestmark = pytest.mark.anyio


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
