"""A stream of messages: a value that is still in use after the attempt returned, and the call that hands it out.

`Exchange` is the value of an attempt: a call below that has answered with its first message. It has ended when that call has, and
a task of its own waits for that. `StreamingCall` is what the user holds: it is there from the start, runs the strategies in a
task, its `_driver`, and speaks for the attempt that answers. So a call that succeeds never tells the status of an attempt that
failed.

Nothing that lives as long as the call below refers to the one that the user holds: neither what waits for its end, nor who is
told of it. So where the user drops it, grpc.aio cancels it as it is collected, and permits come back.

All mutable state: that of `Lingering`, of the two tasks, of the iterator over the messages, and who is to be told of the end.
"""

import asyncio
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from resilient.strategies.lingering import Lingering
from resilient_integrations._grpc.waiting import retrieve

if TYPE_CHECKING:
    from resilient_integrations._grpc.rpc import Rpc

__all__ = ("NOTHING", "Exchange", "StreamStream", "StreamUnary", "StreamingCall", "UnaryStream")

NOTHING: Final[Any] = object()
"""In place of the first message of a stream that has none."""

_CANCELLED: Final = "Locally cancelled by application!"


class Exchange(Lingering):
    """A call below that answers with a stream, as the value of an attempt.

    Attributes:
        call: the call below.

    """

    def __init__(self, call: Any, messages: AsyncIterator[Any], first: Any) -> None:
        self.call = call
        self._messages = messages
        self._first = first
        self._watch = asyncio.ensure_future(self._wait_for_end())
        self._watch.add_done_callback(retrieve)

    async def _wait_for_end(self) -> None:
        call = self.call
        try:
            code = await call.code()
            if code is grpc.StatusCode.OK:
                self.ended()
            elif not call.cancelled():
                metadata = await call.initial_metadata(), await call.trailing_metadata()
                self.ended(grpc.aio.AioRpcError(code, *metadata, await call.details()))
        finally:
            self.ended(GeneratorExit())  # heard where nothing was said: it was cancelled

    async def messages(self) -> AsyncGenerator[Any]:
        """All messages, the first one included."""
        if self._first is not NOTHING:
            first, self._first = self._first, NOTHING
            yield first
            async for message in self._messages:
                yield message

    async def discard(self) -> None:
        self.call.cancel()
        self.ended(GeneratorExit())


class _Stated:
    """What a call says that has none below: it failed, or was cancelled, or a value took its place."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    async def code(self) -> grpc.StatusCode:
        return self._error.code()

    async def details(self) -> str | None:
        return self._error.details()

    async def debug_error_string(self) -> str | None:
        return self._error.debug_error_string()

    async def initial_metadata(self) -> Any:
        return self._error.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return self._error.trailing_metadata()

    async def wait_for_connection(self) -> None:
        if self._error.code() is not grpc.StatusCode.OK:
            raise self._error


def _stated(code: grpc.StatusCode, details: str = "") -> _Stated:
    return _Stated(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details))


class StreamingCall:
    """A call that streams in at least one direction, as its user holds it.

    Args:
        rpc: the call.
        run: takes it through the strategies.

    """

    _channel: Any = (
        None  # a channel of grpcio before 1.80 that is closed looks at the calls of all tasks: this one is not its own
    )

    def __init__(self, rpc: "Rpc", run: Coroutine[Any, Any, Any]) -> None:
        self._rpc = rpc
        self._rpc.started = asyncio.get_running_loop().create_future()
        self._driver = asyncio.ensure_future(run)
        self._driver.add_done_callback(retrieve)
        self._reader: AsyncIterator[Any] | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    def _below(self) -> Any:
        """The call below that answers, or None where there is none (yet)."""
        driver = self._driver
        if not driver.done() or driver.cancelled() or driver.exception() is not None:
            return None
        value = driver.result()
        call = value.call if isinstance(value, Exchange) else value
        return call if isinstance(call, grpc.aio.Call) else None

    async def _answering(self) -> Any:
        """Who knows the status, once it is clear who answers."""
        await asyncio.wait((self._driver,))
        below = self._below()
        if below is not None:
            return below
        if self._driver.cancelled():
            return _stated(grpc.StatusCode.CANCELLED, _CANCELLED)
        error = self._driver.exception()
        if error is None:
            return _stated(grpc.StatusCode.OK)
        if isinstance(error, grpc.aio.AioRpcError):
            return _Stated(error)
        raise error

    async def _begun(self) -> Any:
        """Who has begun to answer. Where there can be one attempt only, it need not have sent a message yet."""
        started = self._rpc.started
        if not self._rpc.replayable and started is not None:
            await asyncio.wait((self._driver, started), return_when=asyncio.FIRST_COMPLETED)
            if self._rpc.call is not None:
                return self._rpc.call
        return await self._answering()

    def cancel(self) -> bool:
        if not self._driver.done():
            return self._driver.cancel()
        below = self._below()
        return below is not None and below.cancel()

    def cancelled(self) -> bool:
        below = self._below()
        return self._driver.cancelled() if below is None else below.cancelled()

    def done(self) -> bool:
        below = self._below()
        return self._driver.done() if below is None else below.done()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        def when_driven(_: object) -> None:
            below = self._below()
            if below is None or below.done():
                callback(self)
                return
            if not self._callbacks:
                below.add_done_callback(partial(self._tell, weakref.ref(self)))
            self._callbacks.append(callback)

        self._driver.add_done_callback(when_driven)

    @staticmethod
    def _tell(ref: "weakref.ref[StreamingCall]", _: object) -> None:
        call = ref()
        for callback in () if call is None else call._callbacks:  # noqa: SLF001  our own
            callback(call)

    def time_remaining(self) -> float | None:
        return self._rpc.time_remaining()

    async def initial_metadata(self) -> Any:
        return await (await self._begun()).initial_metadata()

    async def wait_for_connection(self) -> None:
        await (await self._begun()).wait_for_connection()

    async def trailing_metadata(self) -> Any:
        return await (await self._answering()).trailing_metadata()

    async def code(self) -> Any:
        return await (await self._answering()).code()

    async def details(self) -> Any:
        return await (await self._answering()).details()

    async def debug_error_string(self) -> Any:
        return await (await self._answering()).debug_error_string()


class _Answers(StreamingCall):
    """Messages come back."""

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._reader is None:
            self._reader = self._messages()
        return self._reader

    async def _messages(self) -> AsyncGenerator[Any]:
        value = await self._driver  # a reader that is cancelled cancels the call, as in grpc.aio
        if isinstance(value, Exchange):
            async for message in value.messages():
                yield message
        else:
            for message in value:  # of a fallback
                yield message

    async def read(self) -> Any:
        return await anext(aiter(self), grpc.aio.EOF)


class _Asks(StreamingCall):
    """Messages are sent: grpc.aio has made an iterator of what its user writes."""

    @property
    def _done_writing_flag(self) -> bool:
        """grpc.aio asks for it before it takes another message."""
        return bool(getattr(self._rpc.call, "_done_writing_flag", False))

    async def write(self, request: Any) -> None:
        raise grpc.aio.UsageError(_ITERATED)

    async def done_writing(self) -> None:
        raise grpc.aio.UsageError(_ITERATED)


_ITERATED: Final = "the messages of this call come from an iterator: write to the call that the stub has returned"


class UnaryStream(_Answers, grpc.aio.UnaryStreamCall):  # type: ignore[type-arg]
    """One message is sent, many come back."""


class StreamUnary(_Asks, grpc.aio.StreamUnaryCall):  # type: ignore[type-arg]
    """Many messages are sent, one comes back."""

    def __await__(self) -> Generator[Any, None, Any]:
        value: Any = yield from self._driver.__await__()
        below = self._below()
        if below is None:
            return value
        answer: Generator[Any, None, Any] = below.__await__()
        return (yield from answer)


class StreamStream(_Asks, _Answers, grpc.aio.StreamStreamCall):  # type: ignore[type-arg]
    """Many messages are sent, many come back."""
