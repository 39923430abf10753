"""What happened inside of a gate and is not told yet, and how its refusals are counted.

Refusals come in runs, and an overload must not flood the log: the first of a run is logged, those after it are counted, and the
number is told when a permit is granted again, a second after the first at the earliest. Listeners hear each of them. A gate
has an outbox only while there are events in it or a run goes on. Where no gate of the process has one, nobody looks for any.

All mutable state: the events, whether they are being told, and the run: its length, its beginning, its reason; and the list
`outboxes`, as long as there are outboxes.
"""

from typing import Final, Self

from resilient.observe.events import Event, RejectionsEnded

__all__ = ("Outbox", "outboxes")

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
