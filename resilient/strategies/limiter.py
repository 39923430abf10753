"""What all rate limiters share: one rule for waiting, for refusing, and for taking several tokens at a time.

A limiter of its own kind says four things: take so many tokens if they are there (`_take`), how long until they are
(`_delay`), how many there are (`_there`), and undo a take (`put_back`). The rest is here. A call takes what is there unless
somebody waits; it is refused at once where its tokens would come too late; otherwise it waits in line, first come, first
served. Only the first in line sleeps until its tokens are there, the others until they are first: a wait that is given up
leaves nothing behind.

All mutable state: the line of waiters, made when somebody first waits, and the sum of what they want, `_wanted`.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from resilient import _switch, clock
from resilient._arguments import integer
from resilient.context import time_left
from resilient.errors import RateLimited
from resilient.outcome import Verdict
from resilient.strategies.gate import Gate, Lease, Permit
from resilient.strategies.outbox import Outbox, announce
from resilient.strategies.waiting import Line, Waiter, tell_wait

__all__ = ("Limiter", "Quota", "Tokens")

_SHORTEST: Final = 1e-6
"""Seconds: a clock of floats need not move in less."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a limiter lets through, and what is left of it: what a server tells its clients.

    Attributes:
        limit: how many tokens there can be at once.
        window: seconds in which so many come back.
        remaining: how many there are now beyond what those want who wait, fractions included; at least 0.0.
        reset: seconds until all are there again, as far as is known now.

    """

    limit: int
    window: float
    remaining: float
    reset: float


class Limiter(Gate):
    """The base of rate limiters. It is also a block, which takes one token; one that is there is taken without a checkpoint."""

    __slots__ = ("_line", "_wanted")

    refusal = RateLimited

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._line: Line | None = None
        self._wanted = 0

    @property
    @abstractmethod
    def max_wait(self) -> float | None:
        """Seconds that a caller may wait, or None: as long as the deadline of its call allows."""

    @property
    @abstractmethod
    def most(self) -> int:
        """How many tokens one call may take: as many as there can be at once."""

    @property
    @abstractmethod
    def window(self) -> float:
        """Seconds in which so many come back."""

    @abstractmethod
    def _there(self, now: float) -> float:
        """How many tokens there are, fractions included. Whether others wait is not asked here."""

    @abstractmethod
    def _take(self, now: float, tokens: int) -> int | None:
        """Take these tokens if they are there and return what `put_back` needs to know. Whether others wait is not asked here."""

    @abstractmethod
    def _delay(self, now: float, tokens: int, ahead: int = 0) -> float:
        """Seconds until these tokens are there for one who stands behind others that want `ahead` tokens. Changes nothing."""

    @abstractmethod
    def put_back(self, tokens: int, mark: int) -> None:
        """Undo a take, which returned `mark`, of a call that was not sent; as far as the limit then still holds."""

    def admit(self, now: float, tokens: int = 1) -> Permit | None:
        if not (self._line and self._first()):
            mark = self._take(now, tokens)
            if mark is not None:
                return Tokens((self, tokens, mark))
        max_wait = self.max_wait
        if max_wait is not None and self._delay(now, tokens, self._wanted) > max_wait:
            raise self.refuse(now, tokens)
        return None

    async def wait(self, deadline: float, tokens: int = 1) -> Permit:
        now = began = clock.now()
        limit = time_left(deadline)
        if -math.inf < limit <= self._delay(now, tokens, self._wanted):  # -inf: cancelled already, the sleep will tell
            raise self.refuse(now, tokens)
        if self._line is None:
            self._line = Line()
        line, waiter = self._line, Waiter()
        line[waiter] = tokens
        self._wanted += tokens
        try:
            while True:
                delay = math.inf
                if self._first() is waiter:
                    now, wanted = clock.now(), min(tokens, self.most)  # it may have been retuned to less meanwhile
                    mark = self._take(now, wanted)
                    if mark is not None:
                        tell_wait(self, began)
                        return Tokens((self, wanted, mark))
                    delay = max(self._delay(now, wanted), _SHORTEST)
                await waiter.sleep(delay)
        finally:
            was_first = self._first() is waiter
            self._wanted -= line.pop(waiter, 0)
            if was_first:
                self._wake_first()

    def refuse(self, now: float, tokens: int = 1) -> RateLimited:
        return RateLimited(self.name, self._delay(now, tokens, self._wanted))

    def ready_in(self, now: float) -> float:
        max_wait = self.max_wait
        return 0.0 if max_wait is None else max(0.0, self._delay(now, 1, self._wanted) - max_wait)

    async def acquire(self, tokens: int = 1) -> Lease:
        """Take tokens by hand, waiting for them: `await limiter.acquire(tokens=5)`.

        They are spent when it returns. As a `with` block it puts them back where the block ends with a `Rejected`.

        Args:
            tokens: how many, from 1 to `most`.

        Raises:
            RateLimited: they would come too late.
            ValueError: more than `most`: there will never be so many.

        """
        return await (super().acquire() if tokens == 1 else self._weighted(tokens).acquire())

    def acquire_nowait(self, tokens: int = 1) -> Lease:
        """Take tokens by hand, at once. See `acquire`.

        Raises:
            RateLimited: they are not there, or others wait for them.
            ValueError: more than `most`.

        """
        return super().acquire_nowait() if tokens == 1 else self._weighted(tokens).acquire_nowait()

    async def __aenter__(self) -> None:
        if not _switch.enabled or self._line or self._take(clock.now(), 1) is None:
            await self.acquire()
        elif self.outbox:
            announce(self, granted=True)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def quota(self) -> Quota:
        """What is left of the limit now. Reading it changes nothing."""
        now, most = clock.now(), self.most
        left = self._there(now) - self._wanted
        return Quota(most, self.window, max(0.0, left), self._delay(now, most, self._wanted))

    @property
    def queued(self) -> int:
        """Callers that wait in line."""
        return len(self._line or ())

    def _first(self) -> Waiter | None:
        """Whose turn it is. Forgets those who are lost."""
        line = self._line
        while line:
            waiter = next(iter(line))
            if not waiter.lost:
                return waiter
            self._wanted -= line.pop(waiter)
        return None

    def _wake_first(self) -> None:
        first = self._first()
        if first is not None:
            first.wake()

    def _weighted(self, tokens: int) -> "_Weighted":
        if integer("tokens", tokens) > self.most:
            msg = f"tokens={tokens} is out of range: {self.name!r} never holds more than {self.most}; {self._how_to_hold_more}"
            raise ValueError(msg)
        return _Weighted(self, tokens)  # type: ignore[abstract]  # it is no template

    _how_to_hold_more = "raise its limit"


class Tokens(tuple[Limiter, int, int]):
    """The permit: the limiter, what was taken, and its mark. A tuple is made in half the time of an object with slots."""

    __slots__ = ()

    lingers = False

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        if verdict.rejected:
            limiter, tokens, mark = self
            limiter.put_back(tokens, mark)


class _Weighted(Gate):
    """A limiter, as a gate that takes several tokens at a time."""

    __slots__ = ("_limiter", "_tokens")

    def __init__(self, limiter: Limiter, tokens: int) -> None:
        self.name = limiter.name  # its outbox is not its own
        self._limiter = limiter
        self._tokens = tokens

    @property
    def outbox(self) -> Outbox | None:
        return self._limiter.outbox

    @outbox.setter
    def outbox(self, outbox: Outbox | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  it has that of the limiter
        self._limiter.outbox = outbox

    def admit(self, now: float) -> Permit | None:
        return self._limiter.admit(now, self._tokens)

    async def wait(self, deadline: float) -> Permit:
        return await self._limiter.wait(deadline, self._tokens)

    def refuse(self, now: float) -> RateLimited:
        return self._limiter.refuse(now, self._tokens)
