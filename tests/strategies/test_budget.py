from collections.abc import Iterator
from random import Random
from typing import Any

import anyio
import pytest

from helpers import Failure, Script
from resilient import clock
from resilient.observe.events import BudgetDecision
from resilient.observe.logs import configure_logging
from resilient.observe.timeline import record_timeline
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Backoff, Constant, Exponential
from resilient.strategies.budget import RetryBudget
from resilient.strategies.retry import Retry
from resilient.testing import run_virtual

pytestmark = pytest.mark.anyio


def spend_all(budget: RetryBudget, now: float) -> int:
    spent = 0
    while budget.spend(now) is not None:
        spent += 1
    return spent


# The storm


async def one_call(retry: Retry, callee: Script) -> None:
    with pytest.raises(Failure):
        await retry.call(callee)


@pytest.fixture
def no_logs() -> Iterator[None]:
    configure_logging(enabled=False)
    yield
    configure_logging()


@pytest.mark.usefixtures("no_logs")
@pytest.mark.parametrize(
    ("per_second", "latency", "backoff"),
    [
        (900, 0.0, Constant(delay=0)),
        (900, 0.05, Constant(delay=1)),
        (900, 2.0, Exponential()),
        (10_000, 0.0, Exponential()),
        (10_000, 0.05, Constant(delay=0)),
        (10_000, 2.0, Constant(delay=0)),
    ],
)
def test_a_callee_that_always_fails_gets_a_fifth_more_than_the_calls(per_second: int, latency: float, backoff: Backoff) -> None:
    """Whatever the latency, the backoff and the rate of calls: with the default budget 400 calls make at most
    1.2 × calls + floor × (elapsed + 1) attempts (failsafe-go's budget of calls in flight lets three times as many through).
    """
    callee = Script(Failure(), seconds=latency)
    retry = Retry(on=Failure, attempts=4, backoff=backoff, budget=RetryBudget(), random=Random(0))

    async def storm() -> float:
        async with anyio.create_task_group() as group:
            for _ in range(400):
                group.start_soon(one_call, retry, callee)
                await anyio.sleep(1 / per_second)
        return clock.now()

    elapsed = run_virtual(storm)

    assert 460 < callee.calls <= 1.2 * 400 + 10 * (elapsed + 1)


@pytest.mark.usefixtures("no_logs")
def test_a_storm_of_calls_one_after_the_other_is_bounded_too() -> None:
    """There is never more than one call in flight."""
    callee = Script(Failure())
    retry = Retry(on=Failure, attempts=10, backoff=Constant(delay=0), budget=RetryBudget())

    async def storm() -> None:
        for _ in range(1000):
            await one_call(retry, callee)

    run_virtual(storm)

    assert 1150 < callee.calls <= 1.2 * 1000 + 10


# What it earns and what it pays


def test_first_attempts_earn_a_share() -> None:
    """A hundred calls pay for twenty retries."""
    budget = RetryBudget(floor=0)
    for _ in range(100):
        budget.deposit(0.0)

    assert (budget.left(0.0), spend_all(budget, 0.0), budget.left(0.0)) == (20, 20, 0)


def test_what_was_earned_is_forgotten_after_the_window() -> None:
    """Calls of long ago pay for nothing."""
    budget = RetryBudget(floor=0, window=10)
    for _ in range(100):
        budget.deposit(0.0)

    assert (budget.left(8.9), budget.left(10.1)) == (20, 0)


def test_what_was_spent_does_not_count_for_ever_either() -> None:
    """Later calls earn for later retries."""
    budget = RetryBudget(floor=0, window=10)
    for now in (0.0, 20.0):
        for _ in range(100):
            budget.deposit(now)

        assert spend_all(budget, now) == 20


def test_the_floor_pays_without_any_calls() -> None:
    """One second's worth at first, and so many a second."""
    budget = RetryBudget(ratio=0, floor=10)

    assert [spend_all(budget, now) for now in (0.0, 0.5, 0.5, 1000.0)] == [10, 5, 0, 10]


def test_a_floor_of_less_than_one_retry_a_second_pays_in_the_end() -> None:
    """Its reserve holds one retry, at least: else it could never pay."""
    budget = RetryBudget(ratio=0, floor=0.5)

    assert [spend_all(budget, now) for now in (0.0, 1.0, 2.0, 4.0)] == [1, 0, 1, 1]


def test_the_share_is_spent_before_the_reserve() -> None:
    """The reserve is for times without traffic."""
    budget = RetryBudget(ratio=0.5, floor=1, window=0.5)
    budget.deposit(0.0)
    budget.deposit(0.0)
    budget.spend(0.0)

    assert budget.left(0.6) == 1  # the share is forgotten, the reserve is full


def test_a_retry_may_be_paid_from_both() -> None:
    """Half a share and half of the reserve."""
    budget = RetryBudget(ratio=0.5, floor=1)
    budget.deposit(0.0)

    assert (spend_all(budget, 0.0), budget.left(0.0)) == (1, 0.5)


def test_classes_of_outcomes_can_cost_different_amounts() -> None:
    """Retries of throttled attempts can be made dear."""
    budget = RetryBudget(ratio=0, floor=10, throttled_cost=5, transient_cost=0.5)
    budget.spend(0.0, throttled=True)
    budget.spend(0.0)

    assert budget.left(0.0) == 4.5


def test_a_refund_makes_good_what_was_spent_once() -> None:
    """Refunding twice is harmless, and gives no more than there was."""
    budget = RetryBudget(ratio=0.5, floor=1)
    budget.deposit(0.0)
    spending = budget.spend(0.0)
    assert spending is not None
    spending.refund(0.1)
    spending.refund(0.1)

    assert budget.left(0.1) == 1.5


def test_a_refund_that_comes_too_late_gives_nothing() -> None:
    """What was spent is forgotten already."""
    budget = RetryBudget(ratio=1, floor=0, window=10)
    budget.deposit(0.0)
    spending = budget.spend(0.0)
    assert spending is not None
    spending.refund(20.0)
    budget.deposit(20.0)

    assert budget.left(20.0) == 1


def test_time_that_goes_back_refills_nothing() -> None:
    """Clocks are monotonic, but several threads may read them out of order."""
    budget = RetryBudget(ratio=0, floor=10)
    spend_all(budget, 5.0)

    assert budget.left(4.0) == 0


# How it is shared and shown


async def test_one_budget_serves_several_retries() -> None:
    """All that call the same service together keep the bound."""
    budget = RetryBudget(ratio=0, floor=3)
    callee = Script(Failure())
    for _ in range(10):
        await one_call(Retry(on=Failure, budget=budget, backoff=Constant(delay=0)), callee)

    assert callee.calls == 13


async def test_each_key_of_a_pipeline_has_a_budget_of_its_own() -> None:
    """A storm at one service leaves the others their retries."""
    retry = Retry(on=Failure, budget=RetryBudget(ratio=0, floor=1), backoff=Constant(delay=0))
    pipeline = Pipeline(retry, key=str)
    callees = {"a": Script(Failure()), "b": Script(Failure())}

    async def fetch(key: str) -> None:
        await callees[key]()

    for key in "aaaab":
        with pytest.raises(Failure):
            await pipeline.call(fetch, key)

    assert {key: callee.calls for key, callee in callees.items()} == {"a": 5, "b": 2}


async def test_a_throttled_outcome_costs_what_it_is_set_to() -> None:
    """The verdict says that it was throttled."""
    throttled = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", throttled=True)

    def judge(_: Exception) -> Verdict:
        return throttled

    budget = RetryBudget(ratio=0, floor=10, throttled_cost=10)
    callee = Script(Failure())
    with pytest.raises(Failure):
        await Retry(classify=Classifier(judge), budget=budget, backoff=Constant(delay=0)).call(callee)

    assert callee.calls == 2


async def test_its_decisions_are_told_to_those_who_listen() -> None:
    """The answer, the cost, and what is left."""
    retry = Retry(on=Failure, budget=RetryBudget(ratio=0, floor=1), backoff=Constant(delay=0))
    with record_timeline() as timeline, pytest.raises(Failure):
        await retry.call(Script(Failure()))

    decisions = [event for event in timeline.events if isinstance(event, BudgetDecision)]
    assert [(event.allowed, event.cost, event.left) for event in decisions] == [(True, 1, 0), (False, 1, 0)]


async def test_it_shows_its_live_state() -> None:
    """In statistics and in its repr; looking changes nothing."""
    budget = RetryBudget(ratio=0.5, floor=2)
    budget.deposit(clock.now())
    budget.spend(clock.now())
    seen = budget.statistics()

    assert (seen.left, seen.calls, seen.spent, seen.reserve) == (1.5, 1, 0.5, 1.5)
    assert repr(budget) == "<RetryBudget ratio=0.5 floor=2/s: 1.5 retries left>"
    assert budget.statistics() == seen


async def test_a_sibling_has_the_same_settings_and_fresh_state() -> None:
    """For another key."""
    settings: dict[str, Any] = {"ratio": 0.3, "window": 5.0, "floor": 4.0, "throttled_cost": 2.0, "transient_cost": 3.0}
    settings["name"] = "mine"
    budget = RetryBudget(**settings)
    spend_all(budget, 0.0)
    sibling = budget.sibling()

    assert {name: getattr(sibling, name) for name in settings} == settings
    assert (budget.is_fresh(0.0), sibling.is_fresh(0.0)) == (False, True)


def test_it_is_fresh_again_when_all_is_forgotten() -> None:
    """Then a key may be forgotten without loss."""
    budget = RetryBudget(window=10)
    budget.deposit(0.0)
    spend_all(budget, 0.0)

    assert [budget.is_fresh(now) for now in (0.0, 5.0, 10.5)] == [False, False, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": -0.1}, "ratio=-0.1 is out of range: expected a finite number at least 0"),
        ({"window": 0}, "window=0 is out of range: expected a finite number greater than 0 seconds"),
        ({"floor": -1}, "floor=-1 is out of range"),
        ({"throttled_cost": 0}, "throttled_cost=0 is out of range"),
        ({"transient_cost": 0}, "transient_cost=0 is out of range"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    """With the name, the value and the range."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is what is compared
        RetryBudget(**arguments)

    assert message in str(caught.value)
