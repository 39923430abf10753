"""What happened inside of a gate and is not told yet, and how its refusals are counted.

Refusals come in runs, and an overload must not flood the log: the first of a run is logged, those after it are counted, and the
number is told when a permit is granted again, a second after the first at the earliest. Listeners hear each of them. A gate
has an outbox only while there are events in it or a run goes on. Where no gate of the process has one, nobody looks for any.

All mutable state: the events, whether they are being told, and the run: its length, its beginning, its reason; and the list
`outboxes`, as long as there are outboxes.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from resilient import clock
from resilient.context import Attempt, Plain, attempt_of
from resilient.errors import Rejected
from resilient.observe.events import CallRejected, Event, RejectionsEnded
from resilient.observe.listeners import ears, emit_notable, sink

if TYPE_CHECKING:
    from resilient.strategies.gate import Gate

__all__ = ("Outbox", "announce", "leave_rejection", "outboxes")

_SHORTEST_RUN: Final = 1.0
"""Seconds: where grants and refusals alternate, each gate has two lines in so much time, and no more."""
_LONGEST_RUN: Final = 60.0
"""Seconds: where no permit is granted at all, the number is told so often."""


outboxes: Final[list[None]] = []
"""An entry for each outbox that there is: guards look here first, at every call. (A number would be no safe count in threads.)"""


class Outbox:
    """What happened inside of a gate and is not told yet, and the run of refusals that goes on. None where there is neither."""

    __slots__ = ("began", "events", "reason", "rejections", "telling")

    def __new__(cls) -> Self:
        outboxes.append(None)  # here, as a copy is made without `__init__`, and deleted all the same
        return super().__new__(cls)

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.telling = False
        self.rejections = 0  # of the run; 0 where none goes on
        self.began = 0.0
        self.reason = ""

    def __del__(self) -> None:
        outboxes.pop()

    def count(self, strategy: str, reason: str, now: float) -> int:
        """Which refusal of its run a new one is."""
        if self.rejections and now - self.began >= _LONGEST_RUN:
            self.end_run(strategy, now)
        if not self.rejections:
            self.began, self.reason = now, reason
        self.rejections += 1
        return self.rejections

    def end_run(self, strategy: str, now: float) -> None:
        """End the run, unless it is too young."""
        seconds = now - self.began
        if not self.rejections or seconds < _SHORTEST_RUN:
            return
        if self.rejections > 1:
            told = RejectionsEnded(at=now, strategy=strategy, reason=self.reason, rejections=self.rejections, seconds=seconds)
            self.events.append(told)
        self.rejections = 0


def announce(gate: "Gate", attempt: Attempt | None = None, *, granted: bool = False) -> None:
    """Tell what happened inside a gate, after it is over: a listener that calls the gate finds it in order.

    What a listener brings about in the same gate is told in its turn: everyone hears the events in the order of their making.
    `granted` says that a permit was granted just now.
    """
    outbox = gate.outbox
    if outbox is None or outbox.telling:
        return
    if granted:
        outbox.end_run(gate.name, clock.now())
    outbox.telling = True
    try:
        for event in outbox.events:  # it may grow meanwhile
            if attempt is None:
                emit_notable(sink(), event)
            else:
                attempt.notify(event if event.call_id else replace(event, key=attempt.key, call_id=attempt.identify()))
    finally:
        outbox.telling = False
        outbox.events.clear()
        if not outbox.rejections:
            gate.outbox = None


def leave_rejection(gate: "Gate", rejection: Rejected, call: Attempt | Plain | None = None) -> None:
    """Put the rejection into the outbox of the gate that refused; not that of a hedge, which its race tells of."""
    key = None
    if isinstance(call, Attempt):
        if call.kind == "hedge":
            return
        key = call.key
    rejection.key = key
    now = clock.now()
    nth = getattr(rejection, "rejections", 0)  # a breaker counts by itself, and tells when it closes
    if not nth:
        if gate.outbox is None:
            gate.outbox = Outbox()
        nth = gate.outbox.count(gate.name, rejection.reason, now)
    if nth > 1 and not (ears and sink()):
        return  # only the first refusal of a run is what an operator must see
    event = CallRejected(
        at=now,
        key=key,
        call_id=attempt_of(call).identify() if call is not None else 0,
        strategy=gate.name,
        reason=rejection.reason,
        retry_after=rejection.retry_after,
        nth=nth,
    )
    gate.leave(event)
