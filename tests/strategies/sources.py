"""What the tests of streams share: a gate that remembers, and generators that fail as told."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Self

import anyio

from resilient.errors import RateLimited
from resilient.outcome import Verdict
from resilient.strategies.backoff import Constant
from resilient.strategies.gate import Gate, Permit
from resilient.strategies.retry import Retry


class Counter(Gate):
    """A gate that counts its permits and keeps the verdicts that they were settled with."""

    def __init__(self, limit: int = 100, *, lingers: bool = True) -> None:
        super().__init__("counter")
        self.limit = limit
        self.lingers = lingers
        self.active = 0
        self.verdicts: list[Verdict] = []

    def admit(self, now: float) -> Permit:
        if self.active == self.limit:
            raise RateLimited(self.name)
        self.active += 1
        return _Counted(self)

    def sibling(self) -> Self:
        return type(self)(self.limit, lingers=self.lingers)

    def is_fresh(self, now: float) -> bool:
        return not self.active

    @property
    def reasons(self) -> list[str]:
        return [verdict.reason for verdict in self.verdicts]


class _Counted:
    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.lingers = counter.lingers

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self.counter.active -= 1
        self.counter.verdicts.append(verdict)


class Source:
    """Opens generators, each failing or going on as its script says; counts what was opened and what was closed."""

    def __init__(self, *fails: int) -> None:
        self.fails = list(fails)  # how many items each opening gives before it fails
        self.opened = 0
        self.closed = 0

    async def items(self, count: int = 3) -> AsyncGenerator[int, None]:
        self.opened += 1
        fails_at = self.fails.pop(0) if self.fails else None
        try:
            for number in range(count):
                if number == fails_at:
                    raise ConnectionError(number)
                await anyio.sleep(1)
                yield number
        finally:
            self.closed += 1


def retry(attempts: int = 3) -> Retry:
    return Retry(on=ConnectionError, attempts=attempts, backoff=Constant(delay=0.5))


async def collect(stream: AsyncIterator[int], into: list[int]) -> None:
    """Consume a stream; what was seen before an error is kept."""
    async for item in stream:
        into.append(item)  # noqa: PERF401  a comprehension would lose it


@contextlib.asynccontextmanager
async def cancel_scope() -> AsyncGenerator[None, None]:
    with anyio.CancelScope():
        yield
