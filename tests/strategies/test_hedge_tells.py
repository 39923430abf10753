"""Hedging: what pays for it, and what is told of it."""

import contextlib
import logging
import textwrap
from typing import Any

import anyio
import pytest

from helpers import SECOND, Failure, cancelled_after
from resilient import clock
from resilient.errors import BulkheadFull, DeadlineExceeded
from resilient.observe import configure_logging
from resilient.observe.events import BudgetDecision, CallRejected, HedgeFinished, HedgeStarted
from resilient.observe.timeline import record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.base import Strategy
from resilient.strategies.budget import RetryBudget, Spending
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.hedge import Hedge
from resilient.strategies.retry import Retry
from strategies.legs import Abrupt, Legs, told

pytestmark = pytest.mark.anyio


# Budgets


async def test_a_budget_pays_for_hedges_and_may_refuse() -> None:
    """A refusal is no error of the call, and the hedge after it may be paid for again."""
    budget = RetryBudget(ratio=0, floor=1)
    callee = Legs((0.9, Failure()))
    hedge = Hedge(0.25, max_hedges=3, budget=budget)
    with record_timeline() as timeline, pytest.raises(Failure):
        await hedge.call(callee)

    assert len(callee.at) == 2
    assert told(timeline)[:2] == ["denied: budget_exhausted", "denied: budget_exhausted"]
    decisions = [event for event in timeline.events if isinstance(event, BudgetDecision)]
    assert [(event.allowed, event.kind, event.number) for event in decisions] == [(True, "hedge", 1)] + 2 * [(False, "hedge", 1)]


async def test_when_all_have_failed_no_hedge_is_waited_for() -> None:
    """One was denied; that another one might be paid for later is no reason to wait."""
    with record_timeline() as timeline, pytest.raises(Failure):
        await Hedge(1, max_hedges=3, on=Failure, budget=RetryBudget(ratio=0, floor=1)).call(Legs((0.5, Failure())))

    assert clock.now() == 1.0
    assert told(timeline) == ["failed: retryable_error", "denied: budget_exhausted"]


async def test_a_hedge_that_is_not_sent_is_not_paid_for() -> None:
    """A gate refused it."""
    budget = RetryBudget(ratio=0, floor=1)
    callee = Legs((2, "value"))
    seen: list[float] = []

    async def look() -> None:
        await anyio.sleep(1.001)
        seen.append(budget.statistics().reserve)

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        await Pipeline(Hedge(1, budget=budget), Bulkhead(1)).call(callee)

    assert seen == [1.0]


class Lender(RetryBudget):
    """A budget that notes what becomes of its payments."""

    def __init__(self) -> None:
        super().__init__()
        self.settled: list[str] = []

    def pay(self, now: float, *, throttled: bool = False, times: float = 1.0) -> tuple[Spending | None, float]:
        return Spending(lambda _: self.settled.append("refund"), lambda _: self.settled.append("release")), 1.0


@pytest.mark.parametrize(
    ("legs", "settled"),
    [
        pytest.param([(5, "first"), (1, "second")], "release", id="won"),
        pytest.param([(2, "first"), (9, "second")], "release", id="lost"),
        pytest.param([(2, "first"), (0.5, Failure())], "release", id="failed"),
        pytest.param([(2, "first"), (0, BulkheadFull())], "refund", id="refused"),
    ],
)
async def test_what_is_paid_is_settled_when_the_hedge_has_ended(legs: list[tuple[float, Any]], settled: str) -> None:
    """Once, and given back where nothing was sent."""
    budget = Lender()
    await Hedge(1, budget=budget).call(Legs(*legs))

    assert budget.settled == [settled]


async def test_a_call_earns_once_for_a_budget_that_is_shared() -> None:
    """A retry and a hedge may have the same one; alone, each earns for its own."""
    shared, own = RetryBudget(), RetryBudget()
    for pipeline in (
        Pipeline(Retry(on=Failure, backoff=SECOND, budget=shared), Hedge(5, budget=shared)),
        Pipeline(Retry(on=Failure, backoff=SECOND), Hedge(5, budget=own)),
    ):
        await pipeline.call(Legs((0, Failure()), (0, "value")))

    assert (shared.statistics().calls, own.statistics().calls) == (1, 1)


async def test_a_shared_budget_is_one_for_each_key() -> None:
    """What the hedge spends, the retry has not."""
    budget = RetryBudget(ratio=0, floor=1)
    pipeline = Pipeline(Retry(on=Failure, backoff=[0.0], budget=budget), Hedge(0.1, on=Failure, budget=budget), key=str)
    callee = Legs((0.01, Failure()))
    with pytest.raises(Failure):
        await pipeline.call(callee, "a")

    assert len(callee.at) == 2
    assert budget.statistics().reserve == 1


# What is told


async def test_hedges_are_told_as_events() -> None:
    """Which one, why, when, and what came of it."""
    with record_timeline() as timeline:
        await Hedge(1, max_hedges=2, on=Failure).call(Legs((9, "first"), (0.5, Failure()), (1, "third")))
    events = [event for event in timeline.events if isinstance(event, (HedgeStarted, HedgeFinished))]
    ids = {event.call_id for event in timeline.events}

    assert [(type(event).__name__, event.at, event.number, event.hedge, event.why) for event in events] == [
        ("HedgeStarted", 1.0, 1, 1, "delay"),
        ("HedgeFinished", 1.5, 1, 1, "retryable_error"),
        ("HedgeStarted", 1.5, 1, 2, "retryable_error"),
        ("HedgeFinished", 2.5, 1, 2, "success"),
    ]
    assert [(event.after, event.delay) for event in events if isinstance(event, HedgeStarted)] == [(1.0, 1.0), (1.5, 1.0)]
    assert [event.started for event in events if isinstance(event, HedgeFinished)] == [1.0, 1.5]
    assert [(event.kind, event.hedge, event.verdict.reason) for event in timeline.attempts] == [
        ("hedge", 1, "error"),
        ("hedge", 2, "success"),
        ("original", 0, "cancelled"),
    ]
    assert len(ids) == 1
    assert timeline.calls[0].attempts == 3


async def test_what_came_of_each_hedge_is_told() -> None:
    """It won, it lost, it failed, it was refused, or something spoke against it. A refusal of a hedge is none of the call."""
    breaker = CircuitBreaker(consecutive_failures=1)
    cases: list[tuple[str, Strategy, Legs]] = [
        ("won: success", Hedge(1), Legs((9, "first"), (1, "second"))),
        ("lost: original_won", Hedge(1), Legs((2, "first"), (9, "second"))),
        ("failed: error", Hedge(1), Legs((9, "first"), (1, Failure()))),
        ("failed: cancelled", Hedge(1), Legs((9, "first"), (1, Abrupt()))),
        ("suppressed: bulkhead_full", Pipeline(Hedge(1), Bulkhead(1)), Legs((9, "first"))),
        ("suppressed: circuit_open", Pipeline(Hedge(2, on=Failure), breaker), Legs((1, Failure()))),
        ("suppressed: deadline", Pipeline(Retry(on=Failure, timeout=3), Hedge(9, on=Failure)), Legs((5, Failure()))),
        ("denied: budget_exhausted", Hedge(1, budget=RetryBudget(ratio=0, floor=0)), Legs((9, "first"))),
    ]
    for expected, strategy, callee in cases:
        with record_timeline() as timeline, contextlib.suppress(Failure, Abrupt):
            await strategy.call(callee)

        assert told(timeline) == [expected]
        assert not any(isinstance(event, CallRejected) for event in timeline.events)


async def test_a_cancelled_hedge_is_told() -> None:
    """With the whole call, or because another one was told to stop: nobody has won then."""
    with record_timeline() as timeline:
        async with cancelled_after(2):
            await Hedge(1).call(Legs((9, "first")))
        with pytest.raises(DeadlineExceeded):
            await Hedge(1, max_hedges=2).call(Legs((9, "first"), (2, DeadlineExceeded(1.0)), (9, "third")))

    assert told(timeline) == ["lost: cancelled", "failed: deadline", "lost: cancelled"]


async def test_the_waterfall_of_a_hedged_call() -> None:
    """A row when a hedge is started, its attempt, and what came of it."""
    with record_timeline() as timeline:
        await Hedge(1, max_hedges=2).call(Legs((9, "first"), (9, "second"), (1, "third")))

    assert timeline.render(width=12) == textwrap.dedent(
        """\
        call: success, 3 attempts, 3000.0 ms
             0.0 ms │████████████│ attempt 1           3000.0 ms  cancelled Cancelled
          1000.0 ms │    ▏       │ hedge 1                        started: no answer yet
          1000.0 ms │    ████████│ attempt 1, hedge    2000.0 ms  cancelled Cancelled
          2000.0 ms │        ▏   │ hedge 2                        started: no answer yet
          2000.0 ms │        ████│ attempt 1, hedge 2  1000.0 ms  success
          3000.0 ms │           ▏│ hedge 2                        won: success
          3000.0 ms │           ▏│ hedge 1                        lost: hedge_won
        """
    ).rstrip().replace("Cancelled", name_of_cancellation())


def name_of_cancellation() -> str:
    return anyio.get_cancelled_exc_class().__name__


async def test_hedges_are_logged_only_where_somebody_asks_for_it(caplog: pytest.LogCaptureFixture) -> None:
    """They are ordinary business."""
    callee = Legs((9, "first"), (1, "second"), (9, "first"), (1, "second"))
    with caplog.at_level(logging.DEBUG, logger="resilient"):
        await Hedge(1).call(callee)
        silent = list(caplog.records)
        configure_logging(levels={"hedge_started": "info", "hedge_finished": "debug"})
        try:
            await Hedge(1).call(callee)
        finally:
            configure_logging()

    lines = [record.getMessage().rpartition(" call_id=")[0] for record in caplog.records]
    assert silent == []
    assert lines == [
        "resilient.hedge_started attempt=1 hedge=1 why=delay after=1.0",
        "resilient.hedge_finished attempt=1 hedge=1 result=won why=success",
    ]
