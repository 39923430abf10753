"""All that the test kit knows of the inside of asyncio: attributes that are private, and may change with any version of Python.

`InterleavedLoop` runs ready tasks in an order that a seed decides. Each task is a *lane*, and all callbacks that are of no task
(timers, sockets, callbacks of futures) are one more: whose turn it is is drawn, within a lane the order stays. So anything may
come before anything that is ready too, as on a busy machine, and nothing before what brought it about.

The lanes are numbered as the tasks are made: sets of tasks, by which they may be woken, have another order in each process.
All mutable state: that of `_Lanes`.
"""

import asyncio
import bisect
import math
import weakref
from collections import deque
from random import Random
from typing import Any

__all__ = ("InterleavedLoop", "pending_timers", "waits_for")


def waits_for(task: asyncio.Task[Any]) -> object:
    """The future that a task waits for; None where it is ready."""
    return getattr(task, "_fut_waiter", None)


def pending_timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    """The timers that are set and not cancelled. uvloop does not show its own: an empty list."""
    return [timer for timer in getattr(loop, "_scheduled", ()) if not timer.cancelled() and timer.when() < math.inf]


def _is_task(thing: object) -> bool:
    return isinstance(thing, asyncio.Task)


class InterleavedLoop(asyncio.SelectorEventLoop):
    """An event loop that draws which of the ready tasks runs next."""

    _ready: "_Lanes"

    def interleave(self, random: Random) -> None:
        """Begin to do so. To be called before anything is scheduled."""
        self._ready = _Lanes(random)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        if isinstance(self._ready, _Lanes):
            self._ready.number(task)
        return task


class _Lanes:
    """A queue of handles, as far as event loops use one."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._numbers: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._given = 0  # 0 is the lane of what is of no task
        self._lanes: dict[int, deque[asyncio.Handle]] = {}
        self._order: list[int] = []  # the numbers of the lanes that are not empty, sorted
        self._length = 0

    def number(self, task: object) -> int:
        """The number of the task's lane."""
        if task not in self._numbers:
            self._given += 1
            self._numbers[task] = self._given
        return self._numbers[task]

    def append(self, handle: asyncio.Handle) -> None:
        owner: object = getattr(
            getattr(handle, "_callback", None), "__self__", None
        )  # a step or a wake-up is a method of its task
        number = self.number(owner) if _is_task(owner) else 0
        lane = self._lanes.get(number)
        if lane is None:
            lane = self._lanes[number] = deque()
            bisect.insort(self._order, number)
        lane.append(handle)
        self._length += 1

    def popleft(self) -> asyncio.Handle:
        index = self._random.randrange(len(self._order))
        number = self._order[index]
        lane = self._lanes[number]
        handle = lane.popleft()
        if not lane:
            del self._lanes[number], self._order[index]
        self._length -= 1
        return handle

    def __len__(self) -> int:
        return self._length

    def clear(self) -> None:
        self._lanes.clear()
        self._order.clear()
        self._length = 0
