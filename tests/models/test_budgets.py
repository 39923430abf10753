"""Budgets beside a list of all that was earned, spent and given back."""

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.machines import Timed, runs
from resilient.strategies.budget import RetryBudget, Spending, TokenBudget


class Shares(Timed):
    """First attempts and retries of any cost; payments are settled twice now and then, which is as good as once."""

    @initialize(
        ratio=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
        floor=st.sampled_from([0.0, 0.5, 2.0]),
        costs=st.sampled_from([(1.0, 1.0), (2.0, 0.5)]),
    )
    def begin(self, ratio: float, floor: float, costs: tuple[float, float]) -> None:
        self.ratio, self.floor, self.costs = Fraction(ratio), Fraction(floor), costs
        self.real = RetryBudget(ratio=ratio, floor=floor, throttled_cost=costs[0], transient_cost=costs[1])
        self.first: list[float] = []
        self.share: list[tuple[float, Fraction]] = []  # spent from the share; negative: given back
        self.most = max(self.floor, Fraction(1)) if floor else Fraction(0)
        self.reserve = self.most
        self.paid: list[tuple[Fraction, Fraction, Spending]] = []
        self.spent = Fraction(0)

    @rule(ticks=st.sampled_from([1, 2, 4, 8, 40, 80, 500]))
    def wait(self, ticks: int) -> None:
        self.ticks += ticks
        self.reserve = min(self.most, self.reserve + Fraction(ticks, 8) * self.floor)

    @rule(times=st.sampled_from([1, 4]))
    def call(self, times: int) -> None:
        for _ in range(times):
            self.real.deposit(self.now)
            self.first.append(self.now)

    @rule(throttled=st.booleans(), times=st.sampled_from([1.0, 1.0, 0.5, 3.0]))
    def retry(self, *, throttled: bool, times: float) -> None:
        cost = Fraction(times) * Fraction(self.costs[0 if throttled else 1])
        from_share = min(cost, self.share_left())
        spending, told = self.real.pay(self.now, throttled=throttled, times=times)
        assert told == cost
        assert (spending is not None) == (cost - from_share <= self.reserve)
        if spending is not None:
            self.share.append((self.now, from_share))
            self.reserve -= cost - from_share
            self.spent += cost
            self.paid.append((from_share, cost - from_share, spending))

    @precondition(lambda self: self.paid)
    @rule(which=st.integers(0, 7), refunded=st.booleans(), again=st.booleans())
    def end(self, *, which: int, refunded: bool, again: bool) -> None:
        from_share, from_reserve, spending = self.paid.pop(which % len(self.paid))
        (spending.refund if refunded else spending.release)(self.now)
        if refunded:
            given_back = min(from_share, max(Fraction(0), self.share_spent()))
            self.share.append((self.now, -given_back))
            self.reserve = min(self.most, self.reserve + from_reserve)
            self.spent -= from_share + from_reserve
        if again:
            spending.refund(self.now)
            spending.release(self.now)

    def is_young(self, at: float) -> bool:
        return at // 1.0 > self.now // 1.0 - 10

    def share_spent(self) -> Fraction:
        return sum((amount for at, amount in self.share if self.is_young(at)), Fraction(0))

    def share_left(self) -> Fraction:
        return max(Fraction(0), self.ratio * sum(map(self.is_young, self.first)) - self.share_spent())

    @invariant()
    def it_has_what_the_list_says_and_never_paid_more_than_was_promised(self) -> None:
        if not hasattr(self, "real"):
            return
        seen = self.real.statistics()
        assert seen.left == self.share_left() + self.reserve
        assert seen.calls == sum(map(self.is_young, self.first))
        assert (seen.spent, seen.reserve) == (float(self.share_spent()), float(self.reserve))
        assert self.spent <= self.ratio * len(self.first) + self.floor * Fraction(self.now) + self.most
        idle = not seen.calls and not seen.spent and self.reserve == self.most
        assert self.real.is_fresh(self.now) == idle


class Tokens(Timed):
    """So many, which flow in again."""

    @initialize(capacity=st.sampled_from([0.0, 1.0, 2.5, 8.0]), refill=st.sampled_from([0.0, 0.5, 2.0]))
    def begin(self, capacity: float, refill: float) -> None:
        self.real = TokenBudget(capacity, refill)
        self.capacity, self.refill = Fraction(capacity), Fraction(refill)
        self.tokens, self.spent = self.capacity, Fraction(0)
        self.paid: list[tuple[Fraction, Spending]] = []

    @rule(ticks=st.sampled_from([1, 2, 8, 500]))
    def wait(self, ticks: int) -> None:
        self.ticks += ticks
        self.tokens = min(self.capacity, self.tokens + Fraction(ticks, 8) * self.refill)

    @rule(times=st.sampled_from([1.0, 1.0, 0.5, 3.0]))
    def retry(self, times: float) -> None:
        spending, cost = self.real.pay(self.now, times=times)
        assert cost == times
        assert (spending is not None) == (times <= self.tokens)
        if spending is not None:
            self.tokens -= Fraction(times)
            self.spent += Fraction(times)
            self.paid.append((Fraction(times), spending))

    @precondition(lambda self: self.paid)
    @rule(which=st.integers(0, 7), refunded=st.booleans())
    def end(self, *, which: int, refunded: bool) -> None:
        tokens, spending = self.paid.pop(which % len(self.paid))
        (spending.refund if refunded else spending.release)(self.now)
        if refunded:
            self.tokens = min(self.capacity, self.tokens + tokens)
            self.spent -= tokens

    @invariant()
    def it_has_what_is_left(self) -> None:
        if hasattr(self, "real"):
            seen = self.real.statistics()
            assert seen.left == seen.reserve == self.tokens
            assert (seen.spent, seen.calls) == (float(self.spent), 0)
            assert self.real.is_fresh(self.now) == (self.tokens == self.capacity)


TestShares = runs(Shares, 80, 20)
TestTokens = runs(Tokens, 40, 15)
