"""What the Go resilience specification asks for, written with this library. See `docs/seeds.md`."""

import contextlib
import itertools
import logging
from contextvars import ContextVar
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import SECOND, Failure, Fatal, Script, cancelled_after
from resilient import (
    Backoff,
    BreakerCounts,
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Constant,
    Dispatch,
    Event,
    Exponential,
    Keyed,
    LeakyBucket,
    Linear,
    Pipeline,
    Policy,
    RateLimited,
    ResilienceError,
    Retry,
    RetryableError,
    SlidingWindow,
    Timeout,
    TimeoutExceeded,
    TokenBucket,
    deadline,
    listening,
    record_timeline,
)
from resilient.observe.events import (
    AttemptFinished,
    BreakerStateChanged,
    CallRejected,
    RetryScheduled,
    TimedOut,
)
from resilient.policy.executor import Resilience
from resilient.policy.key import PolicyKey
from resilient.strategies.adaptive_limit import AdaptiveLimit
from strategies.breakers import Highest

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]


class NetworkTimeout(Exception):
    pass


class ServiceUnavailable(Exception):
    pass


class NotFound(ServiceUnavailable):
    pass


# 1 Circuit breaker


async def test_the_breaker_of_the_example_opens_after_more_than_five_failures_in_a_row() -> None:
    """`MaxRequests: 5, Interval: 10s, Timeout: 60s, ReadyToTrip: ConsecutiveFailures > 5`."""
    breaker = CircuitBreaker(
        half_open_calls=5,
        window=10,
        open_for=60,
        trip=lambda counts: counts.consecutive_failures > 5,
    )
    for _ in range(6):
        assert breaker.state == "closed"
        with pytest.raises(Failure):
            await breaker.call(Script(Failure()))

    assert breaker.state == "open"


async def test_a_breaker_opens_after_failures() -> None:
    """The unit test of the specification."""
    breaker = CircuitBreaker(trip=lambda counts: counts.consecutive_failures >= 3)
    for _ in range(3):
        with pytest.raises(Failure):
            await breaker.call(Script(Failure()))

    assert breaker.state == "open"


async def test_ready_to_trip_is_given_all_counts() -> None:
    """Requests, successes, failures, failures in a row; and, beyond those, rates and slow calls."""
    seen: list[BreakerCounts] = []

    def trip(counts: BreakerCounts) -> bool:
        seen.append(counts)
        return counts.failure_rate > 0.5

    breaker = CircuitBreaker(trip=trip)
    await breaker.call(Script("value"))
    with pytest.raises(Failure):
        await breaker.call(Script(Failure()))
    (counts,) = seen

    assert (counts.calls, counts.successes, counts.failures, counts.consecutive_failures) == (2, 1, 1, 1)
    assert breaker.state == "closed"


async def test_max_requests_is_how_many_probes_may_be_out_and_must_succeed() -> None:
    """As in gobreaker; the two can be set apart."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=1, half_open_calls=2)
    with pytest.raises(Failure):
        await breaker.call(Script(Failure()))
    await anyio.sleep(1)
    first, second = breaker.acquire_nowait(), breaker.acquire_nowait()
    with pytest.raises(CircuitOpen):
        breaker.acquire_nowait()
    states: list[str] = []
    for lease in (first, second):
        lease.settle()
        states.append(breaker.state)

    assert states == ["half_open", "closed"]


async def test_the_interval_slides() -> None:
    """Old counts leave one by one; there all of them are cleared at once, and a burst across the border goes unseen."""
    breaker = CircuitBreaker(window=10)
    with pytest.raises(Failure):
        await breaker.call(Script(Failure()))
    await anyio.sleep(8)
    await breaker.call(Script("value"))
    before = breaker.statistics()
    await anyio.sleep(4)
    after = breaker.statistics()

    assert (before.calls, before.failures) == (2, 1)
    assert (after.calls, after.failures) == (1, 0)


async def test_is_successful_says_which_errors_are_none() -> None:
    """A predicate, or types."""
    by_predicate = CircuitBreaker(consecutive_failures=1, on=lambda error: "fatal" not in str(error))
    by_type = CircuitBreaker(consecutive_failures=1, never=Fatal)
    for breaker in (by_predicate, by_type):
        with pytest.raises(Fatal):
            await breaker.call(Script(Fatal("fatal")))
        with pytest.raises(Failure):
            await breaker.call(Script(Failure()))

    assert (by_predicate.statistics().successes, by_type.statistics().successes) == (1, 1)
    assert (by_predicate.state, by_type.state) == ("open", "open")


class Alerts(Dispatch):
    def __init__(self) -> None:
        self.sent: list[str] = []

    def on_breaker_state_changed(self, event: BreakerStateChanged) -> None:
        if event.new == "open":
            self.sent.append(f"{event.strategy}: {event.old} to {event.new}, {event.why}")


async def test_a_change_of_state_can_raise_an_alarm() -> None:
    """`OnStateChange`, for one breaker or all of them."""
    alerts = Alerts()
    breaker = CircuitBreaker(name="payment-api", consecutive_failures=1)
    with listening(alerts), pytest.raises(Failure):
        await breaker.call(Script(Failure()))

    assert alerts.sent == ["payment-api: closed to open, consecutive_failures"]


async def test_recovery_takes_longer_each_time() -> None:
    """Automatic recovery with exponential backoff."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=1, open_for_max=3, random=Highest())
    lengths: list[float] = []
    for _ in range(4):
        with pytest.raises(Failure):
            await breaker.call(Script(Failure()))
        lengths.append(breaker.statistics().open_remaining)
        await anyio.sleep(lengths[-1])

    assert lengths == [1, 2, 3, 3]


async def test_a_breaker_can_be_reset() -> None:
    """It is as new."""
    breaker = CircuitBreaker(consecutive_failures=1)
    with pytest.raises(Failure):
        await breaker.call(Script(Failure()))
    breaker.reset()

    assert (breaker.state, breaker.statistics().total_calls) == ("closed", 0)


# 2 Retry


async def test_the_retry_of_the_example_runs() -> None:
    """Three attempts, 100 ms to five seconds, times two, jitter; two errors by name."""
    retry = Retry(
        on=(NetworkTimeout, ServiceUnavailable),
        attempts=3,
        backoff=Exponential(initial=0.1, maximum=5, factor=2.0),
    )

    assert await retry.call(Script(NetworkTimeout(), ServiceUnavailable(), "user")) == "user"


async def test_non_retryable_errors_beat_retryable_ones() -> None:
    """`NonRetryableErrors`: `never`, also for a subclass of what is retried."""
    retry = Retry(on=ServiceUnavailable, never=NotFound, backoff=SECOND)
    callee = Script(NotFound())
    with pytest.raises(NotFound):
        await retry.call(callee)

    assert callee.calls == 1


async def test_a_predicate_may_say_what_is_retryable() -> None:
    """`IsRetryable`."""
    callee = Script(Failure("again"), Failure("stop"))
    with pytest.raises(Failure, match="stop"):
        await Retry(on=lambda error: "again" in str(error), backoff=SECOND).call(callee)

    assert callee.calls == 2


@pytest.mark.parametrize("backoff", [Exponential(initial=1), Linear(initial=1), Constant(delay=1)])
async def test_backoffs_are_exponential_linear_and_constant(backoff: Backoff) -> None:
    """Each with a cap, and with jitter or without."""
    delays = list(itertools.islice(backoff.delays(Random(1)), 20))

    assert all(0 <= delay <= 5 for delay in delays)
    assert len(set(delays)) == 20


async def test_each_retry_is_told() -> None:
    """`OnRetry(attempt, err)`: an event, and a log line by default."""
    told: list[tuple[int, str]] = []

    def on_retry(event: Event) -> None:
        if isinstance(event, RetryScheduled):
            told.append((event.number, event.error))

    with listening(on_retry):
        await Retry(on=Failure, backoff=SECOND).call(Script(Failure(), Failure(), "value"))

    assert told == [(1, "Failure"), (2, "Failure")]


async def test_a_retry_is_limited_in_time() -> None:
    """Maximum attempts and a timeout."""
    callee = Script(Failure())
    with pytest.raises(Failure):
        await Retry(on=Failure, attempts=None, timeout=2.5, backoff=SECOND).call(callee)

    assert callee.at == [0, 1, 2]


@pytest.mark.usefixtures("anyio_backend")
@given(
    initial=st.floats(0, 1e12, allow_nan=False),
    factor=st.floats(1, 1e6),
    maximum=st.floats(0, 1e9),
    jitter=st.sampled_from(["none", "full", "equal", "decorrelated"]),
)
def test_no_backoff_ever_leaves_its_range(initial: float, factor: float, maximum: float, jitter: Any) -> None:
    """The fuzz test of the specification, which only asks that nothing panics."""
    delays = Exponential(initial=initial, factor=factor, maximum=maximum, jitter=jitter).delays(Random(1))

    assert all(0 <= delay <= maximum for delay in itertools.islice(delays, 50))


# 3 Rate limiter


async def test_allow_wait_and_take_per_key() -> None:
    """`Allow` and `Take` do not wait, `Wait` does; each key has a bucket of its own."""
    limiter = Keyed(TokenBucket(100, burst=150), max_keys=1000)

    def allow(key: str, tokens: int = 1) -> bool:
        try:
            limiter[key].acquire_nowait(tokens)
        except RateLimited:
            return False
        return True

    assert allow("user123")  # Allow
    assert allow("user123", tokens=149)  # Take
    assert not allow("user123")
    assert allow("user456")
    await limiter["user123"].acquire()  # Wait
    assert anyio.current_time() == pytest.approx(0.01)


user_id: ContextVar[str] = ContextVar("user_id")


async def test_the_key_may_come_from_the_context() -> None:
    """`KeyFunc`: a function of the call; what is in context variables is there too."""
    pipeline = Pipeline(TokenBucket(1, max_wait=0), key=lambda *_, **__: user_id.get())
    user_id.set("alice")
    await pipeline.call(Script("value"))
    with pytest.raises(RateLimited):
        await pipeline.call(Script("value"))
    user_id.set("bob")

    assert await pipeline.call(Script("value")) == "value"


async def test_a_limit_that_is_reached_is_told() -> None:
    """`OnLimit(key)`: an event with the key, the reason, and when to come back."""
    told: list[Event] = []
    pipeline = Pipeline(TokenBucket(1, max_wait=0), key=lambda: "tenant")
    await pipeline.call(Script("value"))
    with listening(told.append), pytest.raises(RateLimited):
        await pipeline.call(Script("value"))
    (rejected,) = (event for event in told if isinstance(event, CallRejected))

    assert (rejected.key, rejected.reason, rejected.retry_after) == ("tenant", "rate_limited", 1.0)


@pytest.mark.parametrize(
    "limiter",
    [SlidingWindow(5, exact=True, max_wait=0), SlidingWindow(5, max_wait=0), LeakyBucket(5)],
    ids=["log", "counter", "leaky"],
)
async def test_there_are_other_limiters(limiter: SlidingWindow | LeakyBucket) -> None:
    """A sliding log, a sliding window, a leaky bucket: five a second, and the sixth is refused."""
    for _ in range(5):
        await limiter.call(Script("value"))
    with pytest.raises(RateLimited) as refused:
        await limiter.call(Script("value"))

    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after < 2


async def test_a_limit_follows_what_the_service_takes() -> None:
    """Adaptive: a service that fails beyond ten calls at a time gets fewer, and nobody had to guess the number."""
    limit = AdaptiveLimit(40, max_queue=100)

    async def overloaded() -> None:
        await anyio.sleep(0.1)
        if limit.statistics().active > 10:
            raise Failure

    async def work() -> None:
        for _ in range(50):
            with contextlib.suppress(Failure):
                await limit.call(overloaded)

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(work)

    assert limit.statistics().limit < 20


async def test_hostile_keys_do_not_grow_memory() -> None:
    """The specification keeps a bucket for each key that ever came."""
    limiter = Keyed(TokenBucket(10_000), max_keys=10)
    for number in range(1000):
        limiter[f"user{number}"].acquire_nowait()

    assert len(limiter) == 10


# 4 Timeout


async def test_each_operation_may_have_a_timeout_of_its_own() -> None:
    """A default, and another one where it is given."""

    async def fetch_data() -> None:
        await anyio.sleep(3)

    default = Timeout(5)
    await default.call(fetch_data)
    with pytest.raises(TimeoutExceeded) as raised:
        await Timeout(2).call(fetch_data)

    assert raised.value.seconds == 2
    assert isinstance(raised.value, TimeoutError)


async def test_a_deadline_reaches_everything_inside() -> None:
    """Deadline propagation: the wait of a retry further in is not even begun."""
    callee = Script(Failure("real"))
    with deadline(3), pytest.raises(Failure, match="real"):
        await Retry(on=Failure, backoff=[5]).call(callee)

    assert anyio.current_time() == 0


async def test_a_timeout_can_call_back() -> None:
    """`OnTimeout`: a callback, an event, and a log line."""
    called: list[str] = []
    told: list[Event] = []
    with listening(told.append), pytest.raises(TimeoutExceeded):
        await Timeout(2, on_timeout=lambda: called.append("cleaned up")).call(anyio.sleep_forever)

    assert called == ["cleaned up"]
    assert [event.seconds for event in told if isinstance(event, TimedOut)] == [2]


# 5 Bulkhead


async def test_a_bulkhead_bounds_its_queue_and_the_wait_in_it() -> None:
    """`MaxConcurrent`, `MaxQueue`, `QueueTimeout`."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=2)
    async with bulkhead, anyio.create_task_group() as tasks:
        tasks.start_soon(_refused_after, bulkhead, 2.0)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(_refused_after, bulkhead, 0.0)


async def _refused_after(bulkhead: Bulkhead, seconds: float) -> None:
    with pytest.raises(BulkheadFull) as refused:
        await bulkhead.call(Script("value"))

    assert refused.value.waited == seconds


async def test_each_resource_has_a_bulkhead_of_its_own() -> None:
    """Per-resource isolation."""
    bulkheads = Keyed(Bulkhead(1), max_keys=100)
    async with bulkheads["database"]:
        assert await bulkheads["search"].call(Script("value")) == "value"


async def test_a_bulkhead_shows_how_full_it_is() -> None:
    """Utilisation, and an event for each refusal (`OnRejected`)."""
    told: list[Event] = []
    bulkhead = Bulkhead(1, name="database")
    async with bulkhead:
        active = bulkhead.statistics().active
        with listening(told.append), pytest.raises(BulkheadFull):
            await bulkhead.call(Script("value"))
    rejected = [(event.strategy, event.reason) for event in told if isinstance(event, CallRejected)]

    assert (active, bulkhead.statistics().active) == (1, 0)
    assert rejected == [("database", "bulkhead_full")]


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
