"""What arguments are checked with: a check gives the value that is worked with, or an error that says what to write instead."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

from resilient._arguments import Duration
from resilient_integrations._cache.backends import Backend, MemoryBackend
from resilient_integrations._cache.entries import JSON, Serializer

__all__ = ("SerializerLike", "backend_of", "fraction_below_one", "seconds", "serializer_for")

SerializerLike = Serializer | tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


def seconds(name: str, value: Duration, *, positive: bool = False) -> float:
    """A finite duration as float seconds: at least 0, or greater."""
    span = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(span, bool) or not isinstance(span, (int, float)):
        msg = f"{name}={value!r}: expected seconds as a number or a timedelta, got {type(value).__name__}"
        raise TypeError(msg)
    if not math.isfinite(span) or span < 0 or (positive and span == 0):
        bound = "more than" if positive else "at least"
        msg = f"{name}={value!r} is out of range: expected a finite time of {bound} 0 seconds"
        raise ValueError(msg)
    return float(span)


def fraction_below_one(name: str, value: float) -> float:
    """A share in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"{name}={value!r}: expected a share, got {type(value).__name__}"
        raise TypeError(msg)
    if not 0 <= value < 1:
        msg = f"{name}={value!r} is out of range: expected a share of at least 0 and below 1"
        raise ValueError(msg)
    return float(value)


def backend_of(given: Backend | None) -> Backend:
    """A new one in memory where none is given."""
    if given is None:
        return MemoryBackend()
    has_all = all(callable(getattr(given, name, None)) for name in ("get", "set", "delete"))
    if not has_all or hasattr(given, "pipeline"):
        msg = f"backend={given!r}: expected a backend with get, set and delete; a client of Redis goes into RedisBackend(client)"
        raise TypeError(msg)
    return given


def serializer_for(backend: Backend, given: SerializerLike | None) -> Serializer | None:
    """JSON where none is given; None where objects are kept as they are."""
    if given is None:
        return None if getattr(backend, "keeps_objects", False) else JSON
    pair = cast("tuple[object, ...]", given)
    if not isinstance(given, tuple) or len(pair) != len(JSON) or not all(map(callable, pair)):
        msg = f"serializer={given!r}: expected a pair of functions, to bytes and back, e.g. Serializer(dumps, loads)"
        raise TypeError(msg)
    return Serializer(*given)
