"""Other policies for a block, and the executor of the whole process."""

from typing import Any

import anyio
import pytest

import resilient
from helpers import Failure, Script
from resilient import CircuitBreaker, CircuitOpen, Constant, Policy, Resilience, Retry, current_policy, override, record_timeline
from resilient.policy import facade

pytestmark = pytest.mark.anyio

TWICE = Policy(retry=Retry(attempts=2, backoff=Constant(delay=0)), id="twice")
TRIPS = Policy(circuit_breaker=CircuitBreaker(consecutive_failures=1), id="trips")


async def policy_id() -> str:
    policy = current_policy()
    assert policy is not None
    return policy.id


async def test_a_policy_counts_for_all_keys_in_a_block() -> None:
    """Nowhere else; the timeline says where it comes from."""
    resilience = Resilience(policies={"a": TWICE})
    with override(Policy(id="other")):
        assert await resilience.call("a", policy_id) == "other"
        with record_timeline() as timeline:
            assert await resilience.call("b", policy_id) == "other"

    assert timeline.attributes == {"policy_id": "other", "policy_source": "override"}
    assert await resilience.call("a", policy_id) == "twice"


async def test_policies_by_key_leave_the_others_as_they_are() -> None:
    """Blocks nest: the inner one comes first."""
    resilience = Resilience(policies={"a.x": TWICE, "b.x": TWICE, "c.x": TWICE})
    with override({" a . x ": Policy(id="outer"), "b.x": Policy(id="outer")}), override({"b.x": Policy(id="inner")}):
        seen = [await resilience.call(key, policy_id) for key in ("a.x", "b.x", "c.x")]

    assert seen == ["outer", "inner", "twice"]


async def test_the_state_of_a_block_is_its_own() -> None:
    """A breaker that opens in it is closed outside, and in the next block."""
    resilience = Resilience(policies={"a": TRIPS})
    for _ in range(2):
        with override(TRIPS):
            with pytest.raises(Failure):
                await resilience.call("a", Script(Failure()))
            with pytest.raises(CircuitOpen):
                await resilience.call("a", Script(1))

    assert await resilience.call("a", Script(1)) == 1


async def test_other_tasks_do_not_see_it() -> None:
    """It counts for the task of the block and those that it starts."""
    resilience = Resilience(policies={"a": TWICE})
    seen: list[str] = []

    async def look() -> None:
        await anyio.sleep(1)
        seen.append(await resilience.call("a", policy_id))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look)
        with override(Policy(id="other")):
            tasks.start_soon(look)
            await anyio.sleep(2)

    assert sorted(seen) == ["other", "twice"]


@pytest.mark.parametrize("wrong", [5, {"a": 5}, None])
def test_what_is_no_policy_is_refused(wrong: Any) -> None:
    """Before the block begins."""
    with pytest.raises(TypeError, match="expected a Policy"), override(wrong):
        pass


# The executor of the process


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No executor was made yet."""
    monkeypatch.setattr(facade, "_default", None)


@pytest.mark.usefixtures("unset")
async def test_the_executor_of_the_process_is_made_when_it_is_needed() -> None:
    """Once; it falls back to the default policy."""
    assert await resilient.call("a.b", Script(Failure(), 1)) == 1
    assert resilient.default() is resilient.default()
    assert set(resilient.default().statistics()) == {"a.b"}


@pytest.mark.usefixtures("unset")
async def test_it_can_be_replaced_at_any_time() -> None:
    """Also for what was decorated before; nothing is ignored."""
    decorated = resilient.protect("a")(policy_id)
    assert await decorated() == ""
    executor = resilient.configure(policies={"a": TWICE})

    assert await decorated() == "twice"
    assert await resilient.call("a", policy_id) == "twice"
    assert resilient.configure(Resilience(policies={"a": TRIPS})) is resilient.default() is not executor
    outcome, timeline = await resilient.call_with_timeline("a", policy_id)
    assert (outcome.value, timeline.attributes["policy_id"]) == ("trips", "trips")


@pytest.mark.usefixtures("unset")
def test_an_executor_and_settings_exclude_one_another() -> None:
    """One of them would be ignored."""
    with pytest.raises(TypeError, match="give an executor, or the settings"):
        resilient.configure(Resilience(), policies={})
