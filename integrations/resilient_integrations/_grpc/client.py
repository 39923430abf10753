"""The interceptors, one for each kind of call: grpc.aio takes an interceptor for one kind only.

A call with one message each way is awaited where it is intercepted. One that streams is handed out at once, so that its user can
write messages, and runs in a task.
"""

from typing import Any

import grpc.aio

from resilient_integrations._grpc.engine import Engine, is_replayable
from resilient_integrations._grpc.rpc import Rpc
from resilient_integrations._grpc.stream import StreamStream, StreamUnary, UnaryStream

__all__ = ("interceptors_of",)


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self.engine.run(Rpc(self.engine, continuation, client_call_details, request))


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        rpc = Rpc(self.engine, continuation, client_call_details, request, streams=True)
        return UnaryStream(rpc, self.engine.run(rpc))


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        replayable = is_replayable(request_iterator)
        rpc = Rpc(self.engine, continuation, client_call_details, request_iterator, replayable=replayable)
        return StreamUnary(rpc, self.engine.run_spooled(rpc))


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        replayable = is_replayable(request_iterator)
        rpc = Rpc(self.engine, continuation, client_call_details, request_iterator, streams=True, replayable=replayable)
        return StreamStream(rpc, self.engine.run(rpc))


def interceptors_of(engine: Engine) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """One for each kind of call: grpc.aio takes an interceptor for one kind only."""
    return _UnaryUnary(engine), _UnaryStream(engine), _StreamUnary(engine), _StreamStream(engine)
