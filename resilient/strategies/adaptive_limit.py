"""Adaptive limit: a bulkhead that finds out by itself how many calls at a time a service takes.

The slots and the line are those of `slots.py`, their number is estimated by `concurrency.py`. Healthy outcomes tell it their
latency, from the admission to the return of the value; throttled and unhealthy ones are drops; cancellation, rejections and what
a caller's own deadline ended tell nothing. A slot is out until a lingering value has ended, and its sample is told then.

All mutable state: that of the two. When a task entered a block is kept in its context (`_entered`).
"""

import math
from contextvars import ContextVar
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Final, Self

from resilient import clock
from resilient._arguments import Duration, integer
from resilient.chance import source as _random
from resilient.observe.events import LimitChanged
from resilient.observe.listeners import sink
from resilient.outcome import SUCCESS, Classifier, Health, Verdict, judge
from resilient.strategies.concurrency import Concurrency
from resilient.strategies.outbox import announce
from resilient.strategies.slots import Slots

__all__ = ("AdaptiveLimit", "AdaptiveLimitStatistics")

_INITIAL: Final = 20
_OUT_OF_DATE: Final = 600.0
"""Seconds without an outcome after which what it knows is worth no more than what a new one does."""

_Entered = tuple[tuple["AdaptiveLimit", float], ...]
_entered: ContextVar[_Entered] = ContextVar("resilient_adaptive_limits", default=())
"""The blocks that this task is in, and since when: an instance is shared by many."""


@dataclass(frozen=True, slots=True)
class AdaptiveLimitStatistics:
    """A snapshot of an adaptive limit.

    Attributes:
        active: calls that are in flight.
        queued: callers that wait in line.
        limit: how many may be in flight now.
        baseline: seconds that a call takes where the service has room, as far as is known; else None.
        probing: whether the limit is low for a moment, to see how fast the service can be.
        minimum: the lowest limit.
        maximum: the highest limit.
        max_queue: how many may wait.

    """

    active: int
    queued: int
    limit: int
    baseline: float | None
    probing: bool
    minimum: int
    maximum: int
    max_queue: int


class AdaptiveLimit(Slots):
    """As many calls at a time as the service takes without getting slower; of the others `max_queue` wait in line.

    It is also a block: `async with limit: ...`. A free slot is taken without a checkpoint.

    Args:
        initial: the limit at first, from `minimum` to `maximum` (default 20, or what of it is in that range).
        minimum: the lowest limit, at least 1 (default 1).
        maximum: the highest limit, at least `minimum` (default 200).
        max_queue: how many callers may wait for a slot, at least 0 (default 0: refuse at once).
        queue_timeout: seconds that a caller may wait, at least 0; needs a queue. None (the default): as long as the
            deadline of the call allows.
        classify: says which outcomes are healthy (default: as the pipeline does; elsewhere every exception is a drop).
        name: what it is called in errors, events and logs.
        random: the source of jitter, for tests.

    Raises:
        BulkheadFull: from a call or a block, when no slot is free and the queue is full, or none came free in time. Where
            a cancel scope around (a `Timeout`, a `deadline()` block) ends the wait, its own error surfaces instead.

    A waiter that is cancelled leaves the line; a call that is cancelled gives its slot back, and tells nothing. The limit moves
    once in a window: a second or more, and twenty outcomes or more.

    """

    __slots__ = ("_concurrency", "_initial", "_random", "classifier", "maximum", "minimum")

    def __init__(
        self,
        initial: int | None = None,
        *,
        minimum: int = 1,
        maximum: int = 200,
        max_queue: int = 0,
        queue_timeout: Duration | None = None,
        classify: Classifier | None = None,
        name: str = "adaptive_limit",
        random: Random | None = None,
    ) -> None:
        self.minimum = integer("minimum", minimum)
        self.maximum = integer("maximum", maximum, at_least=self.minimum)
        self._initial = _first(initial, self.minimum, self.maximum)
        super().__init__(name, self._initial, max_queue, queue_timeout)
        self.classifier = classify
        self._random = random or _random
        self._concurrency = Concurrency(self._initial)

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        if verdict.throttled or verdict.health is Health.UNHEALTHY:
            self._hear(None, now)
        elif verdict.health is Health.HEALTHY:
            self._hear(latency, now)
        self._release()

    def _hear(self, latency: float | None, now: float) -> None:
        why = self._concurrency.hear(now, latency, self._active, self.minimum, self.maximum, self._random)
        if why is None:
            return
        old, new = self.max_concurrent, self._concurrency.slots
        self.resize(new)
        if sink():
            self.leave(LimitChanged(at=now, strategy=self.name, old=old, new=new, why=why))

    async def __aenter__(self) -> None:
        await super().__aenter__()
        _entered.set((*_entered.get(), (self, clock.now())))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        blocks = _entered.get()
        for index in range(len(blocks) - 1, -1, -1):
            entered, since = blocks[index]
            if entered is self:
                _entered.set((*blocks[:index], *blocks[index + 1 :]))
                now = clock.now()
                verdict = SUCCESS if error is None else judge(self.classifier, error, error=True)
                self.settle(verdict, now - since, now)
                announce(self)
                return
        self._release()  # another task has entered it: nobody knows when

    @property
    def initial(self) -> int:
        """The limit at first."""
        return self._initial

    @property
    def limit(self) -> int:
        """How many calls may be in flight now."""
        return self.max_concurrent

    def sibling(self) -> Self:
        return type(self)(
            self._initial,
            minimum=self.minimum,
            maximum=self.maximum,
            max_queue=self.max_queue,
            queue_timeout=self.queue_timeout,
            classify=self.classifier,
            name=self.name,
            random=self._random,
        )

    def is_fresh(self, now: float) -> bool:
        return not self._active and now - self._concurrency.heard_at >= _OUT_OF_DATE

    def retune(self, template: Self) -> bool:
        """Take over the settings of `template`. The limit stays where it is, as far as it is in the new range."""
        if self._concurrency.heard_at == -math.inf:
            self._concurrency.limit = template.initial
        self._initial, self.minimum, self.maximum = template.initial, template.minimum, template.maximum
        self.max_queue, self.queue_timeout = template.max_queue, template.queue_timeout
        self.classifier, self.name = template.classifier, template.name
        self._concurrency.limit = min(max(self._concurrency.limit, self.minimum), self.maximum)
        self.resize(self._concurrency.slots)
        return True

    def statistics(self) -> AdaptiveLimitStatistics:
        """A snapshot."""
        known = self._concurrency
        return AdaptiveLimitStatistics(
            self._active, self._queued, self.limit, known.baseline, known.probing, self.minimum, self.maximum, self.max_queue
        )

    def __repr__(self) -> str:
        now = self.statistics()
        baseline = "" if now.baseline is None else f", {now.baseline * 1000:.3g} ms where there is room"
        bounds = f"{now.minimum} to {now.maximum}"
        return (
            f"<AdaptiveLimit {self.name!r}: {now.active} of {now.limit} active, {now.queued} of {now.max_queue} queued, "
            f"limit {bounds}{baseline}>"
        )


def _first(initial: int | None, minimum: int, maximum: int) -> int:
    if initial is None:
        return min(max(_INITIAL, minimum), maximum)
    if integer("initial", initial, at_least=minimum) > maximum:
        msg = f"initial={initial!r} is out of range: expected at most maximum={maximum}; raise maximum"
        raise ValueError(msg)
    return initial
