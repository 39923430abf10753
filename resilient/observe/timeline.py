"""The timeline: the ordered record of what happened, attempt by attempt.

`with record_timeline() as timeline:` keeps the events of every call made inside the block. Whether or not that is done,
`Retry` keeps a bounded one of a call from its first failed attempt on, and `timeline_of(error)` gives it. A timeline is
a plain listener that remembers; `render()` draws it as a waterfall.
"""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from resilient._arguments import integer
from resilient.observe.events import AttemptFinished, CallFinished, CallRejected, CallStarted, Event, RetryScheduled
from resilient.observe.listeners import listening
from resilient.observe.waterfall import render
from resilient.outcome import SUCCESS, Kind

__all__ = ("Timeline", "TimelineStatistics", "attach", "record_timeline", "timeline_of")

_ATTRIBUTE: Final = "__resilient_timeline__"
_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class TimelineStatistics:
    """What the calls of a timeline add up to.

    Attributes:
        calls: how many ended.
        attempts: how many attempts they made.
        retries: how many waits for another attempt were begun.
        rejections: how often a strategy refused.
        total_delay: seconds of these waits together, as they were planned.
        success: whether the last attempt or call that is recorded ended well; False where nothing is.
        last_error: the type of the last exception of an attempt, whatever came after it; "" where none raised.

    """

    calls: int
    attempts: int
    retries: int
    rejections: int
    total_delay: float
    success: bool
    last_error: str


class Timeline:
    """An ordered, bounded record of events. It is itself a listener: call it with an event to add one.

    Attributes:
        events: what happened, oldest first.
        dropped: how many events were not kept because the record was full.

    """

    __slots__ = ("dropped", "events", "limit")

    def __init__(self, limit: int = _LIMIT) -> None:
        self.events: list[Event] = []
        self.dropped = 0
        self.limit = integer("limit", limit)

    def __call__(self, event: Event) -> None:
        if len(self.events) < self.limit:
            self.events.append(event)
        else:
            self.dropped += 1

    @property
    def attempts(self) -> list[AttemptFinished]:
        """The attempts, in the order in which they ended."""
        return [event for event in self.events if isinstance(event, AttemptFinished)]

    @property
    def calls(self) -> list[CallFinished]:
        """The calls that ended."""
        return [event for event in self.events if isinstance(event, CallFinished)]

    def statistics(self) -> TimelineStatistics:
        """What its calls add up to."""
        attempts = self.attempts
        delays = [event.delay for event in self.events if isinstance(event, RetryScheduled)]
        ends = [event for event in self.events if isinstance(event, (AttemptFinished, CallFinished))]
        return TimelineStatistics(
            calls=len(self.calls),
            attempts=len(attempts),
            retries=len(delays),
            rejections=sum(isinstance(event, CallRejected) for event in self.events),
            total_delay=sum(delays),
            success=bool(ends) and _ended_well(ends[-1]),
            last_error=next((event.error for event in reversed(attempts) if event.error), ""),
        )

    @property
    def attributes(self) -> dict[str, str]:
        """Which policy applied to the last call of an executor, and why: `policy_id`, `policy_source`, and so on."""
        started = [event for event in self.events if isinstance(event, CallStarted)]
        return started[-1].attributes if started else {}

    def __repr__(self) -> str:
        return f"<Timeline: {len(self.events)} events, {len(self.attempts)} attempts, {self.dropped} dropped>"

    def render(self, width: int = 40) -> str:
        """A waterfall in text: a line for each call, and below it one for each attempt, wait and intervention.

        Args:
            width: how wide the bars are, in characters, at least 1 (default 40).

        """
        return render(self.events, self.dropped, integer("width", width))


@contextlib.contextmanager
def record_timeline(limit: int = _LIMIT) -> Generator[Timeline]:
    """Record what happens in the calls made inside the block; at most `limit` events are kept (default 1000)."""
    timeline = Timeline(limit)
    with listening(timeline):
        yield timeline


def _ended_well(event: AttemptFinished | CallFinished) -> bool:
    return event.verdict.kind is Kind.SUCCESS if isinstance(event, AttemptFinished) else event.reason == SUCCESS.reason


def attach(outcome: object, timeline: Timeline) -> None:
    """Keep the timeline with the exception that surfaces, or with a value that lingers."""
    with contextlib.suppress(AttributeError):  # a class with __slots__ has no place for it
        setattr(outcome, _ATTRIBUTE, timeline)


def timeline_of(outcome: object) -> Timeline | None:
    """What led to this exception (or lingering value), or None where it passed through no retry that failed."""
    found = getattr(outcome, _ATTRIBUTE, None)
    return found if isinstance(found, Timeline) else None
