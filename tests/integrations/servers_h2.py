"""A scripted HTTP/2 peer on the loopback interface, with prior knowledge (no TLS).

`async with serve_h2(refuse(REFUSED_STREAM), respond(200, b"hello")) as server:` resets the first stream and answers every later
one. A step is a function of the connection and the stream; streams of one connection meet the steps in the order in which
their requests arrived, so that one can be stalled while its neighbours go on. It shares `Server` with `servers.py`.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset
from hyperframe.frame import GoAwayFrame

from integrations.servers import Request, Server, Wire, accepting, listening

REFUSED_STREAM: Final = 7
CANCEL: Final = 8
INTERNAL_ERROR: Final = 2
ENHANCE_YOUR_CALM: Final = 11
HTTP_1_1_REQUIRED: Final = 13
NO_ERROR: Final = 0
_FRAME: Final = 16384  # bytes: the largest that every peer takes
GRACEFUL: Final = 2**31 - 1
"""The last stream id of a server that announces its shutdown and will finish what is in flight."""


@dataclass
class Stream:
    """One request on an HTTP/2 connection, as a step sees it."""

    h2: H2Connection
    id: int
    server: "ServerH2"


StepH2 = Callable[[Stream], bytes]
"""Acts on the state of the connection; returns further bytes to send as they are."""


@dataclass
class ServerH2(Server):
    """What a test sees of it.

    Attributes:
        steps: what is left of the script; the last one repeats.
        resets: the error codes of the streams that the client reset.
        held: what waits for `server.release`.
        acknowledges: whether it gives credit for what it received; without, an upload stands still after 64 KiB.

    """

    steps: list[StepH2] = field(default_factory=list[StepH2])
    resets: list[int] = field(default_factory=list[int])
    held: list[tuple[Stream, StepH2]] = field(default_factory=list[tuple[Stream, StepH2]])
    acknowledges: bool = True

    def take_step(self) -> StepH2:
        """The step that comes next; the last one stays."""
        return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]


def respond(status: int = 200, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> StepH2:
    """A complete response. The body must fit into the window of a stream, 64 KiB."""

    def step(stream: Stream) -> bytes:
        stream.h2.send_headers(stream.id, [(":status", str(status)), *headers])
        for begin in range(0, len(body), _FRAME):
            stream.h2.send_data(stream.id, body[begin : begin + _FRAME])
        stream.h2.end_stream(stream.id)
        return b""

    return step


def refuse(code: int = REFUSED_STREAM) -> StepH2:
    """RST_STREAM before any header."""

    def step(stream: Stream) -> bytes:
        stream.h2.reset_stream(stream.id, code)
        return b""

    return step


def cut_off(body: bytes, code: int = INTERNAL_ERROR) -> StepH2:
    """Headers and the beginning of the body, then RST_STREAM."""

    def step(stream: Stream) -> bytes:
        stream.h2.send_headers(stream.id, [(":status", "200")])
        stream.h2.send_data(stream.id, body)
        stream.h2.reset_stream(stream.id, code)
        return b""

    return step


def say_nothing(_stream: Stream) -> bytes:
    """The stream stays open, without an answer."""
    return b""


def hold(then: StepH2) -> StepH2:
    """Do it once the test has set `server.release`."""

    def step(stream: Stream) -> bytes:
        stream.server.held.append((stream, then))
        return b""

    return step


def go_away(last_stream_id: int, code: int = NO_ERROR) -> StepH2:
    """GOAWAY. The connection stays open, as a server does that finishes what is in flight."""

    def step(_stream: Stream) -> bytes:
        return GoAwayFrame(0, last_stream_id=last_stream_id, error_code=code).serialize()

    return step


@asynccontextmanager
async def serve_h2(*script: StepH2) -> AsyncGenerator[ServerH2]:
    """A scripted HTTP/2 server on a free port of the loopback interface, for the block."""
    with listening() as listener:
        server = ServerH2(listener.getsockname()[1], [], steps=list(script or [respond()]))

        async def connection(wire: Wire, number: int) -> None:
            await _run(server, wire, number)

        async with accepting(listener, server, connection):
            yield server


async def _run(server: ServerH2, wire: Wire, number: int) -> None:
    h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    requests: dict[int, Request] = {}
    h2.initiate_connection()

    async def go_on() -> None:
        await server.release.wait()
        while server.held:
            stream, step = server.held.pop(0)
            await wire.send(step(stream) + stream.h2.data_to_send())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(go_on)
        await _listen(server, wire, number, h2, requests)


async def _listen(server: ServerH2, wire: Wire, number: int, h2: H2Connection, requests: dict[int, Request]) -> None:
    while True:
        await wire.send(h2.data_to_send())
        raw = b""
        for event in h2.receive_data(await wire.receive()):
            if isinstance(event, RequestReceived):
                headers = [(str(name), str(value)) for name, value in event.headers]
                fields = dict(headers)
                requests[event.stream_id] = request = Request(fields[":method"], fields[":path"], headers, number)
                server.requests.append(request)
            elif isinstance(event, DataReceived):
                requests[event.stream_id].received += event.data
                if server.acknowledges:
                    h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                requests[event.stream_id].complete = True
                raw += server.take_step()(Stream(h2, event.stream_id, server))
            elif isinstance(event, StreamReset):
                server.resets.append(event.error_code)
            server.tell()
        await wire.send(h2.data_to_send() + raw)
