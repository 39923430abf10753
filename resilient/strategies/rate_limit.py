"""Token bucket: so many calls in a span of time, in exact arithmetic.

Tokens flow in at `rate` tokens in `per` seconds, up to `burst`; a call takes one, and waits in line where there is none. The
state is one number: the moment when the bucket will be full again (the theoretical arrival time of the generic cell rate
algorithm, ITU-T I.371). Time is in nanoseconds and the rate is an exact fraction of them, so everything is a whole number, and

    tokens taken ≤ burst + rate × elapsed

holds to the token for every stretch of time. (In floats it does not, and a waiter may be told to wait for nothing, for ever.)

Only the first in line sleeps until its tokens are there, the others until they are first: a wait that is given up leaves
nothing behind. All mutable state: the moment `_full_at`, the line of waiters, made when somebody first waits, and the sum of
what they want, `_wanted`.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Final, Self

from resilient import _switch, clock
from resilient._arguments import Duration, integer, number, seconds
from resilient.context import time_left
from resilient.errors import RateLimited
from resilient.outcome import Verdict
from resilient.strategies.gate import Gate, Lease
from resilient.strategies.waiting import Line, Waiter

__all__ = ("TokenBucket", "TokenBucketStatistics")

_SHORTEST: Final = 1e-6
"""Seconds: a clock of floats need not move in less."""
_LONG_AGO: Final = -(1 << 127)


@dataclass(frozen=True, slots=True)
class TokenBucketStatistics:
    """A snapshot of a token bucket.

    Attributes:
        tokens: how many are there now.
        burst: how many there can be.
        queued: callers that wait in line.

    """

    tokens: float
    burst: int
    queued: int


@dataclass(frozen=True, slots=True)
class _Settings:
    """What siblings share. A nanosecond brings `flow` units, a token is `unit` units, `capacity` is the burst in units."""

    rate: float
    per: float
    burst: int
    max_wait: float | None
    flow: int
    unit: int
    capacity: int


class TokenBucket(Gate):
    """At most `rate` calls in `per` seconds, and `burst` at once; others wait in line, first come, first served.

    It is also a block, `async with bucket: ...`, which takes one token; one that is there is taken without a checkpoint.

    Args:
        rate: how many tokens flow in during `per` seconds, above 0.
        per: seconds, above 0 (default 1).
        burst: how many tokens the bucket holds, and has at first; a whole number, at least 1 (default: `rate`, rounded down,
            at least 1). 1 spaces calls evenly.
        max_wait: seconds that a caller may wait, at least 0 (0: refuse at once). None (the default): as long as the deadline
            of the call allows.
        name: what it is called in errors, events and logs.

    Raises:
        RateLimited: from a call or a block, at once, when its token would come later than in `max_wait` or than the
            deadline of the call. `retry_after` says when it would come.

    A waiter that is cancelled leaves the line, and those behind it move up. The token of a call that another strategy then
    refused, further in, is put back, unless somebody has taken one since: then it stays spent, so that the limit holds.

    """

    __slots__ = ("_full_at", "_line", "_settings", "_wanted")

    refusal = RateLimited

    def __init__(
        self,
        rate: float,
        *,
        per: Duration = 1.0,
        burst: int | None = None,
        max_wait: Duration | None = None,
        name: str = "token_bucket",
    ) -> None:
        super().__init__(name)
        rate = number("rate", rate, above=0.0)
        per = seconds("per", per, above=0.0)
        burst = max(1, int(rate)) if burst is None else integer("burst", burst)
        # str() gives the decimal that was meant: 0.1 is one tenth, not 3602879701896397 / 2**55.
        flow, unit = (Fraction(str(rate)) / (Fraction(str(per)) * 10**9)).as_integer_ratio()
        limit = None if max_wait is None else seconds("max_wait", max_wait)
        self._begin(_Settings(rate, per, burst, limit, flow, unit, burst * unit))

    def _begin(self, settings: _Settings) -> None:
        self._settings = settings
        self._full_at = _LONG_AGO
        self._line: Line | None = None
        self._wanted = 0

    @property
    def rate(self) -> float:
        """Tokens that flow in during `per` seconds."""
        return self._settings.rate

    @property
    def per(self) -> float:
        """Seconds."""
        return self._settings.per

    @property
    def burst(self) -> int:
        """How many tokens there can be."""
        return self._settings.burst

    @property
    def max_wait(self) -> float | None:
        """Seconds that a caller may wait, or None."""
        return self._settings.max_wait

    def admit(self, now: float, tokens: int = 1) -> "_Tokens | None":
        units = tokens * self._settings.unit
        if not (self._line and self._first()) and self._take(now, units):
            return _Tokens((self, units, self._full_at))
        max_wait = self._settings.max_wait
        if max_wait is not None and self._delay(now, self._wanted + units) > max_wait:
            raise self.refuse(now, tokens)
        return None

    async def wait(self, deadline: float, tokens: int = 1) -> "_Tokens":
        now, units, limit = clock.now(), tokens * self._settings.unit, time_left(deadline)
        if -math.inf < limit <= self._delay(now, self._wanted + units):  # -inf: cancelled already, the sleep will tell
            raise self.refuse(now, tokens)
        if self._line is None:
            self._line = Line()
        line, waiter = self._line, Waiter()
        line[waiter] = units
        self._wanted += units
        try:
            while True:
                delay = math.inf
                if self._first() is waiter:
                    now = clock.now()
                    if self._take(now, units):
                        return _Tokens((self, units, self._full_at))
                    delay = max(self._delay(now, units), _SHORTEST)
                await waiter.sleep(delay)
        finally:
            was_first = self._first() is waiter
            self._wanted -= line.pop(waiter, 0)
            if was_first:
                self._wake_first()

    def refuse(self, now: float, tokens: int = 1) -> RateLimited:
        return RateLimited(self.name, self._delay(now, self._wanted + tokens * self._settings.unit))

    def ready_in(self, now: float) -> float:
        max_wait = self._settings.max_wait
        if max_wait is None:
            return 0.0
        return max(0.0, self._delay(now, self._wanted + self._settings.unit) - max_wait)

    async def acquire(self, tokens: int = 1) -> Lease:
        """Take tokens by hand, waiting for them: `await bucket.acquire(tokens=5)`.

        They are spent when it returns. As a `with` block it puts them back where the block ends with a `Rejected`.

        Args:
            tokens: how many, from 1 to `burst`.

        Raises:
            RateLimited: they would come too late.
            ValueError: more than `burst`: the bucket will never hold so many.

        """
        return await (super().acquire() if tokens == 1 else self._weighted(tokens).acquire())

    def acquire_nowait(self, tokens: int = 1) -> Lease:
        """Take tokens by hand, at once. See `acquire`.

        Raises:
            RateLimited: they are not there, or others wait for them.
            ValueError: more than `burst`.

        """
        return super().acquire_nowait() if tokens == 1 else self._weighted(tokens).acquire_nowait()

    async def __aenter__(self) -> None:
        if not _switch.enabled or self._line or not self._take(clock.now(), self._settings.unit):
            await self.acquire()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def sibling(self) -> Self:
        other = type(self).__new__(type(self))
        Gate.__init__(other, self.name)
        other._begin(self._settings)  # noqa: SLF001  our own class
        return other

    def is_fresh(self, now: float) -> bool:
        return not self._line and self._there(now) == self._settings.capacity

    def statistics(self) -> TokenBucketStatistics:
        """A snapshot."""
        tokens = self._there(clock.now()) / self._settings.unit
        return TokenBucketStatistics(tokens, self._settings.burst, len(self._line or ()))

    def __repr__(self) -> str:
        now = self.statistics()
        each = f"{self.rate:g} in {self.per:g} s"
        return f"<TokenBucket {self.name!r}: {each}, {now.tokens:.1f} of {now.burst} tokens there, {now.queued} queued>"

    def _take(self, now: float, units: int) -> bool:
        """Take these units if they are there. Whether others wait is for the caller to ask."""
        settings = self._settings
        here = (now * 1e9).__round__() * settings.flow  # round() would take as long as all the rest
        full_at = self._full_at
        full_at = (full_at if full_at > here else here) + units  # noqa: FURB136  calling max() takes longer than all the rest
        if full_at - here > settings.capacity:
            # The clock may have gone back, as that of a test does: no worse than empty.
            self._full_at = min(self._full_at, here + settings.capacity)
            return False
        self._full_at = full_at
        return True

    def _there(self, now: float) -> int:
        """Units that are there."""
        settings = self._settings
        here = (now * 1e9).__round__() * settings.flow
        return settings.capacity - min(max(0, self._full_at - here), settings.capacity)

    def _delay(self, now: float, units: int) -> float:
        """Seconds until these units are there, in whole nanoseconds."""
        lacking = units - self._there(now)
        return -(-lacking // self._settings.flow) / 1e9 if lacking > 0 else 0.0

    def put_back(self, units: int, full_at: int) -> None:
        """Undo a take that led to `full_at`: exactly, or, where others have taken since, not at all.

        Others may have been let in meanwhile because the bucket was full; a late refund could let too many through.
        """
        if self._full_at == full_at:
            self._full_at = full_at - units
            self._wake_first()

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
        if integer("tokens", tokens) > self.burst:
            msg = f"tokens={tokens} is out of range: the bucket never holds more than burst={self.burst}; raise burst"
            raise ValueError(msg)
        return _Weighted(self, tokens)  # type: ignore[abstract]  # it is no template


class _Tokens(tuple[TokenBucket, int, int]):
    """The permit: the bucket, what was taken, and what that led to. A tuple is made in half the time of an object with slots."""

    __slots__ = ()

    lingers = False

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        if verdict.rejected:
            bucket, units, full_at = self
            bucket.put_back(units, full_at)


class _Weighted(Gate):
    """A bucket, as a gate that takes several tokens at a time."""

    __slots__ = ("_bucket", "_tokens")

    def __init__(self, bucket: TokenBucket, tokens: int) -> None:
        super().__init__(bucket.name)
        self._bucket = bucket
        self._tokens = tokens

    def admit(self, now: float) -> _Tokens | None:
        return self._bucket.admit(now, self._tokens)

    async def wait(self, deadline: float) -> _Tokens:
        return await self._bucket.wait(deadline, self._tokens)

    def refuse(self, now: float) -> RateLimited:
        return self._bucket.refuse(now, self._tokens)
