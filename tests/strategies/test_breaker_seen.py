"""What can be seen of a circuit breaker and done to it by hand: orders, events, log lines, statistics."""

import contextlib
import logging
from typing import Any

import anyio
import pytest

from resilient.errors import CircuitOpen
from resilient.observe.events import BreakerStateChanged, CallRejected, Event
from resilient.observe.listeners import listening
from resilient.pipeline import Pipeline
from resilient.strategies.timeout import Timeout
from resilient.strategies.windows import CountWindow
from strategies.breakers import Down, breaker, changes, fail, good, opened

pytestmark = pytest.mark.anyio


# By hand


async def test_permits_are_taken_by_hand() -> None:
    """As an async block, or as a lease."""
    gate = breaker(consecutive_failures=2)
    with pytest.raises(Down):
        async with gate.permit():
            raise Down
    with pytest.raises(Down), await gate.acquire():
        raise Down
    with pytest.raises(CircuitOpen):
        gate.acquire_nowait()
    with pytest.raises(CircuitOpen):
        await gate.acquire()

    assert gate.statistics().rejected == 2


async def test_a_lease_that_is_settled_twice_counts_once() -> None:
    """The second time does nothing."""
    gate = breaker()
    lease = gate.acquire_nowait()
    lease.settle(Down())
    lease.settle(Down())

    assert (gate.statistics().calls, gate.statistics().in_flight) == (1, 0)


async def test_the_state_is_set_by_hand() -> None:
    """Each order tells of the change itself, with how many calls were refused."""
    gate = breaker(name="payments")
    events: list[Event] = []
    with listening(events.append):
        gate.isolate()
        with pytest.raises(CircuitOpen, match="by hand"):
            await gate.call(good)
        gate.disable()
        gate.monitor()
        gate.close()
    told = [event for event in events if isinstance(event, BreakerStateChanged)]

    assert changes(events) == [
        ("closed", "isolated", "by_hand"),
        ("isolated", "disabled", "by_hand"),
        ("disabled", "monitor_only", "by_hand"),
        ("monitor_only", "closed", "by_hand"),
    ]
    assert [event.rejections for event in told] == [0, 1, 0, 0]
    assert {event.strategy for event in told} == {"payments"}


@pytest.mark.parametrize("initial", ["closed", "isolated", "disabled", "monitor_only"])
async def test_reset_makes_it_as_new(initial: Any) -> None:
    """State, counts, growth and memory are those of a new sibling."""
    gate = breaker(consecutive_failures=1, initial=initial)
    gate.close()
    await fail(gate)
    gate.reset()

    assert gate.statistics() == gate.sibling().statistics()
    assert gate.state == initial


# Events


async def test_a_change_of_state_is_told_after_it_is_over() -> None:
    """A listener may call the breaker: it finds it in order, and what it brings about is told next, to all in the same order."""
    gate = breaker(consecutive_failures=1)
    heard: list[tuple[str, str]] = []
    states: list[str] = []

    def interfering(event: Event) -> None:
        if isinstance(event, BreakerStateChanged):
            states.append(gate.state)
            with contextlib.suppress(CircuitOpen):
                gate.acquire_nowait()
            if event.new == "open":
                gate.isolate()

    def hearing(event: Event) -> None:
        if isinstance(event, BreakerStateChanged):
            heard.append((event.old, event.new))

    with listening(interfering), listening(hearing):
        await fail(gate)

    assert states == ["open", "isolated"]
    assert heard == [("closed", "open"), ("open", "isolated")]


async def test_what_happens_to_a_breaker_is_told() -> None:
    """The trip with its length, each refusal with its number, the way back with how many were refused."""
    gate = breaker(consecutive_failures=1)
    events: list[Event] = []
    with listening(events.append):
        await fail(gate)
        for _ in range(3):
            with pytest.raises(CircuitOpen):
                await gate.call(good)
        await anyio.sleep(5)
        await gate.call(good)
    told = [event for event in events if isinstance(event, BreakerStateChanged)]

    assert changes(events) == [
        ("closed", "open", "consecutive_failures"),
        ("open", "half_open", "open_elapsed"),
        ("half_open", "closed", "probes_succeeded"),
    ]
    assert [(event.at, event.open_for, event.rejections) for event in told] == [(0.0, 5.0, 0), (5.0, None, 0), (5.0, None, 3)]
    assert [event.nth for event in events if isinstance(event, CallRejected)] == [1, 2, 3]
    assert all(event.call_id for event in events)


async def test_events_of_a_keyed_pipeline_name_the_key() -> None:
    """An operator must see which service it is."""
    pipeline = Pipeline(breaker(consecutive_failures=1), key=str)
    events: list[Event] = []

    async def fetch(host: str) -> None:
        raise Down(host)

    with listening(events.append), pytest.raises(Down):
        await pipeline.call(fetch, "a.example")
    with pytest.raises(Down):
        await pipeline.call(fetch, "b.example")

    assert [event.key for event in events if isinstance(event, BreakerStateChanged)] == ["a.example"]


async def test_an_outage_is_a_handful_of_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The trip, the first refusal, and the way back, which says how many there were: not one line a refused call."""
    gate = breaker(consecutive_failures=1)
    with caplog.at_level(logging.DEBUG, "resilient"):
        await fail(gate)
        for _ in range(100):
            with pytest.raises(CircuitOpen):
                await gate.call(good)
        await anyio.sleep(5)
        await gate.call(good)

    assert len(caplog.messages) == 4
    assert "rejections=100" in caplog.messages[-1]


# What can be seen


async def test_statistics_are_a_snapshot() -> None:
    """Counts of the window, rates, the state, and the last failure with its age."""
    gate = breaker(slow_call=1)
    await gate.call(good)
    await gate.call(good)
    await gate.call(anyio.sleep, 1)
    await fail(gate)
    await anyio.sleep(2)
    seen = gate.statistics()

    assert (seen.calls, seen.failures, seen.successes, seen.slow) == (4, 1, 3, 1)
    assert (seen.failure_rate, seen.success_rate, seen.slow_rate) == (0.25, 0.75, 0.25)
    assert (seen.consecutive_failures, seen.last_failure, seen.last_failure_ago) == (1, "error", 2.0)
    assert seen.is_healthy


async def test_statistics_of_a_new_breaker_are_those_of_a_healthy_one() -> None:
    """No calls are no failures."""
    seen = breaker().statistics()

    assert (seen.failure_rate, seen.success_rate, seen.slow_rate, seen.is_healthy) == (0.0, 1.0, 0.0, True)
    assert (seen.last_failure, seen.last_failure_ago) == (None, None)


@pytest.mark.parametrize("window", [10.0, CountWindow(2)], ids=["time", "count"])
async def test_totals_outlive_the_window_and_the_state(window: float | CountWindow) -> None:
    """What grew old, tripped it, or came from a probe still counts in all; a reset forgets it."""
    gate = breaker(name="totals", window=window, minimum_calls=2, consecutive_failures=2, failure_rate=None)
    await gate.call(good)
    await anyio.sleep(20)
    await fail(gate, 2)
    await anyio.sleep(6)
    await gate.call(good)  # the probe, which closes it
    await gate.call(good)
    seen = gate.statistics()
    gate.reset()

    assert seen.calls == 1
    assert (seen.total_calls, seen.total_successes, seen.total_failures) == (5, 3, 2)
    assert gate.statistics().total_calls == 0


async def test_totals_outlive_another_window() -> None:
    """A breaker that is retuned counts anew; in all it still has what it had."""
    gate = breaker(window=10)
    await gate.call(good)
    await fail(gate)
    gate.retune(breaker(window=20))
    seen = gate.statistics()

    assert (seen.calls, seen.failures) == (0, 0)
    assert (seen.total_calls, seen.total_failures, seen.total_successes) == (2, 1, 1)


async def test_timeouts_are_counted_among_the_failures() -> None:
    """Those of a `Timeout` further in, and any other `TimeoutError`, whoever says what a failure is."""
    gates = [breaker(), breaker(on=OSError)]

    async def stuck() -> None:
        raise TimeoutError

    for gate in gates:
        with pytest.raises(TimeoutError):
            await Pipeline(gate, Timeout(1)).call(anyio.sleep_forever)
        with pytest.raises(TimeoutError):
            await gate.call(stuck)
        with contextlib.suppress(OSError):
            await gate.call(refuse)

    assert [gate.statistics().total_timeouts for gate in gates] == [2, 2]
    assert [gate.statistics().total_failures for gate in gates] == [3, 3]


async def refuse() -> None:
    raise ConnectionRefusedError


async def test_statistics_of_an_open_breaker() -> None:
    """They show what tripped it, for as long as the window lasts, and how long it stays open."""
    gate = breaker(minimum_calls=2)
    await fail(gate, 2)
    with pytest.raises(CircuitOpen):
        await gate.call(good)
    await anyio.sleep(1)
    seen = gate.statistics()
    await anyio.sleep(3600)

    assert (seen.state, seen.would_be, seen.is_healthy, seen.open_remaining) == ("open", "open", False, 4.0)
    assert (seen.opened, seen.rejected, seen.failure_rate) == (1, 1, 1.0)
    assert gate.statistics().calls == 0


async def test_reading_changes_nothing() -> None:
    """State, statistics and repr of a breaker whose time is over: it stays open until a call comes."""
    gate = await opened()
    await anyio.sleep(5)
    seen = (gate.state, gate.statistics().state, repr(gate))

    assert seen == ("half_open", "half_open", "<CircuitBreaker 'circuit_breaker': half_open, 0 probes out>")
    assert gate.current.name == "open"


async def test_its_repr_shows_its_state() -> None:
    """In a few words, for a debugger or a log."""
    gate = breaker(name="payments", consecutive_failures=3)
    seen = [repr(gate)]
    await fail(gate, 3)
    seen.append(repr(gate))
    gate.isolate()
    seen.append(repr(gate))
    gate.monitor()
    seen.append(repr(gate))

    assert seen == [
        "<CircuitBreaker 'payments': closed, 0 of 0 calls failed>",
        "<CircuitBreaker 'payments': open, for 5 s more>",
        "<CircuitBreaker 'payments': isolated>",
        "<CircuitBreaker 'payments': monitor_only, closed, 0 of 0 calls failed>",
    ]
