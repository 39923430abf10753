"""The executor: which policy a call has, what it does where something is missing, reloads."""

import copy
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from helpers import Failure, Script
from resilient import (
    BudgetDenied,
    BudgetRef,
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Classifier,
    Constant,
    Health,
    Hedge,
    Kind,
    NoClassifier,
    NoPolicy,
    Pipeline,
    Policy,
    PolicyKey,
    PolicyNotFound,
    ProviderError,
    Resilience,
    Retry,
    RetryBudget,
    StaticProvider,
    TokenBucket,
    TokenBudget,
    Verdict,
    current_attempt,
    current_policy,
    record_timeline,
)
from resilient.observe import Dispatch
from resilient.observe.events import BudgetDecision, CallFinished, CallRejected, CallStarted, PolicyApplied
from resilient.policy.executor import Protected

pytestmark = pytest.mark.anyio

GET_USER = "user-service.GetUser"
NOW = Constant(delay=0)
TWICE = Policy(retry=Retry(attempts=2, backoff=NOW), id="twice")
TRIPS = Policy(circuit_breaker=CircuitBreaker(consecutive_failures=1), id="trips")


async def answer(number: int, *, plus: int = 0) -> int:
    return number + plus


async def name_and_key(key: str, fn: str) -> str:
    return key + fn


class Changing:
    """A provider whose policies change, that may have to be awaited, and that may fail."""

    def __init__(self, policy: Policy | Exception, *, sync: bool = True) -> None:
        self.policy = policy
        self.sync = sync
        self.loads = 0

    def current(self, key: PolicyKey) -> Policy | None:
        return self.policy if self.sync and isinstance(self.policy, Policy) else None

    async def load(self, key: PolicyKey) -> Policy:
        self.loads += 1
        policy = self.policy
        await anyio.sleep(1)
        if isinstance(policy, Exception):
            raise copy.copy(policy)
        return policy


# Calls


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


# What is missing


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


# Reloads


async def test_a_reload_keeps_the_state_where_only_settings_changed() -> None:
    """An open breaker stays open; what is told of it names what was kept."""
    first = Policy(
        id="1",
        retry=Retry(attempts=1, budget=TokenBudget(5)),
        hedge=Hedge(0.5, budget=RetryBudget()),
        circuit_breaker=CircuitBreaker(consecutive_failures=1, open_for=30),
        bulkhead=Bulkhead(5),
    )
    second = Policy(
        id="2",
        retry=Retry(attempts=1, budget=TokenBudget(10)),
        hedge=Hedge(0.2, budget=RetryBudget(window=1)),
        circuit_breaker=CircuitBreaker(consecutive_failures=5, open_for=30),
        rate_limit=TokenBucket(5),
    )
    provider = Changing(first)
    resilience = Resilience(provider=provider)
    with pytest.raises(Failure):
        await resilience.call("a", Script(Failure()))
    provider.policy = second
    with pytest.raises(CircuitOpen), record_timeline() as timeline:
        await resilience.call("a", answer, 1)
    (applied,) = [event for event in timeline.events if isinstance(event, PolicyApplied)]

    assert (applied.key, applied.policy_id, applied.policy_source) == ("a", "2", "code")
    assert applied.kept == ("retry_budget", "hedge_state", "circuit_breaker")
    assert applied.made == ("hedge_budget", "rate_limit")
    assert resilience.statistics()["a"]["retry_budget"].left == 5


async def test_a_call_that_runs_keeps_the_policy_that_it_began_with() -> None:
    """Its number of attempts is that of its snapshot."""
    provider = Changing(Policy(retry=Retry(attempts=3, backoff=Constant(delay=1, jitter="none"))))
    resilience = Resilience(provider=provider)
    callee = Script(Failure(), Failure(), 1)

    async def swap() -> None:
        await anyio.sleep(0.5)
        provider.policy = Policy()
        with pytest.raises(Failure):
            await resilience.call("a", Script(Failure(), 2))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(swap)
        assert await resilience.call("a", callee) == 1


async def test_swaps_under_load_tear_nothing() -> None:
    """A thousand calls in flight, fifty swaps: each call sees one policy, and no permit is lost."""
    policies = [
        Policy(id=str(number), bulkhead=Bulkhead(1000 + number), circuit_breaker=CircuitBreaker()) for number in range(50)
    ]
    provider = Changing(policies[0])
    resilience = Resilience(provider=provider)
    torn: list[object] = []

    async def look() -> None:
        before = current_policy()
        await anyio.sleep(1)
        if current_policy() is not before:
            torn.append(before)

    async with anyio.create_task_group() as tasks:
        for number in range(1000):
            tasks.start_soon(resilience.call, "a", look)
            if number % 20 == 0:
                provider.policy = policies[number // 20]
                await anyio.sleep(0.01)

    seen = resilience.statistics()["a"]
    assert torn == []
    assert (seen["bulkhead"].active, seen["bulkhead"].max_concurrent) == (0, 1049)
    assert seen["circuit_breaker"].in_flight == 0
    assert seen["circuit_breaker"].calls == 1000


async def test_a_provider_that_is_awaited_makes_one_pipeline() -> None:
    """Calls that wait for it at the same time share it."""
    provider = Changing(TRIPS, sync=False)
    resilience = Resilience(provider=provider)
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(resilience.protect("a")(answer), 1)

    assert provider.loads == 5
    assert resilience.statistics()["a"]["circuit_breaker"].calls == 5


# Many keys


async def test_keys_are_bounded_and_an_open_breaker_is_never_forgotten() -> None:
    """Others make room; where none can, keys of the same policy share one state."""
    resilience = Resilience(provider=StaticProvider({"other.x": TWICE}, default=TRIPS), max_keys=3)
    for key in ("a", "b"):
        with pytest.raises(Failure):
            await resilience.call(key, Script(Failure()))
    with pytest.raises(Failure):
        await resilience.call("c", Script(Failure()))
    with pytest.raises(Failure):
        await resilience.call("hostile-1", Script(Failure()))

    with pytest.raises(CircuitOpen) as rejected:
        await resilience.call("hostile-2", answer, 1)
    assert rejected.value.key == "hostile-2"
    assert await resilience.call("other.x", Script(Failure(), 1)) == 1
    assert len(resilience.statistics()) == 3


async def test_an_idle_key_makes_room() -> None:
    """Its state equals that of a fresh one, so that nothing is lost."""
    resilience = Resilience(provider=StaticProvider(default=TRIPS), max_keys=2)
    for number in range(100):
        await resilience.call(f"key-{number}", answer, 1)
        await anyio.sleep(20)

    assert len(resilience.statistics()) == 2


@pytest.mark.parametrize("wrong", [5, None, b"a"])
async def test_what_is_no_key_is_refused(wrong: Any) -> None:
    """Before anything is called."""
    with pytest.raises(TypeError, match="expected a text"):
        await Resilience().call(wrong, answer, 1)
