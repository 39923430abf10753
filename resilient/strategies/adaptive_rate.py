"""Adaptive rate: a token bucket whose rate follows the server.

Where the server says that it gets too many calls the rate becomes smaller by a share, once in a round trip: what was sent before
that tells nothing new. While calls are well and use the rate up it grows by a step a second (additive increase, multiplicative
decrease; Chiu and Jain, 1989). And the server's own word is kept: no token before a `retry_after` has passed, and not more of
them than its `limits` leave, until they are renewed.

The arithmetic is that of `flow.py`, exact while the rate stays, and a change of the rate gives nothing away. All mutable state
besides: the settings with the rate of now, when calls may go on (`_opens_at`), the server's quota (`_left`, `_left_until`), how
many tokens were taken in all (`_taken`) and how many of those stay so (`_spent`), and what the next decision is made from
(`_decided_at`, `_lowered_at`, `_went_well`).
"""

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast

from resilient import clock
from resilient._arguments import Duration, integer, number, seconds
from resilient.observe.events import LimitChanged
from resilient.observe.listeners import sink
from resilient.outcome import Classifier, Health, RateHint, Verdict, judge
from resilient.strategies.flow import Flow, FlowSettings
from resilient.strategies.limiter import Tokens
from resilient.strategies.outbox import announce

__all__ = ("AdaptiveRate", "AdaptiveRateStatistics")

_LESS: Final = 0.7
_STEP: Final = 0.02
"""Of the ceiling."""
_INTERVAL: Final = 1.0
"""Seconds between two decisions, at least."""
_LONGEST: Final = 3600.0
"""Seconds: a server that wants to be left alone for longer is asked again after that."""
_OUT_OF_DATE: Final = 600.0
"""Seconds without a call after which a rate that was learned is worth no more than the one to begin with."""


@dataclass(frozen=True, slots=True)
class AdaptiveRateStatistics:
    """A snapshot of an adaptive rate.

    Attributes:
        rate: calls in `per` seconds, now.
        per: seconds.
        floor: the lowest rate.
        ceiling: the highest rate.
        tokens: how many are there now.
        burst: how many there can be.
        queued: callers that wait in line.
        opens_in: seconds for which the server wants no call; 0.0 where it takes them.
        left: how many calls its quota leaves until it is renewed, or None where it has not said so.

    """

    rate: float
    per: float
    floor: float
    ceiling: float
    tokens: float
    burst: int
    queued: int
    opens_in: float
    left: int | None


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What siblings share: the settings to begin with, and how far the rate may go."""

    initial: FlowSettings
    floor: float
    ceiling: float

    def nearest(self, rate: float) -> float:
        """That rate, as far as it may be: a short number, which keeps the exact arithmetic quick, or a bound as it was given."""
        return min(max(float(f"{rate:.6g}"), self.floor), self.ceiling)


class AdaptiveRate(Flow):
    """As many calls a second as the server takes: at most `ceiling`, fewer as soon as it says that it gets too many.

    It is also a block, `async with rate: ...`, which takes one token. It learns from verdicts: `throttled`, `retry_after` and
    `limits`. An exception with a `retryable: bool` and a `retry_after` speaks for itself; what `throttled` looks like only a
    classifier knows, that of the pipeline or `classify`.

    Args:
        rate: calls in `per` seconds to begin with, above 0.
        per: seconds, above 0 (default 1).
        floor: the lowest rate, above 0, at most `rate` (default: a hundredth of `rate`).
        ceiling: the highest rate, at least `rate` (default: `rate`).
        burst: how many tokens the bucket holds, and has at first; a whole number, at least 1 (default 1: calls are spaced evenly,
            for a burst may be refused as such, and teach a rate that is too low).
        max_wait: seconds that a caller may wait, at least 0 (0: refuse at once). None (the default): as long as the deadline
            of the call allows.
        classify: says what outcomes mean (default: as the pipeline does).
        name: what it is called in errors, events and logs.

    Raises:
        RateLimited: from a call or a block, at once, when its token would come later than in `max_wait` or than the
            deadline of the call. `retry_after` says when it would come, as far as is known now.

    A waiter that is cancelled leaves the line; a call that is cancelled tells nothing. A wait that the server asks for is kept
    for an hour at most.

    """

    __slots__ = (
        "_bounds",
        "_decided_at",
        "_left",
        "_left_until",
        "_lowered_at",
        "_opens_at",
        "_spent",
        "_taken",
        "_went_well",
        "classifier",
    )

    _how_to_hold_more = "raise burst"

    def __init__(
        self,
        rate: float,
        *,
        per: Duration = 1.0,
        floor: float | None = None,
        ceiling: float | None = None,
        burst: int = 1,
        max_wait: Duration | None = None,
        classify: Classifier | None = None,
        name: str = "adaptive_rate",
    ) -> None:
        rate = number("rate", rate, above=0.0)
        floor = rate / 100 if floor is None else number("floor", floor, above=0.0, at_most=rate)
        ceiling = rate if ceiling is None else number("ceiling", ceiling, at_least=rate)
        limit = None if max_wait is None else seconds("max_wait", max_wait)
        initial = FlowSettings.of(rate, seconds("per", per, above=0.0), integer("burst", burst), limit)
        self._begin(name, _Bounds(initial, floor, ceiling), classify)

    def _begin(self, name: str, bounds: _Bounds, classify: Classifier | None) -> None:
        super().__init__(name, bounds.initial)
        self.classifier = classify
        self._bounds = bounds
        self._opens_at = self._left_until = self._decided_at = self._lowered_at = -math.inf
        self._left: float = math.inf
        self._taken = self._spent = self._went_well = 0

    @property
    def floor(self) -> float:
        """The lowest rate."""
        return self._bounds.floor

    @property
    def ceiling(self) -> float:
        """The highest rate."""
        return self._bounds.ceiling

    @property
    def burst(self) -> int:
        """How many tokens there can be."""
        return self._settings.size

    def admit(self, now: float, tokens: int = 1) -> "_Heeded | None":
        permit = super().admit(now, tokens)
        return _Heeded(permit) if isinstance(permit, Tokens) else None

    async def wait(self, deadline: float, tokens: int = 1) -> "_Heeded":
        return _Heeded(cast("Tokens", await super().wait(deadline, tokens)))

    def _take(self, now: float, tokens: int) -> int | None:
        if self._opening(now, tokens) > now or super()._take(now, tokens) is None:
            return None
        self._taken += tokens
        self._left -= tokens
        return self._taken

    def _delay(self, now: float, tokens: int, ahead: int = 0) -> float:
        opening = self._opening(now, tokens + ahead)
        return opening - now + super()._delay(opening, tokens, ahead)

    def _there(self, now: float) -> float:
        if self._opening(now, 1) > now:
            return 0.0
        return min(super()._there(now), self._left) if now < self._left_until else super()._there(now)

    def _opening(self, now: float, tokens: int) -> float:
        """When so many tokens may be taken, as far as the server has said something: not before now."""
        opening = max(now, self._opens_at, self._left_until if tokens > self._left else now)
        if opening - now <= _LONGEST + 1:
            return opening
        self._opens_at = self._left_until = -math.inf  # the clock has gone back, as that of a test does
        return now

    def put_back(self, tokens: int, mark: int) -> None:
        if mark == self._taken > self._spent:
            self._taken -= tokens
            self._left += tokens
            super().put_back(tokens, self._taken_at)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        now = clock.now()
        verdict = judge(self.classifier, error, error=error is not None)
        self.hear(verdict, now, now)
        announce(self)

    def hear(self, verdict: Verdict, now: float, sent: float, tokens: int = 1, mark: int | None = None) -> None:
        """Hear of the outcome of a call that was sent at `sent`. `mark` tells which it was, where that is known."""
        if verdict.rejected:
            return
        self._learn(verdict, now, sent, tokens)
        if verdict.retry_after is not None:
            self._pause(now, verdict.retry_after)
        if verdict.limits is not None:
            self._heed(now, verdict.limits, mark)

    def _learn(self, verdict: Verdict, now: float, sent: float, tokens: int) -> None:
        if now < self._decided_at or self._decided_at == -math.inf:
            self._decide(now)
        if verdict.throttled:
            lowered_at = self._lowered_at
            if now < lowered_at or (now >= lowered_at + _INTERVAL and sent > lowered_at):
                self._lowered_at = now
                self._move(now, self.rate * _LESS, "throttled")
        elif verdict.health is Health.HEALTHY:
            self._went_well += tokens
            elapsed = now - self._decided_at
            if elapsed >= _INTERVAL:
                if self._went_well * 2 * self.per >= self.rate * elapsed:
                    self._move(now, self.rate + self.ceiling * _STEP, "room")
                self._decide(now)

    def _decide(self, now: float) -> None:
        self._decided_at = now
        self._went_well = 0

    def _move(self, now: float, rate: float, why: str) -> None:
        old, new, settings = self.rate, self._bounds.nearest(rate), self._settings
        if new != old:
            self._change(max(now, self._opens_at), FlowSettings.of(new, self.per, settings.size, settings.max_wait))
            self._wake_first()
            if sink():
                self.leave(LimitChanged(at=now, strategy=self.name, old=old, new=new, why=why))
        self._decide(now)

    def _pause(self, now: float, wait: float) -> None:
        """No token before so many seconds have passed. Then there is one at most: what was saved up is gone."""
        opens_at = now + min(wait, _LONGEST)
        if opens_at > self._opens_at:
            self._opens_at = opens_at
            self._spent = self._taken
            if super()._there(opens_at) > 1:
                self._leave(opens_at, 1)

    def _heed(self, now: float, limits: RateHint, mark: int | None) -> None:
        """Take no more tokens than that until it is over. The server has not seen those that were taken since that call."""
        if mark is None:
            mark = self._spent = self._taken
        self._left = limits.remaining - (self._taken - mark)
        self._left_until = now + min(limits.reset, _LONGEST)
        self._wake_first()

    def sibling(self) -> Self:
        other = type(self).__new__(type(self))
        other._begin(self.name, self._bounds, self.classifier)  # noqa: SLF001  our own class
        return other

    def is_fresh(self, now: float) -> bool:
        said = max(self._opens_at, self._left_until)
        learned = self._settings != self._bounds.initial and now - self._decided_at < _OUT_OF_DATE
        return super().is_fresh(now) and said <= now and not learned

    def retune(self, template: Any) -> bool:
        """Take over the settings of `template`. The rate stays where it is, as far as it is in the new range."""
        bounds: _Bounds = template._bounds  # noqa: SLF001  our own class
        rate = self.rate * bounds.initial.per / self.per
        adapted = self._settings != self._bounds.initial
        self.name, self.classifier, self._bounds = template.name, template.classifier, bounds
        new = bounds.initial
        if adapted:
            new = FlowSettings.of(bounds.nearest(rate), new.per, new.size, new.max_wait)
        self._change(max(clock.now(), self._opens_at), new)
        self._wake_first()
        return True

    def statistics(self) -> AdaptiveRateStatistics:
        """A snapshot."""
        now = clock.now()
        left = int(max(0, self._left)) if now < self._left_until else None
        return AdaptiveRateStatistics(
            self.rate,
            self.per,
            self.floor,
            self.ceiling,
            super()._there(now),
            self.burst,
            self.queued,
            self._opening(now, 1) - now,
            left,
        )

    def __repr__(self) -> str:
        now = self.statistics()
        shut = f", shut for {now.opens_in:.3g} s" if now.opens_in else ""
        return (
            f"<AdaptiveRate {self.name!r}: {now.rate:g} in {now.per:g} s, {now.floor:g} to {now.ceiling:g}, "
            f"{now.tokens:.1f} of {now.burst} tokens there, {now.queued} queued{shut}>"
        )


class _Heeded(Tokens):
    """A permit whose outcome the bucket learns from."""

    __slots__ = ()

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        super().settle(verdict, latency, now)
        limiter, tokens, mark = cast("tuple[AdaptiveRate, int, int]", self)
        limiter.hear(verdict, now, now - latency, tokens, mark)
