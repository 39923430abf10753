"""Bulkhead: so many calls at a time, a bounded number waiting in line, the rest refused.

A slot that is given back while somebody waits is handed to the first in line and never counted as free in between, so a
newcomer cannot snatch it. A waiter that is cancelled in the very tick in which it was handed the slot passes it on. A slot
is given back when the call has ended, and where its value lives on (a streamed response), when that has ended.

All mutable state: the number of slots that are out (`_active`), and the line of waiters, made when somebody first waits.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio.lowlevel

from resilient import _switch, clock
from resilient._arguments import Duration, integer, seconds
from resilient.context import call_time_left
from resilient.errors import BulkheadFull
from resilient.outcome import Verdict
from resilient.strategies.gate import Gate
from resilient.strategies.waiting import Line, Waiter

__all__ = ("Bulkhead", "BulkheadStatistics")


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A snapshot of a bulkhead.

    Attributes:
        active: slots that are out.
        queued: callers that wait in line.
        max_concurrent: how many slots there are.
        max_queue: how many may wait.

    """

    active: int
    queued: int
    max_concurrent: int
    max_queue: int


class Bulkhead(Gate):
    """At most `max_concurrent` calls at a time; of the others at most `max_queue` wait in line, first come, first served.

    It is also a block: `async with bulkhead: ...`. A free slot is taken without a checkpoint.

    Args:
        max_concurrent: how many calls may run at a time, at least 1.
        max_queue: how many callers may wait for a slot, at least 0 (default 0: refuse at once).
        queue_timeout: seconds that a caller may wait, at least 0; needs a queue. None (the default): as long as the
            deadline of the call allows.
        name: what it is called in errors, events and logs.

    Raises:
        BulkheadFull: from a call or a block, when no slot is free and the queue is full, or none came free in time. Where
            a cancel scope around (a `Timeout`, a `deadline()` block) ends the wait, its own error surfaces instead.

    A waiter that is cancelled leaves the line; a call that is cancelled gives its slot back. To enter a bulkhead again
    while holding a slot of it can wait for itself: bound such waits by `queue_timeout` or a deadline.

    """

    __slots__ = ("_active", "_line", "max_concurrent", "max_queue", "queue_timeout")

    refusal = BulkheadFull

    lingers = True
    """It is the permit that it grants: slots are all alike. They are out until a lingering value has ended."""

    def __init__(
        self,
        max_concurrent: int,
        *,
        max_queue: int = 0,
        queue_timeout: Duration | None = None,
        name: str = "bulkhead",
    ) -> None:
        super().__init__(name)
        self.max_concurrent = integer("max_concurrent", max_concurrent)
        self.max_queue = integer("max_queue", max_queue, at_least=0)
        self.queue_timeout = None if queue_timeout is None else seconds("queue_timeout", queue_timeout)
        if queue_timeout is not None and not max_queue:
            msg = f"queue_timeout={queue_timeout!r} has no effect without a queue: give max_queue too, e.g. max_queue=100"
            raise ValueError(msg)
        self._active = 0
        self._line: Line | None = None

    def admit(self, now: float) -> Self | None:
        if self._active < self.max_concurrent:
            self._active += 1
            return self
        if self._queued >= self.max_queue:
            raise self._full()
        return None

    async def wait(self, deadline: float) -> Self:
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
            return self
        del line[waiter]
        await anyio.lowlevel.checkpoint_if_cancelled()  # a scope around that ended in the same instant comes first
        raise self._full(waited=clock.now() - started)

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self._release()

    async def __aenter__(self) -> None:
        if self._active < self.max_concurrent or not _switch.enabled:
            self._active += 1
        else:
            await self.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def _release(self) -> None:
        """Hand a slot to the first in line; it is free only where nobody waits."""
        line = self._line
        while line:
            first, _ = line.popitem(last=False)
            if first.wake():
                return
        self._active -= 1

    def refuse(self, now: float) -> BulkheadFull:
        return self._full()

    def _full(self, waited: float = 0.0) -> BulkheadFull:
        return BulkheadFull(self.name, None, self._active, self._queued, waited)

    @property
    def _queued(self) -> int:
        return len(self._line) if self._line else 0

    def sibling(self) -> Self:
        return type(self)(self.max_concurrent, max_queue=self.max_queue, queue_timeout=self.queue_timeout, name=self.name)

    def is_fresh(self, now: float) -> bool:
        return not self._active

    def statistics(self) -> BulkheadStatistics:
        """A snapshot."""
        return BulkheadStatistics(self._active, self._queued, self.max_concurrent, self.max_queue)

    def __repr__(self) -> str:
        return (
            f"<Bulkhead {self.name!r}: {self._active} of {self.max_concurrent} active, {self._queued} of {self.max_queue} queued>"
        )
