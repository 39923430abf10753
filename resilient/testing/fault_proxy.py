"""A TCP proxy that plays faults on real sockets, on asyncio, uvloop and trio.

Each connection is a `_Link`: one task carries bytes up to the server, one takes what the server sends and notes when it is due,
one delivers that to the client in its pace. The client's side is a plain socket, since a reset (RST) must not be announced by
an orderly end (FIN). Faults are met with bytes: nothing happens to a
connection before either side sends some, and a switch is noticed with the next ones; what a connection draws follows
from the seed and its number, whatever the timing.

All mutable state: of the proxy, its faults, its listening socket and the number of connections; of a link, the faults that it
knows, how many bytes have passed under them, and how it ends.
"""

import contextlib
import logging
import socket
import struct
import sys
from collections.abc import Generator
from random import Random
from types import TracebackType
from typing import Final, Self, cast

import anyio
from anyio.abc import SocketStream, TaskGroup
from anyio.streams.memory import MemoryObjectSendStream

from resilient._arguments import integer
from resilient.testing.faults import Fault, Refuse, Weather, faults_of

__all__ = ("FaultProxy",)

_BACKLOG: Final = 128
_CHUNK: Final = 65_536
_UNDER_WAY: Final = 256
"""Chunks of a connection that may be delayed at a time."""
_RESET_ON_CLOSE: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_LAST_PORT: Final = 65_535
_logger: Final = logging.getLogger("resilient")
_GONE: Final = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)


class FaultProxy:
    """A proxy in front of a TCP server: `async with FaultProxy("127.0.0.1", 5432, Latency(0.2)) as proxy: connect(proxy.port)`.

    Set `proxy.fault` at any time: `proxy.fault = Reset(after=100)`, `proxy.fault = Latency(0.2), Bandwidth(10_000)`, or
    `proxy.fault = None`, from the event loop that it runs in. At the end of the block all its connections are closed.

    Args:
        host: of the server, which is connected to for each connection.
        port: its port.
        faults: what happens to connections (default: nothing).
        seed: fixes jitter and `Sometimes`, connection by connection: a whole number of at least 0 (default 0).
        listen_host: the address to listen on (default `"127.0.0.1"`).
        listen_port: the port to listen on; 0 (the default) takes a free one.

    Attributes:
        port: where it listens, inside of the block.
        connections: how many it has accepted.

    A connection for which the server cannot be reached is reset, as by a server that is not there; a line of the logger
    `resilient` says why.

    Raises:
        OSError: the port cannot be listened on.
        RuntimeError: its block was entered again, inside of it.
        TypeError: what is given is no fault, or of another type.
        ValueError: an argument out of range.

    """

    def __init__(
        self, host: str, port: int, *faults: Fault, seed: int = 0, listen_host: str = "127.0.0.1", listen_port: int = 0
    ) -> None:
        if not isinstance(cast("object", host), str) or not host:
            msg = f"host={host!r}: expected the name or address of the server, such as 'localhost'"
            raise TypeError(msg)
        self._server = host, _port("port", port, at_least=1)
        self._seed = integer("seed", seed, at_least=0)
        self._listen_host = listen_host
        self._faults = faults_of(faults)
        self.port: int = _port("listen_port", listen_port, at_least=0)
        self.connections = 0
        self._is_running = False
        self._socket: socket.socket
        self._listens: anyio.Event
        self._group: TaskGroup

    @property
    def fault(self) -> tuple[Fault, ...]:
        """What happens to connections now."""
        return self._faults

    @fault.setter
    def fault(self, fault: Fault | tuple[Fault, ...] | None) -> None:
        self._faults = faults_of(fault)
        if self._is_running:
            self._open_or_close()

    async def __aenter__(self) -> Self:
        if self._is_running:
            msg = f"{self!r} runs already: one `async with` at a time"
            raise RuntimeError(msg)
        self._socket = self._bound()
        self.port = self._socket.getsockname()[1]
        self._listens = anyio.Event()
        self._open_or_close()
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._accept)
        self._is_running = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_running = False
        self._group.cancel_scope.cancel()
        try:
            await self._group.__aexit__(None, None, None)  # it would put an error of the block into a group
        finally:
            self._socket.close()

    def __repr__(self) -> str:
        host, port = self._server
        return f"<FaultProxy on port {self.port} to {host}:{port}: {self._faults or 'no fault'}, {self.connections} connections>"

    def weather(self, number: int) -> Weather:
        """What happens now to a connection, by its number."""
        weather = Weather(Random(f"{self._seed}/{number}"))  # noqa: S311  a schedule, no secret
        for fault in self._faults:
            fault.apply(weather)
        return weather

    async def connect(self) -> SocketStream:
        """A connection to the server."""
        return await anyio.connect_tcp(*self._server)

    def _bound(self) -> socket.socket:
        """A socket that holds our port. As long as it does not listen, connections are refused."""
        made = socket.socket(socket.AF_INET6 if ":" in self._listen_host else socket.AF_INET)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, sys.platform != "win32")  # there it would share the port
            made.setblocking(False)  # noqa: FBT003  its only parameter
            made.bind((self._listen_host, self.port))
        except OSError as error:
            made.close()
            error.strerror = f"{error.strerror}, to listen on {self._listen_host} port {self.port}"
            raise
        return made

    def _open_or_close(self) -> None:
        refuse = any(isinstance(fault, Refuse) for fault in self._faults)
        if refuse and self._listens.is_set():
            self._listens = anyio.Event()
            anyio.notify_closing(self._socket)
            self._socket.close()
            self._socket = self._bound()
        elif not refuse and not self._listens.is_set():
            self._socket.listen(_BACKLOG)
            self._listens.set()

    async def _accept(self) -> None:
        while True:
            await self._listens.wait()
            with contextlib.suppress(*_GONE):  # it was closed to refuse, or the client is gone again
                await anyio.wait_readable(self._socket)
                client, _ = self._socket.accept()
                client.setblocking(False)  # noqa: FBT003  its only parameter
                self.connections += 1
                self._group.start_soon(_Link(self, self.connections, client).run)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: FaultProxy, number: int, client: socket.socket) -> None:
        self._proxy = proxy
        self._number = number
        self._client = client
        self._known: tuple[Fault, ...] | None = None
        self._weather: Weather
        self._passed = 0
        self._end: str | None = None
        self._group: TaskGroup

    async def run(self) -> None:
        with self._client:
            await self._carry()
            if self._end == "reset":
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                return
            with contextlib.suppress(*_GONE):
                if self._end == "fin":
                    self._client.shutdown(socket.SHUT_WR)
                while self._end and await self._receive():  # to close with bytes unread would be a reset
                    pass

    async def _carry(self) -> None:
        try:
            server = await self._proxy.connect()
        except OSError as error:
            _logger.warning("the server cannot be reached: %s, from %r", error, self._proxy)
            self._end = "reset"
            return
        send, receive = anyio.create_memory_object_stream[tuple[float, bytes]](_UNDER_WAY)
        async with server, anyio.create_task_group() as self._group:
            self._group.start_soon(self._up, server)
            self._group.start_soon(self._note_arrivals, server, send)
            with self._ending_in_a_reset():
                async with receive:
                    async for due, chunk in receive:
                        await anyio.sleep_until(due)
                        await self._deliver(chunk)
                self._client.shutdown(socket.SHUT_WR)

    async def _up(self, server: SocketStream) -> None:
        with self._ending_in_a_reset():
            while chunk := await self._receive():
                if self._is_over():
                    self._group.cancel_scope.cancel()
                    return
                await server.send(chunk)
            await server.send_eof()

    async def _note_arrivals(self, server: SocketStream, send: MemoryObjectSendStream[tuple[float, bytes]]) -> None:
        with self._ending_in_a_reset():
            async with send:
                async for chunk in server:
                    self._is_over()  # it looks at the faults that there are now
                    await send.send((anyio.current_time() + self._weather.under_way(), chunk))

    async def _deliver(self, chunk: bytes) -> None:
        while chunk:
            await anyio.sleep(self._weather.pause)
            self._is_over()
            room = min(self._weather.size, self._weather.after - self._passed)
            piece, chunk = chunk[: int(room)], chunk[int(room) :]
            await self._send(piece)
            self._passed += len(piece)
            if self._is_over():
                self._group.cancel_scope.cancel()
                return

    def _is_over(self) -> bool:
        """Whether a fault ends the connection now. Faults that were switched on meanwhile begin to count."""
        if self._known is not self._proxy.fault:
            self._known = self._proxy.fault
            self._weather = self._proxy.weather(self._number)
            self._passed = 0
        if self._passed >= self._weather.after:
            self._end = self._weather.end
        return self._end is not None

    @contextlib.contextmanager
    def _ending_in_a_reset(self) -> Generator[None]:
        """What goes wrong with a connection ends the other one in the same way."""
        try:
            yield
        except _GONE:
            self._end = self._end or "reset"
            self._group.cancel_scope.cancel()

    async def _receive(self) -> bytes:
        while True:
            try:
                return self._client.recv(_CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._client)

    async def _send(self, piece: bytes) -> None:
        while piece:
            try:
                piece = piece[self._client.send(piece) :]
            except BlockingIOError:
                await anyio.wait_writable(self._client)


def _port(name: str, value: int, at_least: int) -> int:
    if integer(name, value, at_least=at_least) > _LAST_PORT:
        msg = f"{name}={value!r} is out of range: expected a port of at most {_LAST_PORT}"
        raise ValueError(msg)
    return value
