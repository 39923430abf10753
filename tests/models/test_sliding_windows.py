"""Both sliding windows beside a list of the times at which tokens were taken."""

import math
from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.machines import Timed, runs, tried
from resilient.errors import RateLimited
from resilient.outcome import SUCCESS
from resilient.strategies.gate import Permit
from resilient.strategies.sliding_window import SlidingWindow
from strategies.buckets import REFUSED

SECOND = 10**9
SPAN = 3 * SECOND


class Sliding(Timed):
    """What both have in common. `taken` holds the nanosecond of each token."""

    exact: bool

    @property
    def now(self) -> float:
        return self.ticks / SECOND

    @initialize(limit=st.integers(1, 6))
    def begin(self, limit: int) -> None:
        self.limit = limit
        self.real = SlidingWindow(limit, per=SPAN / SECOND, exact=self.exact, max_wait=0)
        self.taken: list[int] = []
        self.permits: list[tuple[list[int], Permit]] = []

    @rule(gap=st.sampled_from([1, 10**6, SECOND // 3, SECOND, SPAN - 1, SPAN, 7 * SECOND]))
    def wait(self, gap: int) -> None:
        self.ticks += gap

    @rule(wish=st.integers(1, 6), early=st.booleans())
    def wait_until_just_then(self, *, wish: int, early: bool) -> None:
        """For as long as it says; the model then knows whether that was right."""
        wait = self.real.refuse(self.now, min(wish, self.limit)).retry_after or 0.0
        self.ticks += max(0, round(wait * SECOND) - early)

    @rule(wish=st.integers(1, 6))
    def take(self, wish: int) -> None:
        tokens = min(wish, self.limit)
        wait = round((self.real.refuse(self.now, tokens).retry_after or 0.0) * SECOND)
        assert self.has_room(self.ticks + wait, tokens)
        assert not wait or not self.has_room(self.ticks + wait - 1, tokens)
        permit, _ = tried(RateLimited, lambda: self.real.admit(self.now, tokens))
        assert (permit is None) == (wait > 0)
        if permit is not None:
            stamps = [self.ticks] * tokens
            self.taken += stamps
            self.permits.append((stamps, permit))

    @precondition(lambda self: self.permits)
    @rule(last=st.booleans(), went_well=st.booleans())
    def end(self, *, last: bool, went_well: bool) -> None:
        """The tokens of a call that was not sent count as never taken."""
        stamps, permit = self.permits.pop(-1 if last else 0)
        permit.settle(SUCCESS if went_well else REFUSED, 0.0, self.now)
        if not went_well:
            for stamp in stamps:
                self.taken.remove(stamp)

    @invariant()
    def it_counts_as_the_list_does(self) -> None:
        if hasattr(self, "real"):
            assert math.isclose(self.real.statistics().taken, self.estimate(self.ticks), abs_tol=1e-12)
            assert self.real.is_fresh(self.now) == (not self.estimate(self.ticks))
            assert max((self.within(start, start + SPAN) for start in self.taken), default=0) <= self.most

    def within(self, start: int, end: int) -> int:
        return sum(start <= stamp < end for stamp in self.taken)

    @property
    def most(self) -> int:
        """That any window of the length may hold."""
        return self.limit if self.exact else 2 * self.limit

    def estimate(self, at: int) -> Fraction:
        raise NotImplementedError

    def has_room(self, at: int, tokens: int) -> bool:
        raise NotImplementedError


class Log(Sliding):
    """A token counts until it is as old as the window is long."""

    exact = True

    def estimate(self, at: int) -> Fraction:
        return Fraction(self.within(at - SPAN + 1, at + 1))

    def has_room(self, at: int, tokens: int) -> bool:
        return self.estimate(at) + tokens <= self.limit


class Counters(Sliding):
    """Of the window before that share counts by which the last seconds overlap it."""

    exact = False

    @invariant()
    def no_window_of_the_counters_holds_more_than_the_limit(self) -> None:
        if hasattr(self, "real"):
            assert self.within(self.ticks // SPAN * SPAN, self.ticks + 1) <= self.limit

    def estimate(self, at: int) -> Fraction:
        begun = at // SPAN * SPAN
        return self.within(begun, begun + SPAN) + self.within(begun - SPAN, begun) * (1 - Fraction(at - begun, SPAN))

    def has_room(self, at: int, tokens: int) -> bool:
        return self.estimate(at) + tokens <= self.limit + Fraction(1, 2)


TestLog = runs(Log, 80, 20)
TestCounters = runs(Counters, 80, 20)
