"""Sliding window: at most so many calls in the last so many seconds.

By default it is estimated from two counters: of the running window, and of the one before, of which that share still counts by
which the window of the last `per` seconds overlaps it, rounded. That takes the same memory for every limit, and is right where
calls come evenly. Where they do not it errs in both directions: a window can hold up to `2 × limit` (a burst at the end of one,
and all of the next), and a call can be kept waiting for up to `per` longer than a count would (a burst at the beginning). What
never happens: that more than `limit` fall into one window of the counters, so no average over many is ever exceeded.

With `exact=True` it is a log: a ring of the times of the last `limit` tokens. A token may be taken when the one `limit` before
it is `per` old, and so *every* window holds at most `limit`.

Time is in whole nanoseconds. Waiting is that of `limiter.py`. All mutable state besides: of the counters, the number of the
running window and what was taken in it and before it; of the log, the ring and the place of its oldest entry.
"""

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, Self

from resilient import clock
from resilient._arguments import Duration, integer, seconds
from resilient.strategies.limiter import Limiter

__all__ = ("SlidingWindow", "SlidingWindowStatistics")

_NEVER: Final = -(1 << 63)


@dataclass(frozen=True, slots=True)
class SlidingWindowStatistics:
    """A snapshot of a sliding window.

    Attributes:
        taken: how many tokens were taken in the last `per` seconds: counted in exact mode, else estimated.
        limit: how many may be.
        queued: callers that wait in line.

    """

    taken: float
    limit: int
    queued: int


class _Counters:
    """Two counters. `span` is the length of the window in nanoseconds."""

    __slots__ = ("before", "current", "limit", "span", "window")

    def __init__(self, limit: int, span: int) -> None:
        self.limit = limit
        self.span = span
        self.window = 0  # which one runs: nanoseconds, in spans
        self.current = 0
        self.before = 0

    def take(self, at: int, tokens: int) -> int | None:
        elapsed = self._advance(at)
        room = self.limit - self.current - tokens  # for those of the window before, rounded: half a token is none
        if 2 * self.before * (self.span - elapsed) > (2 * room + 1) * self.span:
            return None
        self.current += tokens
        return self.window

    def delay(self, at: int, tokens: int, ahead: int) -> int:
        elapsed = self._advance(at)
        # What it will be when those ahead have taken theirs: how many windows have passed, and the counters.
        passed, current, before = 0, self.current + ahead, self.before
        if current > self.limit:
            passed = (current - 1) // self.limit
            current, before = current - passed * self.limit, self.limit
        if current + tokens > self.limit:
            passed, current, before = passed + 1, 0, current
        room = self.limit - current - tokens
        then = max(0, self.span - (2 * room + 1) * self.span // (2 * before)) if before else 0  # solved from the above
        return max(0, passed * self.span + then - elapsed)

    def put_back(self, tokens: int, mark: int) -> None:
        if mark == self.window:
            self.current = max(0, self.current - tokens)
        elif mark == self.window - 1:
            self.before = max(0, self.before - tokens)

    def taken(self, at: int) -> float:
        elapsed = self._advance(at)
        return self.current + self.before * (self.span - elapsed) / self.span

    def retuned(self, limit: int, span: int) -> "_Counters | None":
        if span != self.span:
            return None
        other = _Counters(limit, span)
        other.window = self.window
        other.current, other.before = min(self.current, limit), min(self.before, limit)
        return other

    def _advance(self, at: int) -> int:
        """Begin the window of this time, if it is a new one; returns how much of it has elapsed."""
        window, elapsed = divmod(at, self.span)
        steps = window - self.window
        if steps:
            if steps > 0:  # else the clock has gone back, as that of a test does: no worse than it was
                self.before = self.current if steps == 1 else 0
                self.current = 0
            self.window = window
        return elapsed


class _Log:
    """The times of the last `limit` tokens: a ring, of which `oldest` is the place where the next one goes."""

    __slots__ = ("limit", "oldest", "ring", "span")

    def __init__(self, limit: int, span: int) -> None:
        self.limit = limit
        self.span = span
        self.ring: array[int] | None = None
        self.oldest = 0

    def take(self, at: int, tokens: int) -> int | None:
        ring = self.ring
        if ring is None:
            self.ring = ring = array("q", [_NEVER]) * self.limit
        oldest, limit = self.oldest, self.limit
        last = ring[(oldest + tokens - 1) % limit]
        if last + self.span > at:
            if last > at:  # the clock has gone back, as that of a test does: no worse than full
                self.ring = array("q", [min(stamp, at) for stamp in ring])
            return None
        for place in range(oldest, oldest + tokens):
            ring[place % limit] = at
        self.oldest = (oldest + tokens) % limit
        return at

    def delay(self, at: int, tokens: int, ahead: int) -> int:
        rounds, place = divmod(ahead + tokens - 1, self.limit)
        last = min(self.ring[(self.oldest + place) % self.limit], at) if self.ring is not None else _NEVER
        return max(0, last + self.span - at) + rounds * self.span

    def put_back(self, tokens: int, mark: int) -> None:
        stamps = self._sorted()
        end = bisect_right(stamps, mark)
        begin = end - tokens
        if begin >= 0 and stamps[begin] == mark:  # else it is so old that it was overwritten
            del stamps[begin:end]
            self.ring, self.oldest = array("q", [_NEVER]) * tokens + stamps, 0

    def taken(self, at: int) -> float:
        stamps = self._sorted()
        return len(stamps) - bisect_right(stamps, at - self.span)

    def retuned(self, limit: int, span: int) -> "_Log":
        other = _Log(limit, span)
        stamps = self._sorted()[-limit:]
        other.ring = array("q", [_NEVER]) * (limit - len(stamps)) + stamps
        return other

    def _sorted(self) -> "array[int]":
        ring, oldest = self.ring, self.oldest
        return array("q") if ring is None else ring[oldest:] + ring[:oldest]


class SlidingWindow(Limiter):
    """At most `limit` calls in each window of `per` seconds; others wait in line, first come, first served.

    It is also a block, `async with window: ...`, which takes one token; one that is there is taken without a checkpoint.

    Args:
        limit: how many tokens may be taken in a window, at least 1.
        per: the length of the window in seconds, above 0 (default 1). Windows are whole nanoseconds.
        exact: False (the default): estimated from two counters, in constant memory. It is right where calls come evenly;
            the worst window of all holds `2 × limit`. True: counted by a log, which takes 8 bytes for each token of `limit`
            from the first call on; no window of `per` seconds ever holds more than `limit`.
        max_wait: seconds that a caller may wait, at least 0 (0: refuse at once). None (the default): as long as the deadline
            of the call allows.
        name: what it is called in errors, events and logs.

    Raises:
        RateLimited: from a call or a block, at once, when its token would come later than in `max_wait` or than the
            deadline of the call. `retry_after` says when it would come; where callers of different weight wait ahead, when
            it would come at the earliest.

    A waiter that is cancelled leaves the line, and those behind it move up. The token of a call that another strategy then
    refused, further in, is put back.

    """

    __slots__ = ("_count", "_max_wait", "_per")

    _how_to_hold_more = "raise limit"

    def __init__(
        self,
        limit: int,
        per: Duration = 1.0,
        *,
        exact: bool = False,
        max_wait: Duration | None = None,
        name: str = "sliding_window",
    ) -> None:
        super().__init__(name)
        kind = _Log if exact else _Counters
        self._per = seconds("per", per, above=0.0)
        self._count = kind(integer("limit", limit), max(1, round(self._per * 1e9)))
        self._max_wait = None if max_wait is None else seconds("max_wait", max_wait)

    @property
    def limit(self) -> int:
        """How many tokens may be taken in a window."""
        return self._count.limit

    @property
    def most(self) -> int:
        """How many tokens one call may take."""
        return self._count.limit

    @property
    def per(self) -> float:
        """The length of the window in seconds."""
        return self._per

    @property
    def window(self) -> float:
        """Seconds in which `limit` tokens come back: `per`."""
        return self._per

    @property
    def exact(self) -> bool:
        """Whether it counts, and does not estimate."""
        return isinstance(self._count, _Log)

    @property
    def max_wait(self) -> float | None:
        """Seconds that a caller may wait, or None."""
        return self._max_wait

    def sibling(self) -> Self:
        return type(self)(self.limit, self._per, exact=self.exact, max_wait=self._max_wait, name=self.name)

    def is_fresh(self, now: float) -> bool:
        return not self._line and not self._count.taken(_nanoseconds(now))

    def retune(self, template: Self) -> bool:
        """Take over the settings of `template` and keep what was counted. False where the counters do not fit: another mode,
        or without `exact` another `per`.
        """
        theirs = template._count
        count = self._count.retuned(theirs.limit, theirs.span) if type(theirs) is type(self._count) else None
        if count is None:
            return False
        self._count = count
        self.name: str = template.name
        self._per, self._max_wait = template.per, template.max_wait
        self._wake_first()
        return True

    def statistics(self) -> SlidingWindowStatistics:
        """A snapshot."""
        return SlidingWindowStatistics(self._count.taken(_nanoseconds(clock.now())), self.limit, self.queued)

    def __repr__(self) -> str:
        now = self.statistics()
        taken = f"{now.taken:g}" if self.exact else f"about {now.taken:.1f}"
        return f"<SlidingWindow {self.name!r}: {taken} of {now.limit} taken in the last {self._per:g} s, {now.queued} queued>"

    def _take(self, now: float, tokens: int) -> int | None:
        return self._count.take((now * 1e9).__round__(), tokens)

    def _there(self, now: float) -> float:
        return self.limit - self._count.taken(_nanoseconds(now))

    def _delay(self, now: float, tokens: int, ahead: int = 0) -> float:
        return self._count.delay(_nanoseconds(now), tokens, ahead) / 1e9

    def put_back(self, tokens: int, mark: int) -> None:
        self._count.put_back(tokens, mark)
        self._wake_first()


def _nanoseconds(now: float) -> int:
    return round(now * 1e9)
