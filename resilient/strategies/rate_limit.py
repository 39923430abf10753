"""Token bucket: so many calls in a span of time, in exact arithmetic.

Tokens flow in at `rate` tokens in `per` seconds, up to `burst`; a call takes one, and waits in line where there is none.
The arithmetic is that of `flow.py`, and waiting is that of `limiter.py`: all mutable state is theirs.
"""

from dataclasses import dataclass
from typing import Final

from resilient import clock
from resilient._arguments import Duration, integer, number, seconds
from resilient.outcome import Verdict
from resilient.strategies.flow import Flow, FlowSettings
from resilient.strategies.gate import Permit
from resilient.strategies.limiter import Tokens

__all__ = ("TokenBucket", "TokenBucketStatistics")

_INSTANT: Final = 1
"""Nanoseconds: times that differ by less are one, but for the rounding of floats."""


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


class TokenBucket(Flow):
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

    __slots__ = ()

    lingers = False

    _how_to_hold_more = "raise burst"

    def __init__(
        self,
        rate: float,
        *,
        per: Duration = 1.0,
        burst: int | None = None,
        max_wait: Duration | None = None,
        name: str = "token_bucket",
    ) -> None:
        rate = number("rate", rate, above=0.0)
        burst = max(1, int(rate)) if burst is None else integer("burst", burst)
        limit = None if max_wait is None else seconds("max_wait", max_wait)
        super().__init__(name, FlowSettings.of(rate, seconds("per", per, above=0.0), burst, limit))

    def admit(self, now: float, tokens: int = 1) -> Permit | None:
        if tokens == 1 and not self._line and self._take(now, 1) is not None:
            return self
        return super().admit(now, tokens)

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        """It is the permit of those who took one token at once; that of a refused call goes back where it was the last."""
        if verdict.rejected and abs((now - latency) * 1e9 - self._taken_at) < _INSTANT:
            self.put_back(1, self._taken_at)

    def kept(self, permit: Permit, now: float) -> Permit:
        return Tokens((self, 1, (now * 1e9).__round__())) if permit is self else permit

    @property
    def burst(self) -> int:
        """How many tokens there can be."""
        return self._settings.size

    def statistics(self) -> TokenBucketStatistics:
        """A snapshot."""
        settings = self._settings
        tokens = (settings.most - self._backlog(clock.now())) / settings.unit
        return TokenBucketStatistics(tokens, settings.size, self.queued)

    def __repr__(self) -> str:
        now = self.statistics()
        each = f"{self.rate:g} in {self.per:g} s"
        return f"<TokenBucket {self.name!r}: {each}, {now.tokens:.1f} of {now.burst} tokens there, {now.queued} queued>"
