"""A client and a server over gRPC: retries with the server's pushback, a stream, limits, a deadline that is handed down.

Messages are bytes, so nothing needs to be generated. With generated stubs: `UsersStub(channel).Get(request)`.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from resilient import Bulkhead, Policy, deadline, record_timeline
from resilient_integrations.grpc import ServerLimits, resilient_channel


class Users:
    """A service that is busy at first."""

    busy = 2

    async def get(self, request: bytes, context: Any) -> bytes:
        if self.busy:
            self.busy -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy", (("grpc-retry-pushback-ms", "20"),))
        return b"user " + request

    async def list(self, _request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for user in (b"ada", b"grace", b"barbara"):
            yield user

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "example.Users",
            {"Get": grpc.unary_unary_rpc_method_handler(self.get), "List": grpc.unary_stream_rpc_method_handler(self.list)},
        )


async def main() -> None:
    """Serve, and call."""
    server = grpc.aio.server(interceptors=[ServerLimits(Policy(bulkhead=Bulkhead(10), timeout=5.0))])
    server.add_generic_rpc_handlers([Users().handlers()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with resilient_channel(f"127.0.0.1:{port}", idempotent={"/example.Users/Get", "/example.Users/List"}) as channel:
        get = channel.unary_unary("/example.Users/Get")
        with record_timeline() as timeline, deadline(5.0):
            print((await get(b"42")).decode())
        print(timeline.render())

        async for user in channel.unary_stream("/example.Users/List")(b""):
            print("-", user.decode())
        try:
            await channel.unary_unary("/example.Users/Nothing")(b"")
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
