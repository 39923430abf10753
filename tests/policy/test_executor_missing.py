"""The executor: what it does where something is missing."""

from typing import Any

import pytest

from helpers import Failure, Script
from policy.executors import NOW, TWICE, Changing, answer
from resilient import (
    BudgetDenied,
    BudgetRef,
    CircuitBreaker,
    Classifier,
    Health,
    Hedge,
    Kind,
    NoClassifier,
    NoPolicy,
    Policy,
    PolicyNotFound,
    ProviderError,
    Resilience,
    Retry,
    RetryBudget,
    StaticProvider,
    TokenBudget,
    Verdict,
    record_timeline,
)
from resilient.observe.events import BudgetDecision, CallFinished, CallRejected, CallStarted

pytestmark = pytest.mark.anyio


async def test_without_a_policy_a_call_falls_back_to_the_default() -> None:
    """And the timeline says so."""
    resilience = Resilience()
    callee = Script(Failure(), Failure(), 1)
    with record_timeline() as timeline:
        assert await resilience.call("a.b", callee) == 1

    assert callee.calls == 3
    assert timeline.attributes == {
        "policy_source": "default",
        "policy_error": "policy_not_found",
        "missing_policy_mode": "fallback",
    }


async def test_without_a_policy_a_call_can_be_let_through_once() -> None:
    """One attempt, no breaker, nothing."""
    resilience = Resilience(missing_policy="allow")
    callee = Script(Failure(), 1)

    with pytest.raises(Failure):
        await resilience.call("a.b", callee)
    assert resilience.pipeline("a.b").strategies == ()


async def test_without_a_policy_a_call_can_be_denied() -> None:
    """Nothing is sent; observers hear it begin, be rejected, and end. Of many only the first is told where nobody listens."""
    resilience = Resilience(missing_policy="deny")
    callee = Script(1)
    for _ in range(2):
        with pytest.raises(NoPolicy, match=r"resilience for 'a\.b': there is no policy"):
            await resilience.call("a.b", callee)
    _, timeline = await resilience.call_with_timeline("a.b", callee)

    assert callee.calls == 0
    assert [type(event) for event in timeline.events] == [CallStarted, CallRejected, CallFinished]
    assert isinstance(timeline.events[1], CallRejected)
    assert (timeline.events[1].reason, timeline.events[1].nth) == ("no_policy", 3)
    with pytest.raises(LookupError):
        resilience.pipeline("a.b")


async def test_a_denial_says_what_the_provider_said() -> None:
    """By its code."""
    resilience = Resilience(provider=Changing(ProviderError("a")), missing_policy="deny")

    with pytest.raises(NoPolicy, match=r"no policy could be found out \(provider_unavailable\)") as denied:
        await resilience.call("a", answer, 1)
    assert denied.value.why == "provider_unavailable"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PolicyNotFound("a"), "policy_not_found"),
        (ProviderError("a"), "provider_unavailable"),
        (ProviderError("a", "500", "policy_fetch_failed"), "policy_fetch_failed"),
        (ZeroDivisionError(), "provider_raised"),
    ],
)
async def test_a_provider_that_fails_has_no_policy(error: Exception, kind: str) -> None:
    """The call goes on by the mode; the state of the default policy stays from call to call."""
    provider = Changing(error)
    resilience = Resilience(provider=provider)
    with record_timeline() as timeline:
        for _ in range(2):  # five failed attempts open the breaker of the default policy
            with pytest.raises(Failure):
                await resilience.call("a", Script(Failure()))

    assert timeline.attributes["policy_error"] == kind
    assert resilience.statistics()["a"]["circuit_breaker"].state == "open"
    provider.policy = TWICE
    await resilience.call("a", answer, 1)
    assert "circuit_breaker" not in resilience.statistics()["a"]


async def test_a_missing_budget_denies_the_call() -> None:
    """Retries that nobody pays for are a storm in waiting."""
    policy = Policy(retry=Retry(attempts=2, backoff=NOW), retry_budget="shared", circuit_breaker=CircuitBreaker())
    resilience = Resilience(policies={"a": policy})
    callee = Script(1)
    with pytest.raises(BudgetDenied, match="the budget 'shared' is not registered") as denied, record_timeline() as timeline:
        await resilience.call("a", callee)

    assert (denied.value.name, denied.value.key, callee.calls) == ("shared", "a", 0)
    assert timeline.attributes["missing_budget_mode"] == "deny"
    resilience.names.budgets.register("shared", TokenBudget(5))
    assert await resilience.call("a", callee) == 1


@pytest.mark.parametrize("mode", ["allow", "allow_unsafe"])
async def test_a_missing_budget_can_be_let_through_and_is_recorded(mode: Any) -> None:
    """In the attributes of the timeline, and in each decision."""
    policy = Policy(retry=Retry(attempts=2, backoff=NOW), retry_budget="shared")
    resilience = Resilience(policies={"a": policy}, missing_budget=mode)
    with record_timeline() as timeline:
        assert await resilience.call("a", Script(Failure(), 1)) == 1
    (decision,) = [event for event in timeline.events if isinstance(event, BudgetDecision)]

    assert (decision.budget, decision.mode, decision.allowed) == ("shared", mode, True)
    assert timeline.attributes["missing_budget_mode"] == mode
    assert timeline.attributes["budget_error"] == "budget_not_found"


async def test_a_named_budget_is_shared_at_its_price() -> None:
    """By all keys that name it, and by retries and hedges."""
    shared = TokenBudget(5, name="mine")
    policy = Policy(retry=Retry(attempts=2, backoff=NOW), retry_budget=BudgetRef("shared", cost=2))
    resilience = Resilience(policies={"a": policy, "b": policy}, budgets={"shared": shared})
    for key in ("a", "b", "a"):
        with pytest.raises(Failure):
            await resilience.call(key, Script(Failure()))

    assert shared.statistics().left == 1
    assert resilience.statistics()["a"]["retry_budget"].left == 1
    retry = resilience.pipeline("a").strategies[0]
    assert isinstance(retry, Retry)
    assert retry.budget is not None
    assert retry.budget.left(0.0) == 0.5
    assert retry.budget.sibling() is retry.budget
    assert retry.budget.is_fresh(0.0)
    assert repr(retry.budget).startswith("<Share of <TokenBudget 'mine'")


async def test_a_named_share_earns_from_first_attempts() -> None:
    """A ratio that is registered hears of the calls of all."""
    shared = RetryBudget(floor=0)
    resilience = Resilience(policies={"a": Policy(retry=Retry(), retry_budget="s")}, budgets={"s": shared})
    await resilience.call("a", answer, 1)

    assert shared.statistics().calls == 1


async def test_a_missing_classifier_falls_back() -> None:
    """To the default one; it is recorded."""
    policy = TWICE.replace(classifier="mine")
    resilience = Resilience(policies={"a": policy})
    with record_timeline() as timeline:
        assert await resilience.call("a", Script(Failure(), 1)) == 1

    assert timeline.attributes["classifier_name"] == "mine"
    assert timeline.attributes["classifier_error"] == "classifier_not_found"
    assert timeline.attributes["missing_classifier_mode"] == "fallback"


async def test_a_missing_classifier_can_deny_the_call() -> None:
    """Before any attempt."""
    resilience = Resilience(policies={"a": TWICE.replace(classifier="mine")}, missing_classifier="deny")
    callee = Script(1)

    with pytest.raises(NoClassifier, match="the classifier 'mine' is not registered"):
        await resilience.call("a", callee)
    assert callee.calls == 0


async def test_a_classifier_of_ones_own_leaves_the_built_in_ones() -> None:
    """By its name, as an object, and as the default."""
    never = Classifier(lambda _: Verdict(Kind.PERMANENT, Health.UNHEALTHY, "never"))
    named, itself = TWICE.replace(classifier="never"), TWICE.replace(classifier=never)
    resilience = Resilience(
        policies={"named": named, "itself": itself, "http": TWICE.replace(classifier="http")}, classifiers={"never": never}
    )
    for key in ("named", "itself"):
        callee = Script(Failure(), 1)
        with pytest.raises(Failure):
            await resilience.call(key, callee)

        assert callee.calls == 1
    assert {"auto", "always", "http", "never"} <= set(resilience.names.classifiers)
    with pytest.raises(Failure):
        await Resilience(policies={"a": TWICE}, default_classifier=never).call("a", Script(Failure(), 1))


@pytest.mark.parametrize(("mode", "calls"), [("fallback", 2), ("deny", 1)])
async def test_a_missing_trigger_means_a_fixed_delay_or_no_hedge(mode: Any, calls: int) -> None:
    """It is recorded."""
    policy = Policy(hedge=Hedge(), hedge_trigger="mine")
    resilience = Resilience(policies={"a": policy}, missing_trigger=mode)
    callee = Script(1, seconds=0.5)
    with record_timeline() as timeline:
        await resilience.call("a", callee)

    assert callee.calls == calls
    assert timeline.attributes["missing_trigger_mode"] == mode


async def test_triggers_are_known_by_name() -> None:
    """The delay of a hedge is that of `fixed_delay`; others take its place."""
    hedge = Hedge(0.1)
    resilience = Resilience(
        policies={
            "fixed": Policy(hedge=hedge, hedge_trigger="fixed_delay"),
            "p99": Policy(hedge=hedge, hedge_trigger="p99"),
            "mine": Policy(hedge=hedge, hedge_trigger="mine"),
        },
        triggers={"mine": lambda _: 0.3},
    )
    calls: dict[str, int] = {}
    for key in ("fixed", "p99", "mine"):
        callee = Script(1, seconds=0.2)
        await resilience.call(key, callee)
        calls[key] = callee.calls

    assert calls == {"fixed": 2, "p99": 1, "mine": 1}


@pytest.mark.parametrize("name", ["missing_policy", "missing_budget", "missing_classifier", "missing_trigger"])
def test_a_mode_that_does_not_exist_is_refused(name: str) -> None:
    """The error lists those that do."""
    settings: dict[str, Any] = {name: "perhaps"}

    with pytest.raises(ValueError, match=f"{name}='perhaps': expected one of"):
        Resilience(**settings)


def test_policies_come_from_one_place() -> None:
    """Two would hide one another."""
    with pytest.raises(TypeError, match="give one of them"):
        Resilience(policies={}, provider=StaticProvider())
