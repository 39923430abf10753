import asyncio
from typing import Any

import anyio
import pytest

from helpers import BUSY, RETRY, SECOND, VALUES, Failure, Fatal, Script, cancelled_after, on_errors
from resilient import clock
from resilient.errors import BulkheadFull, CircuitOpen, RateLimited
from resilient.observe.timeline import record_timeline
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.budget import RetryBudget
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry

pytestmark = pytest.mark.anyio


def is_any(_: Exception) -> bool:
    return True


NEVER_SENT = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "connect_error", transparent=True)


@pytest.mark.parametrize("on", [Exception, BaseException, is_any], ids=["Exception", "BaseException", "predicate"])
@pytest.mark.parametrize("when", [0.5, 1.5], ids=["during an attempt", "during a wait"])
async def test_cancellation_is_never_retried(on: Any, when: float) -> None:
    """Whatever `on` is, and wherever the call is."""
    callee = Script(Failure(), seconds=1)
    async with cancelled_after(when) as scope:
        await Retry(on=on, backoff=SECOND).call(callee)

    assert scope.cancelled_caught
    assert (callee.calls, clock.now()) == (1, when)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("when", [0.5, 1.5], ids=["during an attempt", "during a wait"])
async def test_native_cancellation_is_never_retried(when: float) -> None:
    """`task.cancel()` ends the task, cancelled."""
    callee = Script(Failure(), seconds=1)
    task = asyncio.create_task(RETRY.replace(on=BaseException)(callee)())
    await asyncio.sleep(when)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert callee.calls == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
async def test_what_ends_the_program_is_not_retried(error: type[BaseException]) -> None:
    """None of them is an `Exception`."""
    calls = 0

    async def callee() -> None:
        nonlocal calls
        calls += 1
        raise error

    caught: BaseException | None = None
    try:
        await RETRY.replace(on=BaseException).call(callee)
    except BaseException as surfaced:  # noqa: BLE001  pytest.raises lets some of these end pytest
        caught = surfaced

    assert (type(caught), calls) == (error, 1)


async def test_a_call_in_a_cancelled_scope_is_cancelled_and_not_failed() -> None:
    """An error that would be retried does not surface in place of the cancellation."""

    async def callee() -> None:
        scope.cancel()
        raise Failure

    with anyio.CancelScope() as scope:
        await RETRY.call(callee)

    assert scope.cancelled_caught


async def test_an_error_that_is_not_retried_surfaces_from_a_cancelled_scope() -> None:
    """As it would without a retry around."""

    async def callee() -> None:
        scope.cancel()
        raise Fatal

    with pytest.raises(Fatal), anyio.CancelScope() as scope:
        await RETRY.call(callee)


# Budgets


async def test_a_retry_is_paid_for_before_its_wait() -> None:
    """Where the budget has nothing left, the error surfaces at once."""
    budget = RetryBudget(ratio=0, floor=1)
    retry = RETRY.replace(budget=budget, attempts=5)
    with pytest.raises(Failure) as caught:
        await retry.replace(backoff=Constant(delay=0.1, jitter="none")).call(Script(Failure()))

    assert clock.now() == pytest.approx(0.1)
    assert caught.value.__notes__[0].endswith("stopped: budget_exhausted")


async def test_a_retry_that_is_not_made_is_not_paid_for() -> None:
    """A call that is cancelled while it waits gives back what it spent."""
    budget = RetryBudget(ratio=0, floor=1)
    async with cancelled_after(0.5):
        await RETRY.replace(budget=budget).call(Script(Failure()))

    assert budget.statistics().left == 1


async def test_a_retry_that_another_strategy_refused_is_not_paid_for() -> None:
    """It was not sent."""
    budget = RetryBudget(ratio=1, floor=0)
    with pytest.raises(Failure):
        await RETRY.replace(on=(Failure, BulkheadFull), attempts=2, budget=budget).call(Script(Failure(), BulkheadFull()))

    assert budget.statistics().left == 1


# Rejections


async def test_a_rejection_is_not_retried_by_default() -> None:
    """Not even by a catch-all."""
    callee = Script(CircuitOpen())
    with pytest.raises(CircuitOpen):
        await Retry(on=Exception).call(callee)

    assert callee.calls == 1


async def test_a_rejection_that_is_named_is_retried_when_it_says() -> None:
    """Its hint is a lower bound."""
    callee = Script(RateLimited("limiter", 5.0), "value")

    assert await RETRY.replace(on=RateLimited).call(callee) == "value"
    assert 5 <= callee.at[1] <= 5.5


async def test_a_breaker_that_trips_between_attempts_does_not_hide_the_error() -> None:
    """The callee's own exception surfaces, and no time is lost waiting for a refusal."""
    callee = Script(Failure("down"))
    breaker = CircuitBreaker(consecutive_failures=2)
    with pytest.raises(Failure, match="down") as caught:
        await Pipeline(RETRY.replace(attempts=5), breaker).call(callee)

    assert (callee.calls, clock.now()) == (2, 1)
    assert caught.value.__notes__[0].endswith("stopped: circuit_open")


async def test_a_refused_retry_does_not_hide_the_error_before_it() -> None:
    """Where the refusal could not be foreseen."""
    with pytest.raises(Failure, match="down"):
        await RETRY.call(Script(Failure("down"), BulkheadFull()))


async def test_a_call_that_was_only_ever_refused_surfaces_as_refused() -> None:
    """There is no other error."""
    with pytest.raises(BulkheadFull):
        await RETRY.replace(on=BulkheadFull).call(Script(BulkheadFull()))


# Verdicts


async def test_an_attempt_that_never_left_is_repeated_once_for_free() -> None:
    """At once, outside of `attempts` and the budget."""
    callee = Script(Failure())
    retry = Retry(classify=on_errors(NEVER_SENT), attempts=2, backoff=SECOND)
    with record_timeline() as timeline, pytest.raises(Failure):
        await retry.call(callee)

    assert callee.at == [0, 0, 1]
    assert [attempt.kind for attempt in timeline.attempts] == ["original", "transparent_retry", "retry"]


async def test_a_free_repetition_keeps_to_the_deadline_too() -> None:
    """Where it has passed there is none."""
    callee = Script(Failure(), seconds=2)
    with pytest.raises(Failure):
        await Retry(classify=on_errors(NEVER_SENT), timeout=1).call(callee)

    assert callee.calls == 1


async def test_the_window_of_a_retry_is_none_of_a_retry_around_it() -> None:
    """The inner one gives up in time; the outer one tries again when it wants to."""
    callee = Script(Failure(), Failure(), 1)
    pipeline = Pipeline(Retry(on=Failure, backoff=[5]), Retry(on=Failure, backoff=[2], timeout=1))

    assert await pipeline.call(callee) == 1
    assert callee.at == [0, 5, 10]


@pytest.mark.parametrize("value", [1, Failure()], ids=["value", "error"])
async def test_a_classifier_that_raises_does_not_hide_the_outcome(value: Any) -> None:
    """The call ends, with what the callee gave."""

    def broken(_: object) -> Verdict:
        raise ZeroDivisionError

    retry = Retry(classify=Classifier(broken, broken))
    callee = Script(value)
    try:
        result = await retry.call(callee)
    except Failure as error:
        result = error

    assert (result, callee.calls) == (value, 1)


async def test_a_verdict_to_abort_ends_the_call() -> None:
    """Its outcome surfaces."""
    callee = Script(Failure(), Fatal())

    def judge(error: Exception) -> Verdict:
        return BUSY if isinstance(error, Failure) else Verdict(Kind.ABORT, Health.NEUTRAL, "stop")

    with pytest.raises(Fatal) as caught:
        await Retry(classify=Classifier(judge), backoff=SECOND).call(callee)

    assert caught.value.__notes__ == ["resilient: 2 attempts in 1 s (http_503, stop); stopped: aborted"]


async def test_the_classifier_of_the_pipeline_is_used_where_it_has_none() -> None:
    """One classification serves all strategies."""
    pipeline = Pipeline(Retry(backoff=SECOND), classify=VALUES)

    assert await pipeline.call(Script(503, 200)) == 200


async def test_a_retry_that_comes_when_the_gate_is_ready_is_made() -> None:
    """In the very instant."""
    pipeline = Pipeline(RETRY, TokenBucket(1, max_wait=0))

    assert await pipeline.call(Script(Failure(), 1)) == 1


async def test_rejections_that_are_retried_do_not_hide_the_error_before_them() -> None:
    """However many there are."""
    error = Failure("the real one")
    with pytest.raises(Failure, match="the real one"):
        await Retry(on=(Failure, CircuitOpen), backoff=SECOND, attempts=4).call(Script(error, CircuitOpen()))
