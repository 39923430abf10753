"""Slots: so many at a time, a bounded line behind them. What a bulkhead and an adaptive limit have in common.

A slot that is given back while somebody waits is handed to the first in line and never counted as free in between, so a
newcomer cannot snatch it. A waiter that is cancelled in the very tick in which it was handed the slot passes it on. How many
slots there are may change: where there are fewer than are out, those that come back are handed to nobody until it fits.

All mutable state: how many slots there are (`max_concurrent`), the number of those that are out (`_active`), and the line of
waiters, made when somebody first waits.
"""

from types import TracebackType

import anyio.lowlevel

from resilient import _switch, clock
from resilient._arguments import Duration, integer, seconds
from resilient.context import call_time_left
from resilient.errors import BulkheadFull
from resilient.outcome import Verdict
from resilient.strategies.gate import Gate, Permit
from resilient.strategies.outbox import announce
from resilient.strategies.waiting import Line, Waiter, tell_wait

__all__ = ("Slots",)


class Slots(Gate):
    """The base of gates that bound how many calls run at a time. It is also a block."""

    __slots__ = ("_active", "_line", "max_concurrent", "max_queue", "queue_timeout")

    refusal = BulkheadFull

    lingers = True
    """It is the permit that it grants: slots are all alike. They are out until a lingering value has ended."""

    def __init__(self, name: str, max_concurrent: int, max_queue: int, queue_timeout: Duration | None) -> None:
        super().__init__(name)
        self.max_concurrent: int = max_concurrent
        self.max_queue: int = integer("max_queue", max_queue, at_least=0)
        self.queue_timeout: float | None = None if queue_timeout is None else seconds("queue_timeout", queue_timeout)
        if queue_timeout is not None and not max_queue:
            msg = f"queue_timeout={queue_timeout!r} has no effect without a queue: give max_queue too, e.g. max_queue=100"
            raise ValueError(msg)
        self._active = 0
        self._line: Line | None = None

    def admit(self, now: float) -> Permit | None:
        if self._active < self.max_concurrent:
            self._active += 1
            return self
        if self._queued >= self.max_queue:
            raise self._full()
        return None

    async def wait(self, deadline: float) -> Permit:
        if self._line is None:
            self._line = Line()
        line, started = self._line, clock.now()
        limit = call_time_left(deadline)  # cancel scopes around end the sleep by themselves
        waiter = Waiter()
        line[waiter] = 1
        try:
            await waiter.sleep(limit if self.queue_timeout is None else min(limit, self.queue_timeout))
        except BaseException:
            if waiter.woken:
                self._release()
            else:
                line.pop(waiter, None)  # it is not there where its event loop was closed
            raise
        if waiter.woken:
            tell_wait(self, started)
            return self
        del line[waiter]
        await anyio.lowlevel.checkpoint_if_cancelled()  # a scope around that ended in the same instant comes first
        raise self._full(waited=clock.now() - started)

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        if self._line:
            self._release()
        else:
            self._active -= 1

    async def __aenter__(self) -> None:
        if self._active < self.max_concurrent or not _switch.enabled:
            self._active += 1
            if self.outbox:
                announce(self, granted=True)
        else:
            await self.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def _release(self) -> None:
        """Hand a slot to the first in line; it is free only where nobody waits."""
        line = self._line
        while line and self._active <= self.max_concurrent:
            first, _ = line.popitem(last=False)
            if first.wake():
                return
        self._active -= 1

    def resize(self, max_concurrent: int) -> None:
        """Have so many slots from now on. New ones go to those who wait; what is out stays out until it comes back."""
        self.max_concurrent = max_concurrent
        line = self._line
        while line and self._active < max_concurrent:
            first, _ = line.popitem(last=False)
            self._active += first.wake()

    def refuse(self, now: float) -> BulkheadFull:
        return self._full()

    def _full(self, waited: float = 0.0) -> BulkheadFull:
        return BulkheadFull(self.name, None, self._active, self._queued, waited)

    @property
    def _queued(self) -> int:
        return len(self._line) if self._line else 0
