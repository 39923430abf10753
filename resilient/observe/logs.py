"""The log lines that an operator must see: a retry, a rejection, a change of state, a timeout, a fallback.

They are on by default and need no setting up; a call that succeeds at once logs nothing. Each event is one line with a
stable name, `resilient.retry_scheduled` say, and stable fields; a field whose value is not known is left out. Where the
application has configured structlog, the line is an event of structlog's logger `resilient`; elsewhere it goes through
the logger `resilient` of the standard library, as `key=value` text. This module never imports structlog on its own
account: that takes a third of a second, and an application that has configured it has imported it.

All mutable state: `_levels`, and whether `log_event` is among the `notable` listeners.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args

from resilient.observe.events import (
    BreakerStateChanged,
    CallRejected,
    ChaosInjected,
    Event,
    FallbackUsed,
    HedgeFinished,
    HedgeStarted,
    PolicyRefused,
    PolicyReloaded,
    PolicyUnavailable,
    RejectionsEnded,
    RetryScheduled,
    RetryStopped,
    TimedOut,
)
from resilient.observe.listeners import notable
from resilient.observe.text import safe_text

__all__ = ("Level", "Line", "configure_logging", "log_event")

Level = Literal["debug", "info", "warning", "error", "critical"]

Line = Literal[
    "breaker_state_changed",
    "call_rejected",
    "chaos_injected",
    "fallback_used",
    "hedge_finished",
    "hedge_started",
    "policy_refused",
    "policy_reloaded",
    "policy_unavailable",
    "rejections_ended",
    "retry_scheduled",
    "retry_stopped",
    "timed_out",
]
"""The lines that there are, without the prefix `resilient.` that each has in the log."""

Fields = dict[str, Any]

_DEFAULT: Final[Level] = "warning"
_SILENT: Final = frozenset[Line]({"hedge_finished", "hedge_started"})
"""Lines that are off by default: hedges are ordinary business, one call in twenty."""
_levels: dict[str, Level | None] = {}
_stdlib: Final = logging.getLogger("resilient")


def configure_logging(*, levels: Mapping[Line, Level | None] | None = None, enabled: bool = True) -> None:
    """Say what the library logs. Each call replaces the settings of the one before; `configure_logging()` restores the defaults.

    Args:
        levels: the level of single lines, e.g. `{"retry_scheduled": "info", "timed_out": None}`; None switches a line off.
            Every line that is not named is a `"warning"`, but for those of hedges, which are off.
        enabled: False switches all lines off.

    Raises:
        ValueError: a line or a level that does not exist.

    """
    chosen: dict[str, Level | None] = {line: None if line in _SILENT else _DEFAULT for line in get_args(Line)}
    for line, level in (levels or {}).items():
        _check("levels", line, get_args(Line))
        if level is not None:
            _check(f"levels[{line!r}]", level, get_args(Level))
        chosen[line] = level
    _levels.clear()
    _levels.update(chosen)
    if log_event in notable:
        notable.remove(log_event)
    if enabled:
        notable.append(log_event)


def log_event(event: Event) -> None:
    """The listener that writes the lines; events that have none are ignored."""
    known = _LINES.get(type(event))
    if known is None:
        return
    line, fields_of = known
    level = _levels[line]
    fields = fields_of(event) if level is not None else None
    if level is None or fields is None:
        return
    _write(level, f"resilient.{line}", {"key": event.key, **fields, "call_id": event.call_id or None})


def _write(level: Level, name: str, fields: Fields) -> None:
    number = logging.getLevelNamesMapping()[level.upper()]
    structured = _structlog_is_configured()
    if not structured and not _stdlib.isEnabledFor(number):
        return
    told = {field: _plain(value) for field, value in fields.items() if value is not None and value != ""}
    if structured:
        import structlog  # noqa: PLC0415  see the top of this module

        getattr(structlog.get_logger("resilient"), level)(name, **told)
    else:
        text = " ".join((name, *(f"{field}={_quoted(value)}" for field, value in told.items())))
        _stdlib.log(number, "%s", text)


def _structlog_is_configured() -> bool:
    if "structlog" not in sys.modules:
        return False
    import structlog  # noqa: PLC0415  see the top of this module

    return structlog.is_configured()


def _plain(value: Any) -> Any:
    """Text made safe, seconds rounded to milliseconds."""
    if isinstance(value, str):
        return safe_text(value)
    return round(value, 3) if isinstance(value, float) else value


def _quoted(value: Any) -> str:
    text = str(value)
    if any(char in text for char in ' "='):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text


def _retry_scheduled(event: RetryScheduled) -> Fields:
    return {
        "attempt": event.number,
        "attempts": event.attempts,
        "reason": event.verdict.reason,
        "error": event.error,
        "delay": event.delay,
        "delay_source": event.delay_source,
        "time_left": event.time_left,
        "budget_left": event.budget_left,
    }


def _retry_stopped(event: RetryStopped) -> Fields:
    return {"attempts": event.attempts, "stopped": event.reason, "reason": event.verdict.reason, "error": event.error}


def _call_rejected(event: CallRejected) -> Fields | None:
    if event.nth > 1:  # the first of a run is told, and how many there were when it is over
        return None
    return {"strategy": event.strategy, "reason": event.reason, "retry_after": event.retry_after}


def _rejections_ended(event: RejectionsEnded) -> Fields:
    return {"strategy": event.strategy, "reason": event.reason, "rejections": event.rejections, "seconds": event.seconds}


def _breaker_state_changed(event: BreakerStateChanged) -> Fields:
    return {
        "strategy": event.strategy,
        "old": event.old,
        "new": event.new,
        "why": event.why,
        "open_for": event.open_for,
        "rejections": event.rejections if event.new == "closed" else None,
        "monitor_only": event.monitor_only or None,
    }


def _timed_out(event: TimedOut) -> Fields:
    return {"seconds": event.seconds}


def _fallback_used(event: FallbackUsed) -> Fields:
    return {"reason": event.verdict.reason, "error": event.error}


def _chaos_injected(event: ChaosInjected) -> Fields | None:
    if event.nth > 1:  # that it is on is what an operator must see
        return None
    return {"strategy": event.strategy, "kind": event.kind, "seconds": event.seconds or None, "error": event.error}


def _hedge_started(event: HedgeStarted) -> Fields:
    return {"attempt": event.number, "hedge": event.hedge, "why": event.why, "after": event.after}


def _hedge_finished(event: HedgeFinished) -> Fields:
    return {"attempt": event.number, "hedge": event.hedge, "result": event.result, "why": event.why}


def _policy_reloaded(event: PolicyReloaded) -> Fields:
    return {
        "provider": event.provider,
        "origin": event.origin,
        "source": event.source,
        "version": event.version,
        "policies": event.policies,
        "clamped": event.clamped or None,
    }


def _policy_refused(event: PolicyRefused) -> Fields:
    return {"provider": event.provider, "origin": event.origin, "why": event.why, "problems": event.problems}


def _policy_unavailable(event: PolicyUnavailable) -> Fields:
    return {
        "provider": event.provider,
        "origin": event.origin,
        "why": event.why,
        "serving": event.serving,
        "retry_in": event.retry_in,
    }


_LINES: Final[Mapping[type[Event], tuple[Line, Callable[[Any], Fields | None]]]] = {
    RetryScheduled: ("retry_scheduled", _retry_scheduled),
    RetryStopped: ("retry_stopped", _retry_stopped),
    CallRejected: ("call_rejected", _call_rejected),
    RejectionsEnded: ("rejections_ended", _rejections_ended),
    BreakerStateChanged: ("breaker_state_changed", _breaker_state_changed),
    ChaosInjected: ("chaos_injected", _chaos_injected),
    TimedOut: ("timed_out", _timed_out),
    FallbackUsed: ("fallback_used", _fallback_used),
    HedgeStarted: ("hedge_started", _hedge_started),
    HedgeFinished: ("hedge_finished", _hedge_finished),
    PolicyReloaded: ("policy_reloaded", _policy_reloaded),
    PolicyRefused: ("policy_refused", _policy_refused),
    PolicyUnavailable: ("policy_unavailable", _policy_unavailable),
}


def _check(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        msg = f"{name}={value!r}: expected one of {', '.join(map(repr, allowed))}"
        raise ValueError(msg)


configure_logging()
