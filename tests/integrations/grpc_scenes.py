"""A real server of grpc.aio whose handlers play a script, and a resilient channel to it.

Messages are bytes: there are no serializers, so nothing needs to be generated. `Play` holds what a method does, one entry for
each attempt, the last one for ever.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import grpc.aio
import pytest

from resilient import Bulkhead, Constant, Policy, Retry
from resilient_integrations.grpc import ResilientChannel, ServerLimits, resilient_channel

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it tells of each connection that ends

GRPC: Final = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("real_backend"),
    pytest.mark.parametrize("anyio_backend", ["real-grpc"], indirect=True),
]
"""The marks of a module whose tests call a server: grpc.aio works on asyncio only."""

AT_ONCE: Final = Constant(delay=0.0, jitter="none")
POLICY: Final = Policy(retry=Retry(attempts=3, backoff=AT_ONCE), bulkhead=Bulkhead(8))

UNARY, SERVER, CLIENT, BIDI = "/test.Service/Unary", "/test.Service/Server", "/test.Service/Client", "/test.Service/Bidi"

Metadata = tuple[tuple[str, str | bytes], ...]
Act = Callable[[Any, Any], Any]


def fail(code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, trailers: Metadata = ()) -> Act:
    """An attempt that ends with a status."""

    async def act(_request: Any, context: Any) -> bytes:
        await context.abort(code, "as the script says", trailers)
        raise AssertionError

    return act


UNAVAILABLE: Final = fail()


def pushback(milliseconds: object, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> Act:
    return fail(code, (("grpc-retry-pushback-ms", str(milliseconds)),))


async def hang(_request: Any, _context: Any) -> bytes:
    """An attempt that never ends."""
    await asyncio.Event().wait()
    raise AssertionError


class Play:
    """What the methods of the server do.

    Attributes:
        script: an entry for each attempt: bytes are the answer, functions of request and context are awaited for it. Of methods
            that stream, a list holds what is sent one after the other.
        calls: what came in: the path and the request, of streams the list of messages.
        left: the seconds that each attempt had, or None.
        metadata: what each attempt came with.
        started: set when an attempt has begun.
        cancelled: set when one was cancelled.

    """

    def __init__(self) -> None:
        self.script: list[Any] = [b"answer"]
        self.calls: list[tuple[str, Any]] = []
        self.left: list[float | None] = []
        self.metadata: list[list[tuple[str, Any]]] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    def next(self, path: str, request: Any, context: Any) -> Any:
        step = self.script[min(len(self.calls), len(self.script) - 1)]
        self.calls.append((path, request))
        self.left.append(context.time_remaining())
        self.metadata.append(list(context.invocation_metadata()))
        self.started.set()
        return step

    async def _answers(self, step: Any, request: Any, context: Any) -> AsyncIterator[bytes]:
        for part in step if isinstance(step, list) else [step]:  # pyright: ignore[reportUnknownVariableType]
            try:
                yield part if isinstance(part, bytes) else await part(request, context)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

    async def unary(self, request: bytes, context: Any) -> bytes:
        step = self.next(UNARY, request, context)
        return await anext(self._answers(step, request, context))

    async def server(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        step = self.next(SERVER, request, context)
        try:
            async for answer in self._answers(step, request, context):
                yield answer
        except GeneratorExit:  # it was cancelled while a message was on its way
            self.cancelled.set()
            raise

    async def client(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        received: list[bytes] = []
        step = self.next(CLIENT, received, context)
        async for message in messages:
            received.append(message)  # noqa: PERF401  it is filled while the call goes on
        return await anext(self._answers(step, received, context))

    async def bidi(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Answers each message with itself, and at their end with the script."""
        received: list[bytes] = []
        step = self.next(BIDI, received, context)
        async for message in messages:
            received.append(message)
            yield message
        async for answer in self._answers(step, received, context):
            yield answer

    @property
    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Service",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
                "Server": grpc.unary_stream_rpc_method_handler(self.server),
                "Client": grpc.stream_unary_rpc_method_handler(self.client),
                "Bidi": grpc.stream_stream_rpc_method_handler(self.bidi),
            },
        )


async def started(
    *handlers: grpc.GenericRpcHandler, limits: ServerLimits | None = None, address: str = "127.0.0.1:0"
) -> tuple[grpc.aio.Server, str]:
    """A server, and its address."""
    server = grpc.aio.server(interceptors=[limits] if limits is not None else [])
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port(address)
    await server.start()
    return server, f"127.0.0.1:{port}"


@asynccontextmanager
async def serving(*handlers: grpc.GenericRpcHandler, **settings: Any) -> AsyncGenerator[str]:
    """A server on the loopback interface; its address. At the end no task may be left: neither of ours nor of grpc."""
    before = asyncio.all_tasks()
    server, address = await started(*handlers, **settings)
    try:
        yield address
    finally:
        await server.stop(None)
        while left := {task for task in asyncio.all_tasks() - before if "_request_call" not in repr(task)}:  # of another server
            await asyncio.wait(left)  # the guard of the test ends it


@asynccontextmanager
async def playing(play: Play, policy: Policy = POLICY, **settings: Any) -> AsyncGenerator[ResilientChannel]:
    """A channel to a server that plays. At the end every permit must be back."""
    async with serving(play.handlers) as target, resilient_channel(target, policy=policy, **settings) as channel:
        yield channel
        await nothing_is_held(channel)


async def nothing_is_held(channel: ResilientChannel) -> None:
    """Every permit is back, as soon as what was cancelled has ended."""
    siblings = channel.pipeline.siblings
    if siblings is None:
        raise AssertionError
    bulkheads = [gate for key in siblings for gate in siblings[key] if isinstance(gate, Bulkhead)]
    while any(bulkhead.statistics().active for bulkhead in bulkheads):  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0)  # the guard of the test ends it
