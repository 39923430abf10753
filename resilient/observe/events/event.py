"""The base of all events."""

import functools
import re
from dataclasses import dataclass
from typing import Final

__all__ = ("Event",)

_CAMEL: Final = re.compile(r"(?<!^)(?=[A-Z])")


@functools.cache
def _snake_case(name: str) -> str:
    return _CAMEL.sub("_", name).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events.

    Attributes:
        at: when, in seconds on the clock of `resilient.clock`.
        key: the key of the call, or None.
        call_id: which call: a number that all events of one call share; 0 for what belongs to no call.

    """

    at: float
    key: str | None = None
    call_id: int = 0

    @property
    def name(self) -> str:
        """What it is called in logs, in metrics, and by a `Dispatch`: `retry_scheduled`, say."""
        return _snake_case(type(self).__name__)
