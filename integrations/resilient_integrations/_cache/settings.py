"""What arguments of a cache's own are checked with: a check gives what is worked with, or an error that says what to write."""

from collections.abc import Callable
from typing import Any, cast

from resilient_integrations._cache.backends import Backend, MemoryBackend
from resilient_integrations._cache.entries import JSON, Serializer

__all__ = ("SerializerLike", "backend_of", "serializer_for")

SerializerLike = Serializer | tuple[Callable[[Any], bytes], Callable[[bytes], Any]]


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
