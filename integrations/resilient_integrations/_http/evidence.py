"""Did the request reach the server? What an attempt left as evidence.

The type of an exception is a weak witness: a `ReadError` during a proxy's CONNECT never reached the origin, and a
`RemoteProtocolError` may carry an HTTP/2 frame that says that nothing was processed. Asked in this order: the
HTTP/2 event in the chain of causes; the events of the `trace` extension, which tell whether the header of the request was
written; and only where there are none (a mock) the type.
"""

import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, cast

__all__ = ("Evidence", "Sent", "Trace", "examine", "let_go")

UserTrace = Callable[[str, Any], Awaitable[object]]

_CAUSES: Final = 50
"""How many links of a chain of causes are looked at."""
_UNKNOWN_HOST: Final = frozenset(
    code for name in ("EAI_NONAME", "EAI_NODATA") if (code := getattr(socket, name, None)) is not None
)
_NO_ERROR: Final = 0
_REFUSED_STREAM: Final = 7


class Sent(Enum):
    """How far a failed request came."""

    NOT_SENT = "not_sent"
    """Its header was never written: the server has not seen it."""
    REFUSED = "refused"
    """The protocol guarantees that the server did not process it (RFC 9113 sections 6.8 and 8.7)."""
    MAYBE = "maybe"
    """Nobody can know."""


class Trace:
    """Hears the trace events of one attempt; it never raises, since that would abort the request.

    Attributes:
        seen: there were events at all.
        connecting: a proxy was asked to connect.
        written: the header of the request itself was, at least in part.
        stream_id: the HTTP/2 stream that it was written to, or None.

    """

    __slots__ = ("_any_method", "_user", "connecting", "seen", "stream_id", "written")

    def __init__(self, method: str, user: UserTrace | None) -> None:
        self._any_method = method == "CONNECT"  # a user's own CONNECT is not a proxy's
        self._user = user
        self.seen = False
        self.connecting = False
        self.written = False
        self.stream_id: int | None = None

    async def hear(self, name: str, info: Any) -> None:
        """The callback of the `trace` extension. It hands every event on to the user's own."""
        self.seen = True
        if name.endswith(".send_request_headers.started"):
            if not self._any_method and getattr(info.get("request"), "method", b"") == b"CONNECT":
                self.connecting = True
            else:
                self.written = True
                self.stream_id = info.get("stream_id")
        if self._user is not None:
            try:
                await self._user(name, info)
            except Exception:
                self._user = None
                logging.getLogger("resilient").exception("a trace callback raised; it hears no more of this attempt")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a failed attempt.

    Attributes:
        sent: whether the server saw the request; None where only the type of the exception can tell.
        finding: a cause that is more exact than the type: `certificate_error`, `unknown_host`, `malformed_response`,
            `stream_reset`, `goaway`, or "".
        code: the HTTP/2 error code of the last two; else 0.
        by_proxy: a proxy failed before it had connected.

    """

    sent: Sent | None
    finding: str = ""
    code: int = _NO_ERROR
    by_proxy: bool = False


def examine(error: BaseException, trace: Trace, outer: BaseException | None) -> Evidence:
    """Look at a failed attempt.

    Args:
        error: what it raised.
        trace: what it did before.
        outer: the exception that was handled when the attempt began: the caller's affair, no cause of ours.

    """
    sent = None
    if trace.seen:
        sent = Sent.MAYBE if trace.written else Sent.NOT_SENT
    by_proxy = trace.connecting and not trace.written
    for cause in _causes(error, outer):
        if _is(cause, "h2", "StreamReset"):
            code = int(cause.error_code or 0)
            return Evidence(Sent.REFUSED if code == _REFUSED_STREAM else Sent.MAYBE, "stream_reset", code)
        if _is(cause, "h2", "ConnectionTerminated"):
            return Evidence(Sent.REFUSED if _is_spared(cause, trace) else Sent.MAYBE, "goaway", int(cause.error_code or 0))
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Evidence(sent, "certificate_error", by_proxy=by_proxy)
        if isinstance(cause, socket.gaierror) and cause.errno in _UNKNOWN_HOST:
            return Evidence(sent, "unknown_host", by_proxy=by_proxy)
        if _is(cause, "h11", "RemoteProtocolError"):
            return Evidence(sent, "malformed_response", by_proxy=by_proxy)
    return Evidence(sent, by_proxy=by_proxy)


def let_go(error: BaseException, trace: Trace, outer: BaseException | None) -> None:
    """Over HTTP/2: take the tracebacks from all that an exception was made of, not its own. The arguments are those of `examine`.

    httpcore keeps the exception that ended an HTTP/2 connection, for all of its streams, as long as the connection is known to
    its pool. A traceback keeps the frames that it passed, these the ones that called them, and so what the caller holds: a
    response that it got from a later attempt and dropped would never be collected, and its permit never come back.
    """
    for cause in _causes(error, outer) if trace.stream_id is not None else ():
        if cause is not error and isinstance(cause, BaseException):
            cause.__traceback__ = None


def _is_spared(goaway: Any, trace: Trace) -> bool:
    """Whether a GOAWAY says that our stream was not processed.

    One with an error on the first stream of a connection is not taken at its word: servers that break down send it, whatever
    they have done (Go's net/http2 made that experience).
    """
    last, ours = goaway.last_stream_id or 0, trace.stream_id
    if int(goaway.error_code or 0) != _NO_ERROR and (ours is None or ours <= 1):
        return False
    return bool(last == 0 or (ours is not None and ours > last))


def _is(cause: object, package: str, name: str) -> bool:
    """Whether it is of a class of an optional package, by name: that package may not be there."""
    kind = cause.__class__
    return kind.__name__ == name and kind.__module__.partition(".")[0] == package


def _causes(error: BaseException, outer: BaseException | None) -> Iterator[Any]:
    """All that an exception was made of: its arguments, causes, contexts and members, breadth first and bounded.

    Contexts count even where they are suppressed: httpcore raises `from None`.
    """
    found: list[Any] = [error]
    seen = {id(error), id(outer)}
    for index in range(_CAUSES):
        if index >= len(found):
            return
        yield found[index]
        for other in _behind(found[index]):
            if id(other) not in seen:
                seen.add(id(other))
                found.append(other)


def _behind(cause: Any) -> list[Any]:
    if not isinstance(cause, BaseException):
        return []
    members: tuple[Any, ...] = cast("Any", cause).exceptions if isinstance(cause, BaseExceptionGroup) else ()
    behind: tuple[Any, ...] = (cause.__cause__, cause.__context__, *cause.args, *members)
    return [other for other in behind if other is not None and not isinstance(other, (str, bytes, int, float))]
