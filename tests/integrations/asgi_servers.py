"""Real ASGI servers on the loopback interface: hypercorn on asyncio and trio, uvicorn on asyncio."""

import contextlib
import socket
from collections.abc import AsyncGenerator, Callable
from typing import Any

import anyio
import hypercorn.asyncio
import hypercorn.config
import hypercorn.trio
import uvicorn

from integrations.servers import listening

App = Callable[..., Any]


@contextlib.asynccontextmanager
async def serving(app: App, server: str, backend: str) -> AsyncGenerator[int]:
    """Serve an application with hypercorn or uvicorn for the block; yields the port."""
    run = _uvicorn if server == "uvicorn" else _hypercorn
    with listening() as listener:
        async with anyio.create_task_group() as tasks:
            stop = anyio.Event()
            tasks.start_soon(run, app, listener, stop, backend)
            port: int = listener.getsockname()[1]
            try:
                yield port
            finally:
                stop.set()


async def _hypercorn(app: Any, listener: socket.socket, stop: anyio.Event, backend: str) -> None:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = config.accesslog = None
    config.graceful_timeout = 0.2
    package: Any = hypercorn.trio if backend == "trio" else hypercorn.asyncio
    await package.serve(app, config, shutdown_trigger=stop.wait, mode="asgi")


async def _uvicorn(app: Any, listener: socket.socket, stop: anyio.Event, backend: str) -> None:  # noqa: ARG001  it knows one only
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1, ws="wsproto"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        await stop.wait()
        server.should_exit = True
