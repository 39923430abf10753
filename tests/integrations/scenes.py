"""Scenes of failure: where a request is sent, and what happens to it there, once; after that the server answers.

A `Setting` sets up a scene on a `Stage`, and takes it down again. `h1(reset())`, for example, is a server that resets the
connection of the first request, and `proxied(stall())` a proxy that stalls in the first CONNECT.
"""

import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from integrations.families import Family
from integrations.servers import Step, answer, nobody, serve, tunnel
from integrations.servers_h2 import ServerH2, StepH2, hold, respond, say_nothing, serve_h2


@dataclass
class Scene:
    """Where a request is sent, and through what; the first attempt may go to another port."""

    url: str
    inner: Any
    first_port: int | None = None


@dataclass
class Stage:
    """What a scene is made from."""

    family: Family
    server_tls: ssl.SSLContext
    client_tls: ssl.SSLContext
    patch: pytest.MonkeyPatch


Setting = Callable[[Stage], AbstractAsyncContextManager[Scene]]


def h1(*script: Step) -> Setting:
    """The server does that, then answers."""

    @asynccontextmanager
    async def scene(stage: Stage) -> AsyncGenerator[Scene]:
        async with serve(*script, answer(200)) as server:
            yield Scene(server.url, stage.family.inner())

    return scene


def h2(*script: StepH2) -> Setting:
    """The HTTP/2 server does that, then answers."""

    @asynccontextmanager
    async def scene(stage: Stage) -> AsyncGenerator[Scene]:
        async with serve_h2(*script, respond(200)) as server:
            yield Scene(server.url, stage.family.inner_h2())

    return scene


def proxied(*script: Step) -> Setting:
    """The proxy does that with CONNECT, then opens a tunnel."""

    @asynccontextmanager
    async def scene(stage: Stage) -> AsyncGenerator[Scene]:
        async with serve(answer(200), tls=stage.server_tls) as server, serve(*script, tunnel()) as proxy:
            yield Scene(server.url, stage.family.inner(verify=stage.client_tls, proxy=proxy.url))

    return scene


@asynccontextmanager
async def refused(stage: Stage) -> AsyncGenerator[Scene]:
    """Nobody listens on the port of the first attempt."""
    with nobody() as port:
        async with serve(answer(200)) as server:
            yield Scene(server.url, stage.family.inner(), port)


@asynccontextmanager
async def no_room(stage: Stage) -> AsyncGenerator[Scene]:
    """The queue of the listener that the first attempt meets is full: its SYN gets no answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as fillers:
        for _ in range(2):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003  its only parameter
            filler.connect_ex(full.getsockname())
        async with serve(answer(200)) as server:
            yield Scene(server.url, stage.family.inner(), full.getsockname()[1])


def tls(*script: Step) -> Setting:
    """The server does that in place of a TLS handshake; after it, it speaks TLS."""

    @asynccontextmanager
    async def scene(stage: Stage) -> AsyncGenerator[Scene]:
        async with serve(*script, answer(200), tls=stage.server_tls) as server:
            yield Scene(server.url, stage.family.inner(verify=stage.client_tls))

    return scene


@asynccontextmanager
async def untrusted(stage: Stage) -> AsyncGenerator[Scene]:
    """The client does not know who signed the certificate."""
    async with serve(answer(200), tls=stage.server_tls) as server:
        yield Scene(server.url, stage.family.inner(verify=ssl.create_default_context()))


def resolver(code: int) -> Setting:
    """The first look-up of the name fails with that code."""

    @asynccontextmanager
    async def scene(stage: Stage) -> AsyncGenerator[Scene]:
        answers = [socket.gaierror(code, "scripted")]
        ask = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host not in {"service.test", b"service.test"}:
                return ask(host, *args, **kwargs)
            if args[-1:] and args[-1] & socket.AI_NUMERICHOST:  # trio asks first whether it is an address
                raise socket.gaierror(socket.EAI_NONAME, "not an address")
            if answers:
                raise answers.pop()
            return ask("127.0.0.1", *args, **kwargs)

        stage.patch.setattr(socket, "getaddrinfo", getaddrinfo)
        async with serve(answer(200)) as server:
            yield Scene(f"http://service.test:{server.port}", stage.family.inner())

    return scene


@asynccontextmanager
async def other_scheme(stage: Stage) -> AsyncGenerator[Scene]:
    yield Scene("gopher://127.0.0.1/", stage.family.inner())


@asynccontextmanager
async def beside_another_stream(family: Family) -> AsyncGenerator[tuple[Any, ServerH2]]:
    """A client and an HTTP/2 server that never answers it: another request, on the same connection, is answered in the end."""
    async with serve_h2(hold(respond(200, b"late")), say_nothing) as server, family.client(family.inner_h2()) as client:
        bodies: list[bytes] = []

        async def patient() -> None:
            bodies.append((await client.get(server.url)).content)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(patient)
            await server.until(requests=1)
            yield client, server
            server.release.set()

        assert (bodies, server.connections) == ([b"late"], 1)
