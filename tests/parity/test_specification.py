"""What the Go resilience specification asks of breakers and retries, written with this library. See `docs/seeds.md`."""

import itertools
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import SECOND, Failure, Fatal, Script
from resilient import (
    Backoff,
    BreakerCounts,
    CircuitBreaker,
    CircuitOpen,
    Constant,
    Dispatch,
    Event,
    Exponential,
    Linear,
    Retry,
    listening,
)
from resilient.observe.events import (
    BreakerStateChanged,
    RetryScheduled,
)
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
