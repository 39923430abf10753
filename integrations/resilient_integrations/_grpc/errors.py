"""Exceptions that belong to gRPC *and* to `resilient`.

Users of a stub catch `grpc.RpcError` and ask for its `code()`: that must go on working when a bulkhead refuses, and so must
`except BulkheadFull`. `adopt()` makes the very object that a strategy raised an instance of both, so its traceback,
its notes and its timeline stay.
"""

import functools
from typing import Any, TypeVar

import grpc
import grpc.aio

from resilient.errors import BulkheadFull, RateLimited, ResilienceError, TimeoutExceeded

__all__ = ("adopt", "code_for")

E = TypeVar("E", bound=ResilienceError)

_CODES: tuple[tuple[type[ResilienceError], grpc.StatusCode], ...] = (
    (TimeoutExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (BulkheadFull, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (RateLimited, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (ResilienceError, grpc.StatusCode.UNAVAILABLE),
)


def code_for(error: ResilienceError) -> grpc.StatusCode:
    """The status for what a strategy raised: a limit is exhausted, a time is over, else the service is not to be had."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


class _Face(grpc.aio.AioRpcError):
    """The side of gRPC: it never came from a server, so there is no metadata."""

    def code(self) -> grpc.StatusCode:
        return code_for(self)  # type: ignore[arg-type]  # the other side of it

    def details(self) -> str:
        return str(self)

    def initial_metadata(self) -> Any:
        return grpc.aio.Metadata()

    def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata()

    def debug_error_string(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return Exception.__repr__(self)

    def __str__(self) -> str:
        return Exception.__str__(self)


def adopt(error: E) -> E:
    """Make `error` an instance of its own class and of `grpc.aio.AioRpcError`; it is the same object."""
    if not isinstance(error, grpc.RpcError):
        kind: type = type(error)
        error.__class__ = _both(kind)
    return error


@functools.cache
def _both(kind: type) -> Any:
    namespace = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": _reduce, "adopted": kind}
    return type(kind.__name__, (kind, _Face), namespace)


def _reduce(error: Any) -> tuple[Any, ...]:
    """Pickle: the class has no name of its own, and is found again by what it was made of."""
    return _rebuild, (error.adopted, error.args), error.__dict__


def _rebuild(kind: type, args: tuple[Any, ...]) -> Any:
    made = _both(kind)
    return made.__new__(made, *args)
