"""Hedging: what becomes of the legs that lost, of cancelled calls, budgets and streams; and what is told of it all."""

import asyncio
import contextlib
import logging
import textwrap
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from helpers import SECOND, VALUES, Failure, cancelled_after
from resilient import clock
from resilient.errors import BulkheadFull
from resilient.observe import configure_logging
from resilient.observe.events import BudgetDecision, CallRejected, HedgeFinished, HedgeStarted
from resilient.observe.timeline import Timeline, record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.base import Strategy
from resilient.strategies.budget import RetryBudget, Spending
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.hedge import Hedge
from resilient.strategies.lingering import Lingering
from resilient.strategies.retry import Retry
from strategies.legs import Legs, Stubborn

pytestmark = pytest.mark.anyio


class Body(Lingering):
    """A value that lives on."""


def told(timeline: Timeline) -> list[str]:
    """What came of each hedge, in order."""
    return [f"{event.result}: {event.why}" for event in timeline.events if isinstance(event, HedgeFinished)]


# Values that lost


async def test_a_value_that_comes_too_late_is_discarded() -> None:
    """A leg that finishes in spite of its cancellation: nobody will use what it returns."""
    bodies = Body(), Body()

    assert await Hedge(1).call(Stubborn((4, bodies[0]), (1, bodies[1]))) is bodies[1]
    assert clock.now() == 4  # all legs are awaited
    assert [body.has_ended for body in bodies] == [True, False]


async def test_a_value_that_failed_is_discarded_when_there_is_something_better() -> None:
    """It was kept until then: it is what surfaces where there is nothing else."""
    disposed: list[int] = []
    hedge = Hedge(5, max_hedges=2, classify=VALUES, dispose=disposed.append)

    assert await hedge.call(Legs((1, 503), (1, 200))) == 200
    assert await hedge.call(Legs((1, 503))) == 503
    assert disposed == [503, 503, 503]


@pytest.mark.parametrize("is_async", [False, True])
async def test_disposing_may_be_a_function_of_either_kind(*, is_async: bool) -> None:
    """It is awaited, shielded from the cancellation of the leg."""
    disposed: list[str] = []

    async def close(value: str) -> None:
        await anyio.sleep(1)
        disposed.append(value)

    hedge = Hedge(1, dispose=close if is_async else disposed.append)

    assert await hedge.call(Stubborn((4, "first"), (1, "second"))) == "second"
    assert disposed == ["first"]


async def test_disposing_that_raises_does_not_hide_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """One line says so."""

    def close(_: object) -> None:
        raise Failure

    with caplog.at_level(logging.WARNING, logger="resilient"):
        assert await Hedge(1, dispose=close).call(Stubborn((4, "first"), (1, "second"))) == "second"

    assert [record.getMessage() for record in caplog.records] == ["a value that lost was disposed of, which raised"]


async def test_disposing_is_bounded_in_time() -> None:
    """Five seconds, and the answer is handed out."""
    hedge = Hedge(1, dispose=lambda _: anyio.sleep_forever())

    assert await hedge.call(Stubborn((4, "first"), (1, "second"))) == "second"
    assert clock.now() == 9


async def test_what_is_kept_is_discarded_when_the_call_is_cancelled() -> None:
    """A failed value that would have surfaced, had the other leg failed as well."""
    disposed: list[int] = []
    async with cancelled_after(3) as scope:
        await Hedge(1, classify=VALUES, dispose=disposed.append).call(Legs((9, 200), (1, 503)))

    assert scope.cancelled_caught
    assert disposed == [503]


async def test_an_answer_is_handed_out_or_discarded() -> None:
    """The call is cancelled while the leg that lost still cleans up: the answer is not lost in between."""
    body, got = Body(), list[Body]()
    async with cancelled_after(3):
        got.append(await Hedge(1).call(Stubborn((5, None), (1, body))))

    assert (got == [body]) is not body.has_ended


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_an_answer_is_discarded_when_its_task_is_cancelled_natively() -> None:
    """As before, by other means."""
    body = Body()
    task = asyncio.create_task(Hedge(1).call(Stubborn((5, None), (1, body))))
    await asyncio.sleep(3)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert body.has_ended


async def test_an_error_that_comes_too_late_is_dropped() -> None:
    """Some turn their cancellation into an error of their own."""

    async def callee() -> str:
        calls.append(clock.now())
        if len(calls) > 1:
            return "second"
        try:
            await anyio.sleep(5)
        except anyio.get_cancelled_exc_class():
            raise Failure from None
        return "first"

    calls: list[float] = []

    assert await Hedge(1, on=Failure).call(callee) == "second"


# Cancellation


@pytest.mark.parametrize("seconds", [0, 0.5, 1, 1.5])
async def test_a_call_that_is_cancelled_leaves_nothing_behind(seconds: float) -> None:
    """All its legs are cancelled, and awaited."""
    callee = Legs((10, "value"))
    bulkhead = Bulkhead(2)
    async with cancelled_after(seconds) as scope:
        await Pipeline(Hedge(1), bulkhead).call(callee)

    assert scope.cancelled_caught
    assert (callee.active, bulkhead.statistics().active) == (0, 0)
    assert clock.now() == seconds


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("ticks", range(8))
async def test_a_task_that_is_cancelled_natively_while_it_is_decided(ticks: int) -> None:
    """Whatever came first, the call returns or is cancelled: never anything else, and nothing is left running."""
    release = asyncio.Event()
    active = 0

    async def callee() -> str:
        nonlocal active
        active += 1
        try:
            if active == 1:
                await anyio.sleep(10)
            await release.wait()
        finally:
            active -= 1
        return "second"

    task = asyncio.create_task(Hedge(1).call(callee))
    await asyncio.sleep(2)
    release.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled() is not was_done or task.result() == "second"
    assert was_done or task.cancelled()
    assert active == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_the_cancellation_of_a_leg_that_lost_may_be_replaced() -> None:
    """Some libraries raise a CancelledError of their own: it must not look like one from outside."""

    async def callee() -> str:
        calls.append(clock.now())
        if len(calls) > 1:
            return "second"
        try:
            await anyio.sleep(5)
        except asyncio.CancelledError:
            raise asyncio.CancelledError from None
        return "first"

    calls: list[float] = []

    assert await Hedge(1).call(callee) == "second"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_that_a_hedge_makes_up_ends_only_that_hedge() -> None:
    """A library's own CancelledError that nobody asked for: the original goes on, or what it ended with surfaces."""
    callee = Legs((5, "first"), (1, asyncio.CancelledError()))

    assert await Hedge(1).call(callee) == "first"
    with pytest.raises(Failure):
        await Hedge(1).call(Legs((1.5, Failure()), (1, asyncio.CancelledError())))


class Abrupt(BaseException):
    """As a KeyboardInterrupt is."""


@pytest.mark.parametrize("legs", [[(1.5, Abrupt()), (9, None)], [(9, None), (1, Abrupt())]])
async def test_an_interruption_surfaces_as_it_is(legs: list[tuple[float, Any]]) -> None:
    """From any leg; no group is made of it."""
    callee = Legs(*legs)
    with pytest.raises(Abrupt):
        await Hedge(1).call(callee)

    assert callee.active == 0


async def test_a_hedge_that_is_decided_before_its_first_step_sends_nothing() -> None:
    """It was started in the same instant in which the original answered."""
    hedge = Hedge(1, budget=RetryBudget(floor=1), on=Failure)
    for order in range(2):
        callee = Legs((1, "first") if order else (1 - 1e-12, "first"))
        with record_timeline() as timeline:
            await hedge.call(callee)

        assert len(callee.at) <= 2
        assert told(timeline) in ([], ["lost: original_won"])


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_hedge_that_has_not_begun_is_not_begun() -> None:
    """The timer and the answer come in one round of the loop: what was paid is refunded."""
    budget = RetryBudget(floor=1, ratio=0)
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    calls = 0

    async def callee() -> str:
        nonlocal calls
        calls += 1
        return await answer

    asyncio.get_running_loop().call_later(1 - 1e-9, lambda: asyncio.get_running_loop().call_soon(answer.set_result, "first"))
    with record_timeline() as timeline:
        assert await Hedge(1, budget=budget).call(callee) == "first"

    assert calls == 1 or told(timeline)
    assert budget.statistics().reserve == 1


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
    pipeline = Pipeline(
        Retry(on=Failure, backoff=[0.0], budget=budget), Hedge(0.1, on=Failure, budget=budget), key=lambda host: host
    )
    callee = Legs((0.01, Failure()))
    with pytest.raises(Failure):
        await pipeline.call(callee, "a")

    assert len(callee.at) == 2
    assert budget.statistics().reserve == 1


# Streams


class Pages:
    """An async generator function: each stream of it takes its time to open."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.opened = 0
        self.closed: list[int] = []

    async def __call__(self) -> AsyncGenerator[str]:
        nth = self.opened
        self.opened += 1
        try:
            await anyio.sleep(self.seconds[nth])
            yield f"{nth}.1"
            yield f"{nth}.2"
        finally:
            self.closed.append(nth)


@pytest.mark.parametrize(("seconds", "winner"), [((9, 1), 1), ((3, 9), 0)])
async def test_the_opening_of_a_stream_can_be_hedged(seconds: tuple[float, float], winner: int) -> None:
    """The first to give an item is walked to its end; the other one is closed before."""
    source = Pages(*seconds)
    items: list[str] = []
    async for item in Hedge(1)(source.__call__)():
        assert source.closed == [1 - winner]
        items.append(item)

    assert items == [f"{winner}.1", f"{winner}.2"]


async def test_a_stream_that_comes_too_late_is_closed() -> None:
    """Both gave their first item in the same instant."""
    source = Pages(2, 1)
    items = [item async for item in Hedge(1)(source.__call__)()]

    assert len(items) == 2
    assert sorted(source.closed) == [0, 1]


@pytest.mark.parametrize("delay", [60, None])
async def test_a_generator_that_holds_a_scope_cannot_be_hedged(delay: float | None) -> None:
    """Its scope belongs to one task. It is refused always, not just when another task opened it."""

    @Hedge(delay)
    async def pages() -> AsyncGenerator[int]:
        with anyio.CancelScope():
            yield 1

    with pytest.raises(RuntimeError, match="cannot be hedged"):
        await anext(pages())


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
    """With the whole call."""
    with record_timeline() as timeline:
        async with cancelled_after(2):
            await Hedge(1).call(Legs((9, "first")))

    assert told(timeline) == ["lost: cancelled"]


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
