"""The timeline: the ordered record of what happened, attempt by attempt.

`with record_timeline() as timeline:` keeps the events of every call made inside the block. Whether or not that is done,
`Retry` keeps a bounded one of a call from its first failed attempt on, and `timeline_of(error)` gives it. A timeline is
a plain listener that remembers; `render()` draws it as a waterfall.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

from resilient.observe.events import (
    AttemptFinished,
    BreakerStateChanged,
    CallFinished,
    CallRejected,
    Event,
    FallbackUsed,
    RetryScheduled,
    RetryStopped,
    TimedOut,
)
from resilient.observe.listeners import listening

__all__ = ("Timeline", "attach", "record_timeline", "timeline_of")

_ATTRIBUTE: Final = "__resilient_timeline__"
_LIMIT: Final = 1000


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
        self.limit = limit

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

    def __repr__(self) -> str:
        return f"<Timeline: {len(self.events)} events, {len(self.attempts)} attempts, {self.dropped} dropped>"

    def render(self, width: int = 40) -> str:
        """A waterfall in text: a line for each attempt, wait and intervention. `width` is that of the bars, in characters."""
        return _render(self, width)


@contextlib.contextmanager
def record_timeline(limit: int = _LIMIT) -> Iterator[Timeline]:
    """Record what happens in the calls made inside the block; at most `limit` events are kept (default 1000)."""
    timeline = Timeline(limit)
    with listening(timeline):
        yield timeline


def attach(error: BaseException, timeline: Timeline) -> None:
    """Keep the timeline with the exception that surfaces."""
    with contextlib.suppress(AttributeError):  # an exception class with __slots__ has no place for it
        setattr(error, _ATTRIBUTE, timeline)


def timeline_of(error: BaseException) -> Timeline | None:
    """What led to this exception, or None where it passed through no retry that failed."""
    found = getattr(error, _ATTRIBUTE, None)
    return found if isinstance(found, Timeline) else None


def _render(timeline: Timeline, width: int) -> str:
    events = timeline.events
    if not events:
        return "(nothing happened)"
    begin = min(_begin(event) for event in events)
    span = max(max(_end(event) for event in events) - begin, 1e-9)
    lines: list[str] = []
    for event in events:
        label, detail = _describe(event)
        if not label:
            continue
        left = min(width - 1, round((_begin(event) - begin) / span * width))
        bar = max(1, round((_end(event) - _begin(event)) / span * width))
        mark = {"wait": "·", "attempt": "█"}.get(label.split()[0], "▏")
        picture = (" " * left + mark * min(bar, width - left)).ljust(width)
        lines.append(f"{(_begin(event) - begin) * 1000:9.1f} ms │{picture}│ {label:<10} {detail}")
    if timeline.dropped:
        lines.append(f"({timeline.dropped} more events were not kept)")
    return "\n".join(lines)


def _begin(event: Event) -> float:
    return event.started if isinstance(event, (AttemptFinished, CallFinished)) else event.at


def _end(event: Event) -> float:
    return event.at + event.delay if isinstance(event, RetryScheduled) else event.at


def _describe(event: Event) -> tuple[str, str]:  # noqa: PLR0911  one line a kind of event
    match event:
        case AttemptFinished():
            kind = "" if event.kind == "original" else f" ({event.kind})"
            error = f" {event.error}" if event.error else ""
            return f"attempt {event.number}", f"{event.verdict.reason}{error}{kind} {(event.at - event.started) * 1000:.1f} ms"
        case RetryScheduled():
            return "wait", f"{event.delay * 1000:.1f} ms, from {event.delay_source}"
        case RetryStopped():
            return "stop", event.reason
        case CallRejected():
            return "rejected", f"{event.reason} by {event.strategy}"
        case BreakerStateChanged():
            return "breaker", f"{event.old} → {event.new} ({event.why})"
        case TimedOut():
            return "timeout", f"after {event.seconds:.3g} s"
        case FallbackUsed():
            return "fallback", f"instead of {event.verdict.reason}"
        case CallFinished():
            degraded = ", degraded" if event.degraded else ""
            return "call", f"{event.reason}, {event.attempts} attempts, {(event.at - event.started) * 1000:.1f} ms{degraded}"
        case _:
            return "", ""
