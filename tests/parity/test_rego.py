"""What rego, the earlier form of recourse, offers or plans, written with this library. See `docs/seeds.md`."""

import json

import pytest

from helpers import Failure, Script
from resilient import (
    Dispatch,
    Exponential,
    Policy,
    Resilience,
    Retry,
    StaticProvider,
    current_attempt,
    record_timeline,
    timeline_of,
)
from resilient.observe.events import AttemptFinished
from resilient.policy.providers.remote import Fetched, RemoteProvider

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]


async def test_a_call_hands_out_value_and_timeline() -> None:
    """Value, timeline and error at once; an error that surfaces from a call carries its own."""
    executor = Resilience()
    outcome, timeline = await executor.call_with_timeline("user-service.GetUser", Script(ConnectionError(), "user"))
    with pytest.raises(ConnectionError) as raised:
        await executor.call("user-service.GetUser", Script(ConnectionError()))

    assert (outcome.value, outcome.error) == ("user", None)
    assert [attempt.error for attempt in timeline.attempts] == ["ConnectionError", ""]
    assert timeline_of(raised.value) is not None


async def test_the_advanced_example_runs() -> None:
    """A key, a provider, a policy as plain data, an executor."""
    policy = Policy(
        retry=Retry(on=Failure, attempts=5, backoff=Exponential(initial=0.025, maximum=0.25, factor=2, jitter="equal")),
        timeout=2.0,
        attempt_timeout=0.25,
    )
    executor = Resilience(provider=StaticProvider({"user-service.GetUser": policy}))

    assert await executor.call("user-service.GetUser", Script(*[Failure()] * 4, "user")) == "user"


async def test_a_static_provider_has_a_default() -> None:
    """For keys that are not in its policies."""
    retry = Retry(on=Failure, backoff=[0])
    provider = StaticProvider(
        {"user-service.GetUser": Policy(retry=retry.replace(attempts=5))}, default=Policy(retry=retry.replace(attempts=2))
    )
    executor = Resilience(provider=provider)
    callees = {"user-service.GetUser": Script(Failure()), "user-service.Other": Script(Failure())}
    for key, callee in callees.items():
        with pytest.raises(Failure):
            await executor.call(key, callee)

    assert [callee.calls for callee in callees.values()] == [5, 2]


async def test_a_missing_policy_falls_back() -> None:
    """By default, to three attempts; the timeline says so."""
    _, timeline = await Resilience().call_with_timeline("user-service.GetUser", Script(Failure()))

    assert len(timeline.attempts) == 3
    assert timeline.attributes["missing_policy_mode"] == "fallback"


async def test_a_logging_observer() -> None:
    """The observer of the README, on one executor; the callee knows its attempt."""

    class LoggingObserver(Dispatch):
        def on_attempt_finished(self, event: AttemptFinished) -> None:
            lines.append(f"{event.key} attempt {event.number}: {event.verdict.reason} after {event.at - event.started:g} s")

    async def get_user() -> None:
        numbers.append(current_attempt().number)
        if len(numbers) == 1:
            raise ConnectionError

    lines: list[str] = []
    numbers: list[int] = []
    await Resilience(listeners=[LoggingObserver()]).call("user-service.GetUser", get_user)

    assert numbers == [1, 2]
    assert lines == [
        "user-service.GetUser attempt 1: retryable_error after 0 s",
        "user-service.GetUser attempt 2: success after 0 s",
    ]


async def test_policies_come_from_afar() -> None:
    """A remote control plane, cached; when it cannot be reached, the last good policy stays."""
    up = True

    async def fetch(*_: str) -> Fetched:
        if not up:
            raise ConnectionError
        return Fetched(json.dumps({"policies": {"user-service.GetUser": {"id": "v1"}}}).encode())

    provider = RemoteProvider(fetch, ttl=1)
    executor = Resilience(provider=provider)
    with record_timeline() as first:
        await executor.call("user-service.GetUser", Script("user", seconds=10))
    up = False
    with record_timeline() as second:
        await executor.call("user-service.GetUser", Script("user"))

    assert first.attributes["policy_id"] == second.attributes["policy_id"] == "v1"
    assert first.attributes["policy_source"] == "remote"
