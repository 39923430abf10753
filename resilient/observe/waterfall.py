"""The waterfall: a timeline as text.

Each call has a line of its own, and below it what happened inside, in the order in which it began: attempts as bars, waits
as dots, everything else as a mark where it happened. The bars of a call share one scale. What is shorter than a
character is drawn as a thin mark, and a wait that was cut short ends where it was cut: no bar is longer than what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from resilient.observe.events import (
    AttemptFinished,
    BreakerStateChanged,
    CallFinished,
    CallRejected,
    ChaosInjected,
    Event,
    FallbackUsed,
    HedgeFinished,
    HedgeStarted,
    LimitChanged,
    RetryScheduled,
    RetryStopped,
    TimedOut,
    Waited,
)
from resilient.observe.text import milliseconds, safe_text

__all__ = ("render",)

_ATTEMPT: Final = "█"
_WAIT: Final = "·"
_MARK: Final = "▏"


@dataclass(frozen=True, slots=True)
class _Row:
    begin: float
    end: float
    label: str
    detail: str
    fill: str = _MARK

    @property
    def duration(self) -> str:
        return "" if self.fill == _MARK else milliseconds(self.end - self.begin)


def render(events: Sequence[Event], dropped: int, width: int) -> str:
    """The waterfall of `events`, with bars of `width` characters. `dropped` events are missing from the record."""
    calls: dict[int, list[Event]] = {}
    for event in events:
        calls.setdefault(event.call_id, []).append(event)
    origin = min((_begin(event) for event in events), default=0.0)
    blocks = [_call(call, origin, width) for call in calls.values()]
    if dropped:
        blocks.append(f"({dropped} more events were not kept)")
    return "\n\n".join(blocks) or "(nothing happened)"


def _call(events: list[Event], origin: float, width: int) -> str:
    """One call: its line, and the rows below."""
    begin = min(_begin(event) for event in events)
    finished = next((event for event in events if isinstance(event, CallFinished)), None)
    over = finished.at if finished is not None else max(event.at for event in events)
    rows = sorted((row for event in events if (row := _row(event, events, over))), key=lambda row: row.begin)
    end = max([over, *(row.end for row in rows)])
    later = f", {milliseconds(begin - origin)} after the first" if begin > origin else ""
    head = f"{_title(events, finished)}, {milliseconds(end - begin)}{later}"
    label_width = max((len(row.label) for row in rows), default=0)
    lines = [
        f"{milliseconds(row.begin - begin):>11} │{_bar(row, begin, end, width)}│ "
        f"{row.label:<{label_width}} {row.duration:>10}  {row.detail}".rstrip()
        for row in rows
    ]
    return "\n".join([head, *lines])


def _title(events: list[Event], finished: CallFinished | None) -> str:
    """What was called, and what came of it."""
    if not events[0].call_id:
        return "outside of a call"
    key = next((f" {safe_text(event.key)}" for event in events if event.key), "")
    attempts = [event for event in events if isinstance(event, AttemptFinished)]
    if finished is not None:
        result = _outcome(finished.reason, finished.error) + (", degraded" if finished.degraded else "")
    else:
        result = _outcome(attempts[-1].verdict.reason, attempts[-1].error) if attempts else "not finished"
    made = finished.attempts if finished is not None else len(attempts)
    return f"call{key}: {result}, {made} attempt{'' if made == 1 else 's'}"


def _row(event: Event, events: list[Event], over: float) -> _Row | None:  # noqa: C901, PLR0911, PLR0912  one line a type of event
    match event:
        case AttemptFinished():
            kind = f", {event.kind.replace('_', ' ')}" if event.kind in {"hedge", "transparent_retry"} else ""
            kind += f" {event.hedge}" if event.hedge > 1 else ""
            detail = _outcome(event.verdict.reason, event.error)
            return _Row(event.started, event.at, f"attempt {event.number}{kind}", detail, _ATTEMPT)
        case RetryScheduled():
            return _wait(event, events, over)
        case RetryStopped():
            return _Row(event.at, event.at, "stopped", safe_text(event.reason))
        case CallRejected():
            return _Row(event.at, event.at, "rejected", safe_text(f"{event.reason} by {event.strategy}"))
        case BreakerStateChanged():
            watching = " (monitor-only)" if event.monitor_only else ""
            return _Row(event.at, event.at, "breaker", safe_text(f"{event.old} → {event.new}, {event.why}{watching}"))
        case Waited():
            return _Row(_begin(event), event.at, "queue", safe_text(event.strategy), _WAIT)
        case LimitChanged():
            return _Row(event.at, event.at, "limit", safe_text(f"{event.strategy} {event.old:g} → {event.new:g}, {event.why}"))
        case TimedOut():
            return _Row(event.at, event.at, "timeout", f"limit {milliseconds(event.seconds)}")
        case ChaosInjected():
            what = f"latency of {milliseconds(event.seconds)}" if event.kind == "latency" else f"{event.kind} {event.error}"
            return _Row(event.at, event.at, "chaos", safe_text(f"{what.rstrip()} by {event.strategy}"))
        case HedgeStarted():
            why = "no answer yet" if event.why == "delay" else event.why
            return _Row(event.at, event.at, f"hedge {event.hedge}", safe_text(f"started: {why}"))
        case HedgeFinished():
            return _Row(event.at, event.at, f"hedge {event.hedge}", safe_text(f"{event.result}: {event.why}"))
        case FallbackUsed():
            return _Row(event.at, event.at, "fallback", f"instead of {_outcome(event.verdict.reason, event.error)}")
        case _:
            return None


def _wait(event: RetryScheduled, events: list[Event], over: float) -> _Row | None:
    if not event.delay:
        return None
    planned = event.at + event.delay
    # What is recorded after the wait began says when it ended; without any such record it is still going on.
    end = min(planned, over) if any(other.at > event.at for other in events) else planned
    cut = f", cut short of {milliseconds(event.delay)}" if end < planned else ""
    return _Row(event.at, end, "wait", f"{_SOURCES[event.delay_source]}{cut}", _WAIT)


_SOURCES: Final = {"backoff": "backoff", "server": "asked for by the server", "none": ""}


def _outcome(reason: str, error: str) -> str:
    return safe_text(f"{reason} {error}".rstrip())


def _bar(row: _Row, begin: float, end: float, width: int) -> str:
    scale = width / max(end - begin, 1e-9)
    left, right = round((row.begin - begin) * scale), round((row.end - begin) * scale)
    if row.fill == _MARK or right == left:
        left, right, fill = min(left, width - 1), min(left, width - 1) + 1, _MARK
    else:
        fill = row.fill
    return (" " * left + fill * (right - left)).ljust(width)


def _begin(event: Event) -> float:
    if isinstance(event, Waited):
        return event.at - event.seconds
    return event.started if isinstance(event, (AttemptFinished, CallFinished)) else event.at
