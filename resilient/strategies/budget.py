"""RetryBudget: what pays for retries, so that they cannot become a storm.

First attempts earn: a share (`ratio`) of those of the last `window` seconds may be retried. A floor of so many retries a
second lets services with little traffic retry at all; its reserve holds one second's worth, and one retry at least. Nothing
is paid for twice from what was earned, so in all, whatever the latency and the backoff, and for a floor of at least 1,

    retries ≤ ratio × first attempts + floor × (elapsed + 1 s).

The idea is Finagle's `RetryBudget` (Twitter); a share of the calls *in flight*, as others bound it, lets a storm of
fast failures through. All mutable state: the two windows and the reserve of the floor.
"""

from dataclasses import dataclass
from typing import Self

from resilient import clock
from resilient._arguments import Duration, number, seconds
from resilient.context import Attempt
from resilient.observe.events import BudgetDecision
from resilient.observe.listeners import emit
from resilient.strategies.windows import TimeCounts

__all__ = ("BudgetStatistics", "RetryBudget", "Spending")


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A snapshot of a budget.

    Attributes:
        left: retries of cost 1 that it would pay for now.
        calls: first attempts in the window.
        spent: what was spent from their share, in the window.
        reserve: what is left of the floor.

    """

    left: float
    calls: float
    spent: float
    reserve: float


class RetryBudget:
    """Pays for retries: give the same one to all that call the same service.

    Args:
        ratio: retries per first attempt, at least 0 (default 0.2).
        window: seconds over which first attempts count, above 0 (default 10).
        floor: retries a second that are always paid for, at least 0 (default 10).
        throttled_cost: what a retry of a throttled outcome costs, above 0 (default 1).
        transient_cost: what any other retry costs, above 0 (default 1).

    """

    __slots__ = (
        "_capacity",
        "_reserve",
        "_reserve_at",
        "_window",
        "floor",
        "ratio",
        "throttled_cost",
        "transient_cost",
        "window",
    )

    def __init__(
        self,
        *,
        ratio: float = 0.2,
        window: Duration = 10.0,
        floor: float = 10.0,
        throttled_cost: float = 1.0,
        transient_cost: float = 1.0,
    ) -> None:
        self.ratio = number("ratio", ratio, at_least=0.0)
        self.window = seconds("window", window, above=0.0)
        self.floor = number("floor", floor, at_least=0.0)
        self.throttled_cost = number("throttled_cost", throttled_cost, above=0.0)
        self.transient_cost = number("transient_cost", transient_cost, above=0.0)
        self._window = TimeCounts(self.window)  # calls: first attempts; failures: what was spent from their share
        self._capacity = max(self.floor, 1.0) if self.floor else 0.0  # of the reserve: less than one could never pay
        self._reserve = self._capacity  # full at first
        self._reserve_at: float | None = None

    def deposit(self, now: float) -> None:
        """A first attempt is made."""
        self._window.record(now)

    def left(self, now: float) -> float:
        """Retries of cost 1 that it would pay for now."""
        self._refill(now)
        return self._share_left() + self._reserve

    def spend(self, now: float, *, attempt: Attempt | None = None, throttled: bool = False) -> "Spending | None":
        """Pay for a retry that is decided on, before its wait; None where there is not enough left."""
        self._refill(now)
        cost = self.throttled_cost if throttled else self.transient_cost
        from_share = min(cost, self._share_left())
        from_reserve = cost - from_share
        allowed = from_reserve <= self._reserve
        if allowed:
            self._window.record(now, calls=0, failures=from_share)
            self._reserve -= from_reserve
        if attempt is not None and attempt.watch is not None:
            emit(
                attempt.watch.listeners,
                BudgetDecision(
                    at=now,
                    key=attempt.key,
                    call_id=attempt.identify(),
                    allowed=allowed,
                    cost=cost,
                    left=self._share_left() + self._reserve,
                ),
            )
        return Spending(self, from_share, from_reserve) if allowed else None

    def give_back(self, now: float, from_share: float, from_reserve: float) -> None:
        """Take back what a `Spending` paid; at most to what can be spent again."""
        self._refill(now)
        self._window.record(now, calls=0, failures=-min(from_share, max(0.0, self._window.failures)))
        self._reserve = min(self._capacity, self._reserve + from_reserve)

    def sibling(self) -> Self:
        """A new budget with the same settings."""
        return type(self)(
            ratio=self.ratio,
            window=self.window,
            floor=self.floor,
            throttled_cost=self.throttled_cost,
            transient_cost=self.transient_cost,
        )

    def is_fresh(self, now: float) -> bool:
        """Whether nothing was earned or spent of late."""
        self._refill(now)
        return not self._window.calls and not self._window.failures and self._reserve >= self._capacity

    def statistics(self) -> BudgetStatistics:
        """A snapshot."""
        left = self.left(clock.now())
        return BudgetStatistics(left, self._window.calls, self._window.failures, self._reserve)

    def _share_left(self) -> float:
        return max(0.0, self.ratio * self._window.calls - self._window.failures)

    def _refill(self, now: float) -> None:
        self._window.expire(now)
        since = self._reserve_at
        if since is not None and now > since:
            self._reserve = min(self._capacity, self._reserve + (now - since) * self.floor)
        self._reserve_at = now

    def __repr__(self) -> str:
        return f"<RetryBudget ratio={self.ratio:g} floor={self.floor:g}/s: {self.left(clock.now()):.1f} retries left>"


class Spending:
    """What paid for a retry that is not made yet."""

    __slots__ = ("_budget", "_from_reserve", "_from_share")

    def __init__(self, budget: RetryBudget, from_share: float, from_reserve: float) -> None:
        self._budget: RetryBudget | None = budget
        self._from_share = from_share
        self._from_reserve = from_reserve

    def refund(self, now: float) -> None:
        """Give it back because the retry is not made. Later calls do nothing."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give_back(now, self._from_share, self._from_reserve)
