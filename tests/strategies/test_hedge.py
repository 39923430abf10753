"""Hedging: when a second leg is started, who wins, and what becomes of the others."""

import asyncio
import contextlib
import contextvars
import statistics
from datetime import timedelta
from random import Random
from typing import Any

import anyio
import pytest

from helpers import VALUES, Failure, Fatal, on_errors
from resilient import clock
from resilient.context import Attempt, deadline, invoke
from resilient.errors import BulkheadFull, DeadlineExceeded, RetryableError
from resilient.observe.timeline import record_timeline
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.hedge import Hedge, HedgeStatistics
from resilient.strategies.latency import P50, P99, FixedDelay, Percentile
from resilient.strategies.retry import Retry
from resilient.testing import virtual_time
from strategies.legs import Legs, told

pytestmark = pytest.mark.anyio


# When a hedge is started


async def test_a_leg_that_answers_in_time_is_alone() -> None:
    """There is no second one."""
    callee = Legs((0.9, "first"))

    assert await Hedge(1).call(callee) == "first"
    assert callee.at == [0]
    await anyio.sleep(10)
    assert callee.at == [0]


async def test_a_slow_leg_is_doubled_and_the_first_answer_wins() -> None:
    """The hedge starts when the delay is over; the leg that lost is cancelled before the call returns."""
    callee = Legs((10, "first"), (1, "second"))

    assert await Hedge(2).call(callee) == "second"
    assert clock.now() == 3
    assert callee.at == [0, 2]
    assert (callee.cancelled, callee.active) == ([0], 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_hedge_needs_no_anyio_around() -> None:
    """A program that was started by `asyncio.run`, not by anyio, is hedged as well."""
    callee = Legs((10, "first"), (1, "second"))
    task = asyncio.get_running_loop().create_task(Hedge(2).call(callee), context=contextvars.Context())

    assert await task == "second"
    assert clock.now() == 3


async def test_the_original_may_still_win() -> None:
    """Its hedge is cancelled then."""
    callee = Legs((3, "first"), (10, "second"))

    assert await Hedge(2).call(callee) == "first"
    assert (clock.now(), callee.cancelled, callee.active) == (3, [1], 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_until_a_hedge_is_due_there_is_a_timer_and_no_task() -> None:
    """A call that is answered in time costs no task; the one of a hedge says whose it is."""
    before, tasks = asyncio.all_tasks(), list[set[str]]()

    async def callee() -> None:
        tasks.append({task.get_name() for task in asyncio.all_tasks() - before})
        await anyio.sleep(1.5)

    await Hedge(1).call(callee)

    assert tasks == [set(), {"resilient hedge 1"}]


async def test_hedges_are_spaced() -> None:
    """Each waits for the delay in its turn, up to the number that is allowed."""
    callee = Legs((10, "first"))

    assert await Hedge(1, max_hedges=3).call(callee) == "first"
    assert callee.at == [0, 1, 2, 3]
    assert sorted(callee.cancelled) == [1, 2, 3]


async def test_without_a_delay_all_legs_start_together() -> None:
    """That is a race, which costs twice as much."""
    callee = Legs((2, "first"), (1, "second"))

    assert await Hedge(0).call(callee) == "second"
    assert callee.at == [0, 0]


async def test_a_failure_starts_the_next_leg_at_once() -> None:
    """And the one after that waits for the delay from then on."""
    callee = Legs((0.5, Failure()), (10, "second"), (1, "third"))

    assert await Hedge(1, max_hedges=2, on=Failure).call(callee) == "third"
    assert callee.at == [0, 0.5, 1.5]


async def test_a_failure_that_nobody_calls_retryable_starts_nothing() -> None:
    """Without `on` and without a classifier nobody knows, and what is not in `on` is permanent: it surfaces."""
    for hedge, error in (
        (Hedge(1), Failure()),
        (Hedge(1, on=Failure), Fatal()),
        (Hedge(1, on=Failure, never=Failure), Failure()),
    ):
        callee = Legs((0.5, error))
        with pytest.raises(type(error)):
            await hedge.call(callee)

        assert len(callee.at) == 1


@pytest.mark.parametrize(
    "verdict",
    [
        pytest.param(Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", throttled=True), id="throttled"),
        pytest.param(Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503", retry_after=3.0), id="asked to wait"),
    ],
)
async def test_a_callee_that_asks_for_patience_gets_no_further_leg(verdict: Verdict) -> None:
    """Neither at once nor after the delay; what runs may still answer."""
    callee = Legs((2.5, Failure()), (0.5, "second"), (0.1, "third"))
    hedge = Hedge(1, max_hedges=1, classify=on_errors(verdict))

    assert await hedge.call(callee) == "second"
    callee = Legs((0.5, Failure()))
    with pytest.raises(Failure):
        await hedge.call(callee)
    assert len(callee.at) == 1

    callee = Legs((5, "first"), (0.5, Failure()))

    assert await hedge.replace(max_hedges=3).call(callee) == "first"
    assert len(callee.at) == 2


async def test_the_delay_may_be_a_function() -> None:
    """It is asked at each call, and may say that this one is not hedged; what it says is checked."""
    delays: list[Any] = [timedelta(seconds=2), None, -1]
    hedge = Hedge(lambda: delays[0])
    first = Legs((3, "first"))
    await hedge.call(first)
    del delays[0]
    second = Legs((30, "first"))
    await hedge.call(second)
    del delays[0]

    assert (len(first.at), len(second.at)) == (2, 1)
    with pytest.raises(ValueError, match="delay=-1"):
        await hedge.call(second)


async def test_a_trigger_of_ones_own_reads_live_latency() -> None:
    """Twice the median, say."""
    hedge = Hedge(trigger=lambda latency: median * 2 if (median := latency.quantile(0.5)) is not None else None, minimum=2)
    callee = Legs((1, "value"), (1, "value"), (9, "slow"), (9, "hedge"))
    for _ in range(3):
        await hedge.call(callee)

    assert callee.at == [0, 1, 2, 4]
    assert Hedge(trigger=FixedDelay(2)).statistics().delay == 2


async def test_live_latency_says_when_once_it_knows_enough() -> None:
    """After fifty calls: the 95th percentile, by default."""
    callee = Legs((1, "value"))
    hedge = Hedge()
    for _ in range(49):
        await hedge.call(callee)
    before = hedge.statistics()
    await hedge.call(callee)
    slow = Legs((60, "slow"), (1, "fast"))

    assert (before.delay, before.samples) == (None, 49)
    assert await hedge.call(slow) == "fast"
    assert slow.at == [50, pytest.approx(51, abs=0.05)]
    assert hedge.statistics() == HedgeStatistics(51, 1, 1, 51, 1.0)


@pytest.mark.parametrize("percentile", [0.5, P50, P99, Percentile(0.8)])
async def test_the_percentile_may_be_named(percentile: float) -> None:
    """A named one is a float like any other."""
    callee = Legs(*((seconds, None) for seconds in range(1, 101)))
    hedge = Hedge(percentile=percentile, minimum=100)
    for _ in range(100):
        await hedge.call(callee)

    assert hedge.statistics().delay == pytest.approx(percentile * 100, rel=0.05)


async def test_only_answers_are_learned_from() -> None:
    """Not failures, rejections, nor what was cancelled early. An error that says that the callee is well is an answer."""
    answered = Classifier(lambda error: Verdict(Kind.PERMANENT, Health.HEALTHY, "http_404") if isinstance(error, Fatal) else None)
    hedge = Hedge(minimum=1, classify=answered)
    with anyio.move_on_after(1):
        await hedge.call(Legs((5, "never")))
    for error in (Failure(), BulkheadFull()):
        with pytest.raises(type(error)):
            await hedge.call(Legs((0.1, error)))
    unanswered = hedge.statistics().samples
    await hedge.call(Legs((1, "answer")))
    with pytest.raises(Failure):
        await hedge.call(Legs((0.1, Failure())))
    with pytest.raises(Fatal):
        await hedge.call(Legs((0.1, Fatal())))

    assert (unanswered, hedge.statistics().samples) == (0, 2)


async def test_what_was_cut_short_is_learned_from_where_it_was_slow() -> None:
    """It lost, it failed late, it was cancelled late: it certainly took longer than the delay."""
    hedge = Hedge(minimum=1)
    await hedge.call(Legs((1, "answer")))
    await hedge.call(Legs((9, "loses"), (1, "wins")))
    with pytest.raises(Failure):
        await hedge.call(Legs((3, Failure()), (4, Failure())))
    with anyio.move_on_after(5):
        await hedge.call(Legs((60, "never")))
    samples = hedge.statistics().samples
    with anyio.move_on_after(0.5):
        await hedge.call(Legs((60, "never")))

    assert (samples, hedge.statistics().samples) == (4, 4)


async def test_what_was_learned_of_late_is_worth_keeping() -> None:
    """For a minute after the last call that told anything, be it an answer or not."""
    hedge = Hedge(minimum=1)
    for legs in (Legs((1, "alone")), Legs((1, "wins")), Legs((3, Failure()))):
        with contextlib.suppress(Failure):
            await hedge.call(legs)
        kept = not hedge.state.is_fresh(clock.now())
        await anyio.sleep(60.001)

        assert (kept, hedge.state.is_fresh(clock.now())) == (True, True)


def is_get(method: str, **_: object) -> bool:
    return method == "GET"


async def test_only_calls_that_may_be_hedged_are() -> None:
    """A predicate on their arguments says which."""
    hedge = Hedge(1, when=is_get)
    callee = Legs((3, "value"))
    await hedge.call(callee, "POST", body=b"")
    posted = len(callee.at)
    await hedge.call(callee, "GET")

    assert (posted, len(callee.at)) == (1, 3)


async def test_no_hedge_is_started_that_would_begin_too_late() -> None:
    """Be it the deadline of the call, of the block around, or of a scope. Nobody even thinks of it."""
    callee = Legs((5, "value"))
    with record_timeline() as timeline:
        await Pipeline(Retry(on=Failure, timeout=2), Hedge(2)).call(callee)
        with deadline(10):
            await Hedge(11).call(callee)
        with anyio.move_on_after(1):
            await Hedge(1.5).call(callee)

    assert len(callee.at) == 3
    assert told(timeline) == []


@pytest.mark.parametrize("seconds", [3, 5])
async def test_no_hedge_follows_a_failure_that_comes_too_late(seconds: float) -> None:
    """The time was over before, or just then."""
    callee = Legs((seconds, Failure()))
    attempt = Attempt(callee)
    attempt.deadline = 3
    with pytest.raises(Failure):
        await Hedge(9, on=Failure).run(invoke, attempt)

    assert len(callee.at) == 1


# Who wins


async def test_a_failed_leg_never_wins_while_another_one_lives() -> None:
    """A permanent failure neither."""
    for error in (Failure(), Fatal()):
        started = clock.now()
        callee = Legs((1.5, error), (3, "second"))

        assert await Hedge(1, on=Failure).call(callee) == "second"
        assert clock.now() - started == 4


async def test_a_hedge_that_fails_leaves_the_original_running() -> None:
    """And the next one follows at once."""
    callee = Legs((5, "first"), (0.5, Failure()), (10, "third"))

    assert await Hedge(1, max_hedges=2, on=Failure).call(callee) == "first"
    assert callee.at == [0, 1, 1.5]


class Answer(Exception):
    """The callee says no, and is well."""


async def test_an_error_that_is_an_answer_wins() -> None:
    """A 404 need not be waited for twice."""
    answer = on_errors(Verdict(Kind.PERMANENT, Health.HEALTHY, "http_404"))
    callee = Legs((10, "first"), (1, Answer()))
    with pytest.raises(Answer):
        await Hedge(1, classify=answer).call(callee)

    assert (clock.now(), callee.cancelled) == (2, [0])


async def test_an_order_to_stop_stops_all_legs() -> None:
    """It surfaces at once, whoever got it."""
    error = DeadlineExceeded(1.0)
    callee = Legs((10, "first"), (1, error))
    with pytest.raises(DeadlineExceeded) as caught:
        await Hedge(1, max_hedges=5).call(callee)

    assert caught.value is error
    assert (clock.now(), callee.active) == (2, 0)


@pytest.mark.parametrize(
    ("first", "second", "surfaces"),
    [
        (Failure("first"), Failure("second"), "first"),
        (Failure("first"), Fatal("second"), "second"),
        (Fatal("first"), Failure("second"), "first"),
        (BulkheadFull("first"), Failure("second"), "second"),
        (BulkheadFull("first"), Fatal("second"), "second"),
        (Failure("first"), BulkheadFull("second"), "first"),
    ],
)
async def test_when_all_have_failed_what_says_most_surfaces(first: Exception, second: Exception, surfaces: str) -> None:
    """Permanent before retryable before refused; of equals the first one to fail. The same object, and no group."""
    with pytest.raises(type(first if surfaces == "first" else second)) as caught:
        await Hedge(0, on=Failure).call(Legs((1, first), (2, second)))

    assert caught.value is (first if surfaces == "first" else second)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


async def test_values_are_judged_too() -> None:
    """A 503 starts the next leg at once, and is what surfaces where there is nothing better."""
    answered = Legs((1, 503), (1, 200))
    busy = Legs((1, 503))
    hedge = Hedge(5, classify=VALUES)

    assert await hedge.call(answered) == 200
    assert await hedge.call(busy) == 503
    assert (len(answered.at), len(busy.at)) == (2, 2)


async def test_an_outcome_is_judged_once() -> None:
    """The strategies around a hedge share its verdict, whichever leg the outcome comes from."""
    judged: list[int] = []

    def values(status: int) -> Verdict | None:
        judged.append(status)
        return VALUES.values(status) if VALUES.values is not None else None

    pipeline = Pipeline(Retry(attempts=1), Hedge(1, max_hedges=1), classify=Classifier(VALUES.errors, values))
    await pipeline.call(Legs((9, 1), (1, 2)))
    await pipeline.call(Legs((1, 503), (1, 3)))

    assert judged == [2, 503, 3]


# What it is good for


def _draw(rng: Random) -> float:
    """Ten milliseconds or so; one call in fifty takes fifty times as long."""
    return rng.lognormvariate(-4.6, 0.3) * (50 if rng.random() < 0.02 else 1)


async def _hedged_calls(count: int, rng: Random) -> tuple[list[float], int]:
    """How long calls take that are hedged, and how many attempts they made."""
    hedge, times = Hedge(), list[float]()
    for _ in range(count):
        started = clock.now()
        await hedge.call(lambda: anyio.sleep(_draw(rng)))
        times.append(clock.now() - started)
    return times, count + hedge.statistics().hedges


def test_the_tail_at_scale() -> None:
    """Hedging at the 95th percentile cuts the 99.9th by five times and more, for six hundredths more attempts at most."""
    gains: list[float] = []
    costs: list[float] = []
    for seed in range(5):
        rng = Random(seed)
        plain = sorted(_draw(rng) for _ in range(2000))
        with virtual_time("asyncio") as virtual:
            times, attempts = virtual.run(_hedged_calls, 2000, rng)
        gains.append(plain[1997] / sorted(times)[1997])
        costs.append(attempts / 2000 - 1)

    assert statistics.median(gains) >= 5
    assert statistics.median(costs) <= 0.06


async def test_an_error_that_speaks_for_itself_starts_a_hedge() -> None:
    """`retryable` is heard where `on` is given."""
    callee = Legs((1, RetryableError()), (1, "second"))

    assert await Hedge(9, on=Failure).call(callee) == "second"
