"""A unary call of grpc.aio through a channel, to a server in this process that answers at once."""

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import grpc.aio

from benchmarks.harness import Case, Group
from resilient import Bulkhead, Policy, Timeout, TokenBucket
from resilient_integrations.grpc import interceptors, resilient_channel

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it tells of each connection that ends
_RPC: Final[Any] = grpc  # its types say too little for strict checkers
METHOD: Final = "/benchmark.Service/Unary"
BARE_CHANNEL: Final = "bare grpc.aio channel"
OPTIONS: Final = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each channel, as in programs of their own
EVERYTHING: Final = Policy.http().replace(bulkhead=Bulkhead(100), rate_limit=TokenBucket(1e6), attempt_timeout=Timeout(5))


class _Channel:
    """A channel to a server of its own, both made when they are first used."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make
        self._server: Any = None
        self._channel: Any = None
        self._call: Any = None

    async def run(self, n: int) -> None:
        if self._server is None:
            self._server = grpc.aio.server()
            handlers = {"Unary": _RPC.unary_unary_rpc_method_handler(_answer)}
            self._server.add_generic_rpc_handlers([_RPC.method_handlers_generic_handler("benchmark.Service", handlers)])
            port = self._server.add_insecure_port("127.0.0.1:0")
            await self._server.start()
            self._channel = self._make(f"127.0.0.1:{port}")
            self._call = self._channel.unary_unary(METHOD)
        call = self._call
        for _ in range(n):
            await call(b"42", timeout=30.0)

    async def close(self) -> None:
        await self._channel.close()
        await self._server.stop(None)


async def _answer(request: bytes, _context: Any) -> bytes:
    return request


class _Passes(grpc.aio.UnaryUnaryClientInterceptor):
    """The floor of interceptors: one that does nothing."""

    async def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        return await continuation(client_call_details, request)


def own() -> Iterable[Case]:
    def case(name: str, make: Callable[[str], Any], *, ours: bool = True) -> Case:
        channel = _Channel(make)
        return Case(name, channel.run, close=channel.close, ours=ours)

    def bare(target: str, *with_: Any) -> Any:
        return grpc.aio.insecure_channel(target, options=OPTIONS, interceptors=with_)

    yield case(BARE_CHANNEL, bare, ours=False)
    yield case("an interceptor that does nothing", lambda target: bare(target, _Passes()), ours=False)
    yield case("resilient interceptors()", lambda target: bare(target, *interceptors()))
    yield case("resilient_channel, defaults", lambda target: resilient_channel(target, options=OPTIONS))
    yield case("resilient_channel, everything", lambda target: resilient_channel(target, options=OPTIONS, policy=EVERYTHING))


GROUPS = [Group("grpc", "gRPC: a unary call, client and server in one thread", own, base=BARE_CHANNEL)]
