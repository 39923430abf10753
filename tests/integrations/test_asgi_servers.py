"""The middleware under real servers: what a client sees on the wire."""

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, RejectData
from wsproto.events import Request as Upgrade

from integrations.asgi_servers import serving
from resilient import Bulkhead, CircuitBreaker, Keyed, TokenBucket
from resilient_integrations.asgi import HealthEndpoints, ResilientMiddleware, client_ip

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        ("anyio_backend", "server"),
        [("real-asyncio", "hypercorn"), ("real-uvloop", "uvicorn"), ("real-trio", "hypercorn")],
        indirect=["anyio_backend"],
    ),
]


class Site:
    """A Starlette application with its limits, and what became of its requests."""

    def __init__(self) -> None:
        self.bulkhead = Bulkhead(2)
        self.breaker = CircuitBreaker(consecutive_failures=2, open_for=60)
        self.go_on = anyio.Event()
        self.bodies: list[bytes] = []
        routes = [
            Route("/", self.answer, methods=["GET", "POST"]),
            Route("/slow", self.slow),
            Route("/stream", self.stream),
            Route("/endless", self.endless),
            Route("/broken", self.broken),
            WebSocketRoute("/socket", self.socket),
        ]
        limited = ResilientMiddleware(
            Starlette(routes=routes),
            rate_limit=Keyed(TokenBucket(60, per=60, burst=6, max_wait=0)),
            key=client_ip(1),
            bulkhead=self.bulkhead,
            circuit_breaker=self.breaker,
            timeout=0.3,
            deadline_header="Request-Timeout",
        )
        self.app = HealthEndpoints(limited, parts={"app": self.breaker}, capacity={"requests": self.bulkhead})

    async def answer(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        return PlainTextResponse("ok", background=BackgroundTask(anyio.sleep, 0))

    async def slow(self, _: Request) -> Response:
        await anyio.sleep(30)
        raise AssertionError

    async def stream(self, _: Request) -> Response:
        async def body() -> AsyncGenerator[bytes]:
            yield b"first "
            await self.go_on.wait()
            yield b"last"

        return StreamingResponse(body())

    async def endless(self, _: Request) -> Response:
        async def body() -> AsyncGenerator[bytes]:
            while True:
                yield b"x" * 1000
                await anyio.sleep(0.01)

        return StreamingResponse(body())

    async def broken(self, _: Request) -> Response:
        return PlainTextResponse("broken", status_code=500)

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive()


def client_for(port: int, address: str = "192.0.2.1") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"X-Forwarded-For": address}, trust_env=False)


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110  nobody tells of it
        await anyio.sleep(0.01)


async def test_requests_are_served_refused_and_cut_off(server: str, real_backend: str) -> None:
    """Success with its quota, 429 per client without the body, 504, an open breaker, and health through all of it."""
    site = Site()
    async with (
        serving(site.app, server, real_backend) as port,
        client_for(port) as client,
        client_for(port, "192.0.2.2") as other,
    ):
        good = await client.post("/", content=b"body")
        slow = await client.get("/slow", headers={"Request-Timeout": "0.05"})
        statuses = [(await client.get("/")).status_code for _ in range(4)]
        refused = await client.post("/", content=b"x" * 100_000)
        broken = [await other.get(path) for path in ("/broken", "/slow", "/")]
        live, ready = await client.get("/livez"), await client.get("/readyz")

    assert (good.text, good.headers["ratelimit"]) == ("ok", '"token_bucket";r=5;t=1')
    assert good.headers["ratelimit-policy"] == '"token_bucket";q=6;w=6'
    assert (slow.status_code, slow.json()["reason"]) == (504, "deadline")
    assert statuses == [200] * 4
    assert (refused.status_code, refused.json()["title"]) == (429, "Too Many Requests")
    assert int(refused.headers["retry-after"]) >= 1
    assert site.bodies == [b"body", *[b""] * 4]
    assert [answer.status_code for answer in broken] == [500, 504, 503]
    assert int(broken[2].headers["retry-after"]) >= 48
    assert (live.status_code, ready.status_code, ready.json()["status"]) == (200, 200, "degraded")


async def test_a_stream_holds_its_slot_and_is_not_cut(server: str, real_backend: str) -> None:
    """It lasts longer than the limit of time; a client that leaves gives its slot back."""
    site = Site()
    async with serving(site.app, server, real_backend) as port, client_for(port) as client:
        async with client.stream("GET", "/stream") as stream:
            async with await anyio.connect_tcp("127.0.0.1", port) as leaver:
                await leaver.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
                await leaver.receive()
                full = await client.get("/")
                ready = await client.get("/readyz")
                await anyio.sleep(0.4)
            await until(lambda: site.bulkhead.statistics().active == 1)
            site.go_on.set()
            body = await stream.aread()
        await until(lambda: site.bulkhead.statistics().active == 0)

    assert body == b"first last"
    assert (full.status_code, full.json()["reason"]) == (503, "bulkhead_full")
    assert (ready.status_code, ready.json()["status"]) == (503, "unready")
    assert site.breaker.statistics().failures == 0


async def shake_hands(port: int) -> tuple[anyio.abc.SocketStream, list[Any]]:
    """Ask for a websocket: the stream, and what the server said."""
    stream = await anyio.connect_tcp("127.0.0.1", port)
    protocol = WSConnection(ConnectionType.CLIENT)
    await stream.send(protocol.send(Upgrade(host="127.0.0.1", target="/socket")))
    events: list[Any] = []
    while not any(isinstance(event, AcceptConnection | RejectConnection | RejectData | CloseConnection) for event in events):
        protocol.receive_data(await stream.receive())
        events += protocol.events()
    return stream, events


async def test_a_websocket_holds_a_slot_and_is_refused_where_there_is_none(server: str, real_backend: str) -> None:
    """Both servers can give the response that a request would get."""
    site = Site()
    async with serving(site.app, server, real_backend) as port:
        streams = [await shake_hands(port) for _ in range(2)]
        held = site.bulkhead.statistics().active
        refused, said = await shake_hands(port)
        await refused.aclose()
        for stream, _ in streams:
            await stream.aclose()
        await until(lambda: site.bulkhead.statistics().active == 0)

    assert [type(events[0]) for _, events in streams] == [AcceptConnection] * 2
    assert held == 2
    assert isinstance(said[0], RejectConnection)
    assert said[0].status_code == 503
    assert b"retry-after" in dict(said[0].headers)
