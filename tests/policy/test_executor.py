"""The executor: which policy a call has, and how it is called."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from helpers import Failure, Script
from policy.executors import TRIPS, TWICE, Changing, answer
from resilient import (
    CircuitBreaker,
    CircuitOpen,
    Hedge,
    Pipeline,
    Policy,
    PolicyKey,
    Resilience,
    Retry,
    RetryBudget,
    StaticProvider,
    current_attempt,
    current_policy,
    record_timeline,
)
from resilient.observe import Dispatch
from resilient.observe.events import CallFinished, CallStarted
from resilient.policy.executor import Protected

pytestmark = pytest.mark.anyio

GET_USER = "user-service.GetUser"


async def name_and_key(key: str, fn: str) -> str:
    return key + fn


async def test_a_call_runs_under_the_policy_of_its_key() -> None:
    """However the key is written; arguments are handed on as they are."""
    resilience = Resilience(policies={GET_USER: TWICE})
    callee = Script(Failure(), 7)

    assert await resilience.call(" user-service . GetUser ", callee) == 7
    assert await resilience.call(PolicyKey("user-service", "GetUser"), answer, 1, plus=2) == 3
    assert await resilience.call(GET_USER, answer, 1, plus=2) == 3
    assert await resilience.call(GET_USER, name_and_key, key="k", fn="f") == "kf"
    assert await resilience.call(GET_USER, name_and_key, key="k", fn="f") == "kf"
    assert callee.calls == 2


async def test_each_key_has_state_of_its_own() -> None:
    """Of one policy for many keys, too."""
    resilience = Resilience(provider=StaticProvider(default=TRIPS))
    with pytest.raises(Failure):
        await resilience.call("a", Script(Failure()))

    with pytest.raises(CircuitOpen) as rejected:
        await resilience.call("a", answer, 1)
    assert rejected.value.key == "a"
    assert await resilience.call("b", answer, 1) == 1
    assert TRIPS.circuit_breaker is not None
    assert TRIPS.circuit_breaker.state == "closed"


async def test_functions_and_generators_can_be_decorated() -> None:
    """Methods as well; the signature is kept."""
    resilience = Resilience(policies={GET_USER: TWICE})
    failures = iter([Failure(), None, Failure(), None])

    class Service:
        @resilience.protect(GET_USER)
        async def fetch(self, number: int) -> int:
            if (failure := next(failures)) is not None:
                raise failure
            return number

        @resilience.protect(GET_USER)
        async def pages(self, count: int) -> AsyncGenerator[int]:
            if (failure := next(failures)) is not None:
                raise failure
            for number in range(count):
                yield number

    assert await Service().fetch(7) == 7
    assert [page async for page in Service().pages(3)] == [0, 1, 2]
    assert repr(resilience.protect(GET_USER)) == "<protect 'user-service.GetUser'>"


async def test_a_protected_key_is_a_strategy() -> None:
    """It can stand in a pipeline."""
    resilience = Resilience(policies={"a": TWICE})
    callee = Script(Failure(), 1)

    assert await Pipeline(Protected(lambda: resilience, "a")).call(callee) == 1


async def test_the_window_of_a_policy_is_none_of_a_retry_around_it() -> None:
    """It ends the attempts of the policy's own retry, and those of the outer one go on."""
    brief = Policy(retry=Retry(on=Failure, backoff=[2], timeout=1))
    callee = Script(Failure(), Failure(), 1)
    around = Retry(on=Failure, backoff=[5])

    assert await Pipeline(around, Resilience(policies={"a": brief}).protect("a")).call(callee) == 1
    assert callee.at == [0, 5, 10]


async def test_what_runs_knows_its_key_and_its_policy() -> None:
    """Number and kind of the attempt, the id of the policy, how many attempts it allows."""
    resilience = Resilience(policies={GET_USER: TWICE})
    seen: list[Any] = []

    async def look() -> None:
        attempt, policy = current_attempt(), current_policy()
        assert policy is not None
        assert policy.retry is not None
        seen.append((attempt.key, attempt.number, attempt.kind, policy.id, policy.retry.attempts))
        if len(seen) == 1:
            raise Failure

    await resilience.call(GET_USER, look)

    assert seen == [(GET_USER, 1, "original", "twice", 2), (GET_USER, 2, "retry", "twice", 2)]
    assert type(current_attempt().key) is not PolicyKey
    assert current_policy() is None


async def test_a_pipelines_own_calls_have_no_policy() -> None:
    """Where they are watched, too."""

    async def look() -> Policy | None:
        return current_policy()

    with record_timeline():
        assert await Pipeline().call(look) is None


async def test_a_timeline_is_given_however_the_call_ends() -> None:
    """The outcome holds the value, or the very exception."""
    resilience = Resilience(policies={GET_USER: TWICE})
    failure = Failure()
    good, first = await resilience.call_with_timeline(GET_USER, answer, 5)
    bad, second = await resilience.call_with_timeline(GET_USER, Script(failure))

    assert (good.unwrap(), len(first.attempts)) == (5, 1)
    assert bad.error is failure
    assert len(second.attempts) == 2
    assert second.attributes == {"policy_id": "twice", "policy_source": "static"}
    with pytest.raises(Failure):
        bad.unwrap()


async def test_listeners_of_an_executor_hear_its_calls_and_no_others() -> None:
    """Every callback of an observer is a method of `Dispatch`."""
    heard: list[str] = []

    class Observer(Dispatch):
        def on_call_started(self, event: CallStarted) -> None:
            heard.append(f"start {event.key} {event.policy_id}")

        def on_call_finished(self, event: CallFinished) -> None:
            heard.append(f"end {event.key} {event.attempts}")

    resilience = Resilience(policies={"a": TWICE}, listeners=[Observer()])
    for _ in range(2):
        await resilience.call("a", answer, 1)
    await TWICE.pipeline(classify=resilience.default_classifier).call(answer, 1)

    assert heard == ["start a twice", "end a 1"] * 2


async def test_statistics_are_told_by_key_and_part() -> None:
    """Of budgets too; parts without state have none."""
    policy = Policy(retry=Retry(budget=RetryBudget()), circuit_breaker=CircuitBreaker(), hedge=Hedge(1.0), timeout=5)
    resilience = Resilience(policies={"a": policy, "b": Policy()})
    for key in ("a", "b"):
        await resilience.call(key, answer, 1)
    seen = resilience.statistics()

    assert set(seen["a"]) == {"circuit_breaker", "retry_budget", "hedge"}
    assert seen["a"]["circuit_breaker"].calls == 1
    assert seen["b"] == {}
    assert repr(resilience).startswith("<Resilience: 2 keys, <StaticProvider: 2 policies>")


async def test_a_breaker_can_be_opened_by_hand() -> None:
    """Through the pipeline of its key, which is made if need be."""
    resilience = Resilience(policies={"a": TRIPS})
    (breaker,) = resilience.pipeline("a").strategies
    assert isinstance(breaker, CircuitBreaker)
    breaker.isolate()

    with pytest.raises(CircuitOpen):
        await resilience.call("a", answer, 1)
    assert resilience.pipeline("a").strategies == (breaker,)


async def test_there_is_no_pipeline_before_the_provider_was_awaited() -> None:
    """The error says what to do."""
    with pytest.raises(LookupError, match="call it once"):
        Resilience(provider=Changing(TRIPS, sync=False)).pipeline("a")
