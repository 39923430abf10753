"""Scripted loopback servers: each connection and each request meets what the test wrote down for it.

`async with serve(answer(503), answer(200, b"hello")) as server:` answers the first request with 503 and every later one with
200: the last step of a script repeats. A step is data: when it acts (`at`), which bytes it sends, and how it ends. The
servers work on non-blocking sockets, because only there a connection can be reset at will, and run in the test's own event
loop, on any backend. They never sleep: a stalled connection waits until its client goes, a held one for `server.release`.
Everything that arrives is recorded. All mutable state: the attributes of `Server` and `Request`.
"""

import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import anyio
import anyio.abc
import h11
from anyio.streams.tls import TLSStream

Headers = Mapping[str, str] | tuple[tuple[str, str], ...]


class Hold:
    """Stands among the parts of a step: wait for `server.release` before going on."""


HOLD: Final = Hold()


@dataclass(frozen=True)
class Step:
    """What a server does with one request, or with one connection.

    Attributes:
        parts: what is sent, in this order.
        then: how it ends. `keep` waits for the next request, `close` sends FIN, `reset` sends RST, `stall` listens and says
            nothing more until the client has gone, `deaf` does not even listen until `server.release`, `tunnel` becomes the
            proxy's tunnel to the host that CONNECT named.
        at: when it acts: on the bare `connection`, on the `headers` of a request, or when all of its `body` has arrived.
        every: seconds between two parts.

    """

    parts: tuple[bytes | Hold, ...] = ()
    then: Literal["keep", "close", "reset", "stall", "deaf", "tunnel"] = "keep"
    at: Literal["connection", "headers", "body"] = "body"
    every: float = 0.0


def head(status: int, headers: Headers = ()) -> bytes:
    """The status line and the header fields of a response."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in pairs)]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(status: int = 200, body: bytes = b"", headers: Headers = (), *, at: Literal["headers", "body"] = "body") -> Step:
    """A complete response; the connection stays open."""
    pairs = tuple(headers.items()) if isinstance(headers, Mapping) else headers
    return Step((head(status, (("Content-Length", str(len(body))), *pairs)) + body,), at=at)


def held(status: int = 200, body: bytes = b"", headers: Headers = ()) -> Step:
    """A complete response, once the test has set `server.release`."""
    step = answer(status, body, headers)
    return replace(step, parts=(HOLD, *step.parts))


def hang_up(data: bytes = b"", *, at: Literal["connection", "headers", "body"] = "body") -> Step:
    """Send these bytes, then FIN."""
    return Step((data,), "close", at)


def reset(data: bytes = b"", *, at: Literal["connection", "headers", "body"] = "body") -> Step:
    """Send these bytes, then RST."""
    return Step((data,), "reset", at)


def stall(data: bytes = b"", *, at: Literal["connection", "headers", "body"] = "body") -> Step:
    """Send these bytes, then nothing more until the client goes."""
    return Step((data,), "stall", at)


def drip(data: bytes, every: float = 0.01) -> Step:
    """Send one byte at a time, slower than the whole may take and faster than a single read may."""
    return Step(tuple(data[index : index + 1] for index in range(len(data))), "stall", every=every)


def tunnel() -> Step:
    """Answer CONNECT with 200 and relay."""
    return Step((head(200),), "tunnel")


@dataclass
class Request:
    """A request that arrived. `complete` says whether its body did, too."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    connection: int
    complete: bool = False
    received: bytearray = field(default_factory=bytearray)

    @property
    def body(self) -> bytes:
        """What has arrived of its body."""
        return bytes(self.received)

    def header(self, name: str) -> str | None:
        """The values of a header field, joined; None where there is none."""
        values = [value for key, value in self.headers if key == name.lower()]
        return ", ".join(values) if values else None


@dataclass
class Server:
    """What a test sees of a scripted server."""

    port: int
    script: list[Step]
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list[Request])
    connections: int = 0
    gone: int = 0
    """Connections that the client ended while the server stalled, dripped, or waited for another request."""
    release: anyio.Event = field(default_factory=anyio.Event)
    _news: anyio.Event = field(default_factory=anyio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of the requests that arrived."""
        return [request.body for request in self.requests]

    async def until(self, *, requests: int = 0, connections: int = 0, gone: int = 0) -> None:
        """Wait until so many have been seen."""
        while len(self.requests) < requests or self.connections < connections or self.gone < gone:
            await self._news.wait()

    def tell(self) -> None:
        """Something arrived: wake whoever waits in `until`."""
        self._news.set()
        self._news = anyio.Event()

    def peek(self) -> Step:
        """The step that comes next."""
        return self.script[0]

    def take(self) -> Step:
        """The step that comes next; the last one stays."""
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


class Wire(anyio.abc.ByteStream):
    """A socket as a stream that can also be reset."""

    def __init__(self, raw: socket.socket) -> None:
        raw.settimeout(0)
        self.raw = raw

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            try:
                data = self.raw.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self.raw)
            except OSError as error:
                raise anyio.BrokenResourceError from error
            else:
                if data:
                    return data
                raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        left = memoryview(item)
        while left:
            try:
                left = left[self.raw.send(left) :]
            except BlockingIOError:
                await anyio.wait_writable(self.raw)
            except OSError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        self.raw.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self.raw.close()

    def reset(self) -> None:
        """Close with RST in place of FIN."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()


@asynccontextmanager
async def serve(*script: Step, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncGenerator[Server]:
    """A scripted HTTP/1.1 server (or proxy, or TLS peer) on a free port of the loopback interface, for the block."""
    with listening(port) as listener:
        server = Server(listener.getsockname()[1], list(script or [answer()]), "http" if tls is None else "https")

        async def connection(wire: Wire, number: int) -> None:
            await _Connection(server, wire, number).run(tls)

        async with accepting(listener, server, connection):
            yield server


def listening(port: int = 0) -> socket.socket:
    """A socket that listens on the loopback interface."""
    return socket.create_server(("127.0.0.1", port), backlog=64)


@contextmanager
def nobody() -> Generator[int]:
    """A port on which nobody listens, and nobody else will, for the block: connections to it are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@asynccontextmanager
async def accepting(
    listener: socket.socket, server: Server, handle: Callable[[Wire, int], Awaitable[None]]
) -> AsyncGenerator[None]:
    """Accept connections, each in a task of its own, while the block runs."""

    async def connection(wire: Wire, number: int) -> None:
        async with wire:
            try:
                await handle(wire, number)
            except* (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                server.gone += 1
                server.tell()

    async def accept() -> None:
        while True:
            await anyio.wait_readable(listener)
            raw, _ = listener.accept()
            server.connections += 1
            server.tell()
            tasks.start_soon(connection, Wire(raw), server.connections)

    listener.settimeout(0)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(accept)
        try:
            yield
        except Exception as error:  # noqa: BLE001  it surfaces below, without the group around it
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Connection:
    """One HTTP/1.1 connection of a scripted server."""

    def __init__(self, server: Server, wire: Wire, number: int) -> None:
        self.server = server
        self.wire = wire
        self.number = number
        self.stream: anyio.abc.ByteStream = wire

    async def run(self, tls: ssl.SSLContext | None) -> None:
        if self.server.peek().at == "connection":
            await self._act(self.server.take(), Request("", "", [], self.number))
            return
        if tls is not None:
            self.stream = await TLSStream.wrap(self.wire, server_side=True, ssl_context=tls, standard_compatible=False)
        unread: bytes | None = b""
        while unread is not None:
            unread = await self._serve_one(unread)

    async def _serve_one(self, unread: bytes) -> bytes | None:
        """Read a request and act on it. Returns what was read of the next one, or None where there is none to come."""
        parser = h11.Connection(h11.SERVER)
        if unread:
            parser.receive_data(unread)
        request, step, more = Request("", "", [], self.number), answer(), True
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                request, step = self._record(event), self.server.take()
                more = step.at == "body" or await self._act(step, request)
            elif isinstance(event, h11.Data):
                request.received += event.data
            elif isinstance(event, h11.EndOfMessage):
                request.complete = True
                self.server.tell()
                more = await self._act(step, request) if step.at == "body" else more
                return parser.trailing_data[0] if more else None
            if not more:
                return None
            if event is h11.NEED_DATA:
                parser.receive_data(await self.stream.receive())

    def _record(self, event: h11.Request) -> Request:
        headers = [(name.decode(), value.decode()) for name, value in event.headers]
        request = Request(event.method.decode(), event.target.decode(), headers, self.number)
        self.server.requests.append(request)
        self.server.tell()
        return request

    async def _act(self, step: Step, request: Request) -> bool:
        """Do what the step says. Returns whether another request may follow."""
        for part in step.parts:
            if isinstance(part, Hold):
                await self.server.release.wait()
                continue
            await self.stream.send(part)
            if step.every:
                with anyio.move_on_after(step.every):  # a pause that ends when the client goes
                    await self.stream.receive()
        if step.then == "close":
            await self.wire.aclose()
        elif step.then == "reset":
            self.wire.reset()
        elif step.then == "tunnel":
            await self._tunnel(int(request.target.rpartition(":")[2]))
        elif step.then == "deaf":
            await self.server.release.wait()
        while step.then == "stall":
            request.received += await self.stream.receive()
        return step.then == "keep"

    async def _tunnel(self, port: int) -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as upstream, anyio.create_task_group() as tasks:

            async def relay(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream) -> None:
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:
                        await sink.send(await source.receive())
                tasks.cancel_scope.cancel()

            tasks.start_soon(relay, self.stream, upstream)
            tasks.start_soon(relay, upstream, self.stream)
