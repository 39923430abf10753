"""What policies name: classifiers, budgets, triggers; and what a pipeline without an executor makes of names."""

from typing import Any

import httpx
import pytest

from helpers import Failure, Script
from resilient import (
    BudgetRef,
    CircuitOpen,
    Constant,
    Health,
    Hedge,
    Kind,
    Policy,
    Retry,
    RetryableError,
    RetryBudget,
    TokenBudget,
    UnlimitedBudget,
    Verdict,
)
from resilient.policy import classifiers
from resilient.policy.names import Names

pytestmark = pytest.mark.anyio


class Final(Exception):
    """It says of itself that it must not be retried."""

    retryable = False


class Hint(Exception):
    """It says when."""

    retry_after = 3.0


def verdict(name: str, *, error: Exception | None = None, value: object = None) -> Verdict | None:
    classifier = Names().classifier(name)
    if error is not None:
        return classifier.errors(error)
    return None if classifier.values is None else classifier.values(value)


def response(status: int, method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request(method, "https://example.com", headers=headers))


def test_always_retries_every_error() -> None:
    """Unless it speaks for itself."""
    cases: list[tuple[Exception, Kind]] = [
        (Failure(), Kind.RETRYABLE),
        (TypeError(), Kind.RETRYABLE),
        (Final(), Kind.PERMANENT),
        (RetryableError("busy"), Kind.RETRYABLE),
    ]
    for error, kind in cases:
        seen = verdict("always", error=error)

        assert seen is not None
        assert seen.kind is kind
    seen = verdict("always", error=Hint())
    assert seen is not None
    assert seen.retry_after == 3.0


@pytest.mark.parametrize(
    ("error", "kind", "health", "reason"),
    [
        (Failure(), Kind.RETRYABLE, Health.UNHEALTHY, "retryable_error"),
        (KeyError("x"), Kind.PERMANENT, Health.NEUTRAL, "programming_error"),
        (Final(), Kind.PERMANENT, Health.UNHEALTHY, "permanent_error"),
        (httpx.ConnectError("no"), Kind.RETRYABLE, Health.UNHEALTHY, "connect_error"),
        (httpx.ReadTimeout("no", request=httpx.Request("POST", "http://x")), Kind.PERMANENT, Health.UNHEALTHY, "read_timeout"),
        (httpx.ReadTimeout("no", request=httpx.Request("GET", "http://x")), Kind.RETRYABLE, Health.UNHEALTHY, "read_timeout"),
        (
            httpx.HTTPStatusError("404", request=httpx.Request("GET", "http://x"), response=response(404)),
            Kind.PERMANENT,
            Health.HEALTHY,
            "http_404",
        ),
    ],
)
def test_auto_judges_errors_by_what_they_are(error: Exception, kind: Kind, health: Health, reason: str) -> None:
    """HTTP by its tables, mistakes in the program not at all, the rest may be tried again."""
    seen = verdict("auto", error=error)

    assert seen is not None
    assert (seen.kind, seen.health, seen.reason) == (kind, health, reason)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (response(200), Kind.SUCCESS),
        (response(503), Kind.RETRYABLE),
        (response(503, "POST"), Kind.PERMANENT),
        (response(500, "POST", **{"Idempotency-Key": "a"}), Kind.RETRYABLE),
        (response(429, "POST", **{"Retry-After": "2"}), Kind.RETRYABLE),
        (httpx.Response(503), Kind.PERMANENT),
    ],
)
def test_auto_and_http_judge_responses_by_their_status(value: httpx.Response, kind: Kind) -> None:
    """Whether one may be asked again depends on the method, where that is known."""
    for name in ("auto", "http"):
        seen = verdict(name, value=value)

        assert seen is not None
        assert seen.kind is kind


def test_http_has_no_opinion_on_what_is_not_http() -> None:
    """Values and errors of another kind."""
    assert verdict("http", error=Failure()) is None
    assert verdict("http", value=5) is None
    assert verdict("auto", value=5) is None
    assert verdict("http", value=type("Odd", (), {"status_code": 500})()) is None


@pytest.mark.parametrize("name", ["always", "auto", "http"])
def test_rejections_are_not_retried(name: str) -> None:
    """Nothing was sent; a breaker that opened between two attempts ends the call at once. Also one of the HTTP transport."""
    from_transport = type("FromTransport", (CircuitOpen, httpx.TransportError), {})

    assert verdict(name, error=CircuitOpen()) is None
    assert verdict(name, error=from_transport()) is None


def test_without_the_integrations_there_is_no_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` then judges errors only."""

    def missing(_: str) -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr(classifiers, "import_module", missing)
    classifiers.http.cache_clear()
    try:
        assert "http" not in set(Names().classifiers)
        assert verdict("auto", value=response(503)) is None
        seen = verdict("auto", error=httpx.ConnectError("no"))
        assert seen is not None
        assert seen.reason == "retryable_error"
    finally:
        classifiers.http.cache_clear()


# Registries


def test_registering_keeps_the_built_in_ones() -> None:
    """And can put something else in the place of one."""
    mine = RetryBudget()
    names = Names(budgets={" mine ": mine, "unlimited": TokenBudget(1)})

    assert set(names.budgets) == {"unlimited", "mine"}
    assert names.budgets.get("mine") is mine
    assert isinstance(names.budgets.get("unlimited"), TokenBudget)
    assert names.budgets.get("other") is None
    assert repr(names.triggers) == "<trigger registry: fixed_delay, p50, p90, p95, p99>"


@pytest.mark.parametrize(
    ("registry", "name", "thing", "kind"),
    [
        ("budgets", "x", 5, TypeError),
        ("classifiers", "x", print, TypeError),
        ("triggers", "x", 5, TypeError),
        ("budgets", " ", UnlimitedBudget(), ValueError),
        ("budgets", 5, UnlimitedBudget(), TypeError),
    ],
)
def test_what_does_not_belong_in_a_registry_is_refused(registry: str, name: Any, thing: Any, kind: type[Exception]) -> None:
    """At registration, not at the first call."""
    with pytest.raises(kind, match=r"expected|needs a name"):
        getattr(Names(), registry).register(name, thing)


def test_a_price_must_be_above_zero() -> None:
    """Else everything would be free."""
    with pytest.raises(ValueError, match="cost=0"):
        BudgetRef("x", cost=0)


# Without an executor


def test_built_in_names_are_known_without_an_executor() -> None:
    """Budgets, triggers and classifiers."""
    policy = Policy(retry=Retry(), hedge=Hedge(0.5), retry_budget="unlimited", hedge_trigger="p95", classifier="http")
    pipeline = policy.pipeline()
    retry, hedge = pipeline.strategies

    assert isinstance(retry, Retry)
    assert isinstance(hedge, Hedge)
    assert retry.budget is not None
    assert retry.budget.name == "unlimited"
    assert (hedge.delay, hedge.trigger) == (None, Names().trigger("p95"))
    assert pipeline.classifier is Names().classifier("http")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            Policy(retry=Retry(on=OSError), retry_budget="unlimitd"),
            "no budget 'unlimitd' is registered; did you mean 'unlimited'",
        ),
        (Policy(hedge=Hedge(), hedge_trigger="p42x"), "no trigger 'p42x' is registered"),
        (Policy(classifier="mine"), "no classifier 'mine' is registered; there are 'always', 'auto', 'http'"),
    ],
)
def test_names_that_nobody_knows_are_refused_where_there_is_no_executor(policy: Policy, message: str) -> None:
    """The error says what there is."""
    with pytest.raises(ValueError, match=message):
        policy.pipeline()


async def test_names_of_ones_own_can_be_given() -> None:
    """To the pipeline that is made."""
    budget = TokenBudget(1)
    policy = Policy(retry=Retry(attempts=3, backoff=Constant(delay=0)), retry_budget="mine", classifier="always")
    with pytest.raises(Failure):
        await policy.pipeline(names=Names(budgets={"mine": budget})).call(Script(Failure()))

    assert budget.statistics().left == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"retry": Retry(budget=RetryBudget()), "retry_budget": "x"}, "the retry has a budget of its own"),
        ({"hedge": Hedge(1.0, budget=RetryBudget()), "hedge_budget": "x"}, "the hedge has a budget of its own"),
        ({"hedge": Hedge(trigger=lambda _: 1.0), "hedge_trigger": "p99"}, "the hedge has a trigger of its own"),
        ({"classifier": 5}, "classifier=5: expected a Classifier or a name|expected a Classifier or a name"),
        ({"retry_budget": RetryBudget()}, "expected a BudgetRef or a name"),
        ({"hedge_trigger": 5}, "hedge_trigger=5: expected a name"),
    ],
)
def test_what_says_the_same_thing_twice_is_refused(wrong: dict[str, Any], message: str) -> None:
    """So is what is no name."""
    with pytest.raises(TypeError, match=message):
        Policy(**wrong)


def test_a_budget_that_is_shared_stays_shared() -> None:
    """Between the retry and the hedge of a policy, in each pipeline that is made of it."""
    budget = RetryBudget()
    retry, hedge = Policy(retry=Retry(on=OSError, budget=budget), hedge=Hedge(1.0, budget=budget)).fresh_strategies()

    assert isinstance(retry, Retry)
    assert isinstance(hedge, Hedge)
    assert retry.budget is hedge.budget is not budget
