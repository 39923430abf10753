"""Budgets: what pays for retries and hedges, so that they cannot become a storm.

A budget is asked before an attempt that would be one more: it pays, or it does not. First attempts are never charged; they are
what `RetryBudget` earns from. What was paid for an attempt that is not made, or was refused further in, is given back.

`RetryBudget`: a share (`ratio`) of the first attempts of the last `window` seconds may be retried. A floor of so many retries a
second lets services with little traffic retry at all; its reserve holds one second's worth, and one retry at least. Nothing
is paid for twice from what was earned, so in all, whatever the latency and the backoff, and for a floor of at least 1,

    retries ≤ ratio × first attempts + floor × (elapsed + 1 s).

The idea is Finagle's `RetryBudget` (Twitter); a share of the calls *in flight*, as others bound it, lets a storm of
fast failures through. All mutable state: the two windows and the reserve of the floor.

`TokenBudget` is plain: so many tokens, refilled at a steady rate, whatever the traffic. All mutable state: how many there were,
and when, and how many were spent. `UnlimitedBudget` pays for everything.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

from resilient import clock
from resilient._arguments import Duration, number, seconds
from resilient.context import Attempt
from resilient.observe.events import AttemptKind, BudgetDecision
from resilient.observe.listeners import emit
from resilient.strategies.windows import TimeCounts

__all__ = ("Budget", "BudgetStatistics", "RetryBudget", "Spending", "TokenBudget", "UnlimitedBudget")


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A snapshot of a budget.

    Attributes:
        left: retries of cost 1 that it would pay for now; infinity where nothing limits them.
        calls: first attempts in the window; 0 where they do not count.
        spent: what was spent: of a `RetryBudget` from the share, in the window; of the others in all.
        reserve: what is left of the floor; of a `TokenBudget` its tokens.

    """

    left: float
    calls: float
    spent: float
    reserve: float


class Spending:
    """What paid for an attempt. It is settled once: by `refund` or by `release`, whichever comes first.

    Args:
        refund: gives the payment back; it is told the time.
        release: hears that the attempt has ended, for a budget that lends and does not sell (default: none); it is told the time.

    """

    __slots__ = ("_refund", "_release")

    def __init__(self, refund: Callable[[float], object], release: Callable[[float], object] | None = None) -> None:
        self._refund: Callable[[float], object] | None = refund
        self._release = release

    def refund(self, now: float) -> None:
        """Give it back: the attempt is not made, or what it sent was refused. Later calls do nothing."""
        refund, self._refund, self._release = self._refund, None, None
        if refund is not None:
            refund(now)

    def release(self, now: float) -> None:
        """The attempt has ended. Later calls do nothing."""
        release, self._refund, self._release = self._release, None, None
        if release is not None:
            release(now)


class Budget:
    """The base of budgets. Write `pay`, `left`, `sibling` and `is_fresh`; the rest follows from them.

    Args:
        name: what it is called in events.

    """

    __slots__ = ("name",)

    mode: ClassVar[str] = "standard"
    """How it decides, for events: see `BudgetDecision`."""

    def __init__(self, name: str) -> None:
        self.name: str = name

    @abstractmethod
    def pay(self, now: float, *, throttled: bool = False, times: float = 1.0) -> tuple[Spending | None, float]:
        """Pay for one more attempt, or do not: what was spent, or None, and what it costs.

        `throttled` says that the outcome before it was (a 429, say); `times` is by how much this one costs more than others.
        It must be quick, and must not await.
        """
        raise NotImplementedError

    @abstractmethod
    def left(self, now: float) -> float:
        """Retries of cost 1 that it would pay for now."""
        raise NotImplementedError

    @abstractmethod
    def sibling(self) -> Self:
        """A new budget with the same settings."""
        raise NotImplementedError

    @abstractmethod
    def is_fresh(self, now: float) -> bool:
        """Whether its state equals that of a new sibling, so that nothing is lost when it is forgotten."""
        raise NotImplementedError

    def retune(self, template: "Budget") -> bool:
        """Take over the settings of another one, and keep the state; False, and nothing is changed, where that cannot be.

        The default: it cannot be, and a new budget takes its place.
        """
        return False

    def deposit(self, now: float) -> None:
        """A first attempt is made."""

    def spend(
        self,
        now: float,
        *,
        attempt: Attempt | None = None,
        throttled: bool = False,
        kind: AttemptKind = "retry",
        times: float = 1.0,
    ) -> Spending | None:
        """Pay for an attempt that is decided on, before its wait; None where there is not enough left. Tells the decision."""
        spending, cost = self.pay(now, throttled=throttled, times=times)
        if attempt is not None and attempt.watch is not None:
            emit(
                attempt.watch.listeners,
                BudgetDecision(
                    at=now,
                    key=attempt.key,
                    call_id=attempt.identify(),
                    allowed=spending is not None,
                    cost=cost,
                    left=self.left(now),
                    budget=self.name,
                    number=attempt.number,
                    kind=kind,
                    mode=self.mode,
                    reason="allowed" if spending is not None else "budget_denied",
                ),
            )
        return spending

    def statistics(self) -> BudgetStatistics:
        """A snapshot."""
        left = self.left(clock.now())
        return BudgetStatistics(left, 0.0, 0.0, left)


class RetryBudget(Budget):
    """Pays for retries: give the same one to all that call the same service.

    Args:
        ratio: retries per first attempt, at least 0 (default 0.2).
        window: seconds over which first attempts count, above 0 (default 10).
        floor: retries a second that are always paid for, at least 0 (default 10).
        throttled_cost: what a retry of a throttled outcome costs, above 0 (default 1).
        transient_cost: what any other retry costs, above 0 (default 1).
        name: what it is called in events.

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
        name: str = "retry_budget",
    ) -> None:
        super().__init__(name)
        self.ratio = number("ratio", ratio, at_least=0.0)
        self.window = seconds("window", window, above=0.0)
        self.floor = number("floor", floor, at_least=0.0)
        self.throttled_cost = number("throttled_cost", throttled_cost, above=0.0)
        self.transient_cost = number("transient_cost", transient_cost, above=0.0)
        self._window = TimeCounts(self.window)  # calls: first attempts; failures: what was spent from their share
        self._capacity = _capacity(self.floor)
        self._reserve = self._capacity  # full at first
        self._reserve_at: float | None = None

    def deposit(self, now: float) -> None:
        """A first attempt is made."""
        self._window.record(now)

    def left(self, now: float) -> float:
        """Retries of cost 1 that it would pay for now."""
        self._refill(now)
        return self._share_left() + self._reserve

    def pay(self, now: float, *, throttled: bool = False, times: float = 1.0) -> tuple[Spending | None, float]:
        self._refill(now)
        cost = times * (self.throttled_cost if throttled else self.transient_cost)
        from_share = min(cost, self._share_left())
        from_reserve = cost - from_share
        if from_reserve > self._reserve:
            return None, cost
        self._window.record(now, calls=0, failures=from_share)
        self._reserve -= from_reserve
        return Spending(partial(self._give_back, from_share, from_reserve)), cost

    def _give_back(self, from_share: float, from_reserve: float, now: float) -> None:
        """Take back what was paid; at most to what can be spent again."""
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
            name=self.name,
        )

    def retune(self, template: Budget) -> bool:
        if not isinstance(template, RetryBudget) or template.window != self.window:
            return False
        self._refill(clock.now())
        self.name, self.ratio, self.floor = template.name, template.ratio, template.floor
        self.throttled_cost, self.transient_cost = template.throttled_cost, template.transient_cost
        self._capacity = _capacity(self.floor)
        self._reserve = min(self._reserve, self._capacity)
        return True

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


def _capacity(floor: float) -> float:
    """Of the reserve: less than one could never pay."""
    return max(floor, 1.0) if floor else 0.0


class TokenBudget(Budget):
    """So many tokens, refilled at a steady rate: retries and hedges take them, first attempts do not.

    Args:
        capacity: how many tokens there can be, and are at first, at least 0 (0: it pays for nothing).
        refill: tokens that flow in during a second, at least 0 (default 0: what is spent is gone).
        name: what it is called in events.

    """

    __slots__ = ("_at", "_spent", "_tokens", "capacity", "refill")

    def __init__(self, capacity: float, refill: float = 0.0, *, name: str = "token_budget") -> None:
        super().__init__(name)
        self.capacity = number("capacity", capacity, at_least=0.0)
        self.refill = number("refill", refill, at_least=0.0)
        self._tokens = self.capacity
        self._at: float | None = None
        self._spent = 0.0

    def pay(self, now: float, *, throttled: bool = False, times: float = 1.0) -> tuple[Spending | None, float]:
        if self.left(now) < times:
            return None, times
        self._tokens -= times
        self._spent += times
        return Spending(partial(self._give_back, times)), times

    def left(self, now: float) -> float:
        since = self._at
        if since is not None and now > since:
            self._tokens = min(self.capacity, self._tokens + (now - since) * self.refill)
        self._at = now
        return self._tokens

    def _give_back(self, tokens: float, now: float) -> None:
        self._tokens = min(self.capacity, self.left(now) + tokens)
        self._spent -= tokens

    def sibling(self) -> Self:
        return type(self)(self.capacity, self.refill, name=self.name)

    def is_fresh(self, now: float) -> bool:
        return self.left(now) >= self.capacity

    def retune(self, template: Budget) -> bool:
        if not isinstance(template, TokenBudget):
            return False
        self._tokens = min(self.left(clock.now()), template.capacity)
        self.name, self.capacity, self.refill = template.name, template.capacity, template.refill
        return True

    def statistics(self) -> BudgetStatistics:
        """A snapshot."""
        left = self.left(clock.now())
        return BudgetStatistics(left, 0.0, self._spent, left)

    def __repr__(self) -> str:
        return f"<TokenBudget {self.name!r}: {self.left(clock.now()):.1f} of {self.capacity:g} tokens left, {self.refill:g}/s>"


class UnlimitedBudget(Budget):
    """Pays for everything: where a budget must be named, and none is wanted."""

    __slots__ = ()

    def __init__(self, *, name: str = "unlimited") -> None:
        super().__init__(name)

    def pay(self, now: float, *, throttled: bool = False, times: float = 1.0) -> tuple[Spending | None, float]:
        return Spending(_nothing), times

    def left(self, now: float) -> float:
        return math.inf

    def sibling(self) -> Self:
        return self

    def is_fresh(self, now: float) -> bool:
        return True

    def retune(self, template: Budget) -> bool:
        self.name = template.name
        return isinstance(template, UnlimitedBudget)

    def __repr__(self) -> str:
        return f"<UnlimitedBudget {self.name!r}>"


def _nothing(_: float) -> None:
    """There is nothing to give back."""
