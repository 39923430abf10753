"""The server behind the faults: it echoes bodies, and counts which requests it has begun to act on, by their id.

A request names itself in `/{id}?size={bytes}`. Its body, if it has one, must be `body_of(id, size)`, and so is the body of every
answer with status 200. What it answers follows from the id and from how often it came: mostly that, at times a 503 (acted on),
a 429 or, over HTTP/2, a REFUSED_STREAM (not acted on). All mutable state: the `Ledger`, and the streams of a connection.
"""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError

from integrations.servers import Server, Wire, accepting, listening

Protocol = Literal["h1", "h2"]
_SHARE: Final = 0.03
"""Of the requests, for each kind of answer that is not 200."""


def body_of(number: int, size: int) -> bytes:
    """The only right body of a request, and of its answer."""
    return Random(number).randbytes(size)


@dataclass
class Ledger:
    """What has arrived.

    Attributes:
        arrived: how often each request came, by its id.
        posts: how often each POST was acted on: from its header on, whether or not its body came.
        first: the first id of this round; a request of an earlier one comes too late.
        garbled: HTTP/2 connections on which the client broke the protocol.
        wrong: what must not have happened.

    """

    arrived: Counter[int] = field(default_factory=Counter[int])
    posts: Counter[int] = field(default_factory=Counter[int])
    first: int = 0
    garbled: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def begin(self, first: int) -> None:
        """Forget the rounds before."""
        self.arrived.clear()
        self.posts.clear()
        self.garbled = 0
        self.first = first


class _Request:
    """A request from its header on: counted when it is made."""

    def __init__(self, ledger: Ledger, protocol: Protocol, method: str, target: str) -> None:
        url = urlsplit(target)
        self._ledger = ledger
        self._number = int(url.path[1:])
        self._size = int(parse_qs(url.query)["size"][0])
        self._has_body = method == "POST"
        self.received = bytearray()
        ledger.arrived[self._number] += 1
        if self._number < ledger.first:
            ledger.wrong.append(f"a request whose call had ended: {self._number}")
        self.status = self._decide(protocol)
        if self._has_body and self.status in {200, 503}:
            ledger.posts[self._number] += 1

    @property
    def is_chunked(self) -> bool:
        """Whether the length of the answer is left out, where the protocol can do that."""
        return self._number % 2 == 1

    def _decide(self, protocol: Protocol) -> int:
        """The status; 0 refuses the stream."""
        drawn = Random(f"{self._number}/{self._ledger.arrived[self._number]}").random()
        if drawn < _SHARE:
            return 503
        if drawn < 2 * _SHARE:
            return 429
        return 0 if drawn < 3 * _SHARE and protocol == "h2" else 200

    def answer(self) -> bytes:
        """The body of the answer, when all of the request has come."""
        right = body_of(self._number, self._size)
        if self._has_body and bytes(self.received) != right:
            self._ledger.wrong.append(
                f"a wrong body of a request: {self._number} came with {len(self.received)} bytes, not the {self._size} right ones"
            )
        if self.status != 200:
            return b"not now"
        return bytes(self.received) if self._has_body else right


@asynccontextmanager
async def serve(protocol: Protocol) -> AsyncGenerator[tuple[int, Ledger]]:
    """The server, for the block: its port, and what it writes down."""
    ledger = Ledger()
    speak = _speak_h1 if protocol == "h1" else _speak_h2

    async def connection(wire: Wire, _number: int) -> None:
        await speak(ledger, wire)

    with listening() as listener:
        server = Server(listener.getsockname()[1], [])
        async with accepting(listener, server, connection):
            yield server.port, ledger


async def _speak_h1(ledger: Ledger, wire: Wire) -> None:
    while True:
        peer = h11.Connection(h11.SERVER)
        request: _Request | None = None
        while peer.their_state is not h11.DONE:
            event = peer.next_event()
            if event is h11.NEED_DATA:
                peer.receive_data(await wire.receive())
            elif isinstance(event, h11.Request):
                request = _Request(ledger, "h1", event.method.decode(), event.target.decode())
            elif isinstance(event, h11.Data) and request is not None:
                request.received += event.data
        if request is None:
            return
        body = request.answer()
        headers = [] if request.is_chunked else [("Content-Length", str(len(body)))]
        parts = [h11.Response(status_code=request.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()]
        await wire.send(b"".join(peer.send(part) or b"" for part in parts))


class _H2:
    """One HTTP/2 connection: what has come of its requests, and what is left to send of its answers."""

    def __init__(self, ledger: Ledger) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._ledger = ledger
        self._requests: dict[int, _Request] = {}
        self._left: dict[int, bytes] = {}

    def hear(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived):
                fields = {str(name): str(value) for name, value in event.headers}
                self._requests[event.stream_id] = _Request(self._ledger, "h2", fields[":method"], fields[":path"])
            elif isinstance(event, DataReceived):
                self._requests[event.stream_id].received += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                with suppress(ProtocolError):  # the client has given it up
                    self._answer(event.stream_id, self._requests.pop(event.stream_id))
            elif isinstance(event, StreamReset):
                self._left.pop(event.stream_id, None)
                self._requests.pop(event.stream_id, None)
            elif isinstance(event, WindowUpdated):
                pass  # what is left goes on below
        for stream in list(self._left):
            with suppress(ProtocolError):
                self._go_on(stream)

    def _answer(self, stream: int, request: _Request) -> None:
        body = request.answer()
        if not request.status:
            self.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            return
        self.h2.send_headers(stream, [(":status", str(request.status))])
        self._left[stream] = body

    def _go_on(self, stream: int) -> None:
        body = self._left.pop(stream)
        while body:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room <= 0:
                self._left[stream] = body
                return
            self.h2.send_data(stream, body[:room])
            body = body[room:]
        self.h2.end_stream(stream)


async def _speak_h2(ledger: Ledger, wire: Wire) -> None:
    peer = _H2(ledger)
    peer.h2.initiate_connection()
    try:
        while True:
            await wire.send(peer.h2.data_to_send())
            peer.hear(await wire.receive())
    except ProtocolError:  # a plain client loses headers when it is cancelled: what follows cannot be decoded
        ledger.garbled += 1
        await wire.send(peer.h2.data_to_send())
