"""Recordings of events, with questions and assertions whose failures show the timeline.

`with recorded() as events:` hears every event of the process while its block runs: also those of tasks that were started before.
All mutable state: the list of events.
"""

import contextlib
from collections.abc import Generator, Iterable
from typing import Any, Final, TypeVar

from resilient.observe.events import Event
from resilient.observe.listeners import add_listener, remove_listener
from resilient.observe.timeline import Timeline

__all__ = ("Recording", "recorded")

E = TypeVar("E", bound=Event)

_LIMIT: Final = 100_000


class Recording(Timeline):
    """A timeline to be asserted on: `Recording(timeline_of(error).events)` makes one of any other.

    Args:
        events: what it begins with (default: nothing). At most 100 000 are kept.

    """

    __slots__ = ()

    def __init__(self, events: Iterable[Event] = ()) -> None:
        super().__init__(_LIMIT)
        for event in events:
            self(event)

    def of(self, kind: type[E], /, **fields: Any) -> list[E]:
        """The events of this type whose fields are equal to these: `events.of(RetryScheduled, number=1)`.

        Raises:
            TypeError: what is given is no type of event, or events of that type have no such field.

        """
        _check_kinds(kind)
        _check_fields(kind, fields)
        return [
            event
            for event in self.events
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in fields.items())
        ]

    def one(self, kind: type[E], /, **fields: Any) -> E:
        """The only event of this type with these fields.

        Raises:
            AssertionError: there is none, or there are several.

        """
        found = self.of(kind, **fields)
        if len(found) != 1:
            raise AssertionError(self._told(f"expected one {_described(kind, fields)}, there are {len(found)}"))
        return found[0]

    def assert_order(self, *kinds: type[Event]) -> None:
        """Assert that events of these types came in this order; others may have come in between.

        Raises:
            AssertionError: they did not. It tells how far the order goes.
            TypeError: what is given is no type of event.

        """
        _check_kinds(*kinds)
        rest = iter(self.events)
        for place, kind in enumerate(kinds):
            if not any(isinstance(event, kind) for event in rest):
                before = " → ".join(kind.__name__ for kind in kinds[:place])
                after = f" after {before}" if before else ""
                raise AssertionError(self._told(f"expected a {kind.__name__}{after}, there is none"))

    def assert_none(self, *kinds: type[Event]) -> None:
        """Assert that no event of these types was heard; without a type: none at all.

        Raises:
            AssertionError: there are some.
            TypeError: what is given is no type of event.

        """
        _check_kinds(*kinds)
        found = [event for event in self.events if isinstance(event, kinds or Event)]
        if found:
            unwanted = " or ".join(kind.__name__ for kind in kinds) or "event"
            raise AssertionError(self._told(f"expected no {unwanted}, there are {len(found)}"))

    def _told(self, what: str) -> str:
        heard = "\n".join(f"  {event!r}" for event in self.events) or "  nothing"
        return f"{what}. Heard, in order:\n{heard}\n{self.render()}"


@contextlib.contextmanager
def recorded() -> Generator[Recording]:
    """Record every event of the process while the block runs.

    Routine events (each attempt, each call) are made too, as always while somebody listens.
    """
    recording = Recording()
    add_listener(recording)
    try:
        yield recording
    finally:
        remove_listener(recording)


def _check_kinds(*kinds: object) -> None:
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Event)):
            msg = f"{kind!r}: expected a type of resilient.observe.events, such as RetryScheduled"
            raise TypeError(msg)


def _check_fields(kind: type[Event], fields: dict[str, Any]) -> None:
    unknown = [name for name in fields if not hasattr(kind, name)]
    if unknown:
        msg = f"{kind.__name__} has no field {', '.join(unknown)}"
        raise TypeError(msg)


def _described(kind: type[Event], fields: dict[str, Any]) -> str:
    told = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"{kind.__name__}({told})"
