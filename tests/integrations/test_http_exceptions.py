"""Failed requests: did they reach the server? So: who is sent again, and what does the breaker learn?

Each row is a way to fail that happens on a real connection, once; after it the server answers. Each is tried with a GET and
with a POST: what surfaces, or that the second attempt brought the answer, is the whole difference.
"""

import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from integrations.families import BACKENDS, Family
from integrations.servers import Step, answer, free_port, hang_up, head, reset, serve, stall, tunnel
from integrations.servers_h2 import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    GRACEFUL,
    HTTP_1_1_REQUIRED,
    INTERNAL_ERROR,
    REFUSED_STREAM,
    StepH2,
    go_away,
    refuse,
    respond,
    serve_h2,
)
from resilient import Health, record_timeline

pytestmark = BACKENDS

SHORT = {"connect": 0.05, "read": 0.05, "write": 0.05, "pool": 0.05}
"""Seconds that a first attempt waits for what never comes."""


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


@pytest.fixture
def stage(family: Family, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(family, server_tls, client_tls, monkeypatch)


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
    async with serve(answer(200)) as server:
        yield Scene(server.url, stage.family.inner(), free_port())


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


BOTH, IDEMPOTENT, NONE = ("GET", "POST"), ("GET",), ()
BODY_BEGAN = head(200, {"Content-Length": "10"}) + b"abc"


def rows(table: list[tuple[str, Setting, str, tuple[str, ...], Health, str]]) -> list[Any]:
    """Each row with the methods that tell: a POST where even that is sent again, a GET where not even that is, else both."""
    telling = {BOTH: ("POST",), IDEMPOTENT: BOTH, NONE: ("GET",)}
    return [
        pytest.param(setting, error, health, reason, method, method in resent, id=f"{name}: {method}")
        for name, setting, error, resent, health, reason in table
        for method in telling[resent]
    ]


SICK, NEUTRAL = Health.UNHEALTHY, Health.NEUTRAL

ROWS = [
    # never sent: any method is sent again
    ("a refused connection", refused, "ConnectError", BOTH, SICK, "connect_error"),
    ("a TCP handshake that gets no answer", no_room, "ConnectTimeout", BOTH, SICK, "connect_timeout"),
    ("a TLS handshake that stalls", tls(stall(at="connection")), "ConnectTimeout", BOTH, SICK, ""),
    ("a TLS handshake that is cut off", tls(hang_up(at="connection")), "ConnectError", BOTH, SICK, ""),
    ("a temporary failure of DNS", resolver(socket.EAI_AGAIN), "ConnectError", BOTH, SICK, ""),
    # never sent, and trying again cannot help
    ("an unknown host", resolver(socket.EAI_NONAME), "ConnectError", NONE, SICK, "unknown_host"),
    ("an untrusted certificate", untrusted, "ConnectError", NONE, SICK, "certificate_error"),
    ("another scheme", other_scheme, "UnsupportedProtocol", NONE, NEUTRAL, "unsupported_protocol"),
    # the proxy failed: the origin saw nothing
    ("a proxy that answers 502", proxied(answer(502)), "ProxyError", BOTH, NEUTRAL, ""),
    ("a proxy that answers 503", proxied(answer(503)), "ProxyError", BOTH, NEUTRAL, ""),
    ("a proxy that answers 504", proxied(answer(504)), "ProxyError", BOTH, NEUTRAL, ""),
    ("a proxy that answers 403", proxied(answer(403)), "ProxyError", NONE, NEUTRAL, ""),
    ("a proxy that answers 407", proxied(answer(407)), "ProxyError", NONE, NEUTRAL, ""),
    ("a proxy that stalls in CONNECT", proxied(stall()), "ReadTimeout", BOTH, NEUTRAL, ""),
    ("a proxy that hangs up in CONNECT", proxied(hang_up()), "RemoteProtocolError", BOTH, NEUTRAL, ""),
    ("a proxy that resets in CONNECT", proxied(reset()), "ReadError", BOTH, NEUTRAL, ""),
    # perhaps sent: only idempotent methods are sent again
    ("no answer in time", h1(stall()), "ReadTimeout", IDEMPOTENT, SICK, "read_timeout"),
    ("a header that never ends", h1(stall(b"HTTP/1.1 200")), "ReadTimeout", IDEMPOTENT, SICK, ""),
    ("a reset after the request", h1(reset()), "ReadError", IDEMPOTENT, SICK, "read_error"),
    ("a reset within the header", h1(reset(b"HTTP/1.1 2")), "ReadError", IDEMPOTENT, SICK, ""),
    ("a hang-up after the request", h1(hang_up()), "RemoteProtocolError", IDEMPOTENT, SICK, ""),
    ("a response that is not HTTP", h1(hang_up(b"?\r\n\r\n")), "RemoteProtocolError", NONE, SICK, ""),
    ("a header without end", h1(hang_up(b"HTTP/1.1 200 " + b"x" * 200_000)), "RemoteProtocolError", NONE, SICK, ""),
    # HTTP/2 says more
    ("REFUSED_STREAM", h2(refuse(REFUSED_STREAM)), "RemoteProtocolError", BOTH, SICK, "refused_stream"),
    ("CANCEL", h2(refuse(CANCEL)), "RemoteProtocolError", IDEMPOTENT, SICK, "stream_reset"),
    ("INTERNAL_ERROR", h2(refuse(INTERNAL_ERROR)), "RemoteProtocolError", IDEMPOTENT, SICK, ""),
    ("ENHANCE_YOUR_CALM", h2(refuse(ENHANCE_YOUR_CALM)), "RemoteProtocolError", IDEMPOTENT, SICK, ""),
    ("HTTP_1_1_REQUIRED", h2(refuse(HTTP_1_1_REQUIRED)), "RemoteProtocolError", NONE, SICK, ""),
    ("GOAWAY before any stream", h2(go_away(0)), "RemoteProtocolError", BOTH, NEUTRAL, "goaway"),
    ("GOAWAY after our stream", h2(go_away(1)), "RemoteProtocolError", IDEMPOTENT, NEUTRAL, ""),
    ("graceful GOAWAY", h2(go_away(GRACEFUL)), "RemoteProtocolError", IDEMPOTENT, NEUTRAL, ""),
    ("GOAWAY with an error on the first stream", h2(go_away(0, INTERNAL_ERROR)), "RemoteProtocolError", IDEMPOTENT, SICK, ""),
]


@pytest.mark.parametrize(("setting", "error", "health", "reason", "method", "resent"), rows(ROWS))
async def test_a_failed_request_is_sent_again_only_where_that_is_safe(
    family: Family,
    stage: Stage,
    setting: Setting,
    error: str,
    health: Health,
    reason: str,
    method: str,
    *,
    resent: bool,
) -> None:
    """What was never sent or was refused by the protocol goes out again whatever its method; what may have arrived only if
    that does no harm; what cannot succeed never.
    """
    async with setting(stage) as scene:

        def prepare(request: Any, number: int) -> None:
            if number == 1 and error.endswith("Timeout"):
                request.extensions["timeout"] = SHORT
            if number == 1 and scene.first_port is not None:
                request.url = request.url.copy_with(port=scene.first_port)

        async with family.client(scene.inner, before_attempt=prepare) as client:
            outcome: Any = None
            with record_timeline() as timeline:
                try:
                    outcome = await client.request(method, scene.url, content=b"x" if method == "POST" else None)
                except family.lib.TransportError as failure:
                    outcome = failure

            first = timeline.attempts[0]
            assert (first.error, first.verdict.health) == (error, health)
            assert first.verdict.reason == (reason or first.verdict.reason)
            if resent:
                assert (outcome.status_code, len(timeline.attempts)) == (200, 2)
            else:
                assert (type(outcome).__name__, len(timeline.attempts)) == (error, 1)
                assert outcome.request.method == method
