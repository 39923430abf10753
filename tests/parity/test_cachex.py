"""What the breaker and the retry of Go-CacheX offer, written with this library. See `docs/seeds.md`."""

from typing import Any

import anyio
import pytest

from helpers import Failure, Fatal, Script, cancelled_after
from resilient import (
    CircuitBreaker,
    CircuitOpen,
    Exponential,
    Pipeline,
    Policy,
    Retry,
    RetryableError,
    Timeout,
    TimeoutExceeded,
    record_timeline,
    timeline_of,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]

POLICY = Retry(on=Failure, attempts=3, backoff=Exponential(initial=0.1, maximum=5, factor=2))


def breaker(**settings: Any) -> CircuitBreaker:
    """`Threshold: 5, Timeout: 30s, HalfOpenMax: 3`; the time open does not grow."""
    default: dict[str, Any] = {"consecutive_failures": 5, "open_for": 30, "open_for_factor": 1, "half_open_calls": 3}
    return CircuitBreaker(**{**default, **settings})


async def failures(gate: CircuitBreaker, count: int = 5) -> None:
    for _ in range(count):
        with pytest.raises(Failure):
            await gate.call(Script(Failure()))


# The circuit breaker


async def test_closed_opens_after_the_threshold() -> None:
    """Five failures in a row, not four, and not five with a success among them."""
    gate = breaker()
    await failures(gate, 4)
    await gate.call(Script("value"))
    states: list[str] = []
    for count in (4, 1):
        await failures(gate, count)
        states.append(gate.state)

    assert states == ["closed", "open"]


async def test_open_half_opens_after_the_timeout() -> None:
    """And fails fast before."""
    gate = breaker()
    await failures(gate)
    callee = Script("value")
    with pytest.raises(CircuitOpen):
        await gate.call(callee)
    await anyio.sleep(30)

    assert gate.state == "half_open"
    assert callee.calls == 0


async def test_half_open_closes_after_so_many_successes() -> None:
    """Three of them."""
    gate = breaker()
    await failures(gate)
    await anyio.sleep(30)
    states: list[str] = []
    for _ in range(3):
        await gate.call(Script("value"))
        states.append(gate.state)

    assert states == ["half_open", "half_open", "closed"]


async def test_half_open_opens_again_after_any_failure() -> None:
    """One is enough."""
    gate = breaker()
    await failures(gate)
    await anyio.sleep(30)
    await gate.call(Script("value"))
    await failures(gate, 1)

    assert gate.state == "open"


async def test_half_open_lets_no_more_than_its_maximum_through() -> None:
    """There it is documented, and everybody is let through."""
    gate = breaker()
    await failures(gate)
    await anyio.sleep(30)
    leases = [gate.acquire_nowait() for _ in range(3)]
    with pytest.raises(CircuitOpen):
        gate.acquire_nowait()

    assert len(leases) == 3


async def test_statistics_have_totals_rates_and_health() -> None:
    """Every figure of `GetStats()`. Refused calls are counted apart: there they count as requests."""
    gate = breaker(consecutive_failures=2)
    await gate.call(Script("value"))
    await gate.call(Script("value"))
    await failures(gate, 1)
    with pytest.raises(TimeoutExceeded):
        await Pipeline(gate, Timeout(1)).call(anyio.sleep_forever)
    with pytest.raises(CircuitOpen):
        await gate.call(Script("value"))
    stats = gate.statistics()

    assert stats.state == "open"
    assert (stats.total_calls, stats.total_successes, stats.total_failures, stats.total_timeouts) == (4, 2, 2, 1)
    assert (stats.rejected, stats.opened) == (1, 1)
    assert (stats.failure_rate, stats.success_rate) == (0.5, 0.5)
    assert not stats.is_healthy
    assert (stats.last_failure, stats.last_failure_ago) == ("timeout", 0.0)


async def test_the_end_of_a_caller_is_no_failure_of_the_callee() -> None:
    """There a context that ends counts as a failure and a timeout."""
    gate = breaker(consecutive_failures=1)
    async with cancelled_after(1):
        await gate.call(anyio.sleep_forever)

    assert gate.statistics().total_calls == 0
    assert gate.state == "closed"


async def test_the_state_is_forced_by_hand() -> None:
    """There a breaker that is forced open and never failed never closes again."""
    gate = breaker()
    gate.isolate()
    with pytest.raises(CircuitOpen):
        await gate.call(Script("value"))
    gate.close()

    assert await gate.call(Script("value")) == "value"


# The retry


async def test_a_policy_retries_with_exponential_backoff() -> None:
    """At once, then after 100 ms, 200 ms, 400 ms, ... up to the largest delay."""
    callee = Script(Failure())
    policy = Retry(on=Failure, attempts=5, backoff=Exponential(initial=0.1, maximum=0.5, factor=2, jitter="none"))
    with pytest.raises(Failure):
        await policy.call(callee)

    assert callee.at == pytest.approx([0, 0.1, 0.3, 0.7, 1.2])


async def test_attempts_are_attempts() -> None:
    """There three attempts are three retries, that is four calls."""
    callee = Script(Failure())
    with pytest.raises(Failure):
        await POLICY.call(callee)

    assert callee.calls == 3


async def test_the_result_is_handed_out() -> None:
    """One function for what `Retry`, `RetryWithContext`, `RetryWithResult` are there."""
    assert await POLICY.call(Script(Failure(), "success")) == "success"


async def test_a_retry_has_statistics() -> None:
    """Attempts, total delay, success, last error: of a call that worked in the end."""
    with record_timeline() as timeline:
        await POLICY.replace(backoff=[0.1, 0.2]).call(Script(Failure(), Failure(), "success"))
    stats = timeline.statistics()

    assert (stats.attempts, stats.success, stats.last_error) == (3, True, "Failure")
    assert stats.total_delay == pytest.approx(0.3)


async def test_a_retry_that_failed_has_statistics_without_being_asked() -> None:
    """The exception carries them, and a note with the number of attempts; it is not wrapped, as it is there."""
    with pytest.raises(Failure) as raised:
        await POLICY.call(Script(Failure()))
    timeline = timeline_of(raised.value)
    assert timeline is not None
    stats = timeline.statistics()

    assert (stats.attempts, stats.success, stats.last_error) == (3, False, "Failure")
    assert "3 attempts" in raised.value.__notes__[0]


async def test_a_cancelled_retry_is_cancelled() -> None:
    """No error of our own takes the place of the cancellation, as "retry cancelled during delay" does there."""
    callee = Script(Failure())
    async with cancelled_after(0.5) as scope:
        await POLICY.replace(backoff=[1]).call(callee)

    assert scope.cancelled_caught
    assert callee.calls == 1


async def test_only_errors_that_are_named_are_retried() -> None:
    """By their type, subclasses included; there by `==`, which a wrapped error never satisfies."""

    class Refined(Failure):
        pass

    refined, fatal = Script(Refined(), "value"), Script(Fatal())

    assert await POLICY.call(refined) == "value"
    with pytest.raises(Fatal):
        await POLICY.call(fatal)
    assert fatal.calls == 1


async def test_an_error_can_be_marked_as_retryable() -> None:
    """There the wrapper exists, and the loop never asks for it."""
    wrapped = RetryableError("busy")
    wrapped.__cause__ = Fatal()

    assert await POLICY.call(Script(wrapped, "value")) == "value"


async def test_jitter_is_not_cut_off_by_the_cap() -> None:
    """It takes ten percent off or adds them there, beyond the largest delay."""
    callee = Script(Failure())
    with pytest.raises(Failure):
        await Retry(on=Failure, attempts=50, backoff=Exponential(initial=5, maximum=5)).call(callee)
    waits = [after - before for before, after in zip(callee.at, callee.at[1:], strict=False)]

    assert max(waits) <= 5
    assert len(set(waits)) == 49


@pytest.mark.parametrize(
    ("policy", "delays", "threshold"),
    [
        (Policy.default(), (3, 0.1, 5, 2.0), (5, 30, 3)),
        (Policy.aggressive(), (5, 0.05, 10, 1.5), (10, 10, 5)),
        (Policy.conservative(), (2, 0.5, 2, 2.0), (3, 60, 1)),
    ],
    ids=["default", "aggressive", "conservative"],
)
async def test_the_three_presets_have_its_numbers(
    policy: Policy, delays: tuple[float, ...], threshold: tuple[float, ...]
) -> None:
    """Default, aggressive, conservative."""
    retry, gate = policy.retry, policy.circuit_breaker
    assert retry is not None
    assert gate is not None
    backoff, settings = retry.backoff, gate.settings
    assert isinstance(backoff, Exponential)

    assert (retry.attempts, backoff.initial, backoff.maximum, backoff.factor) == delays
    assert (settings.consecutive_failures, settings.open_for, settings.half_open_calls) == threshold


# Both


async def test_an_operation_is_protected_by_both() -> None:
    """What every operation of the cache gets: the breaker inside of the retry, shared by all of them."""
    gate = breaker()
    resilience = Pipeline(Retry(on=Failure, backoff=[0.1]), gate)
    get, put = resilience(Script(Failure(), "value")), resilience(Script(None))

    assert await get("key") == "value"
    assert await put("key", "value") is None
    assert gate.statistics().total_calls == 3
