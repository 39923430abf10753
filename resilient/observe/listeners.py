"""Who hears events.

A listener is any callable that takes an event. It hears the calls of the whole process (`add_listener`), or those that
are made inside a block in the same task and its children (`listening`). It is called synchronously, outside of critical
sections; one that raises is reported once and never breaks the call. A class with one method per event is made a
listener by `Dispatch`; a `LiveListener` goes along with calls and attempts while they run.

All mutable state: the list `everywhere`, the context variable `_here`, the list `ears` of both, the set of listeners that were
`_reported`, and `notable`, where the logs plug in.
"""

import contextlib
import logging
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

from resilient.observe.events import AttemptFinished, CallFinished, Event

if TYPE_CHECKING:
    from resilient.context import Attempt

__all__ = (
    "Dispatch",
    "Ends",
    "Listener",
    "LiveListener",
    "Sink",
    "add_listener",
    "begin",
    "ears",
    "emit",
    "emit_notable",
    "end",
    "listening",
    "remove_listener",
    "sink",
)

Listener = Callable[[Event], object]
"""A callable that takes an event; what it returns is ignored."""

Sink = tuple[Listener, ...]
"""All listeners of one call; empty where nobody listens."""

everywhere: list[Listener] = []
"""Listeners of the whole process."""
_here: ContextVar[Sink] = ContextVar("resilient_listeners", default=())
"""The listeners of the block that runs now."""
ears: list[Listener] = []
"""All of them, those of every open block included. Strategies look at it before each call: where it is empty, nobody listens, and
where it is not, `sink()` says who hears this call.
"""
_reported: set[int] = set()
notable: list[Listener] = []
"""Listeners that hear notable events even when nobody else listens: the logs."""


def add_listener(listener: Listener) -> None:
    """Let `listener` hear every event of the process, from the next call on. Adding it twice changes nothing.

    Raises:
        TypeError: it cannot be called, or is a class.

    """
    _check(listener)
    if listener not in everywhere:
        everywhere.append(listener)
        ears.append(listener)


def remove_listener(listener: Listener) -> None:
    """Undo `add_listener`; unknown listeners are ignored."""
    with contextlib.suppress(ValueError):
        everywhere.remove(listener)
        ears.remove(listener)


def _check(listener: object) -> None:
    if not callable(listener) or isinstance(listener, type):
        msg = f"listener={listener!r}: expected a callable that takes an event, a function or an instance of a listener's class"
        raise TypeError(msg)


@contextlib.contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Let `listener` hear the events of calls made inside the block, by this task and the tasks that it starts."""
    _check(listener)
    token = _here.set((*_here.get(), listener))
    ears.append(listener)
    try:
        yield
    finally:
        ears.remove(listener)
        _here.reset(token)


def sink() -> Sink:
    """All who listen to a call that starts now."""
    return (*everywhere, *_here.get())


def emit(listeners: Sink, event: Event) -> None:
    """Hand an event to each listener."""
    for listener in listeners:
        try:
            listener(event)
        except Exception:  # noqa: BLE001  a broken listener must not break the call
            _report(listener)


def emit_notable(listeners: Sink, event: Event) -> None:
    """Hand an event that an operator must see to the logs and to each listener."""
    if notable:
        emit(tuple(notable), event)
    emit(listeners, event)


def _report(listener: Listener) -> None:
    if id(listener) not in _reported:
        _reported.add(id(listener))
        message = "the listener %r raised; this is reported once, the call goes on"
        logging.getLogger("resilient").exception(message, listener)  # noqa: LOG004  it is called while an exception is handled


class Dispatch:
    """A listener that calls one method per type of event: `on_retry_scheduled(event)` for a `RetryScheduled`, and so on.

    Subclass it and write the methods that you need; `on_event` hears what has none.
    """

    def __call__(self, event: Event) -> None:
        method: Any = getattr(self, f"on_{event.name}", self.on_event)
        method(event)

    def on_event(self, event: Event) -> None:
        """Hear an event that has no method of its own."""


class LiveListener(Dispatch):
    """A listener that also goes along with calls and attempts while they run: one that makes spans of them, say.

    Its two methods are called just before, in the task that runs the call or the attempt: a context variable that they set is
    seen by the callee. What they return, if anything, is called with the event that tells the end, after that event was told to
    all. Whoever sets a context variable puts it back there. The same holds as of every listener: it must not wait, and an
    exception is reported once.

    The loop `async for attempt in retry` is no call of its own: of that it hears the attempts only.
    """

    def on_call_begins(self, attempt: "Attempt") -> Callable[[CallFinished], object] | None:
        """A call begins. `attempt` is its first one; its `key` may be given only later, by a pipeline."""
        return None

    def on_attempt_begins(self, attempt: "Attempt") -> Callable[[AttemptFinished], object] | None:
        """The callee is called now."""
        return None


Ends = tuple[tuple[LiveListener, Callable[[Any], object]], ...]
"""What live listeners want to be told when it ends, the last one first."""


def begin(live: tuple[LiveListener, ...], method: Literal["on_call_begins", "on_attempt_begins"], attempt: "Attempt") -> Ends:
    """Tell live listeners that something begins."""
    ends: Ends = ()
    for listener in live:
        try:
            ended = getattr(listener, method)(attempt)
        except Exception:  # noqa: BLE001  see `emit`
            _report(listener)
        else:
            if ended is not None:
                ends = ((listener, ended), *ends)
    return ends


def end(ends: Ends, event: Event) -> None:
    """Tell live listeners that what they went along with has ended."""
    for listener, ended in ends:
        try:
            ended(event)
        except Exception:  # noqa: BLE001  see `emit`
            _report(listener)
