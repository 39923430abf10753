"""Presets: documents that have a name."""

from typing import Any

import pytest

from resilient import (
    BudgetRef,
    Constant,
    Exponential,
    Policy,
    RetryBudget,
    Timeout,
    policy_from_document,
)
from resilient.policy.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_document_and_a_method(name: str) -> None:
    """Both give the same, and none is out of bounds."""
    made: Policy = getattr(Policy, name)()
    read = policy_from_document({"preset": name})

    assert read.normalisation.fields == ()
    assert list(read.parts) == list(made.parts)
    assert made.parts.get("retry") is not None


def test_a_preset_is_changed_field_by_field() -> None:
    """Sections of another kind are replaced as a whole."""
    policy = policy_from_document(
        {
            "preset": "http",
            "retry": {"attempts": 5, "backoff": {"initial": 1}, "budget": {"ratio": 0.5}},
            "circuit_breaker": {"enabled": False},
        }
    )
    other = policy_from_document({"preset": "http", "retry": {"backoff": {"kind": "constant", "delay": 1}, "budget": "x"}})

    assert policy.retry is not None
    assert (policy.retry.attempts, policy.retry.timeout) == (5, 30.0)
    assert policy.retry.backoff == Exponential(initial=1, maximum=5)
    assert isinstance(policy.retry.budget, RetryBudget)
    assert policy.retry.budget.ratio == 0.5
    assert policy.circuit_breaker is None
    assert other.retry is not None
    assert other.retry.backoff == Constant(delay=1)
    assert other.retry_budget == BudgetRef("x")


@pytest.mark.parametrize(
    ("name", "attempts", "initial", "maximum", "factor", "jitter", "attempt_timeout", "timeout"),
    [
        ("http", 3, 0.1, 5, 2, "full", None, None),
        ("database", 3, 0.1, 5, 2, "equal", 30, 60),
        ("background_job", 5, 1, 30, 2, "full", None, 300),
        ("low_latency", 2, 0.01, 0.05, 2, "equal", 0.5, 1),
        ("default", 3, 0.1, 5, 2, "full", None, None),
        ("aggressive", 5, 0.05, 10, 1.5, "full", None, None),
        ("conservative", 2, 0.5, 2, 2, "full", None, None),
    ],
)
def test_the_presets_have_the_published_numbers(
    name: str,
    attempts: int,
    initial: float,
    maximum: float,
    factor: float,
    jitter: Any,
    attempt_timeout: float | None,
    timeout: float | None,
) -> None:
    """Those that are on the page."""
    policy: Policy = getattr(Policy, name)()
    limits = [each.seconds if isinstance(each, Timeout) else None for each in (policy.attempt_timeout, policy.timeout)]

    assert policy.retry is not None
    assert policy.retry.attempts == attempts
    assert policy.retry.backoff == Exponential(initial=initial, maximum=maximum, factor=factor, jitter=jitter)
    assert limits == [attempt_timeout, timeout]


@pytest.mark.parametrize(
    ("name", "failures", "open_for", "successes"), [("default", 5, 30, 3), ("aggressive", 10, 10, 5), ("conservative", 3, 60, 1)]
)
def test_the_breakers_of_the_presets_have_the_published_numbers(
    name: str, failures: int, open_for: float, successes: int
) -> None:
    """Failures in a row, seconds open, successes to close."""
    breaker = getattr(Policy, name)().circuit_breaker

    assert (breaker.settings.consecutive_failures, breaker.settings.open_for) == (failures, open_for)
    assert (breaker.settings.half_open_calls, breaker.settings.half_open_successes) == (successes, successes)


def test_low_latency_hedges() -> None:
    """Up to two times, after 100 ms each."""
    hedge = Policy.low_latency().hedge

    assert hedge is not None
    assert (hedge.delay, hedge.max_hedges) == (0.1, 2)
