"""Leaky bucket: what comes in gusts goes out evenly, or what overflows is refused.

Calls pour tokens into a bucket that holds `capacity` of them and leaks `rate` in `per` seconds. As a *meter* (the default) a
call goes at once where its tokens still fit, and is refused where they would overflow: nobody waits. As a *shaper* the call
itself waits in the bucket and leaves through the leak: calls start one by one, evenly spaced, and who finds the bucket full is
refused. The meter is the mirror image of a token bucket, the shaper is one that lets a single token through at a time, so
the arithmetic of both is that of `flow.py`, exact; waiting is that of `limiter.py`. All mutable state is theirs.
"""

from dataclasses import dataclass

from resilient import clock
from resilient._arguments import Duration, integer, number, seconds
from resilient.errors import RateLimited
from resilient.strategies.flow import Flow, FlowSettings
from resilient.strategies.gate import Permit

__all__ = ("LeakyBucket", "LeakyBucketStatistics")


@dataclass(frozen=True, slots=True)
class LeakyBucketStatistics:
    """A snapshot of a leaky bucket.

    Attributes:
        level: tokens in the bucket that have not leaked yet, fractions included; of a shaper, with those of callers that wait.
        capacity: how many it holds. The token that leaks at the moment takes no room in a shaper.
        queued: callers that wait in line.

    """

    level: float
    capacity: int
    queued: int


class LeakyBucket(Flow):
    """A bucket that leaks `rate` tokens in `per` seconds, and is poured a token by each call.

    It is also a block, `async with bucket: ...`, which takes one token; where it need not wait it does so without a checkpoint.

    Args:
        rate: how many tokens leak in `per` seconds, above 0.
        per: seconds, above 0 (default 1).
        capacity: how many tokens the bucket holds, a whole number, at least 1 (default: `rate`, rounded down, at least 1). Of a
            meter that is how many calls may come at once, of a shaper how many may wait.
        shape: False (the default): a call goes at once, or is refused. True: calls wait and start evenly spaced, one each
            `per / rate` seconds, first come, first served.
        max_wait: seconds that a caller may wait, at least 0; only of a shaper. None (the default): as long as the deadline of
            the call allows.
        name: what it is called in errors, events and logs.

    Raises:
        RateLimited: from a call or a block, at once: the bucket is full, or the call's turn would come later than in `max_wait`
            or than the deadline of the call. `retry_after` says when to come again.

    A waiter that is cancelled leaves the line, and those behind it move up. The token of a call that another strategy then
    refused, further in, is put back, unless somebody has taken one since.

    """

    __slots__ = ()

    _how_to_hold_more = "raise capacity"

    def __init__(
        self,
        rate: float,
        *,
        per: Duration = 1.0,
        capacity: int | None = None,
        shape: bool = False,
        max_wait: Duration | None = None,
        name: str = "leaky_bucket",
    ) -> None:
        rate = number("rate", rate, above=0.0)
        capacity = max(1, int(rate)) if capacity is None else integer("capacity", capacity)
        limit = None if max_wait is None else seconds("max_wait", max_wait)
        if not shape:
            if max_wait is not None:
                msg = f"max_wait={max_wait!r} has no effect on a meter, where nobody waits: give shape=True too, or leave it out"
                raise ValueError(msg)
            limit = 0.0
        super().__init__(name, FlowSettings.of(rate, seconds("per", per, above=0.0), capacity, limit, smooth=shape))

    @property
    def capacity(self) -> int:
        """How many tokens it holds."""
        return self._settings.size

    @property
    def shape(self) -> bool:
        """Whether calls wait and are spaced evenly."""
        return self._settings.smooth

    def admit(self, now: float, tokens: int = 1) -> Permit | None:
        permit = super().admit(now, tokens)
        if permit is None and self._wanted + tokens > self.capacity:
            raise RateLimited(self.name, self._room_in(now, tokens))
        return permit

    def ready_in(self, now: float) -> float:
        return max(super().ready_in(now), self._room_in(now, 1))

    def _room_in(self, now: float, tokens: int) -> float:
        """Seconds until so many of those who wait have left that these tokens have room."""
        excess = self._wanted + tokens - self.capacity
        return self._delay(now, 1, excess - 1) if excess > 0 else 0.0

    def statistics(self) -> LeakyBucketStatistics:
        """A snapshot."""
        level = self._backlog(clock.now()) / self._settings.unit + self._wanted
        return LeakyBucketStatistics(level, self.capacity, self.queued)

    def __repr__(self) -> str:
        now, kind = self.statistics(), "shaper" if self.shape else "meter"
        each = f"{self.rate:g} in {self.per:g} s"
        return f"<LeakyBucket {self.name!r}: {kind}, {each}, {now.level:.1f} of {now.capacity} tokens in it, {now.queued} queued>"
