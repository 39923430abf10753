"""A response and its stream: a value that is still in use after the call returned.

The headers decide what a response means. Its connection, and with that the permit of a bulkhead, is in use until the body
has ended: read to its end, failed, closed early, cancelled, or dropped. What the headers said stands then, but for a body that
failed (a failure) and one whose reading was cancelled (which tells nothing). All mutable state: that of `Lingering`, and of a
stream its iterator and whether it is `_over`.
"""

import math
import warnings
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import anyio

from resilient import clock
from resilient.outcome import Verdict
from resilient.strategies.lingering import Lingering
from resilient_integrations._http.bodies import close_iterator
from resilient_integrations._http.call import origin_of
from resilient_integrations._http.classify import MISDIRECTED, error_verdict, response_verdict
from resilient_integrations._http.closing import to_its_end
from resilient_integrations._http.defects import as_it_should_be, is_defect
from resilient_integrations._http.evidence import Evidence, Sent
from resilient_integrations._http.failure import CUT, cut_off, failure_of, forget, remember

if TYPE_CHECKING:
    from resilient_integrations._http.call import Sending

__all__ = ("BodyStream", "Exchange", "UpgradedStream")

_DRAIN_BYTES: Final = 64 * 1024
_DRAIN_SECONDS: Final = 0.25
_CLOSE_SECONDS: Final = 1.0
_SWITCHING_PROTOCOLS: Final = 101


class Exchange(Lingering):
    """A request and its response, as the value of an attempt.

    Attributes:
        response: the family's response; None once it was handed out.
        sending: the request that it answers.

    """

    def __init__(self, response: Any, sending: "Sending") -> None:
        self.response: Any = response
        self.sending = sending
        # Closed is a response whose body came along, as that of a mock does.
        self.has_ended = response.is_closed or sending.options.hold == "headers"

    def __repr__(self) -> str:
        request = self.sending.request  # its path may hold an id, its query a secret
        return f"<response to {request.method} {request.url.scheme}://{request.url.host}>"

    def verdict(self) -> Verdict:
        """What the response means."""
        return response_verdict(self.response, self.sending)

    def hand_out(self) -> Any:
        """The response for the client, with a stream that tells when it has ended."""
        response, self.response = self.response, None  # the response refers to us: no cycle of ours
        if not response.is_closed:
            family = self.sending.engine.family
            kind = family.upgraded_stream if _is_upgrade(response, self.sending) else family.body_stream
            response.stream = kind(self, response.stream)
        return response

    async def discard(self) -> None:
        """Give the connection back, in a second and a quarter at most.

        A short body is read to its end: the connection can be used again, and HTTP/2's flow control is left without a debt. A
        long one is closed, and so is a connection that must not be used again.
        """
        response = self.response
        try:
            with anyio.move_on_after(_DRAIN_SECONDS + _CLOSE_SECONDS, shield=True):
                try:
                    if _is_worth_reading(response, self.sending):
                        with anyio.move_on_after(_DRAIN_SECONDS):
                            await _drain(response.stream)
                finally:
                    await to_its_end(response.stream.aclose())
        except Exception:  # noqa: BLE001, S110  the connection is broken, and nobody is interested in the response any more
            pass
        finally:
            self.ended()

    def lose(self) -> None:
        """Its stream was dropped without being closed."""
        self.sending.engine.lost.add(self)
        request = self.sending.request
        warnings.warn(
            f"the response to {request.method} {origin_of(request.url)} was dropped and not closed: its permits are given back, "
            "its connection is not. Use `async with client.stream(...)`, or `await response.aclose()`",
            ResourceWarning,
            stacklevel=2,
        )


def _is_upgrade(response: Any, sending: "Sending") -> bool:
    connected = sending.request.method == "CONNECT" and response.is_success
    return bool(connected or response.status_code == _SWITCHING_PROTOCOLS)


def _is_worth_reading(response: Any, sending: "Sending") -> bool:
    headers = response.headers
    must_close = response.status_code == MISDIRECTED or "close" in headers.get("connection", "").lower()
    if response.is_closed or must_close or _is_upgrade(response, sending):
        return False
    length = headers.get("content-length", "")
    return not (length.isascii() and length.isdigit()) or float(length) <= _DRAIN_BYTES


async def _drain(stream: Any) -> None:
    parts, size = aiter(stream), 0
    try:
        async for part in parts:
            size += len(part)
            if size > _DRAIN_BYTES:
                return
    finally:
        await close_iterator(parts)


class UpgradedStream:
    """The stream of a 101 or a CONNECT: its close is heard, else nothing stands between the user and the connection.

    A family's `AsyncByteStream` is mixed in.
    """

    def __init__(self, exchange: Exchange, stream: Any) -> None:
        self._exchange = exchange
        self._stream = stream
        self._parts: AsyncIterator[bytes] | None = None
        self._over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        """Close the connection, or give it back. It is shielded from cancellation; later calls do nothing."""
        await self._end()

    async def _end(self, error: BaseException | None = None) -> None:
        if self._over:
            return
        self._over = True
        try:
            with anyio.CancelScope(shield=True):
                try:
                    await close_iterator(self._parts)
                finally:
                    await to_its_end(self._stream.aclose())
        except Exception as defect:
            if not is_defect(defect):
                raise
        finally:
            self._exchange.ended(error)

    def __del__(self) -> None:
        if not self._over:
            self._exchange.lose()


class BodyStream(UpgradedStream):
    """The stream of a response: it tells how the body ended, and keeps the time that is left for it.

    It is closed where reading ends or fails, without being asked: httpx2 keeps the connection of a failed one.
    """

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._parts is None:
            self._parts = aiter(self._stream)
        sending = self._exchange.sending
        try:
            if sending.cut == math.inf:
                return await anext(self._parts)
            return await _next_in_time(self._parts, sending)
        except StopAsyncIteration:
            await self._end()
            raise
        except Exception as error:
            shown = as_it_should_be(error, sending.engine.family.package, sending.request, written=True)
            if failure_of(shown) is None:
                remember(shown, sending, error_verdict(shown, Evidence(Sent.MAYBE), idempotent=False))
            await self._end(shown)
            forget(shown)
            if shown is not error:
                raise shown from error
            raise
        except BaseException:
            await self._end(GeneratorExit())
            raise


async def _next_in_time(parts: AsyncIterator[bytes], sending: "Sending") -> bytes:
    with anyio.move_on_after(sending.cut - clock.now()):
        return await anext(parts)
    error = cut_off(sending, sending.options.timeout, sending.total, sending.engine.family.package.ReadTimeout)
    remember(error, sending, CUT)
    raise error
