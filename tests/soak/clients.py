"""What users do with a client, all at once: requests drawn from a seed, each read, left or given up in one of several ways.

Every answer that comes is compared with the only right one. All mutable state: the `Tally`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import anyio

from resilient import CircuitOpen
from soak.origin import Ledger, body_of

_READING: Final = {"whole": 55, "streamed": 20, "left early": 12, "dropped": 1, "scope": 6, "native": 6}
"""What becomes of a call, and how often: read by the client, read as a stream, left after one piece, dropped and not closed,
cancelled by a scope, cancelled by asyncio."""
_SIZES: Final = 0, 100, 3_000, 30_000
_PIECE: Final = 1_000
_PATIENCE: Final = 0.1
"""Seconds after which, at the latest, a call is cancelled."""
_PAUSE: Final = 0.05
"""Seconds that a worker waits when it was refused."""
_TRIES: Final = 10
"""How often it tries again then."""


@dataclass
class Tally:
    """What came of the calls.

    Attributes:
        calls: how many there were.
        outcomes: statuses, and names of exceptions.
        again: how often a request came to the server once more: those that may.
        wrong: what must not have happened, each as `kind: which`.

    """

    calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    again: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def add(self, other: "Tally") -> None:
        """Sum up."""
        self.calls += other.calls
        self.outcomes += other.outcomes
        self.again += other.again
        self.wrong += other.wrong


@dataclass
class Call:
    """One request, and what becomes of it.

    Attributes:
        number: its id.
        method: GET or POST.
        key: whether it carries an idempotency key.
        is_read: whether the body is one that can be read only once.
        size: bytes of the body, of the request and of the answer.
        reading: of `_READING`.
        patience: seconds until it is cancelled, where it is.

    """

    number: int
    method: str
    key: bool
    is_read: bool
    size: int
    reading: str
    patience: float

    @classmethod
    def drawn(cls, seed: int, number: int) -> "Call":
        """The call of that number."""
        random = Random(f"{seed}/{number}")
        return cls(
            number,
            random.choice(("GET", "POST")),
            random.random() < 0.4,
            random.random() < 0.3,
            random.choice(_SIZES),
            random.choices(list(_READING), list(_READING.values()))[0],
            random.uniform(0.0, _PATIENCE),
        )

    @property
    def may_come_twice(self) -> bool:
        return self.method == "GET" or self.key

    @property
    def body(self) -> bytes:
        return body_of(self.number, self.size)

    async def make(self, client: Any, dropper: Any, url: str) -> str:
        """Make it. Returns what came of it; raises what the client raises."""
        if self.reading == "dropped":
            response = await dropper.send(self._request(dropper, url), stream=True)
            return f"{response.status_code}, dropped"
        if self.reading == "scope":
            with anyio.move_on_after(self.patience):
                return await self._read(client, url)
            return "cancelled"
        if self.reading == "native":
            try:
                async with asyncio.timeout(self.patience):
                    return await self._read(client, url)
            except TimeoutError as error:
                if type(error) is not TimeoutError:  # one of the client's own
                    raise
                return "cancelled"
        return await self._read(client, url)

    def _request(self, client: Any, url: str) -> Any:
        headers = {"Idempotency-Key": f"key-{self.number}"} if self.key else {}
        content = None if self.method == "GET" else self._pieces() if self.is_read else self.body
        return client.build_request(self.method, f"{url}/{self.number}?size={self.size}", headers=headers, content=content)

    async def _pieces(self) -> AsyncGenerator[bytes]:
        for begin in range(0, self.size, _PIECE):
            yield self.body[begin : begin + _PIECE]

    async def _read(self, client: Any, url: str) -> str:
        request = self._request(client, url)
        if self.reading == "whole":
            return self._judged(await client.send(request))
        response = await client.send(request, stream=True)
        got = b""
        try:
            async for piece in response.aiter_raw(_PIECE):
                got += piece
                if self.reading == "left early":
                    break
        finally:
            await response.aclose()
        return self._judged(response, got)

    def _judged(self, response: Any, got: bytes | None = None) -> str:
        """What came of it: the status. An answer that says 200 has the right body, or the beginning of it where it was left."""
        body = response.content if got is None else got
        right = self.body
        if response.status_code == 200 and body != (right[: len(body)] if self.reading == "left early" else right):
            msg = f"a wrong body: {len(body)} bytes for {len(right)} of {self}"
            raise AssertionError(msg)
        return str(response.status_code)


async def made_in_spite_of_refusals(call: Call, client: Any, dropper: Any, url: str) -> str:
    """Make a call, a few times where it is refused: else all calls of a round are refused within one moment."""
    for _ in range(_TRIES):
        try:
            return await call.make(client, dropper, url)
        except CircuitOpen:
            await anyio.sleep(_PAUSE)
    return await call.make(client, dropper, url)


async def make_calls(client: Any, dropper: Any, url: str, calls: list[Call], workers: int, errors: type[Exception]) -> Tally:
    """Make these calls, so many at a time. `errors` are those that a client may raise in bad weather."""
    tally, waiting = Tally(calls=len(calls)), list(reversed(calls))

    async def work() -> None:
        while waiting:
            call = waiting.pop()
            try:
                tally.outcomes[await made_in_spite_of_refusals(call, client, dropper, url)] += 1
            except errors as error:
                tally.outcomes[type(error).__name__] += 1
            except AssertionError as wrong:
                tally.wrong.append(str(wrong))
            except Exception as error:  # noqa: BLE001  it is reported, and the others go on
                tally.wrong.append(f"an exception that is not the client's: {error!r} of {call}")

    async with anyio.create_task_group() as tasks:
        for _ in range(workers):
            tasks.start_soon(work)
    return tally


def judge(tally: Tally, calls: list[Call], ledger: Ledger) -> None:
    """Compare what was called with what arrived."""
    for call in calls:
        if call.may_come_twice:
            tally.again += max(0, ledger.arrived[call.number] - 1)
        elif ledger.posts[call.number] > 1:
            tally.wrong.append(f"a POST that was acted on twice: {ledger.posts[call.number]} times, {call}")
    if ledger.garbled:
        tally.wrong.append(f"headers that cannot be decoded: on {ledger.garbled} connections")
    tally.wrong += ledger.wrong
    ledger.wrong.clear()
