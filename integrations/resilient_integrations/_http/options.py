"""What can be said for a single request: `extensions={"resilient": {"idempotent": True, "timeout": 5.0}}`.

The transport has the same options as its defaults; those of a request are laid over them, and checked in the same way.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Final, Literal, cast, get_args

from resilient.strategies.timeout import Timeout

__all__ = ("EXTENSION", "Hold", "Limit", "Options", "seconds_of")

EXTENSION: Final = "resilient"
"""The key of a request's options in its `extensions`."""

Hold = Literal["body", "headers"]
Limit = float | timedelta | Timeout | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options of one request.

    Attributes:
        idempotent: whether it may be sent twice; None lets the method and an `Idempotency-Key` say so.
        timeout: seconds for everything, the body included; what still runs then is cut off. None for no such limit.
        attempt_timeout: seconds for each attempt, up to the headers of its response. None for no such limit.
        retry: False sends it once, whatever happens.
        attempts: how many attempts in total, in place of the policy's.
        key: what is called, in place of the transport's key.
        hedge: whether it may be out twice at the same time, where the policy hedges; None lets the method say so (GET, HEAD,
            OPTIONS, TRACE and QUERY may).
        hold: until when permits are held: the end of the `"body"`, or the `"headers"`.

    """

    idempotent: bool | None = None
    timeout: Limit = None
    attempt_timeout: Limit = None
    retry: bool = True
    attempts: int | None = None
    key: str | None = None
    hedge: bool | None = None
    hold: Hold = "body"

    def __post_init__(self) -> None:
        for name in ("timeout", "attempt_timeout"):
            object.__setattr__(self, name, _as_timeout(name, getattr(self, name)))
        if self.hold not in get_args(Hold):
            msg = f"hold={self.hold!r}: expected 'body' or 'headers'"
            raise ValueError(msg)
        _check("idempotent", self.idempotent, bool, type(None))
        _check("retry", self.retry, bool)
        _check("hedge", self.hedge, bool, type(None))
        _check("attempts", self.attempts, int, type(None))
        _check("key", self.key, str, type(None))
        if self.attempts is not None and self.attempts < 1:
            msg = f"attempts={self.attempts!r} is out of range: expected a whole number of at least 1"
            raise ValueError(msg)

    def but(self, given: object) -> "Options":
        """These options, with those laid over them that a request was given.

        Raises:
            TypeError, ValueError: an option is unknown, or out of its range.

        """
        if not isinstance(given, Mapping):
            msg = f'extensions["{EXTENSION}"]={given!r}: expected a mapping of options, e.g. {{"idempotent": True}}'
            raise TypeError(msg)
        options = cast("Mapping[str, Any]", given)
        unknown = set(options) - _NAMES
        if unknown:
            names = ", ".join(sorted(_NAMES))
            msg = f'extensions["{EXTENSION}"] has the unknown option {unknown.pop()!r}; the known ones are {names}'
            raise TypeError(msg)
        return replace(self, **options)


_NAMES: Final = frozenset(field.name for field in fields(Options))


def seconds_of(limit: Limit) -> float:
    """The seconds of a limit, asked for now where they are dynamic; infinity where there is none."""
    if limit is None:
        return math.inf
    value = limit.seconds if isinstance(limit, Timeout) else limit
    if isinstance(value, float):
        return value
    return seconds_of(_as_timeout("seconds", value() if callable(value) else value))


def _as_timeout(name: str, value: Limit) -> Timeout | None:
    if value is None or isinstance(value, Timeout):
        return value
    try:
        return Timeout(value)
    except (TypeError, ValueError) as error:
        msg = f"{name}: {error}"
        raise type(error)(msg) from None


def _check(name: str, value: object, *kinds: type) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        msg = f"{name}={value!r}: expected {expected}, got {type(value).__name__}"
        raise TypeError(msg)
