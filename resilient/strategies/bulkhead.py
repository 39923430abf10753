"""Bulkhead: so many calls at a time, a bounded number waiting in line, the rest refused.

The slots and the line are those of `slots.py`. A slot is given back when the call has ended, and where its value lives on (a
streamed response), when that has ended.
"""

from dataclasses import dataclass
from typing import Self

from resilient._arguments import Duration, integer
from resilient.strategies.slots import Slots

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


class Bulkhead(Slots):
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

    __slots__ = ()

    def __init__(
        self,
        max_concurrent: int,
        *,
        max_queue: int = 0,
        queue_timeout: Duration | None = None,
        name: str = "bulkhead",
    ) -> None:
        super().__init__(name, integer("max_concurrent", max_concurrent), max_queue, queue_timeout)

    def sibling(self) -> Self:
        return type(self)(self.max_concurrent, max_queue=self.max_queue, queue_timeout=self.queue_timeout, name=self.name)

    def is_fresh(self, now: float) -> bool:
        return not self._active

    def retune(self, template: Self) -> bool:
        self.name = template.name
        self.max_queue, self.queue_timeout = template.max_queue, template.queue_timeout
        self.resize(template.max_concurrent)
        return True

    def statistics(self) -> BulkheadStatistics:
        """A snapshot."""
        return BulkheadStatistics(self._active, self._queued, self.max_concurrent, self.max_queue)

    def __repr__(self) -> str:
        return (
            f"<Bulkhead {self.name!r}: {self._active} of {self.max_concurrent} active, {self._queued} of {self.max_queue} queued>"
        )
