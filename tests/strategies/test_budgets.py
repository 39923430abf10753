"""What all budgets have in common, and those that are plain: tokens, and none at all."""

import contextlib
import math
from typing import Self

import anyio
import pytest

from helpers import SECOND, Failure, Script, cancelled_after
from resilient import CircuitOpen, Pipeline, Retry, RetryBudget, clock, record_timeline
from resilient.observe.events import BudgetDecision
from resilient.strategies.budget import Budget, BudgetStatistics, Spending, TokenBudget, UnlimitedBudget

pytestmark = pytest.mark.anyio


# Tokens


def test_tokens_are_spent_and_flow_in() -> None:
    """Full at first, refilled at a steady rate, never more than there is room for."""
    budget = TokenBudget(2, refill=0.5)

    assert [budget.spend(0.0) is not None for _ in range(3)] == [True, True, False]
    assert budget.spend(1.9) is None
    assert budget.spend(2.0) is not None
    assert budget.left(1000.0) == 2


def test_a_clock_that_goes_back_brings_no_tokens() -> None:
    """It loses none either."""
    budget = TokenBudget(1, refill=1)
    budget.spend(10.0)

    assert budget.left(5.0) == 0
    assert budget.left(5.5) == 0.5


def test_without_a_refill_what_is_spent_is_gone() -> None:
    """A budget of nothing pays for nothing."""
    budget = TokenBudget(1)

    assert budget.spend(0.0) is not None
    assert budget.spend(1e9) is None
    assert TokenBudget(0).spend(0.0) is None


def test_a_payment_is_given_back_once() -> None:
    """Refunding twice, or after the attempt has ended, changes nothing."""
    budget = TokenBudget(5)
    first, second = budget.spend(0.0, times=2), budget.spend(0.0)
    assert first is not None
    assert second is not None
    assert budget.left(0.0) == 2
    second.release(0.0)
    for _ in range(2):
        first.refund(0.0)
        second.refund(0.0)
        second.release(0.0)

    assert budget.left(0.0) == 4
    assert budget.statistics().spent == 1


def test_tokens_are_retuned() -> None:
    """Those that are there stay there, as far as there is room; a sibling begins anew."""
    budget = TokenBudget(10, name="mine")
    for _ in range(3):
        budget.spend(clock.now())

    assert budget.retune(TokenBudget(5, refill=1.0, name="yours"))
    assert (budget.capacity, budget.refill, budget.name) == (5, 1.0, "yours")
    assert budget.statistics().left == 5
    budget.spend(clock.now())
    assert not budget.is_fresh(clock.now())
    sibling = budget.sibling()
    assert sibling.is_fresh(clock.now())
    assert (sibling.capacity, sibling.refill, sibling.name) == (5, 1.0, "yours")
    assert repr(TokenBudget(10, refill=0.5)) == "<TokenBudget 'token_budget': 10.0 of 10 tokens left, 0.5/s>"


@pytest.mark.parametrize(
    ("capacity", "refill", "message"), [(-1, 0, "capacity=-1"), (1, -1, "refill=-1"), (1, math.nan, "refill=nan")]
)
def test_settings_out_of_range_are_refused(capacity: float, refill: float, message: str) -> None:
    """The error names the argument."""
    with pytest.raises(ValueError, match=message):
        TokenBudget(capacity, refill)


# None at all


def test_an_unlimited_budget_pays_for_everything() -> None:
    """Nothing is kept of it."""
    budget = UnlimitedBudget()
    spending = budget.spend(0.0)
    assert spending is not None
    spending.refund(0.0)

    assert budget.statistics().left == math.inf
    assert budget.sibling() is budget
    assert budget.is_fresh(0.0)
    assert budget.retune(UnlimitedBudget(name="other"))
    assert repr(budget) == "<UnlimitedBudget 'other'>"


# The share


def test_a_share_is_retuned() -> None:
    """What was earned and spent stays; another window is another state, and is refused."""
    budget = RetryBudget(floor=4, ratio=0)
    assert budget.spend(clock.now()) is not None

    assert budget.retune(RetryBudget(floor=2, ratio=0.5, throttled_cost=2.0, name="mine"))
    assert (budget.floor, budget.ratio, budget.throttled_cost, budget.name) == (2, 0.5, 2.0, "mine")
    assert budget.statistics().reserve == 2
    assert not budget.retune(RetryBudget(window=1))
    assert budget.window == 10


def test_what_is_not_said_is_the_default() -> None:
    """A fifth of the calls of ten seconds, and ten a second besides; every retry costs one."""
    assert [getattr(RetryBudget(), name) for name in ("ratio", "window", "floor")] == [0.2, 10.0, 10.0]
    assert (RetryBudget().throttled_cost, RetryBudget().transient_cost) == (1.0, 1.0)
    assert [budget.name for budget in (RetryBudget(), TokenBudget(1), UnlimitedBudget())] == [
        "retry_budget",
        "token_budget",
        "unlimited",
    ]


def test_a_budget_of_another_kind_is_no_template() -> None:
    """Its state would mean something else."""
    for budget in (RetryBudget(), TokenBudget(1), UnlimitedBudget()):
        assert not budget.retune(Loan())


# A budget of one's own


class Loan(Budget):
    """Lends: at most one attempt at a time is paid for."""

    mode = "allow"

    def __init__(self) -> None:
        super().__init__("loan")
        self.lent = 0
        self.returned: list[float] = []  # when

    def pay(self, now: float, *, throttled: bool = False, times: float = 1.0) -> tuple[Spending | None, float]:
        self.lent += 1
        return Spending(self.take_back, self.take_back), times

    def take_back(self, now: float) -> None:
        self.lent -= 1
        self.returned.append(now)

    def left(self, now: float) -> float:
        return 1.0 if now >= 0 else math.nan

    def sibling(self) -> Self:
        return self

    def is_fresh(self, now: float) -> bool:
        return not self.lent


def test_what_a_budget_of_ones_own_need_not_say() -> None:
    """It is not retuned, and its statistics are what is left."""
    assert not Loan().retune(Loan())
    assert Loan().statistics() == BudgetStatistics(left=1.0, calls=0.0, spent=0.0, reserve=1.0)


def test_who_lends_hears_when_the_attempt_ended() -> None:
    """Once, and not whether it was given back as well."""
    refunded, released = list[float](), list[float]()
    spending = Spending(refunded.append, released.append)
    spending.release(2.0)
    spending.release(3.0)
    spending.refund(4.0)

    assert (refunded, released) == ([], [2.0])


@pytest.mark.parametrize("outcome", [1, Failure(), KeyError(), CircuitOpen()])
async def test_what_is_lent_comes_back_when_the_attempt_has_ended(outcome: object) -> None:
    """Whatever it ended with: a budget can bound how many retries run at a time."""
    budget = Loan()
    during: list[int] = []

    class Noting(Script):
        async def __call__(self, *args: object, **kwargs: object) -> object:
            during.append(budget.lent)
            return await super().__call__(*args, **kwargs)

    callee = Noting(Failure(), outcome)
    with contextlib.suppress(Failure, KeyError):
        await Retry(on=Failure, attempts=2, backoff=SECOND, budget=budget).call(callee)

    assert during == [0, 1]
    assert (budget.lent, budget.returned) == (0, [1.0])


async def test_what_is_lent_comes_back_when_the_attempt_is_cancelled() -> None:
    """In a call and in a loop of blocks; during the wait it is given back, too."""
    for seconds in (0.5, 1.5):
        budget = Loan()
        retry = Retry(on=Failure, backoff=SECOND, budget=budget)
        async with cancelled_after(seconds):
            await retry.call(_fail_then_hang())

        assert budget.lent == 0

        async with cancelled_after(seconds):
            async for attempt in retry:
                with attempt:
                    if attempt.number > 1:
                        await anyio.sleep_forever()
                    raise Failure

        assert budget.lent == 0


def _fail_then_hang() -> Script:
    class Hanging(Script):
        async def __call__(self, *args: object, **kwargs: object) -> object:
            if self.calls:
                await anyio.sleep_forever()
            return await super().__call__(*args, **kwargs)

    return Hanging(Failure())


async def test_an_event_of_a_decision_says_all_of_it() -> None:
    """When, for which key and call, which attempt, by which budget, and how that decides."""
    retry = Retry(on=Failure, attempts=2, backoff=SECOND, budget=Loan())
    await anyio.sleep(3)
    with record_timeline() as timeline:
        await Pipeline(retry, key=lambda *_: "users").call(Script(Failure(), 1))
    (decision,) = [event for event in timeline.events if isinstance(event, BudgetDecision)]
    (call_id,) = {event.call_id for event in timeline.events}

    assert decision == BudgetDecision(
        at=3.0, key="users", call_id=call_id, allowed=True, cost=1.0, left=1.0, budget="loan", number=1, mode="allow"
    )
    assert (decision.kind, decision.reason) == ("retry", "allowed")


async def test_decisions_of_every_budget_are_events() -> None:
    """They say which budget it was, what it was asked for, and what it said."""
    with record_timeline() as timeline, pytest.raises(Failure):
        await Retry(on=Failure, backoff=SECOND, budget=TokenBudget(1, name="mine")).call(Script(Failure()))
    first, second = [event for event in timeline.events if isinstance(event, BudgetDecision)]

    assert (first.budget, first.allowed, first.cost, first.left, first.kind, first.number) == ("mine", True, 1, 0, "retry", 1)
    assert (first.reason, first.mode) == ("allowed", "standard")
    assert (second.allowed, second.reason, second.number) == (False, "budget_denied", 2)
