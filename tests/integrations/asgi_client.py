"""A client that speaks ASGI to an application, without a network: what each message was, and when it came."""

import json
from collections.abc import Callable, MutableMapping
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel

from resilient import clock

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Headers = list[tuple[str, str]]


def scope_of(path: str = "/", headers: Headers | None = None, kind: str = "http", **more: Any) -> dict[str, Any]:
    """What a server tells of a request."""
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers or []]
    method = {"method": "GET"} if kind == "http" else {}
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        **method,
        "path": path,
        "headers": pairs,
        "client": ("192.0.2.1", 4),
        **more,
    }


class Request:
    """A request, and what comes back. The client goes away when `leave` is set.

    Attributes:
        sent: the messages of the application, with the time of each.

    """

    def __init__(self, scope: dict[str, Any], *bodies: bytes, breaks: bool = False) -> None:
        self.scope = scope
        self.bodies = list(bodies) or [b""]
        self.leave = anyio.Event()
        self.breaks = breaks  # whether a server says so where the client is gone
        self.sent: list[tuple[float, Message]] = []
        self.received = 0

    async def receive(self) -> Message:
        self.received += 1
        await anyio.lowlevel.checkpoint()
        if self.scope["type"] == "websocket":
            if self.received == 1:
                return {"type": "websocket.connect"}
            await self.leave.wait()
            return {"type": "websocket.disconnect", "code": 1001}
        if self.bodies:
            body = self.bodies.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self.bodies)}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await anyio.lowlevel.checkpoint()
        if self.breaks and self.leave.is_set():
            msg = "the client is gone"
            raise OSError(msg)
        self.sent.append((clock.now(), message))

    async def run(self, app: Callable[..., Any]) -> "Request":
        await app(self.scope, self.receive, self.send)
        return self

    async def begin(self, tasks: anyio.abc.TaskGroup, app: Callable[..., Any]) -> None:
        """Run in another task, from now on: before whatever the caller does next."""
        tasks.start_soon(self.run, app)
        for _ in range(2):  # trio runs what is ready in any order
            await anyio.lowlevel.checkpoint()

    @property
    def messages(self) -> list[Message]:
        return [message for _, message in self.sent]

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def fields(self) -> dict[str, str]:
        pairs = self.messages[0]["headers"]
        assert len({name for name, _ in pairs}) == len(pairs)
        return {name.decode(): value.decode() for name, value in pairs}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def get(app: Callable[..., Any], path: str = "/", headers: Headers | None = None, **more: Any) -> Request:
    """Ask an application and hear all of its answer."""
    return await Request(scope_of(path, headers, **more)).run(app)


class Service:
    """An application. It takes `seconds` until it answers with `status`, and `streams` for the rest of the body.

    Attributes:
        calls: how often it was asked.
        most: how many requests it had at once at most.

    """

    def __init__(self, status: int = 200, *, seconds: float = 0.0, streams: float = 0.0, error: Exception | None = None) -> None:
        self.status = status
        self.seconds = seconds
        self.streams = streams
        self.error = error
        self.calls = 0
        self.active = 0
        self.most = 0

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        self.calls += 1
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await anyio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.accept"})
                await receive()
                return
            await send({"type": "http.response.start", "status": self.status, "headers": [(b"x-own", b"1")]})
            await send({"type": "http.response.body", "body": b"o", "more_body": True})
            await anyio.sleep(self.streams)
            await send({"type": "http.response.body", "body": b"k"})
        finally:
            self.active -= 1
