"""Exceptions that belong to the calling family *and* to `resilient`.

Users of a client catch its own exceptions: `except httpx.PoolTimeout` must go on working when a bulkhead refuses, and
`except CircuitOpen` as well. `adopt()` is the one place where that is done: it makes the very object that a strategy raised an
instance of both, so its traceback, its notes and its timeline stay, and gives it the request that every
`httpx.TransportError` has.
"""

import functools
from typing import Any, TypeVar

from resilient.errors import BulkheadFull, RateLimited, ResilienceError, TimeoutExceeded

__all__ = ("adopt",)

E = TypeVar("E", bound=ResilienceError)


def adopt(error: E, package: Any, request: Any, base: type | None = None) -> E:
    """Make `error` an instance of its own class and of an exception of the family; it is the same object.

    Args:
        error: what a strategy raised.
        package: `httpx` or `httpx2`.
        request: becomes `error.request`.
        base: the family's exception. Default: `PoolTimeout` where a permit or a token is missing, `TimeoutException` for a
            timeout, else `TransportError`.

    """
    if not isinstance(error, package.TransportError):
        kind: type = type(error)
        error.__class__ = _both(kind, base or _base_for(error, package))
    error.request = request  # type: ignore[attr-defined]  # of the family's exceptions
    return error


def _base_for(error: ResilienceError, package: Any) -> Any:
    if isinstance(error, (BulkheadFull, RateLimited)):
        return package.PoolTimeout
    return package.TimeoutException if isinstance(error, TimeoutExceeded) else package.TransportError


@functools.cache
def _both(kind: type, base: type) -> Any:
    namespace = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": _reduce, "adopted": (kind, base)}
    return type(kind.__name__, (kind, base), namespace)


def _reduce(error: Any) -> tuple[Any, ...]:
    """Pickle: the class has no name of its own, and is found again by what it was made of."""
    return _rebuild, (*error.adopted, error.args), error.__dict__


def _rebuild(kind: type, base: type, args: tuple[Any, ...]) -> Any:
    made = _both(kind, base)
    return made.__new__(made, *args)
