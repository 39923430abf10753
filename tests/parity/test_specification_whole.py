"""What the Go resilience specification asks of the parts together: composition, observability, errors, configuration."""

import logging
from typing import Any

import anyio
import pytest
import structlog

from helpers import SECOND, Failure, Fatal, Script, cancelled_after
from resilient import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Dispatch,
    Pipeline,
    Policy,
    PolicyKey,
    RateLimited,
    Resilience,
    ResilienceError,
    Retry,
    RetryableError,
    Timeout,
    TimeoutExceeded,
    TokenBucket,
    listening,
    record_timeline,
)
from resilient.observe.events import (
    AttemptFinished,
    BreakerStateChanged,
    CallRejected,
    TimedOut,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]


# Composition


async def test_a_chain_of_patterns_is_one_handler() -> None:
    """The middleware chain, as a decorator."""
    chain = Pipeline(Retry(on=(Failure, TimeoutError), backoff=SECOND), CircuitBreaker(), Timeout(1))
    answers = iter([Failure(), "value"])

    @chain
    async def call_api() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert await call_api() == "value"


async def test_a_breaker_outside_of_a_retry_sees_too_little() -> None:
    """The order of the specification's example: three failures in a call are one to it. Inside it sees every attempt."""
    inside, outside = CircuitBreaker(consecutive_failures=3), CircuitBreaker(consecutive_failures=3)
    retry = Retry(on=Failure, attempts=3, backoff=[0])
    for pipeline in (Pipeline(retry, inside), Pipeline(outside, retry)):
        with pytest.raises(Failure):
            await pipeline.call(Script(Failure()))

    assert (inside.state, outside.state) == ("open", "closed")


async def test_the_lint_explains_a_breaker_outside_of_a_retry() -> None:
    """With a mend. Of the order inside it has nothing to say."""
    retry = Retry(on=Failure)
    (finding,) = (each for each in Pipeline(CircuitBreaker(), retry).lint() if each.code == "retry-inside-breaker")

    assert finding.severity == "warning"
    assert finding.mend
    assert "retry-inside-breaker" not in [each.code for each in Pipeline(retry, CircuitBreaker()).lint()]


async def test_timeouts_stack_from_the_outside_in() -> None:
    """Ten seconds for the call, one for each attempt."""
    with record_timeline() as timeline, pytest.raises(TimeoutExceeded):
        await Pipeline(Timeout(10), Retry(on=TimeoutError, backoff=SECOND), Timeout(1)).call(anyio.sleep_forever)

    assert [attempt.at - attempt.started for attempt in timeline.attempts] == [1, 1, 1]
    assert anyio.current_time() == 5


async def test_cancellation_reaches_through_every_pattern() -> None:
    """Context-first: whatever is around, a call that is cancelled ends, and counts nowhere."""
    breaker, bulkhead = CircuitBreaker(), Bulkhead(1)
    pipeline = Pipeline(Timeout(10), Retry(on=Failure), TokenBucket(1), breaker, bulkhead, Timeout(5))
    async with cancelled_after(1) as scope:
        await pipeline.call(anyio.sleep_forever)

    assert scope.cancelled_caught
    assert (breaker.statistics().total_calls, bulkhead.statistics().active) == (0, 0)


# Observability


async def test_a_change_of_state_is_a_structured_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """With stable names: from, to, why, and the name of the breaker."""
    breaker = CircuitBreaker(name="payment-api", consecutive_failures=1)
    with caplog.at_level(logging.WARNING, "resilient"), pytest.raises(Failure):
        await breaker.call(Script(Failure()))
    (line,) = caplog.messages

    assert line.startswith("resilient.breaker_state_changed strategy=payment-api old=closed new=open why=consecutive_failures")


async def test_what_is_bound_to_the_context_is_in_the_log_line() -> None:
    """Trace ids, as the handler of the specification adds them: a processor of structlog does."""
    lines: list[dict[str, Any]] = []

    def keep(_logger: object, _method: str, fields: Any) -> Any:
        lines.append(dict(fields))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    try:
        with structlog.contextvars.bound_contextvars(trace_id="4bf92f35"), pytest.raises(TimeoutExceeded):
            await Timeout(1).call(anyio.sleep_forever)
    finally:
        structlog.reset_defaults()

    assert [(line["event"], line["trace_id"]) for line in lines] == [("resilient.timed_out", "4bf92f35")]


class Recorder(Dispatch):
    """`MetricsRecorder`: five methods, any backend. What has a level and not only events is asked for with `statistics()`."""

    def __init__(self) -> None:
        self.recorded: list[tuple[object, ...]] = []

    def on_breaker_state_changed(self, event: BreakerStateChanged) -> None:
        self.recorded.append(("circuit_breaker_state", event.strategy, event.new))

    def on_attempt_finished(self, event: AttemptFinished) -> None:
        self.recorded.append(("retry_attempt", event.key, event.number, not event.error))

    def on_call_rejected(self, event: CallRejected) -> None:
        self.recorded.append((event.reason, event.strategy))

    def on_timed_out(self, event: TimedOut) -> None:
        self.recorded.append(("timeout", event.key, event.seconds))


async def test_metrics_are_recorded_by_any_backend() -> None:
    """States, attempts, refusals, timeouts; utilisation is a statistic that is read when it is wanted."""
    recorder, bulkhead = Recorder(), Bulkhead(2, max_queue=3)
    breaker = CircuitBreaker(name="api", consecutive_failures=1)
    bucket = TokenBucket(2, max_wait=0, name="quota")
    pipeline = Pipeline(bucket, breaker, bulkhead, Timeout(1), key=lambda *_: "api.Get")
    with listening(recorder):
        await pipeline.call(Script("value"))
        with pytest.raises(TimeoutExceeded):
            await pipeline.call(anyio.sleep_forever)
        await anyio.sleep(0.1)
        with pytest.raises(CircuitOpen):
            await pipeline.call(Script("value"))
    seen = bulkhead.statistics()

    assert recorder.recorded == [
        ("retry_attempt", "api.Get", 1, True),
        ("retry_attempt", "api.Get", 1, False),
        ("timeout", "api.Get", 1),
        ("circuit_breaker_state", "api", "open"),
        ("circuit_open", "api"),
    ]
    assert (seen.active, seen.queued, seen.max_concurrent, seen.max_queue) == (0, 0, 2, 3)


# Errors


async def test_the_standard_errors_have_one_base() -> None:
    """One `except` for all of them; the callee's own error surfaces where attempts are over (`ErrMaxAttemptsReached` there)."""
    for error in (CircuitOpen, RateLimited, BulkheadFull, TimeoutExceeded):
        assert issubclass(error, ResilienceError)
    with pytest.raises(Failure) as raised:
        await Retry(on=Failure, attempts=2, backoff=SECOND).call(Script(Failure()))

    assert "stopped: attempts_exhausted" in raised.value.__notes__[0]


async def test_an_error_speaks_for_itself() -> None:
    """The interface `Retryable() bool` is an attribute here, on any exception; `AsRetryable` is `raise ... from`."""

    class Busy(Exception):
        retryable = True

    wrapped = RetryableError("busy")
    wrapped.__cause__ = Fatal()
    for error in (Busy(), wrapped):
        assert await Retry(on=Failure, backoff=SECOND).call(Script(error, "value")) == "value"


# Configuration


async def test_settings_are_keywords_and_copies_of_a_retry_change_some_of_them() -> None:
    """In place of builders and functional options."""
    retry = Retry(on=Failure, attempts=3, backoff=SECOND)
    patient = retry.replace(attempts=5)
    callee = Script(Failure())
    with pytest.raises(Failure):
        await patient.call(callee)

    assert (retry.attempts, patient.attempts, callee.calls) == (3, 5, 5)


class Switched:
    """A provider whose policy changes."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def current(self, key: PolicyKey) -> Policy:
        return self.policy

    async def load(self, key: PolicyKey) -> Policy:
        return self.policy


async def test_a_policy_changes_while_calls_go_on() -> None:
    """Dynamic reload: the next call has the new settings, and the breaker remembers what it has seen."""
    provider = Switched(Policy(circuit_breaker=CircuitBreaker(consecutive_failures=5)))
    executor = Resilience(provider=provider, default_classifier="always")
    for _ in range(2):
        with pytest.raises(Failure):
            await executor.call("payment-api.Charge", Script(Failure()))
    provider.policy = Policy(circuit_breaker=CircuitBreaker(consecutive_failures=3))
    with pytest.raises(Failure):
        await executor.call("payment-api.Charge", Script(Failure()))
    with pytest.raises(CircuitOpen):
        await executor.call("payment-api.Charge", Script("value"))
