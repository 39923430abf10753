"""Exceptions that a failing network makes the libraries below raise by mistake, and what they should have raised.

Who catches the exceptions of the client must not miss these, and what was not sent may be sent again. Each is known by its
exact shape: anything else that is not of the client is somebody's bug, and surfaces as it is. The versions are those in which
it was seen.
"""

from typing import Any, Final

__all__ = ("as_it_should_be", "is_defect")

_OVERDONE: Final = ("semaphore released too many times",)


def is_defect(error: BaseException) -> bool:
    """Whether it is one of these."""
    if isinstance(error, AttributeError):
        # anyio 4.16 on uvloop: the server hung up before anyone looked at the new socket, which is None by now.
        return error.name == "getpeername" and error.obj is None
    if isinstance(error, ValueError):
        # httpcore 1.0 and httpcore2 2.16: the first request of an HTTP/2 connection was cancelled while it counted streams.
        return error.args == _OVERDONE
    # The same two: it was cancelled while it greeted the server; those who waited for it greet over a connection that is closed.
    return any(kind.__module__ == "h2.exceptions" for kind in type(error).__mro__)


def as_it_should_be(error: Exception, package: Any, request: Any, *, written: bool) -> Exception:
    """The family's exception for what an attempt raised, where it is such a defect; else `error` itself."""
    if not is_defect(error):
        return error
    kind = package.RemoteProtocolError if written else package.ConnectError
    made: Exception = kind(f"the connection failed: {error!r}", request=request)
    return made
