import logging
import os
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import anyio
import pytest

from helpers import RETRY, VALUES, Failure, Script
from resilient import clock
from resilient.errors import TimeoutExceeded
from resilient.observe import listeners
from resilient.observe.events import ChaosInjected
from resilient.observe.logs import log_event
from resilient.observe.timeline import record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.chaos import Chaos, ChaosStatistics
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout
from resilient.testing import run_virtual

pytestmark = pytest.mark.anyio


def on(**settings: Any) -> Chaos:
    return Chaos(enabled=True, random=Random(1), **settings)


def made_failure(_: Random) -> Failure:
    return Failure("made")


def made_value(_: Random) -> Any:
    return "made"


def three_seconds(random: Random) -> float:
    return 3.0 * random.choice([1, 1])


def minus_one(_: Random) -> float:
    return -1.0


# When it is on


async def test_it_is_off_unless_it_is_enabled() -> None:
    """A strategy that was forgotten in production does nothing."""
    chaos = Chaos(fault=Failure, fault_rate=1)

    assert await chaos.call(Script("fresh")) == "fresh"
    assert chaos.statistics() == ChaosStatistics(enabled=False, calls=0, faults=0, latencies=0, outcomes=0)


async def test_a_function_is_asked_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the environment is such a switch."""
    chaos = Chaos(outcome="false", outcome_rate=1, enabled=lambda: os.environ.get("CHAOS") == "1")
    before = await chaos.call(Script("fresh"))
    monkeypatch.setenv("CHAOS", "1")

    assert (before, await chaos.call(Script("fresh"))) == ("fresh", "false")


async def test_it_is_switched_while_the_program_runs() -> None:
    """By its attribute."""
    chaos = Chaos(outcome="false", outcome_rate=1)
    values: list[object] = []
    for switch in (True, False):
        chaos.enabled = switch
        values.append(await chaos.call(Script("fresh")))

    assert values == ["false", "fresh"]


async def test_a_switch_that_raises_says_no_and_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """Chaos that nobody asked for breaks no call."""

    def broken() -> bool:
        raise ZeroDivisionError

    chaos = Chaos(fault=Failure, fault_rate=1, enabled=broken)
    with caplog.at_level(logging.ERROR, logger="resilient"):
        values = [await chaos.call(Script("fresh")) for _ in range(2)]

    assert values == ["fresh", "fresh"]
    assert len(caplog.records) == 1


# What it injects


async def test_a_fault_takes_the_place_of_the_call() -> None:
    """Each call has an exception of its own; the callee is not asked."""
    callee = Script("fresh")
    errors: list[Exception] = []
    for fault in (Failure, made_failure):
        with pytest.raises(Failure) as caught:
            await on(fault=fault, fault_rate=1).call(callee)
        errors.append(caught.value)

    assert [str(error) for error in errors] == ["", "made"]
    assert callee.calls == 0


async def test_latency_comes_before_the_call_which_is_then_made() -> None:
    """In seconds, or as a function of the `Random` says."""
    callee = Script("fresh")
    await on(latency=2, latency_rate=1).call(callee)
    await on(latency=three_seconds, latency_rate=1).call(callee)

    assert callee.at == [2, 5]


async def test_an_outcome_takes_the_place_of_the_call() -> None:
    """A value, or what a function makes."""
    callee = Script("fresh")
    values = [await on(outcome=outcome, outcome_rate=1).call(callee) for outcome in ("false", None, made_value)]

    assert values == ["false", None, "made"]
    assert callee.calls == 0


async def test_a_call_that_all_kinds_hit_waits_and_fails() -> None:
    """A fault goes before an outcome."""
    chaos = on(fault=Failure, fault_rate=1, latency=2, latency_rate=1, outcome="false", outcome_rate=1)
    with pytest.raises(Failure):
        await chaos.call(Script("fresh"))

    assert clock.now() == 2
    assert chaos.statistics() == ChaosStatistics(enabled=True, calls=1, faults=1, latencies=1, outcomes=0)
    assert chaos.statistics().injected == 2


def test_each_kind_hits_its_share_of_the_calls_and_draws_for_itself() -> None:
    """Over many calls; whether one kind is hit says nothing of the others."""
    chaos = on(latency=1, latency_rate=0.2, outcome="false", outcome_rate=0.1)

    async def many() -> list[tuple[bool, bool]]:
        hit: list[tuple[bool, bool]] = []
        for _ in range(5000):
            started = clock.now()
            value = await chaos.call(Script("fresh"))
            hit.append((clock.now() > started, value == "false"))
        return hit

    hit = run_virtual(many)

    assert sum(slow for slow, _ in hit) / 5000 == pytest.approx(0.2, abs=0.02)
    assert sum(false for _, false in hit) / 5000 == pytest.approx(0.1, abs=0.015)
    assert hit.count((True, True)) / 5000 == pytest.approx(0.02, abs=0.008)


async def test_the_same_seed_hits_the_same_calls() -> None:
    """A run that found something can be repeated."""

    async def run(seed: int) -> list[str]:
        chaos = Chaos(outcome="false", outcome_rate=0.5, enabled=True, random=Random(seed))
        return [await chaos.call(Script("fresh")) for _ in range(20)]

    assert await run(7) == await run(7) != await run(8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fault": made_value, "fault_rate": 1}, "gave 'made': expected an exception"),
        ({"latency": minus_one, "latency_rate": 1}, "latency=-1.0 is out of range"),
    ],
)
async def test_a_function_that_gives_nonsense_is_named(settings: dict[str, Any], message: str) -> None:
    """In the error of the call."""
    with pytest.raises((TypeError, ValueError), match=message):
        await on(**settings).call(Script("fresh"))


# Among other strategies


async def test_innermost_its_faults_are_taken_for_the_callees_own() -> None:
    """Retried, counted, and at last raised."""
    breaker = CircuitBreaker()
    pipeline = Pipeline(RETRY, breaker, on(fault=Failure, fault_rate=1))
    with pytest.raises(Failure):
        await pipeline.call(Script("fresh"))

    assert breaker.statistics().failures == 3


async def test_a_timeout_outside_cuts_its_latency() -> None:
    """As it would cut a slow callee."""
    with pytest.raises(TimeoutExceeded):
        await Pipeline(Timeout(1), on(latency=60, latency_rate=1)).call(Script("fresh"))

    assert clock.now() == 1


async def test_an_outcome_is_classified_like_any_other() -> None:
    """A false 503 is tried again."""
    pipeline = Pipeline(Retry(), on(outcome=503, outcome_rate=1), classify=VALUES)
    with record_timeline() as timeline:
        await pipeline.call(Script(200))

    assert timeline.calls[0].attempts == 0
    assert len([event for event in timeline.events if isinstance(event, ChaosInjected)]) == 3


async def test_several_are_stacked() -> None:
    """Each has its own kinds, rates and switch."""
    slow, faulty = on(latency=1, latency_rate=1), on(fault=Failure, fault_rate=1)
    with pytest.raises(Failure):
        await Pipeline(slow, faulty).call(Script("fresh"))

    assert clock.now() == 1
    assert (slow.statistics().latencies, faulty.statistics().faults) == (1, 1)


async def test_an_async_generator_is_hit_when_it_is_opened() -> None:
    """Before its first item."""

    @on(latency=2, latency_rate=1)
    async def pages() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert [page async for page in pages()] == [1, 2]
    assert clock.now() == 2


# What it tells


async def test_what_was_injected_is_told() -> None:
    """Kind by kind, with the key of the call."""
    chaos = on(fault=Failure, fault_rate=1, latency=2, latency_rate=1, name="monkey")
    with record_timeline() as timeline, pytest.raises(Failure):
        await Pipeline(chaos, key=lambda *_: "users").call(anyio.sleep, 0)

    told = [event for event in timeline.events if isinstance(event, ChaosInjected)]
    assert [(event.strategy, event.kind, event.seconds, event.error, event.key, event.nth) for event in told] == [
        ("monkey", "latency", 2.0, "", "users", 1),
        ("monkey", "fault", 0.0, "Failure", "users", 2),
    ]
    assert "fault Failure by monkey" in timeline.render()


async def test_the_log_tells_that_it_is_on_once(caplog: pytest.LogCaptureFixture) -> None:
    """A line for the first injection: that somebody left it on must be seen, and not a thousand times a second."""
    assert log_event in listeners.notable
    chaos = on(outcome="false", outcome_rate=1)
    with caplog.at_level(logging.WARNING, logger="resilient"):
        for _ in range(3):
            await chaos.call(Script("fresh"))

    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("resilient.chaos_injected strategy=chaos kind=outcome call_id=")


async def test_its_repr_shows_whether_it_is_on_and_what_it_did() -> None:
    """At a glance."""
    chaos = on(outcome="false", outcome_rate=1)
    await chaos.call(Script("fresh"))

    assert repr(chaos) == "<Chaos 'chaos': on, 1 injected in 1 calls>"
    assert repr(Chaos(outcome=1, outcome_rate=1)) == "<Chaos 'chaos': off, 0 injected in 0 calls>"


# Construction


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Chaos, "nothing to inject"),
        (lambda: Chaos(fault=Failure), "fault= needs fault_rate="),
        (lambda: Chaos(fault=Failure, fault_rate=1, latency_rate=1), "latency_rate= needs latency="),
        (lambda: Chaos(outcome=None), "outcome= needs outcome_rate="),
        (lambda: Chaos(outcome=None, outcome_rate=1.5), "outcome_rate=1.5 is out of range"),
        (lambda: Chaos(latency=-1, latency_rate=1), "latency=-1 is out of range"),
        (lambda: Chaos(fault=Failure("x"), fault_rate=1), "a function that makes one, for each call its own"),  # type: ignore[arg-type]
        (lambda: Chaos(fault=KeyboardInterrupt, fault_rate=1), "expected a type of exception"),  # type: ignore[arg-type]
        (lambda: Chaos(fault=7, fault_rate=1), "expected a type of exception"),  # type: ignore[arg-type]
        (lambda: Chaos(fault=Failure, fault_rate=1, enabled="yes"), "enabled='yes': expected True, False"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Chaos], message: str) -> None:
    """With what to say instead."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()
