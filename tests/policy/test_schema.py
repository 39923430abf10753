"""The policy: a value that builds pipelines."""

import dataclasses
from typing import Any

import anyio
import pytest

from resilient import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Classifier,
    Exponential,
    Fallback,
    Health,
    Kind,
    Policy,
    Retry,
    RetryBudget,
    Strategy,
    Timeout,
    TimeoutExceeded,
    TokenBucket,
    Verdict,
)

pytestmark = pytest.mark.anyio

RETRY_ALL = Classifier(lambda _: Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "always"))


async def fail() -> None:
    raise ConnectionError


def test_strategies_stand_in_the_canonical_order() -> None:
    """Whatever the order in which they are given: the outermost is the fallback, the innermost the attempt's timeout."""
    policy = Policy(
        attempt_timeout=1,
        bulkhead=Bulkhead(3),
        circuit_breaker=CircuitBreaker(),
        rate_limit=TokenBucket(5),
        retry=Retry(on=OSError),
        timeout=2,
        fallback=Fallback(None),
    )
    kinds: list[type[Strategy]] = [Fallback, Timeout, Retry, TokenBucket, CircuitBreaker, Bulkhead, Timeout]

    assert [type(strategy) for strategy in policy.strategies] == kinds
    assert [type(strategy) for strategy in policy.pipeline().strategies] == kinds


def test_a_number_of_seconds_is_a_timeout() -> None:
    """`timeout=` and `attempt_timeout=` take seconds as well as a `Timeout`."""
    policy = Policy(timeout=2, attempt_timeout=Timeout(1))

    assert isinstance(policy.timeout, Timeout)
    assert policy.timeout.seconds == 2.0


def test_what_is_not_given_is_left_out() -> None:
    """An empty policy builds a pipeline that does nothing."""
    assert Policy().pipeline().strategies == ()


async def test_each_pipeline_has_state_of_its_own() -> None:
    """A policy is a recipe: a breaker that opens in one pipeline is closed in the next one."""
    policy = Policy(circuit_breaker=CircuitBreaker(consecutive_failures=1))
    first, second = policy.pipeline(), policy.pipeline()
    with pytest.raises(ConnectionError):
        await first.call(fail)

    with pytest.raises(CircuitOpen):
        await first.call(fail)
    with pytest.raises(ConnectionError):
        await second.call(fail)
    assert policy.circuit_breaker is not None
    assert policy.circuit_breaker.state == "closed"


async def test_each_pipeline_has_a_budget_of_its_own() -> None:
    """What one client spends, another one that was made from the same policy still has."""
    budget = RetryBudget(ratio=0, floor=1)
    policy = Policy(retry=Retry(on=ConnectionError, attempts=2, budget=budget))
    with pytest.raises(ConnectionError):
        await policy.pipeline().call(fail)

    assert budget.statistics().left == 1


async def test_state_can_be_kept_per_key() -> None:
    """With a `key` each key has a breaker of its own."""
    policy = Policy(circuit_breaker=CircuitBreaker(consecutive_failures=1))

    def host(name: str) -> str:
        return name

    async def call(name: str) -> str:
        if name == "bad":
            raise ConnectionError
        return name

    pipeline = policy.pipeline(key=host)
    with pytest.raises(ConnectionError):
        await pipeline.call(call, "bad")

    with pytest.raises(CircuitOpen) as rejected:
        await pipeline.call(call, "bad")
    assert rejected.value.key == "bad"
    assert await pipeline.call(call, "good") == "good"


async def test_the_attempt_timeout_cuts_each_attempt() -> None:
    """It stands inside of the retry, which sees it as an outcome like any other."""
    attempts = 0

    async def hang() -> None:
        nonlocal attempts
        attempts += 1
        await anyio.sleep_forever()

    policy = Policy(retry=Retry(on=TimeoutError, attempts=3), attempt_timeout=1.0)

    with pytest.raises(TimeoutExceeded):
        await policy.pipeline().call(hang)
    assert attempts == 3


def test_a_policy_is_frozen_and_replaced() -> None:
    """`replace` gives a copy with other fields."""
    policy = Policy.http()

    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.retry = None  # type: ignore[misc]  # that is the point
    assert policy.replace(retry=None).circuit_breaker is policy.circuit_breaker
    assert policy.retry is not None


@pytest.mark.parametrize("name", ["fallback", "retry", "rate_limit", "circuit_breaker", "bulkhead"])
def test_a_strategy_in_the_place_of_another_one_is_refused(name: str) -> None:
    """The error names the field, the value and what belongs there."""
    wrong: dict[str, Any] = {name: Timeout(1)}

    with pytest.raises(TypeError, match=rf"{name}=Timeout\(1.0\): expected an instance of"):
        Policy(**wrong)


def test_the_http_preset_has_the_published_defaults() -> None:
    """Three attempts, full jitter from 0.1 to 5 s, a budget, a window of 30 s, a breaker that opens for a second; no more."""
    policy = Policy.http()
    retry = policy.retry

    assert retry is not None
    assert (retry.attempts, retry.timeout) == (3, 30.0)
    assert retry.backoff == Exponential(initial=0.1, maximum=5.0, jitter="full")
    assert isinstance(retry.budget, RetryBudget)
    assert policy.circuit_breaker is not None
    assert (policy.circuit_breaker.settings.open_for, policy.circuit_breaker.settings.open_for_factor) == (1.0, 1.0)
    assert [policy.fallback, policy.timeout, policy.rate_limit, policy.bulkhead, policy.attempt_timeout] == [None] * 5


def test_a_retry_that_nobody_tells_what_to_retry_is_refused_when_the_pipeline_is_built() -> None:
    """The error shows both ways to say it."""
    with pytest.raises(TypeError, match="classify="):
        Policy.http().pipeline()
    assert Policy.http().pipeline(classify=RETRY_ALL).strategies
