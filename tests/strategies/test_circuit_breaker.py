"""The circuit breaker as its users see it: around calls, in pipelines, by hand."""

import asyncio
import gc
import time
import tracemalloc
import weakref
from datetime import timedelta
from typing import Any

import anyio
import pytest

from resilient.errors import CircuitOpen
from resilient.keyed import Keyed
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.retry import Retry
from resilient.strategies.windows import CountWindow
from strategies.breakers import UNWELL_IF_503, Down, breaker, down, fail, good, hang, opened

pytestmark = pytest.mark.anyio


# Around a call


async def test_what_a_call_gives_passes_through() -> None:
    """A value is returned, an exception surfaces: the same object, also that of the call that trips it."""
    gate, error = breaker(consecutive_failures=1), Down()

    async def failing() -> None:
        raise error

    value = await gate.call(good)
    with pytest.raises(Down) as caught:
        await gate.call(failing)

    assert value == "good"
    assert caught.value is error
    assert gate.state == "open"


async def test_an_open_breaker_does_not_call() -> None:
    """The callee is not even created; the rejection says when to come back, and knows nothing of other callers' errors."""
    gate = await opened()
    calls: list[int] = []
    with pytest.raises(CircuitOpen) as caught:
        await gate.call(calls.append, 1)  # type: ignore[arg-type]  # it is never called
    rejection = caught.value

    assert calls == []
    assert (rejection.strategy, rejection.state, rejection.retry_after, rejection.rejections) == (
        "circuit_breaker",
        "open",
        5.0,
        1,
    )
    assert (rejection.__cause__, rejection.__context__) == (None, None)


async def test_it_decorates_coroutine_functions() -> None:
    """A decorated function that fails does trip it."""
    gate = breaker(consecutive_failures=2)

    @gate
    async def fetch(number: int) -> int:
        raise Down(number)

    for number in range(2):
        with pytest.raises(Down):
            await fetch(number)
    with pytest.raises(CircuitOpen):
        await fetch(2)


async def test_one_breaker_guards_all_that_call_the_same_service() -> None:
    """Its state is not kept per function."""
    gate = await opened()

    with pytest.raises(CircuitOpen):
        await gate(good)()


async def test_the_errors_of_calls_are_not_kept() -> None:
    """An exception keeps its frames, and they what they hold: only its reason is remembered."""
    gate = breaker(consecutive_failures=1)
    with pytest.raises(Down) as caught:
        await gate.call(down)
    error = weakref.ref(caught.value)
    del caught
    gc.collect()

    assert error() is None
    assert gate.statistics().last_failure == "error"


async def test_it_recovers() -> None:
    """After `open_for` one call goes through, and where it succeeds, all do."""
    gate = await opened()
    await anyio.sleep(5)
    states = [gate.state]
    await gate.call(good)
    states.append(gate.state)

    assert states == ["half_open", "closed"]


async def test_it_does_not_read_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the system's time neither opens nor closes it."""
    gate = await opened()
    monkeypatch.setattr(time, "time", lambda: 1e12)

    assert gate.state == "open"


def test_one_breaker_works_in_one_loop_after_the_other() -> None:
    """It is made outside of any loop, and bound to none."""
    gate = breaker(consecutive_failures=2)
    asyncio.run(fail(gate))
    asyncio.run(fail(gate))

    assert gate.state == "open"


# Half-open, with many callers


@pytest.mark.parametrize("places", [1, 3])
async def test_of_twenty_concurrent_calls_in_half_open_only_the_probes_reach_the_callee(places: int) -> None:
    """The others are refused at once; the probes decide."""
    gate = await opened(half_open_calls=places)
    await anyio.sleep(5)
    reached = 0
    rejections: list[CircuitOpen] = []

    async def callee() -> None:
        nonlocal reached
        reached += 1
        await anyio.sleep(1)

    async def caller() -> None:
        try:
            await gate.call(callee)
        except CircuitOpen as rejection:
            rejections.append(rejection)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(caller)

    assert (reached, len(rejections)) == (places, 20 - places)
    assert {rejection.state for rejection in rejections} == {"half_open"}
    assert gate.state == "closed"


async def test_a_probe_that_hangs_does_not_wedge_it() -> None:
    """When its lease is over another call is the probe; the hanging one, cancelled at last, changes nothing."""
    gate = await opened(probe_lease=30)
    async with anyio.create_task_group() as tasks:
        await anyio.sleep(5)
        tasks.start_soon(gate(hang))
        await anyio.sleep(29)
        with pytest.raises(CircuitOpen):
            await gate.call(good)
        await anyio.sleep(1)
        assert (gate.state, gate.statistics().probes_out, gate.statistics().in_flight) == ("half_open", 0, 0)
        await gate.call(good)
        tasks.cancel_scope.cancel()

    assert gate.state == "closed"


async def test_a_cancelled_probe_frees_its_place() -> None:
    """It neither closes nor opens; the next call is the probe."""
    gate = await opened()
    await anyio.sleep(5)
    with anyio.move_on_after(1):
        await gate.call(hang)
    seen = gate.statistics()

    assert (seen.state, seen.probes_out, seen.opened) == ("half_open", 0, 1)
    assert await gate.call(good) == "good"
    assert gate.state == "closed"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_probe_that_asyncio_cancels_frees_its_place() -> None:
    """A native cancellation is one as well."""
    gate = await opened()
    await anyio.sleep(5)
    probe = asyncio.ensure_future(gate.call(hang))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe

    assert (gate.state, gate.statistics().probes_out) == ("half_open", 0)


class Quit(BaseException):
    """What is no `Exception`."""


async def test_a_probe_that_raises_no_ordinary_exception_frees_its_place() -> None:
    """Whatever the way out, the permit comes back."""
    gate = await opened()
    await anyio.sleep(5)

    async def quitting() -> None:
        raise Quit

    with pytest.raises(Quit):
        await gate.call(quitting)

    assert (gate.state, gate.statistics().probes_out) == ("half_open", 0)


async def test_a_late_success_from_before_the_trip_does_not_close_it() -> None:
    """It says nothing of how the callee is now: the probe does, which is still out."""
    gate = breaker(consecutive_failures=1)
    states: list[str] = []

    async def slow(seconds: float) -> None:
        await anyio.sleep(seconds)

    async def late() -> None:
        await gate.call(slow, 6)
        states.append(gate.state)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(late)
        await anyio.sleep(0.5)
        await fail(gate)
        await anyio.sleep(5)
        await gate.call(slow, 2)

    assert states == ["half_open"]
    assert gate.state == "closed"


# With a retry around


async def test_a_retry_stops_when_the_breaker_opens_and_the_callees_error_surfaces() -> None:
    """It neither waits for a refusal nor hides what went wrong."""
    gate = breaker(consecutive_failures=2)
    pipeline = Pipeline(Retry(on=Down, attempts=10, backoff=Constant(delay=0.1)), gate)
    with pytest.raises(Down) as caught:
        await pipeline.call(down)

    assert "2 attempts" in caught.value.__notes__[0]
    assert "circuit_open" in caught.value.__notes__[0]
    assert gate.statistics().rejected == 0


async def test_a_retry_waits_for_a_breaker_that_will_be_half_open() -> None:
    """If the wait is longer than that anyway, the attempt is the probe."""
    gate = breaker(consecutive_failures=1)
    pipeline = Pipeline(Retry(on=Down, attempts=2, backoff=Constant(delay=5, jitter="none")), gate)
    answers = iter([down, good])

    async def callee() -> str:
        return await next(answers)()

    assert await pipeline.call(callee) == "good"
    assert gate.state == "closed"


# Per key


async def test_siblings_share_their_settings_and_nothing_else() -> None:
    """The template's state is its own."""
    gate = await opened()
    other = gate.sibling()

    assert other.settings is gate.settings
    assert (other.state, gate.state) == ("closed", "open")


async def test_a_key_whose_breaker_is_open_is_never_forgotten() -> None:
    """New keys do not close it."""
    keyed = Keyed(breaker(consecutive_failures=1), max_keys=2)
    await fail(keyed["down"])
    for number in range(100):
        await keyed[f"fine-{number}"].call(good)
        await anyio.sleep(20)

    assert keyed["down"].statistics().opened == 1


def test_a_breaker_is_small() -> None:
    """At most 250 bytes each, with the settings shared."""
    template, count = breaker(), 1000
    keep: list[CircuitBreaker | None] = [None] * count
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            keep[number] = template.sibling()
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert used / count <= 250


# Arguments


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"failure_rate": 0}, ValueError, "failure_rate=0 is out of range.*greater than 0 and at most 1"),
        ({"failure_rate": 50}, ValueError, "failure_rate=50"),
        ({"window": 0}, ValueError, "window=0"),
        ({"window": "10s"}, TypeError, "window='10s'"),
        ({"minimum_calls": 0}, ValueError, "minimum_calls=0"),
        ({"window": CountWindow(10)}, ValueError, r"minimum_calls=20 can never be reached.*minimum_calls=10"),
        ({"consecutive_failures": 0}, ValueError, "consecutive_failures=0"),
        ({"consecutive_failures": 2.5}, TypeError, "consecutive_failures=2.5"),
        ({"trip": 0.5}, TypeError, "trip=0.5: expected a plain function of BreakerCounts"),
        ({"trip": good}, TypeError, "trip=.*expected a plain function"),
        ({"slow_call": 0}, ValueError, "slow_call=0"),
        ({"slow_rate": 0.5}, TypeError, "slow_rate=0.5 needs slow_call="),
        ({"slow_call": 1, "slow_rate": 2}, ValueError, "slow_rate=2"),
        ({"open_for": 0}, ValueError, "open_for=0"),
        ({"open_for_factor": 0.5}, ValueError, "open_for_factor=0.5"),
        ({"open_for": 10, "open_for_max": 5}, ValueError, "open_for_max=5 is out of range.*at least 10 seconds"),
        ({"half_open_calls": 0}, ValueError, "half_open_calls=0"),
        ({"half_open_successes": 0}, ValueError, "half_open_successes=0"),
        ({"probe_lease": 0}, ValueError, "probe_lease=0"),
        ({"initial": "open"}, ValueError, "initial='open': expected one of 'closed', 'isolated', 'disabled', 'monitor_only'"),
        ({"on": OSError, "classify": UNWELL_IF_503}, TypeError, "classify= says what a failure is, and so do on= and never="),
        ({"classify": good}, TypeError, "classify=.*expected a Classifier"),
        ({"on": "OSError"}, TypeError, "on='OSError'"),
        ({"never": "OSError"}, TypeError, "never='OSError'"),
    ],
)
def test_arguments_are_checked_when_it_is_made(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    """The message names the parameter, the value and the range."""
    with pytest.raises(error, match=message):
        CircuitBreaker(**settings)


def test_durations_may_be_timedeltas() -> None:
    """Seconds otherwise. The longest time open is never shorter than the first."""
    gate = CircuitBreaker(
        window=timedelta(minutes=1), slow_call=timedelta(seconds=2), open_for=timedelta(minutes=2), probe_lease=timedelta(hours=1)
    )
    settings = gate.settings

    assert (settings.window, settings.slow_call, settings.open_for, settings.open_for_max) == (60.0, 2.0, 120.0, 120.0)
    assert settings.probe_lease == 3600.0
