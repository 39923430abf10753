"""Failed requests: did they reach the server? So: who is sent again, and what does the breaker learn?

Each row is a way to fail that happens on a real connection, once; after it the server answers. Each is tried with a GET and
with a POST: what surfaces, or that the second attempt brought the answer, is the whole difference.
"""

import contextlib
import socket
from typing import Any

import anyio
import pytest

from integrations.families import BACKENDS, LEFT_BELOW, Family, failures
from integrations.scenes import Setting, Stage, h1, h2, no_room, other_scheme, proxied, refused, resolver, tls, untrusted
from integrations.servers import Step, answer, hang_up, held, reset, serve, stall
from integrations.servers_h2 import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    GRACEFUL,
    HTTP_1_1_REQUIRED,
    INTERNAL_ERROR,
    REFUSED_STREAM,
    go_away,
    refuse,
    respond,
    serve_h2,
)
from resilient import Health, record_timeline

pytestmark = BACKENDS

SHORT = {"ReadTimeout": {"read": 0.05}, "ConnectTimeout": {"connect": 0.05}}
"""Timeouts of a first attempt that waits for what never comes, in seconds."""

BOTH, IDEMPOTENT, NONE = ("GET", "POST"), ("GET",), ()


def rows(table: list[tuple[str, Setting, str, tuple[str, ...], Health, str]]) -> list[Any]:
    """Each row with the methods that tell: a POST where even that is sent again, a GET where not even that is, else both."""
    telling: dict[tuple[str, ...], tuple[str, ...]] = {BOTH: ("POST",), IDEMPOTENT: BOTH, NONE: ("GET",)}
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
            if number == 1 and error in SHORT:
                request.extensions["timeout"] = {**request.extensions["timeout"], **SHORT[error]}
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


# -- failures that need a scene of their own -----------------------------------------------------------------------------


async def test_a_free_connection_that_never_comes_is_our_own_overload(family: Family) -> None:
    """`PoolTimeout`: not sent, not sent again, and nothing that the server is to blame for."""
    one = family.inner(limits=family.lib.Limits(max_connections=1))
    async with serve(held()) as server, family.client(one) as client:
        with record_timeline() as timeline:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, server.url)
                await server.until(requests=1)
                with pytest.raises(family.lib.PoolTimeout):
                    await client.get(server.url, timeout=family.lib.Timeout(5.0, pool=0.05))
                server.release.set()

        first = timeline.attempts[0]
        assert (first.verdict.reason, first.verdict.health) == ("pool_timeout", Health.NEUTRAL)
        assert (len(timeline.attempts), len(server.requests)) == (2, 1)


async def test_a_header_that_is_not_allowed_is_the_callers_mistake(family: Family) -> None:
    """`LocalProtocolError` comes from below; nothing was written, and no other attempt would do better."""
    async with serve() as server, family.client() as client:
        with record_timeline() as timeline, pytest.raises(family.lib.LocalProtocolError):
            await client.get(server.url, headers={"X-Bad": "a\nb"})

        assert [attempt.verdict.health for attempt in timeline.attempts] == [Health.NEUTRAL]
        assert server.requests == []


async def test_what_is_not_the_affair_of_a_transport_never_gets_there(family: Family) -> None:
    """`InvalidURL` and `CookieConflict` are raised above."""
    async with family.client() as client:
        client.cookies.set("a", "1", domain="one.example")
        client.cookies.set("a", "2", domain="two.example")
        with record_timeline() as timeline:
            with pytest.raises(family.lib.InvalidURL):
                await client.get("http://127.0.0.1:port")
            with pytest.raises(family.lib.CookieConflict):
                client.cookies.get("a")

        assert timeline.events == []


@LEFT_BELOW
async def test_a_peer_that_does_not_read_may_have_read_enough(family: Family) -> None:
    """`WriteTimeout`: part of the POST went out, so it is not sent again; the breaker counts it."""
    async with serve(Step(then="deaf", at="headers")) as server, family.client() as client:
        with record_timeline() as timeline, pytest.raises(family.lib.WriteTimeout):
            await client.post(server.url, content=b"x" * 20_000_000, timeout=family.lib.Timeout(5.0, write=0.1))
        server.release.set()

        assert [(attempt.verdict.reason, attempt.verdict.health) for attempt in timeline.attempts] == [("write_timeout", SICK)]
        assert failures(client) == 1


@LEFT_BELOW
@pytest.mark.parametrize("method", BOTH)
async def test_a_connection_that_dies_while_a_body_is_sent_may_have_delivered_it(family: Family, method: str) -> None:
    """The error of the write is swallowed below and surfaces as one of reading, or of the protocol."""
    async with serve(reset(at="headers"), answer(200)) as server, family.client() as client:
        surfacing = (family.lib.NetworkError, family.lib.RemoteProtocolError)
        with record_timeline() as timeline, contextlib.suppress(*surfacing):
            await client.request(method, server.url, content=b"x" * 8_000_000)

        assert len(timeline.attempts) == (2 if method == "GET" else 1)
        assert timeline.attempts[0].verdict.health is SICK


async def test_a_stream_that_goaway_spares_is_sent_again_below_us(family: Family) -> None:
    """Httpcore itself repeats what a GOAWAY with a lower stream id says was not processed: one attempt, even of a POST."""
    async with serve_h2(respond(200), go_away(1), respond(201)) as server, family.client(family.inner_h2()) as client:
        await client.get(server.url)
        with record_timeline() as timeline:
            response = await client.post(server.url, content=b"x")

        assert (response.status_code, len(timeline.attempts)) == (201, 1)
        assert (server.bodies, server.connections) == ([b"", b"x", b"x"], 2)


@pytest.mark.parametrize("method", BOTH)
async def test_a_kept_connection_that_was_closed_meanwhile_is_no_failure(family: Family, method: str) -> None:
    """The pool sees that the server has closed it, and opens another one."""
    close_quietly = Step((*answer(200).parts,), "close")
    async with serve(close_quietly, answer(200)) as server, family.client() as client:
        await client.get(server.url)
        with record_timeline() as timeline:
            response = await client.request(method, server.url)

        assert (response.status_code, len(timeline.attempts), server.connections) == (200, 1, 2)


@pytest.mark.parametrize(("method", "attempts"), [("GET", 2), ("POST", 1)])
async def test_a_kept_connection_that_closes_under_the_request_looks_like_a_lost_answer(
    family: Family, method: str, attempts: int
) -> None:
    """Nobody can tell it from a request that was processed before the server died: a POST is not sent again."""
    async with serve(answer(200), hang_up(), answer(200)) as server, family.client() as client:
        await client.get(server.url)
        with record_timeline() as timeline, contextlib.suppress(family.lib.RemoteProtocolError):
            await client.request(method, server.url)

        assert len(timeline.attempts) == attempts
