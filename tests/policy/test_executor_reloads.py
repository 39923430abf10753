"""The executor: reloads, and many keys."""

from typing import Any

import anyio
import pytest

from helpers import Failure, Script
from policy.executors import TRIPS, TWICE, Changing, answer
from resilient import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Constant,
    Hedge,
    Policy,
    Resilience,
    Retry,
    RetryBudget,
    StaticProvider,
    TokenBucket,
    TokenBudget,
    current_policy,
    record_timeline,
)
from resilient.observe.events import PolicyApplied

pytestmark = pytest.mark.anyio


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
