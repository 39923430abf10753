"""Waiting in line: what the queues of bulkheads and rate limiters are made of.

A `Waiter` is one task that sleeps until it is woken. A `Line` is an ordered dictionary of them: to leave it takes constant
time from any place, so that thousands of cancelled waiters cost no more than as many that were served. On asyncio a waiter
sleeps on a bare future, which costs a third of an `anyio.Event`. One whose event loop was closed under it is *lost*: nobody
is there any more, and who is next takes its place.

All mutable state of a waiter: the `_signal` that it sleeps on, and whether it was `woken`.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import anyio

from resilient import clock
from resilient.observe.events import Waited
from resilient.observe.listeners import sink

if TYPE_CHECKING:
    from resilient.strategies.gate import Gate

__all__ = ("Line", "Waiter", "tell_wait")


def tell_wait(gate: "Gate", since: float) -> None:
    """Leave word of a wait that has just ended with a permit, where somebody listens."""
    if sink():
        now = clock.now()
        gate.leave(Waited(at=now, strategy=gate.name, seconds=now - since))


class Waiter:
    """One task that waits.

    Attributes:
        woken: whether it was woken, be it that it has not run since.

    """

    __slots__ = ("_signal", "woken")

    def __init__(self) -> None:
        self._signal: asyncio.Future[None] | anyio.Event | None = None
        self.woken = False

    def sleep(self, limit: float) -> Awaitable[None]:
        """Sleep until woken, for at most `limit` seconds."""
        return self._asleep() if limit == math.inf else self._asleep_for(limit)

    async def _asleep_for(self, limit: float) -> None:
        sleeping = self._asleep()
        if isinstance(sleeping, asyncio.Future):  # a timer takes half the time of a cancel scope
            timer = sleeping.get_loop().call_later(limit, _end_sleep, sleeping)
            try:
                await sleeping
            finally:
                timer.cancel()
        else:
            with anyio.move_on_after(limit):
                await sleeping

    def _asleep(self) -> Awaitable[None]:
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no event loop of asyncio runs
            task = None
        if task is None:
            self._signal = event = anyio.Event()
            return event.wait()
        self._signal = future = task.get_loop().create_future()
        return future

    def wake(self) -> bool:
        """Let it go on, in the next round of its event loop. False where it is lost."""
        if self.lost:
            return False
        self.woken = True
        _end_sleep(self._signal)
        return True

    @property
    def lost(self) -> bool:
        """Whether its event loop is closed, so that it will never run again."""
        return isinstance(self._signal, asyncio.Future) and self._signal.get_loop().is_closed()


Line = OrderedDict[Waiter, int]
"""Those who wait, first come, first served, with how much each of them wants."""


def _end_sleep(signal: asyncio.Future[None] | anyio.Event | None) -> None:
    if isinstance(signal, anyio.Event):
        signal.set()
    elif signal is not None and not signal.done():
        signal.set_result(None)
