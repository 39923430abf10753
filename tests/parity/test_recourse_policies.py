"""What recourse offers by policies and keys, written with this library; what is wrong there is right here."""

from typing import Any

import pytest

import resilient
from helpers import Failure, Script
from resilient import (
    BudgetDenied,
    CircuitBreaker,
    CircuitOpen,
    Exponential,
    Hedge,
    NoClassifier,
    NoPolicy,
    Policy,
    PolicyKey,
    Resilience,
    Retry,
    StaticProvider,
    TimeoutExceeded,
    TokenBudget,
    policy_from_document,
)
from resilient.policy.names import Names

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]


FIVE = Retry(on=Failure, attempts=5, backoff=[0.1])


def backoff_of(policy: Policy) -> tuple[Any, ...]:
    assert policy.retry is not None
    backoff = policy.retry.backoff
    assert isinstance(backoff, Exponential)
    return policy.retry.attempts, backoff.initial, backoff.maximum, backoff.factor, backoff.jitter


# Keys


async def test_a_key_is_parsed_at_its_first_dot() -> None:
    """Without one the whole text is the name."""
    key = PolicyKey.parse("user-service.GetUser")

    assert (key.namespace, key.name) == ("user-service", "GetUser")
    assert PolicyKey.parse("GetUser").name == "GetUser"
    assert PolicyKey.parse(" a . b.c ").name == "b.c"


async def test_two_keys_that_print_alike_are_equal() -> None:
    """There {"", "a.b"} and {"a", "b"} print the same and differ."""
    assert str(PolicyKey("", "a.b")) != str(PolicyKey("a", "b"))


# The executor


async def test_the_quick_start_runs() -> None:
    """One function, a key, the callee; a default policy and a default executor."""
    assert await resilient.call("user-service.GetUser", Script(ConnectionError(), {"id": "123"})) == {"id": "123"}


async def test_a_callee_without_a_value_is_called_alike() -> None:
    """`Do` and `DoValue` are one."""
    assert await resilient.call("user-service.DeleteUser", Script(None)) is None


async def test_the_standard_executor_runs() -> None:
    """With defaults that are safe: HTTP outcomes are known, a mistake in a program is not retried."""
    executor = Resilience()
    callee = Script(KeyError("typo"))
    with pytest.raises(KeyError):
        await executor.call("user-service.GetUser", callee)

    assert callee.calls == 1


async def test_a_policy_belongs_to_a_key() -> None:
    """`NewExecutor(WithPolicy(key, MaxAttempts(5)))`; the decorator keeps the key with the function."""
    executor = Resilience(policies={"user-service.GetUser": Policy(retry=FIVE)})
    callee, other = Script(Failure()), Script(Failure())
    with pytest.raises(Failure):
        await executor.protect("user-service.GetUser")(callee)()
    with pytest.raises(Failure):
        await executor.call("user-service.Other", other)

    assert (callee.calls, other.calls) == (5, 3)


async def test_the_default_executor_can_be_replaced() -> None:
    """There it is too late once it was used: `SetGlobal` then only writes a line to the log."""
    before = resilient.configure()
    resilient.configure(policies={"user-service.GetUser": Policy(retry=FIVE)})
    callee = Script(Failure())
    try:
        with pytest.raises(Failure):
            await resilient.call("user-service.GetUser", callee)
    finally:
        resilient.configure(before)

    assert callee.calls == 5


async def test_a_call_hands_out_its_timeline() -> None:
    """With its outcome, also where it failed; there the function that did this is gone."""
    outcome, timeline = await Resilience().call_with_timeline("user-service.GetUser", Script(Failure()))

    assert isinstance(outcome.error, Failure)
    assert timeline.statistics().attempts == 3


async def test_the_timeline_says_which_policy_it_was() -> None:
    """There all of these are lost."""
    clamped = policy_from_document({"id": "v7", "retry": {"attempts": 100}, "classifier": "always"})
    executor = Resilience(policies={"user-service.GetUser": clamped})
    _, known = await executor.call_with_timeline("user-service.GetUser", Script("value"))
    _, unknown = await executor.call_with_timeline("user-service.Other", Script("value"))

    assert known.attributes == {
        "policy_id": "v7",
        "policy_source": "static",
        "policy_normalized": "true",
        "policy_clamped_fields": "retry.attempts",
    }
    assert unknown.attributes == {
        "policy_source": "default",
        "policy_error": "policy_not_found",
        "missing_policy_mode": "fallback",
    }


# What is missing


@pytest.mark.parametrize(("mode", "calls"), [("fallback", 3), ("allow", 1)])
async def test_a_missing_policy(mode: Any, calls: int) -> None:
    """The default policy, or a single attempt, ..."""
    callee = Script(Failure())
    with pytest.raises(Failure):
        await Resilience(missing_policy=mode).call("user-service.GetUser", callee)

    assert callee.calls == calls


async def test_a_missing_policy_may_be_denied() -> None:
    """... or a refusal, of a type of its own."""
    callee = Script("value")
    with pytest.raises(NoPolicy):
        await Resilience(missing_policy="deny").call("user-service.GetUser", callee)

    assert callee.calls == 0


NAMES_A_BUDGET = Policy(retry=FIVE, retry_budget="shared")


async def test_a_missing_budget() -> None:
    """Denied by default; allowed if somebody says so, once more for reviews to see."""
    policies = {"user-service.GetUser": NAMES_A_BUDGET}
    callee = Script("value")
    with pytest.raises(BudgetDenied):
        await Resilience(policies=policies).call("user-service.GetUser", callee)
    modes: tuple[Any, ...] = ("allow", "allow_unsafe")
    for mode in modes:
        executor = Resilience(policies=policies, missing_budget=mode)
        _, timeline = await executor.call_with_timeline("user-service.GetUser", callee)

        assert timeline.attributes["missing_budget_mode"] == mode
    assert callee.calls == 2


async def test_a_missing_classifier() -> None:
    """The default one, or a refusal."""
    policies = {"user-service.GetUser": Policy(classifier="mine")}
    _, timeline = await Resilience(policies=policies).call_with_timeline("user-service.GetUser", Script("value"))
    with pytest.raises(NoClassifier):
        await Resilience(policies=policies, missing_classifier="deny").call("user-service.GetUser", Script("value"))

    assert timeline.attributes["classifier_error"] == "classifier_not_found"


async def test_a_missing_trigger() -> None:
    """A fixed delay, or no hedge."""
    policies = {"user-service.GetUser": Policy(hedge=Hedge(), hedge_trigger="mine")}
    hedged, alone = Script("value", seconds=1), Script("value", seconds=1)
    await Resilience(policies=policies).call("user-service.GetUser", hedged)
    await Resilience(policies=policies, missing_trigger="deny").call("user-service.GetUser", alone)

    assert (hedged.calls, alone.calls) == (2, 1)


async def test_an_unknown_mode_is_refused() -> None:
    """There it is some other mode."""
    with pytest.raises(ValueError, match="missing_policy='allow_unsafe'"):
        Resilience(missing_policy="allow_unsafe")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Broken:
    """A provider that raises."""

    def current(self, key: PolicyKey) -> None:
        pass

    async def load(self, key: PolicyKey) -> Policy:
        raise ZeroDivisionError


async def test_a_provider_that_raises_is_one_that_has_no_policy() -> None:
    """There its panic is recovered only if somebody asked for it (`RecoverPanics`)."""
    outcome, timeline = await Resilience(provider=Broken()).call_with_timeline("user-service.GetUser", Script("value"))

    assert outcome.value == "value"
    assert timeline.attributes["policy_error"] == "provider_raised"
    assert timeline.attributes["missing_policy_mode"] == "fallback"


async def test_each_key_has_a_circuit_of_its_own() -> None:
    """A registry there; here the executor keeps it, and hands out the pipeline of a key for control by hand."""
    executor = Resilience(policies={name: Policy(circuit_breaker=CircuitBreaker()) for name in ("svc.A", "svc.B")})
    for strategy in executor.pipeline("svc.A").strategies:
        assert isinstance(strategy, CircuitBreaker)
        strategy.isolate()
    with pytest.raises(CircuitOpen):
        await executor.call("svc.A", Script("value"))

    assert await executor.call("svc.B", Script("value")) == "value"
    assert executor.statistics()["svc.A"]["circuit_breaker"].state == "isolated"


# Policies


async def test_the_explicit_policy_runs() -> None:
    """Five attempts, 25 ms to 250 ms, equal jitter, two seconds for all, 250 ms for each."""
    policy = Policy(
        retry=Retry(attempts=5, backoff=Exponential(initial=0.025, maximum=0.25, factor=2, jitter="equal")),
        timeout=2.0,
        attempt_timeout=0.25,
        classifier="always",
    )
    callee = Script(Failure())
    with pytest.raises(Failure):
        await policy.pipeline().call(callee)
    with pytest.raises(TimeoutExceeded):
        await policy.pipeline().call(Script("value", seconds=10))

    assert callee.calls == 5


async def test_there_are_presets() -> None:
    """With the numbers of recourse; those of HTTP are our own: a budget in place of limits that cut what runs."""
    assert backoff_of(Policy.http()) == (3, 0.1, 5.0, 2, "full")
    assert backoff_of(Policy.database()) == (3, 0.1, 5.0, 2, "equal")
    assert backoff_of(Policy.background_job()) == (5, 1.0, 30.0, 2, "full")
    assert backoff_of(Policy.low_latency()) == (2, 0.01, 0.05, 2, "equal")
    assert Policy.low_latency().hedge is not None


async def test_values_out_of_range_are_clamped_and_recorded() -> None:
    """There the record is lost, and a largest delay below the first one leaks through its ceiling."""
    policy = policy_from_document({"retry": {"attempts": 100, "backoff": {"initial": 60, "maximum": 0.01}}})
    attempts, initial, maximum, _, _ = backoff_of(policy)

    assert (attempts, initial, maximum) == (10, 30, 30)
    assert policy.normalisation.changed
    assert set(policy.normalisation.fields) == {"retry.attempts", "retry.backoff.initial", "retry.backoff.maximum"}


async def test_the_circuit_is_clamped_without_hedging() -> None:
    """There its values stay as they are unless hedging is on."""
    policy = policy_from_document({"circuit_breaker": {"consecutive_failures": 0, "open_for": "1ms"}})

    assert policy.circuit_breaker is not None
    assert policy.circuit_breaker.settings.consecutive_failures == 1
    assert policy.circuit_breaker.settings.open_for == 0.1
    assert policy.normalisation.fields == ("circuit_breaker.consecutive_failures", "circuit_breaker.open_for")


async def test_in_code_a_value_out_of_range_is_an_error() -> None:
    """There `policy.New` silently gives the default policy where an option makes no sense."""
    with pytest.raises(ValueError, match="attempts=0"):
        Policy(retry=Retry(on=Failure, attempts=0))


async def test_durations_are_seconds_or_text() -> None:
    """There they are whole nanoseconds in JSON."""
    policy = policy_from_document({"timeout": "1.5s", "attempt_timeout": 0.25})

    assert policy.timeout is not None
    assert repr(policy.timeout) == "Timeout(1.5)"


# What policies name


async def test_a_classifier_of_ones_own_takes_none_away() -> None:
    """There `"http"` is gone as soon as one is registered."""
    names = Names(classifiers={"mine": Names().classifier("always")})

    assert set(names.classifiers) >= {"mine", "always", "auto", "http"}


async def test_a_budget_is_found_by_its_name() -> None:
    """All policies that name it share it; an attempt may cost more in one than in another."""
    budget = TokenBudget(2, refill=0)
    names = Names(budgets={"shared": budget})
    document = {"retry": {"backoff": {"kind": "constant", "delay": 0.001}, "budget": {"name": "shared", "cost": 2}}}
    policy = policy_from_document({**document, "classifier": "always"})
    callees = Script(Failure()), Script(Failure())
    for callee in callees:
        with pytest.raises(Failure):
            await policy.pipeline(names=names).call(callee)

    assert [callee.calls for callee in callees] == [2, 1]


async def test_triggers_have_names() -> None:
    """`fixed_delay`, and the percentiles, p50 among them, which recourse forgot in its default executor."""
    assert set(Names().triggers) == {"fixed_delay", "p50", "p90", "p95", "p99"}


# Providers


async def test_policies_come_from_a_provider() -> None:
    """By key, and a default for the others; the policy says where it comes from."""
    mine, others = Policy(retry=Retry(on=Failure)), Policy(circuit_breaker=CircuitBreaker())
    provider = StaticProvider({"user-service.GetUser": mine}, default=others)

    assert provider.current(PolicyKey("user-service", "GetUser")) == mine
    assert provider.current(PolicyKey("user-service", "Other")) == others
    assert provider.current(PolicyKey("user-service", "GetUser")).source == "static"
