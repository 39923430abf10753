"""Buckets beside an ideal one: a list of all that was taken, and fractions that are added up anew for each question."""

import math
from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.machines import Timed, runs, tried
from resilient.errors import RateLimited
from resilient.outcome import SUCCESS
from resilient.strategies.gate import Permit
from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.rate_limit import TokenBucket, TokenBucketStatistics
from strategies.buckets import REFUSED

SECOND = 10**9
KINDS = ["token bucket", "meter", "shaper"]


class Ideal:
    """What was poured in and has not drained yet. Times are in nanoseconds."""

    def __init__(self, rate: float, per: float, size: int, *, smooth: bool) -> None:
        self.flow = Fraction(str(rate)) / (Fraction(str(per)) * SECOND)
        self.size = size
        self.smooth = smooth
        self.taken: list[tuple[int, int]] = []

    def level(self, now: int) -> Fraction:
        level, since = Fraction(0), now
        for at, tokens in [*self.taken, (now, 0)]:
            since = min(since, at)
            level = max(Fraction(0), level - (at - since) * self.flow) + tokens
            since = at
        return level

    def delay(self, now: int, tokens: int, ahead: int = 0) -> int:
        """Until so many may go: of a shaper when all before have drained, else when they have room."""
        room = 0 if self.smooth else self.size - tokens
        excess = self.level(now) + ahead - room
        return max(0, math.ceil(excess / self.flow))

    def holds_the_limit(self) -> bool:
        """No stretch of time let through more than fits at once and what drains meanwhile."""
        for first, (start, _) in enumerate(self.taken):
            total = 0
            for at, tokens in self.taken[first:]:
                total += tokens
                if total > self.size + (at - start) * self.flow:
                    return False
        return True


class Buckets(Timed):
    """Calls of any weight come whenever they like, some just in time; some are refused further in, now or later."""

    @property
    def now(self) -> float:
        return self.ticks / SECOND

    @initialize(
        kind=st.sampled_from(KINDS),
        rate=st.sampled_from([0.1, 1 / 3, 2.5, 1.0, 3.0, 99.99, 1e6]),
        per=st.sampled_from([0.25, 1.0, 60.0]),
        size=st.integers(1, 6),
        origin=st.sampled_from([0, 0, -(10**6) * SECOND]),
    )
    def begin(self, kind: str, rate: float, per: float, size: int, origin: int) -> None:
        self.ticks = origin
        smooth = kind == "shaper"
        self.ideal = Ideal(rate, per, size, smooth=smooth)
        self.real: TokenBucket | LeakyBucket
        if kind == "token bucket":
            self.real = TokenBucket(rate, per=per, burst=size, max_wait=0)
        elif smooth:
            self.real = LeakyBucket(rate, per=per, capacity=size, shape=True, max_wait=0)
        else:
            self.real = LeakyBucket(rate, per=per, capacity=size)
        self.permits: list[tuple[tuple[int, int], Permit]] = []
        self.latest = origin - 1  # when somebody took some

    @rule(gap=st.sampled_from([1, 1000, SECOND // 3, SECOND, 7 * SECOND]))
    def wait(self, gap: int) -> None:
        self.ticks += gap

    @rule(wish=st.integers(1, 6), early=st.booleans())
    def wait_until_just_then(self, *, wish: int, early: bool) -> None:
        self.ticks += max(0, self.ideal.delay(self.ticks, min(wish, self.ideal.size)) - early)

    @rule(wish=st.integers(1, 6))
    def take(self, wish: int) -> None:
        tokens = min(wish, self.ideal.size)
        delay = self.ideal.delay(self.ticks, tokens)
        permit, refusal = tried(RateLimited, lambda: self.real.admit(self.now, tokens))
        assert (refusal.retry_after if refusal else 0) == delay / SECOND
        if permit is not None:
            taken = self.ticks, tokens
            self.ideal.taken.append(taken)
            self.permits.append((taken, permit))
            self.latest = self.ticks

    @precondition(lambda self: self.permits)
    @rule(last=st.booleans(), went_well=st.booleans())
    def end(self, *, last: bool, went_well: bool) -> None:
        """Of a call that was not sent the tokens come back where nobody has taken some since; else they stay spent."""
        taken, permit = self.permits.pop(-1 if last else 0)
        permit.settle(SUCCESS if went_well else REFUSED, self.now - taken[0] / SECOND, self.now)
        if not went_well and self.latest == taken[0]:
            self.ideal.taken.remove(taken)

    @invariant()
    def it_is_as_full_as_the_ideal_one(self) -> None:
        if not hasattr(self, "ideal"):
            return
        seen = self.real.statistics()
        level = self.ideal.level(self.ticks)
        filled = seen.burst - seen.tokens if isinstance(seen, TokenBucketStatistics) else seen.level
        assert math.isclose(filled, level, abs_tol=1e-12)
        assert self.real.is_fresh(self.now) == (not level)
        assert self.real.refuse(self.now).retry_after == self.ideal.delay(self.ticks, 1) / SECOND

    def teardown(self) -> None:
        assert not hasattr(self, "ideal") or self.ideal.holds_the_limit()
        super().teardown()


TestBuckets = runs(Buckets, 100, 20)
