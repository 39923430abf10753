"""What recourse offers, written with this library; what is wrong there is right here. See `docs/seeds.md`."""

import math
from typing import Any

import anyio
import pytest

from helpers import RETRY, SECOND, VALUES, Failure, Fatal, Script, cancelled_after
from resilient import (
    Budget,
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Classifier,
    Event,
    Exponential,
    Health,
    Kind,
    Pipeline,
    Retry,
    RetryBudget,
    Timeout,
    TimeoutExceeded,
    TokenBudget,
    UnlimitedBudget,
    Verdict,
    listening,
    record_timeline,
    timeline_of,
)
from resilient.observe.events import BudgetDecision, RetryStopped
from resilient.strategies.backoff import Jitter

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]

# Retry


async def test_attempts_are_bounded_and_spaced() -> None:
    """Five attempts, 25 ms at first and 250 ms at most, equal jitter, two seconds for all: the explicit example."""
    retry = Retry(on=Failure, attempts=5, backoff=Exponential(initial=0.025, maximum=0.25, jitter="equal"), timeout=2.0)
    callee = Script(Failure())
    with pytest.raises(Failure):
        await retry.call(callee)
    waits = [after - before for before, after in zip(callee.at, callee.at[1:], strict=False)]

    assert callee.calls == 5
    assert all(base / 2 <= wait <= base for wait, base in zip(waits, [0.025, 0.05, 0.1, 0.2], strict=True))


@pytest.mark.parametrize(("jitter", "low"), [("none", 1.0), ("full", 0.0), ("equal", 0.5)])
async def test_each_kind_of_jitter_keeps_its_range(jitter: Jitter, low: float) -> None:
    """None is the delay itself, full anything below it, equal its upper half."""
    callee = Script(Failure(), "value")
    await Retry(on=Failure, backoff=Exponential(initial=1, jitter=jitter)).call(callee)

    assert low <= callee.at[1] <= 1.0


async def test_an_attempt_has_a_limit_and_so_has_the_call() -> None:
    """Where a `Timeout` stands says what it bounds."""
    pipeline = Pipeline(Timeout(5), Retry(on=TimeoutError, backoff=[0.5], attempts=None), Timeout(2))
    attempts: list[float] = []

    async def hang() -> None:
        attempts.append(anyio.current_time())
        await anyio.sleep_forever()

    with pytest.raises(TimeoutExceeded):
        await pipeline.call(hang)

    assert attempts == [0, 2.5]
    assert anyio.current_time() == 4.5  # a third attempt could not end in time: the real error surfaces at once


async def test_nothing_is_called_in_a_scope_that_is_cancelled_already() -> None:
    """No wait for a permit begins; a callee that can start at once is stopped at its first wait, as anywhere in anyio."""
    callee = Script("value")
    bulkhead = Bulkhead(1, max_queue=1)
    async with bulkhead:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await Pipeline(RETRY, bulkhead).call(callee)

    assert scope.cancelled_caught
    assert callee.calls == 0


async def test_a_wait_between_attempts_ends_when_the_call_is_cancelled() -> None:
    """At once, and there is no further attempt."""
    callee = Script(Failure())
    async with cancelled_after(0.25):
        await RETRY.call(callee)

    assert (callee.calls, anyio.current_time()) == (1, 0.25)


async def test_a_retry_can_look_at_values() -> None:
    """A classifier sees the value and the error."""
    callee = Script(503, 200)

    assert await Retry(classify=VALUES, backoff=SECOND).call(callee) == 200
    assert callee.calls == 2


async def test_nothing_is_a_value_like_any_other() -> None:
    """There a callee that returns nil panics."""
    assert await Pipeline(RETRY, CircuitBreaker(), Timeout(1)).call(Script(None)) is None


async def test_the_errors_are_the_same_whoever_listens() -> None:
    """There an empty budget surfaces as `budget_denied` on one path and as the callee's error on the other."""
    errors = [Failure("boom"), Failure("boom")]
    retry = Retry(on=Failure, backoff=SECOND, budget=RetryBudget(ratio=0, floor=0))
    with pytest.raises(Failure) as unseen:
        await retry.call(Script(errors[0]))
    with listening(print), pytest.raises(Failure) as seen:
        await retry.call(Script(errors[1]))

    assert [unseen.value, seen.value] == errors


async def test_an_error_of_another_type_is_looked_into_by_a_predicate() -> None:
    """There a classifier asks for the type of the error itself, and a wrapped one is misjudged."""

    class Wrapped(Exception):
        pass

    def not_found(error: Exception) -> bool:
        return isinstance(error.__cause__, LookupError)

    error = Wrapped()
    error.__cause__ = LookupError()
    callee = Script(error)
    with pytest.raises(Wrapped):
        await Retry(on=Wrapped, never=not_found, backoff=SECOND).call(callee)

    assert callee.calls == 1


async def test_a_panic_of_the_callee_is_an_exception_of_the_caller() -> None:
    """There the callee runs on another goroutine as soon as somebody observes, and its panic ends the process."""
    with record_timeline(), pytest.raises(ZeroDivisionError):
        await RETRY.call(Script(ZeroDivisionError()))


async def test_time_that_remains_bounds_every_wait() -> None:
    """There a wait runs into the deadline, and the callee's error is lost to it."""
    callee = Script(Failure("real"))
    with anyio.move_on_after(3) as scope, pytest.raises(Failure, match="real"):
        await Retry(on=Failure, backoff=[60]).call(callee)

    assert not scope.cancelled_caught
    assert anyio.current_time() == 0
    assert scope.deadline < math.inf


# Outcomes


async def test_a_classifier_of_the_domain_decides() -> None:
    """By a verdict: its kind for the retry, its health for the breaker, a reason of its own, a time to wait."""
    slow_down = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "slow_down", retry_after=3.0)
    classifier = Classifier(errors=lambda error: slow_down if isinstance(error, Failure) else None)
    callee = Script(Failure(), "value")
    with record_timeline() as timeline:
        await Pipeline(Retry(), CircuitBreaker(), classify=classifier).call(callee)

    assert [attempt.verdict.reason for attempt in timeline.attempts] == ["slow_down", "success"]
    assert 3.0 <= callee.at[1] <= 3.3


async def test_a_classifier_that_raises_stops_the_call_and_hides_nothing() -> None:
    """`panic_in_classifier` there, if panics are recovered; here always, and the callee's error still surfaces."""

    def broken(_: Exception) -> Verdict:
        raise ZeroDivisionError

    with record_timeline() as timeline, pytest.raises(Failure):
        await Pipeline(Retry(), classify=Classifier(errors=broken)).call(Script(Failure()))

    assert [attempt.verdict.reason for attempt in timeline.attempts] == ["classifier_raised"]


async def test_an_unknown_outcome_means_stop() -> None:
    """`unknown_outcome` there."""
    classifier = Classifier(errors=lambda _: "retry, please")  # type: ignore[arg-type,return-value]
    callee = Script(Failure())
    with record_timeline() as timeline, pytest.raises(Failure):
        await Pipeline(Retry(), classify=classifier).call(callee)

    assert callee.calls == 1
    assert timeline.attempts[0].verdict.reason == "unknown_verdict"


# Budgets


async def test_a_budget_bounds_retries_and_not_first_attempts() -> None:
    """A fifth of the first attempts may be retried; that first attempts are free came late to recourse."""
    retry = Retry(on=Failure, backoff=[0], attempts=2, budget=RetryBudget(ratio=0.2, floor=0))
    callee = Script(Failure())
    for _ in range(10):
        with pytest.raises(Failure):
            await retry.call(callee)

    assert callee.calls == 12


async def test_a_decision_of_a_budget_is_an_event() -> None:
    """With its answer, the cost, and what remains; the call ends with the callee's own error."""
    told: list[Event] = []
    retry = Retry(on=Failure, backoff=SECOND, budget=RetryBudget(ratio=0, floor=1))
    with listening(told.append), pytest.raises(Failure):
        await retry.call(Script(Failure()))
    with listening(told.append), pytest.raises(Failure) as raised:
        await retry.replace(backoff=[0]).call(Script(Failure()))
    decisions = [event.allowed for event in told if isinstance(event, BudgetDecision)]
    stopped = [event.reason for event in told if isinstance(event, RetryStopped)]

    assert False in decisions
    assert stopped[-1] == "budget_exhausted"
    assert timeline_of(raised.value) is not None


@pytest.mark.parametrize(("budget", "calls"), [(TokenBudget(1, refill=0), 2), (UnlimitedBudget(), 3)])
async def test_a_budget_is_a_bucket_of_tokens_or_has_no_limit(budget: Budget, calls: int) -> None:
    """Whatever the traffic: a capacity and a refill, or everything."""
    callee = Script(Failure())
    with pytest.raises(Failure):
        await Retry(on=Failure, backoff=[0], budget=budget).call(callee)

    assert callee.calls == calls


async def test_what_a_budget_paid_is_given_back_once() -> None:
    """A release there, a refund here: for a retry that is not made after all; twice is harmless."""
    budget = RetryBudget(ratio=0, floor=2)
    spending = budget.spend(0.0)
    assert spending is not None
    spending.refund(0.0)
    spending.refund(0.0)

    assert budget.left(0.0) == 2.0


async def test_retries_of_throttled_outcomes_may_cost_more() -> None:
    """A cost for each class, where recourse has one for each policy."""
    budget = RetryBudget(ratio=0, floor=10, throttled_cost=5)
    budget.spend(0.0, throttled=True)

    assert budget.left(0.0) == 5.0


# The circuit breaker


def opened(**settings: Any) -> CircuitBreaker:
    return CircuitBreaker(consecutive_failures=2, open_for=10, open_for_factor=1, **settings)


async def trip(breaker: CircuitBreaker) -> None:
    for _ in range(2):
        with pytest.raises(Failure):
            await breaker.call(Script(Failure()))
    assert breaker.state == "open"


async def test_an_open_circuit_fails_fast() -> None:
    """With an error that says why and when to ask again."""
    breaker = opened()
    await trip(breaker)
    callee = Script("value")
    with pytest.raises(CircuitOpen) as refused:
        await breaker.call(callee)

    assert callee.calls == 0
    assert (refused.value.reason, refused.value.state) == ("circuit_open", "open")
    assert refused.value.retry_after is not None


async def test_a_single_probe_decides() -> None:
    """After the cooldown one call passes, and others are refused while it is out; its success closes the circuit."""
    breaker = opened()
    await trip(breaker)
    await anyio.sleep(10)
    with breaker.acquire_nowait(), pytest.raises(CircuitOpen) as refused:
        breaker.acquire_nowait()

    assert refused.value.state == "half_open"
    assert breaker.state == "closed"


async def test_a_probe_that_was_cancelled_frees_its_place() -> None:
    """There the circuit stays half-open for ever."""
    breaker = opened()
    await trip(breaker)
    await anyio.sleep(10)
    async with cancelled_after(1):
        await breaker.call(anyio.sleep_forever)

    assert await breaker.call(Script("value")) == "value"
    assert breaker.state == "closed"


async def test_a_late_success_from_before_does_not_close_it() -> None:
    """There it does."""
    breaker = opened()
    lease = breaker.acquire_nowait()
    await trip(breaker)
    await anyio.sleep(10)
    with breaker.acquire_nowait():
        lease.settle()

        assert breaker.state == "half_open"


async def test_answers_that_nobody_wanted_do_not_open_it() -> None:
    """There two 404s do: what is not to be retried is not thereby a sign of illness."""
    breaker = opened(on=Failure)
    for _ in range(5):
        with pytest.raises(Fatal):
            await breaker.call(Script(Fatal("404")))

    assert breaker.state == "closed"


async def test_failures_within_a_retry_open_it_and_end_the_retry() -> None:
    """There it hears one result for each call, so a retry goes on against a circuit that should be open."""
    breaker = opened()
    callee = Script(Failure())
    with pytest.raises(Failure):
        await Pipeline(Retry(on=Failure, attempts=5, backoff=SECOND), breaker).call(callee)

    assert (callee.calls, breaker.state) == (2, "open")


async def test_a_change_of_state_is_told() -> None:
    """There no observer hears of it."""
    told: list[Event] = []
    with listening(told.append):
        await trip(opened(name="user-service"))

    assert [(event.strategy, event.new) for event in told if hasattr(event, "new")] == [("user-service", "open")]  # type: ignore[attr-defined]
