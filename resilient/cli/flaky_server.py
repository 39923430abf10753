"""A real HTTP server on the loopback interface that misbehaves on schedule.

What a request meets is a card from a deck that the seed shuffled. Each client (the first segment of the path) draws from
its own copy of the deck, so that both meet the same faults in the same order, whatever the timing; a retry draws the next
card. Mutable state: the `phase`, and the decks.
"""

import random
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final, Literal

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from anyio.streams.buffered import BufferedByteReceiveStream

__all__ = ("FlakyServer", "deck")

Card = Literal["ok", "busy", "busy_for_1_s", "error", "reset", "slow", "hang"]

_DECKS: Final[dict[str, dict[tuple[Card, ...], int]]] = {
    "calm": {("ok",): 1},
    # Five faults in 28 requests, three of them in a row: a client without retries succeeds with 82 % of its calls.
    "flaky": {("ok",): 22, ("busy", "busy_for_1_s", "busy", "ok"): 1, ("reset",): 1, ("slow",): 1},
    "outage": {("error",): 6, ("reset",): 3, ("hang",): 1},
    "recovery": {("ok",): 1},
}
"""One round of each phase's deck: groups of cards that stay together, and how many of each are shuffled."""

_ANSWERS: Final[dict[Card, bytes]] = {
    "ok": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n",
    "slow": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nlate\n",
    "busy": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nbusy\n",
    "busy_for_1_s": b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 5\r\n\r\nbusy\n",
    "error": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\n\r\nerror\n",
}

_NEVER: Final = 3600.0
_LONGEST_HEAD: Final = 65_536
_RESET_ON_CLOSE: Final = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class FlakyServer:
    """The server.

    Args:
        seed: fixes the order of the faults.
        slow: seconds that a slow answer takes; a client that waits less times out.

    """

    def __init__(self, seed: int, slow: float) -> None:
        self.phase = "calm"
        self._seed = seed
        self._slow = slow
        self._decks: dict[tuple[str, str], Iterator[tuple[Card, float]]] = {}

    async def serve(self, *, task_status: TaskStatus[int]) -> None:
        """Serve until it is cancelled. The port is told when it listens."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        async with listener:
            task_status.started(listener.extra(SocketAttribute.local_port))  # noqa: S610  a socket's attribute, no SQL
            await listener.serve(self._converse)

    async def _converse(self, stream: SocketStream) -> None:
        requests = BufferedByteReceiveStream(stream)
        try:
            async with stream:
                while await self._answer(await requests.receive_until(b"\r\n\r\n", _LONGEST_HEAD), stream):
                    pass
        except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
            return  # the client is gone

    async def _answer(self, head: bytes, stream: SocketStream) -> bool:
        """Answer a request; whether the connection may be used for another one."""
        client = head.split(b"/", 2)[1].decode("ascii", "replace")
        card, seconds = self._draw(client)
        if card == "reset":
            raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610  a socket's attribute, no SQL
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return False
        with anyio.move_on_after({"slow": self._slow, "hang": _NEVER}.get(card, seconds)):
            await stream.receive()  # nothing comes: it raises when the client gives up
        await stream.send(_ANSWERS[card])
        return True

    def _draw(self, client: str) -> tuple[Card, float]:
        """The next card of the client's deck, and the seconds that a quick answer takes."""
        place = (client, self.phase)
        if place not in self._decks:
            self._decks[place] = deck(self.phase, random.Random(f"{self._seed}/{self.phase}"))  # noqa: S311  a schedule, no secret
        return next(self._decks[place])


def deck(phase: str, shuffle: random.Random) -> Iterator[tuple[Card, float]]:
    """What the requests of a phase meet, one after the other, with the seconds that a quick answer takes."""
    groups = [group for group, times in _DECKS[phase].items() for _ in range(times)]
    while True:
        shuffle.shuffle(groups)
        for group in groups:
            for card in group:
                yield card, shuffle.uniform(0.005, 0.025)
