"""An adaptive rate beside the raw history: what was taken and heard, from which rate and tokens are found anew each time."""

import math
from dataclasses import dataclass
from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.machines import TICK, Timed, runs, tried
from resilient.errors import RateLimited
from resilient.outcome import CANCELLED, SUCCESS, RateHint, Verdict
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.gate import Permit
from strategies.rates import BUSY, DOWN, REFUSED, told

SECOND = 8
"""Ticks."""
HOUR = 3600 * SECOND


@dataclass
class Terms:
    """What somebody has set."""

    rate: float
    per: float
    floor: float
    ceiling: float
    size: int

    def template(self, max_wait: float | None) -> AdaptiveRate:
        return AdaptiveRate(self.rate, per=self.per, floor=self.floor, ceiling=self.ceiling, burst=self.size, max_wait=max_wait)


@dataclass
class Call:
    """A call that got its tokens, and when."""

    at: int
    tokens: int


class Ideal:
    """What has flowed off, in fractions of a token and in ticks, each time from the first event on."""

    def __init__(self, terms: Terms) -> None:
        self.happened: list[tuple[int, str, Fraction, int]] = [(0, "rate", *self.pace(terms.rate, terms))]

    @staticmethod
    def pace(rate: float, terms: Terms) -> tuple[Fraction, int]:
        """Tokens in a nanosecond, and how many there can be."""
        return Fraction(str(rate)) / Fraction(str(terms.per)) / 10**9, terms.size

    def missing(self, now: int) -> tuple[Fraction, Fraction, int]:
        """How many tokens, the flow and the size; a time that was jumped to by a pause is not come back from."""
        level, since, flow, size = Fraction(0), 0, Fraction(0), 0
        for at, what, amount, number in [*self.happened, (now, "look", Fraction(0), 0)]:
            drained = (max(since, at) - since) * 125_000_000 * flow
            level, since = max(Fraction(0), level - drained), max(since, at)
            if what == "rate":  # as many are missing as before, rounded up to what the new flow counts in
                flow, size = amount, number
                level = min(Fraction(math.ceil(level * flow.denominator), flow.denominator), Fraction(size))
            elif what == "pause":
                level = max(level, Fraction(size - 1))
            else:
                level = max(Fraction(0), level + number)
        return level, flow, size

    def delay(self, now: int, tokens: int) -> float:
        level, flow, size = self.missing(now)
        return math.ceil(max(Fraction(0), level + tokens - size) / flow) / 1e9


class Rates(Timed):
    """Calls of any weight, which end with anything after any time, blocks that nobody can place, and new settings."""

    @initialize(
        rate=st.sampled_from([8.0, 2.0, 1 / 3, 99.99]),
        per=st.sampled_from([1.0, 0.5, 60.0]),
        low=st.sampled_from([1.0, 0.6, 0.01]),
        high=st.sampled_from([1.0, 1.5, 10.0]),
        size=st.integers(1, 5),
        max_wait=st.sampled_from([None, 0.0, 2.0]),
    )
    def begin(self, rate: float, per: float, low: float, high: float, size: int, max_wait: float | None) -> None:
        self.terms = Terms(rate, per, rate * low, rate * high, size)
        self.max_wait = max_wait
        self.real = self.terms.template(max_wait)
        self.rate = rate
        self.ideal = Ideal(self.terms)
        self.calls: list[tuple[Call, Permit]] = []
        self.taken: list[Call] = []  # in order, and as far as it was not put back
        self.final = 0  # so many of them stay
        self.pauses: list[int] = []  # ends
        self.quota: tuple[int, int, int] | None = None  # left, after so many of them, and until when
        self.well: list[int] = []  # tokens of calls that went well
        self.decided: list[tuple[int, int]] = []  # when, and how many calls had gone well until then
        self.lowered: list[int] = []

    # -- what must be

    @property
    def opens_at(self) -> int:
        return max(self.pauses, default=self.ticks)

    @property
    def left(self) -> int | None:
        if self.quota is None or self.ticks >= self.quota[2]:
            return None
        remaining, after, _ = self.quota
        return remaining - sum(call.tokens for call in self.taken[after:])

    def opening(self, tokens: int) -> int:
        left = self.left
        renewed = self.quota[2] if self.quota is not None and left is not None and tokens > left else self.ticks
        return max(self.ticks, self.opens_at, renewed)

    def delay(self, tokens: int) -> float:
        opening = self.opening(tokens)
        return (opening - self.ticks) * TICK + self.ideal.delay(opening, tokens)

    # -- what happens

    @rule(ticks=st.sampled_from([1, 3, SECOND, 3 * SECOND, 600 * SECOND, HOUR]))
    def wait(self, ticks: int) -> None:
        self.ticks += ticks

    @rule(wish=st.integers(1, 5))
    def wait_until_just_then(self, wish: int) -> None:
        self.ticks += math.ceil(self.delay(min(wish, self.terms.size)) / TICK)

    @rule(wish=st.integers(1, 5), times=st.integers(1, 3))
    def take(self, wish: int, times: int) -> None:
        tokens = min(wish, self.terms.size)
        for _ in range(times):
            delay = self.delay(tokens)
            permit, refusal = tried(RateLimited, lambda: self.real.admit(self.now, tokens))
            assert (permit is not None) == (not delay)
            assert (refusal is not None) == (self.max_wait is not None and delay > self.max_wait)
            assert refusal is None or math.isclose(refusal.retry_after or 0.0, delay, abs_tol=1e-8)
            if permit is not None:
                call = Call(self.ticks, tokens)
                self.calls.append((call, permit))
                self.taken.append(call)
                self.ideal.happened.append((self.ticks, "take", Fraction(0), tokens))

    @precondition(lambda self: self.calls)
    @rule(
        verdict=st.sampled_from([SUCCESS, SUCCESS, BUSY, BUSY, DOWN, CANCELLED]),
        last=st.booleans(),
        wait=st.sampled_from([None, None, 0, 1, 4 * SECOND, 2 * HOUR]),
        limits=st.sampled_from([None, None, (0, SECOND), (1, 2 * SECOND), (4, 2 * SECOND), (4, 9 * SECOND), (3, 2 * HOUR)]),
    )
    def end(self, verdict: Verdict, *, last: bool, wait: int | None, limits: tuple[int, int] | None) -> None:
        call, permit = self.calls.pop(-1 if last else 0)
        permit.settle(self.said(verdict, wait, limits), (self.ticks - call.at) * TICK, self.now)
        after = next(place for place, other in enumerate(self.taken, 1) if other is call)
        self.heard(verdict, call.at, call.tokens, wait, limits, after)

    @precondition(lambda self: self.calls)
    @rule(last=st.booleans())
    def end_unsent(self, *, last: bool) -> None:
        """What was taken last comes back, unless the server has said since that it stays."""
        call, permit = self.calls.pop(-1 if last else 0)
        permit.settle(REFUSED, (self.ticks - call.at) * TICK, self.now)
        if self.taken[-1] is call and len(self.taken) > self.final:
            self.taken.pop()
            self.ideal.happened.append((self.ticks, "back", Fraction(0), -call.tokens))

    @rule(
        verdict=st.sampled_from([SUCCESS, BUSY, DOWN]),
        wait=st.sampled_from([None, None, 3]),
        limits=st.sampled_from([None, None, (2, SECOND)]),
    )
    def end_of_a_block(self, verdict: Verdict, wait: int | None, limits: tuple[int, int] | None) -> None:
        self.real.hear(self.said(verdict, wait, limits), self.now, self.now)
        self.heard(verdict, self.ticks, 1, wait, limits, None)

    @rule(times=st.integers(4, 9), ticks=st.sampled_from([1, 3, SECOND]), share=st.sampled_from([1, 2, 4]))
    def serve(self, times: int, ticks: int, share: int) -> None:
        """A while of traffic that goes well, with a call in so many of the times that there could be one."""
        for number in range(times):
            self.ticks += ticks
            if number % share == 0:
                self.take(self.terms.size, 1)
            while self.calls:
                self.end(SUCCESS, last=False, wait=None, limits=None)

    @rule(
        rate=st.sampled_from([8.0, 20.0, 0.5]),
        per=st.sampled_from([1.0, 60.0]),
        low=st.sampled_from([1.0, 0.1]),
        high=st.sampled_from([1.0, 3.0]),
        size=st.integers(1, 5),
    )
    def retune(self, rate: float, per: float, low: float, high: float, size: int) -> None:
        """It stays where it is, as far as it may, if it has ever moved from where it began; else it begins anew."""
        old, self.terms = self.terms, Terms(rate, per, rate * low, rate * high, size)
        assert self.real.retune(self.terms.template(self.max_wait))
        now = self.rate * per / old.per
        self.moves(rate if self.rate == old.rate else min(max(now, self.terms.floor), self.terms.ceiling))

    @staticmethod
    def said(verdict: Verdict, wait: int | None, limits: tuple[int, int] | None) -> Verdict:
        hint = None if limits is None else RateHint(limits[0], limits[1] * TICK)
        return told(verdict, wait=None if wait is None else wait * TICK, limits=hint)

    def heard(
        self, verdict: Verdict, sent: int, tokens: int, wait: int | None, limits: tuple[int, int] | None, after: int | None
    ) -> None:
        """What the rate makes of it, and then of the server's word. `after` so many it was taken, if that is known."""
        if not self.decided:
            self.decided.append((self.ticks, 0))
        if verdict is BUSY and all(self.ticks >= at + SECOND and sent > at for at in self.lowered):
            self.lowered.append(self.ticks)
            self.moves(max(self.terms.floor, self.rate * 0.7))
            self.decided.append((self.ticks, len(self.well)))
        if verdict is SUCCESS:
            self.well.append(tokens)
            at, until_then = self.decided[-1]
            if self.ticks >= at + SECOND:
                if 2 * sum(self.well[until_then:]) * self.terms.per >= self.rate * (self.ticks - at) * TICK:
                    self.moves(min(self.terms.ceiling, self.rate + self.terms.ceiling / 50))
                self.decided.append((self.ticks, len(self.well)))
        if wait is not None and self.ticks + min(wait, HOUR) > max(self.pauses, default=-1):
            self.pauses.append(self.ticks + min(wait, HOUR))
            self.final = len(self.taken)
            self.ideal.happened.append((self.opens_at, "pause", Fraction(0), 0))
        if limits is not None:
            if after is None:
                self.final = after = len(self.taken)
            self.quota = limits[0], after, self.ticks + min(limits[1], HOUR)

    def moves(self, rate: float) -> None:
        """To there, in six digits. The flow changes now, in a pause at its end."""
        assert math.isclose(self.real.rate, rate, rel_tol=5e-6)
        assert self.terms.floor <= self.real.rate <= self.terms.ceiling
        self.rate = self.real.rate
        self.ideal.happened.append((max(self.ticks, self.opens_at), "rate", *Ideal.pace(self.rate, self.terms)))

    @invariant()
    def it_shows_what_the_history_says(self) -> None:
        if not hasattr(self, "real"):
            return
        seen, quota, left = self.real.statistics(), self.real.quota(), self.left
        opening = self.opening(1)
        level, _, size = self.ideal.missing(self.ticks)
        assert seen.rate == self.rate
        assert seen.opens_in == (opening - self.ticks) * TICK
        assert seen.left == (None if left is None else max(0, left))
        there = 0.0 if opening > self.ticks else float(size - level)
        if self.opens_at <= self.ticks:
            assert math.isclose(seen.tokens, size - level, abs_tol=1e-9)
        assert math.isclose(quota.remaining, there if left is None else max(0, min(there, left)), abs_tol=1e-9)
        assert math.isclose(self.real.refuse(self.now).retry_after or 0.0, self.delay(1), abs_tol=1e-8)
        said = self.opens_at <= self.ticks and (self.quota is None or self.quota[2] <= self.ticks)
        learned = self.rate != self.terms.rate and self.ticks - self.decided[-1][0] < 600 * SECOND
        assert self.real.is_fresh(self.now) == (said and not level and not learned)


TestRates = runs(Rates, 60, 20)
