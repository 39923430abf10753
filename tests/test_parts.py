"""Parts: all that has a state in a composition."""

from typing import Any

import pytest

from resilient import (
    Bulkhead,
    CircuitBreaker,
    Hedge,
    Keyed,
    Pipeline,
    Policy,
    Resilience,
    Retry,
    RetryBudget,
    Timeout,
    TokenBucket,
    parts_of,
)


def named(thing: Any) -> list[tuple[str, str]]:
    """The keys and the names."""
    return [(key, name) for key, name, _ in parts_of(thing)]


def test_a_strategy_alone_is_its_own_part() -> None:
    """And a retry is known by its budget."""
    breaker, budget = CircuitBreaker(), RetryBudget()

    assert list(parts_of(breaker)) == [("", "circuit_breaker", breaker)]
    assert list(parts_of(Retry(on=OSError, budget=budget))) == [("", "retry_budget", budget)]
    assert named(Hedge()) == [("", "hedge")]
    assert named(Retry(on=OSError)) == []


def test_a_keyed_has_one_for_each_key_that_was_used() -> None:
    """To look makes none."""
    keyed = Keyed(TokenBucket(1))
    alice = keyed["alice"]

    assert list(parts_of(keyed)) == [("alice", "token_bucket", alice)]
    assert list(keyed) == ["alice"]


def test_a_pipeline_has_those_of_its_strategies_and_of_pipelines_inside() -> None:
    """With keys, the siblings of each key; a pipeline inside is shared by them."""
    inside = Pipeline(Bulkhead(1), Timeout(1))
    shared = Pipeline(Retry(on=OSError, budget=RetryBudget()), CircuitBreaker(name="db"), inside)
    keyed = Pipeline(Retry(on=OSError, budget=RetryBudget()), Hedge(), CircuitBreaker(), inside, key=str)
    assert keyed.siblings is not None
    breaker = keyed.siblings["users"][0]

    assert named(shared) == [("", "retry_budget"), ("", "db"), ("", "bulkhead")]
    assert named(keyed) == [("users", "circuit_breaker"), ("users", "retry_budget"), ("", "bulkhead")]
    assert next(parts_of(keyed)).state is breaker


def test_an_executor_has_those_of_each_policy_by_the_names_of_the_fields() -> None:
    """As its statistics do."""
    resilience = Resilience(policies={"users": Policy(circuit_breaker=CircuitBreaker(name="cb"), bulkhead=Bulkhead(1))})
    resilience.pipeline("users")

    assert named(resilience) == [("users", "circuit_breaker"), ("users", "bulkhead")]
    assert list(resilience.statistics()["users"]) == ["circuit_breaker", "bulkhead"]


def test_what_has_nothing_to_read_is_refused_at_once() -> None:
    """And not when somebody looks into it."""
    with pytest.raises(TypeError, match=r"Timeout\(1.0\) has no statistics: pass a strategy, a Keyed, a Pipeline, a Resilience"):
        parts_of(Timeout(1))
    with pytest.raises(TypeError, match="Resilience'> is a class and has no state: pass an instance of it"):
        parts_of(Resilience)
