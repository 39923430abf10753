"""The state machine of the circuit breaker, driven by hand: no event loop, no clock."""

import math
from typing import Any

import pytest

from resilient.observe.events import BreakerStateChanged
from resilient.outcome import Health, Kind, Verdict
from resilient.strategies.breaker_states import TRANSITIONS, Happening, Order, State
from resilient.strategies.circuit_breaker import BreakerCounts, CircuitBreaker
from strategies.breakers import (
    BAD,
    CANCELLED,
    GOOD,
    Highest,
    Lowest,
    breaker,
    changes,
    drive,
    granted,
    open_breaker,
    refused,
    told,
)

STATES: list[State] = ["closed", "open", "half_open", "isolated", "disabled"]
BY_HAND: dict[Order, State] = {"close": "closed", "isolate": "isolated", "disable": "disabled"}
AUTOMATIC: dict[tuple[State, Happening], State] = {
    ("closed", "tripped"): "open",
    ("open", "elapsed"): "half_open",
    ("half_open", "proven"): "closed",
    ("half_open", "refuted"): "open",
}


def asks_for(seconds: float, health: Health = Health.UNHEALTHY) -> Verdict:
    return Verdict(Kind.RETRYABLE, health, "http_503", retry_after=seconds)


# The table


def test_four_changes_happen_by_themselves_and_three_by_hand() -> None:
    """By hand every state leads to closed, isolated and disabled."""
    by_hand = {(state, order): to for state in STATES for order, to in BY_HAND.items()}

    assert by_hand | AUTOMATIC == TRANSITIONS


def in_state(state: str) -> CircuitBreaker:
    """A breaker that was brought into a state before 5.0 s."""
    machine = breaker(consecutive_failures=1)
    if state in {"isolated", "disabled"}:
        machine.obey("isolate" if state == "isolated" else "disable", 0.0)
    elif state != "closed":
        drive(machine, 0.0, BAD)
        if state == "half_open":
            granted(machine, 5.0).settle(CANCELLED, 0.0, 5.0)
    told(machine)
    return machine


@pytest.mark.parametrize(("row", "target"), list(TRANSITIONS.items()), ids=map("-".join, TRANSITIONS))
def test_every_row_of_the_table_can_be_walked(row: tuple[Any, Any], target: str) -> None:
    """What brings about an event leads to the state of the table, and a change of state is told once."""
    old, event = row
    machine = in_state(old)
    if event in BY_HAND:
        machine.obey(event, 5.0)
    elif event == "elapsed":
        granted(machine, 5.0)
    else:
        drive(machine, 5.0, GOOD if event == "proven" else BAD)

    assert machine.current.name == target
    assert [(told_old, new) for told_old, new, _ in changes(told(machine))] == ([] if target == old else [(old, target)])


# Open


def test_an_open_breaker_refuses_and_says_until_when() -> None:
    """The wait shrinks as time goes by and is never negative; each refusal has its number."""
    machine = open_breaker()
    rejections = [refused(machine, now) for now in (0.0, 1.0, 4.75)]

    assert [(each.retry_after, each.rejections, each.state) for each in rejections] == [
        (5.0, 1, "open"),
        (4.0, 2, "open"),
        (0.25, 3, "open"),
    ]


def test_it_half_opens_to_the_tick() -> None:
    """The time open is not rounded to whole seconds."""
    machine = open_breaker(open_for=0.25)
    refused(machine, 0.2499)
    granted(machine, 0.25)

    assert changes(told(machine)) == [("open", "half_open", "open_elapsed")]


def test_the_state_is_told_truly_before_a_call_comes() -> None:
    """Once the time is over it is half-open for whoever asks; asking changes nothing."""
    machine = open_breaker()
    states = [machine.state_at(4.9), machine.state_at(5.0), machine.current.name]

    assert states == ["open", "half_open", "open"]
    assert told(machine) == []


def test_the_time_open_has_jitter() -> None:
    """Instances that tripped together do not probe together: up to a fifth is taken off."""
    waits = [open_breaker(random=None).ready_in(0.0) for _ in range(200)]

    assert 4.0 <= min(waits) < 4.2
    assert 4.8 < max(waits) <= 5.0
    assert open_breaker(random=Lowest()).ready_in(0.0) == 4.0


def test_it_stays_open_longer_each_time() -> None:
    """Twice as long, up to the maximum, however often: thousands of times overflow nothing."""
    machine = breaker(consecutive_failures=1)
    lengths: list[float] = []
    now = 0.0
    for _ in range(3000):
        drive(machine, now, BAD)
        lengths.append(machine.ready_in(now))
        now += lengths[-1]

    assert lengths[:6] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert lengths[-1] == 60.0


def test_a_service_that_trips_again_soon_after_it_closed_gets_more_time() -> None:
    """One that passes a probe and breaks down under the load does not flap at the shortest interval."""
    machine = open_breaker()
    drive(machine, 5.0, GOOD)
    drive(machine, 14.9, BAD)

    assert math.isclose(machine.ready_in(14.9), 10.0)


def test_after_a_calm_time_growth_is_forgotten() -> None:
    """Closed for as long as it would be open the next time: it is another story."""
    machine = open_breaker()
    drive(machine, 5.0, GOOD)
    drive(machine, 15.0, BAD)

    assert machine.ready_in(15.0) == 5.0


def test_growth_can_be_switched_off() -> None:
    """With a factor of one it is open for the same time each time."""
    machine = open_breaker(open_for_factor=1.0)
    drive(machine, 5.0, BAD)

    assert machine.ready_in(5.0) == 5.0


# What a server asks for


def test_a_server_is_given_the_time_that_it_asks_for() -> None:
    """`retry_after` of the failure that trips it is not shortened; a little is added, so that not all come back at once."""
    machine = breaker(consecutive_failures=1, random=Lowest())
    drive(machine, 0.0, asks_for(30.0))
    other = breaker(consecutive_failures=1, random=Highest())
    drive(other, 0.0, asks_for(30.0))
    shorter = breaker(consecutive_failures=1, random=Highest())
    drive(shorter, 0.0, asks_for(8.0))

    assert (machine.ready_in(0.0), other.ready_in(0.0), shorter.ready_in(0.0)) == (30.0, 31.0, 8.8)


def test_a_probe_that_is_told_to_come_later_opens_it_for_that_long() -> None:
    """The hint of a failed probe counts as that of a trip."""
    machine = open_breaker(random=Lowest())
    drive(machine, 5.0, asks_for(45.0))

    assert machine.ready_in(5.0) == 45.0


@pytest.mark.parametrize("hint", [3600.0, math.inf])
def test_what_a_server_asks_for_is_bounded(hint: float) -> None:
    """`open_for_max` is the longest time that it can bring about."""
    machine = breaker(consecutive_failures=1, random=Lowest(), open_for_max=90)
    drive(machine, 0.0, asks_for(hint))

    assert machine.ready_in(0.0) == 90.0


@pytest.mark.parametrize("verdict", [asks_for(1.0), asks_for(0.0), asks_for(-3.0), asks_for(math.nan)])
def test_a_hint_never_shortens_the_time_open(verdict: Verdict) -> None:
    """Nor does a senseless one wedge it."""
    machine = breaker(consecutive_failures=1)
    drive(machine, 0.0, verdict)

    assert machine.ready_in(0.0) == 5.0


def test_the_hint_of_a_slow_answer_that_was_good_does_not_count() -> None:
    """Only a failure can ask for time."""
    machine = breaker(slow_call=1.0, minimum_calls=1)
    drive(machine, 0.0, asks_for(30.0, Health.HEALTHY), latency=1.0)

    assert machine.ready_in(0.0) == 5.0


# By hand


@pytest.mark.parametrize("state", STATES)
def test_an_isolated_breaker_refuses_everything(state: str) -> None:
    """From whatever state, for as long as nobody says otherwise, without a time."""
    machine = in_state(state)
    machine.obey("isolate", 5.0)
    rejection = refused(machine, 1e9)

    assert (rejection.state, rejection.retry_after) == ("isolated", None)
    assert machine.ready_in(1e9) == math.inf


def test_results_do_not_move_a_breaker_that_was_set_by_hand() -> None:
    """Calls that were in flight are stale."""
    machine = breaker(consecutive_failures=1)
    permit, again = granted(machine, 0.0), granted(machine, 0.0)
    machine.obey("isolate", 0.0)
    permit.settle(BAD, 0.1, 0.1)
    isolated = machine.current.name
    machine.obey("close", 0.2)
    again.settle(BAD, 0.3, 0.3)

    assert (isolated, machine.current.name) == ("isolated", "closed")


def test_closing_by_hand_forgets_growth_and_counts() -> None:
    """It says that the service is well."""
    machine = open_breaker()
    drive(machine, 5.0, BAD)
    machine.obey("close", 6.0)
    fresh = machine.is_fresh(6.0)
    drive(machine, 6.0, BAD)

    assert fresh
    assert machine.ready_in(6.0) == 5.0


def test_closing_a_closed_breaker_tells_nothing() -> None:
    """The state is the same; the window is empty."""
    machine = breaker()
    drive(machine, 0.0, BAD)
    machine.obey("close", 0.0)

    assert told(machine) == []
    assert machine.window is None


def test_a_disabled_breaker_lets_everything_through_and_counts_nothing() -> None:
    """However bad it is."""
    machine = breaker(consecutive_failures=1, initial="disabled")
    drive(machine, 0.0, *[BAD] * 100)

    assert machine.current.name == "disabled"
    assert machine.window is None


# Monitor-only


def test_monitor_only_tells_what_it_would_have_done_and_refuses_nothing() -> None:
    """It goes through the same states with the same probes; how many calls it would have refused is told at the end."""
    machine = breaker(consecutive_failures=1, initial="monitor_only")
    drive(machine, 0.0, BAD, *[BAD] * 10)  # it would be open from the first one on
    drive(machine, 5.0, GOOD)
    events = told(machine)

    assert changes(events) == [
        ("closed", "open", "consecutive_failures"),
        ("open", "half_open", "open_elapsed"),
        ("half_open", "closed", "probes_succeeded"),
    ]
    assert [event.monitor_only for event in events if isinstance(event, BreakerStateChanged)] == [True] * 3
    assert [event.rejections for event in events if isinstance(event, BreakerStateChanged)] == [0, 0, 10]
    assert (machine.state_at(0.0), machine.ready_in(0.0)) == ("monitor_only", 0.0)


def test_only_the_probe_would_have_been_sent() -> None:
    """Of calls that come at once in half-open, the others pass without saying anything about the callee."""
    machine = breaker(consecutive_failures=1, initial="monitor_only")
    drive(machine, 0.0, BAD)
    probe, other = granted(machine, 5.0), granted(machine, 5.0)
    other.settle(BAD, 0.1, 5.1)
    probe.settle(GOOD, 0.1, 5.2)

    assert machine.would_be(5.2) == "closed"


def test_nobody_is_kept_waiting_by_a_breaker_that_only_watches() -> None:
    """Though it would be open, a retry does not stop."""
    machine = breaker(consecutive_failures=1, initial="monitor_only")
    drive(machine, 0.0, BAD)

    assert (machine.would_be(0.0), machine.ready_in(0.0)) == ("open", 0.0)


def test_watching_begins_and_ends_by_hand() -> None:
    """Its end is a change of state like another: what it would have been is over."""
    machine = in_state("open")
    machine.obey("close", 5.0, monitoring=True)
    drive(machine, 5.0, BAD)
    told(machine)
    machine.obey("close", 6.0)

    assert changes(told(machine)) == [("monitor_only", "closed", "by_hand")]
    assert machine.state_at(6.0) == "closed"


# Fresh ones


def test_a_new_breaker_is_fresh() -> None:
    """It can be forgotten; so can one that had nothing but good calls, when they have expired."""
    machine = breaker()
    fresh = [machine.is_fresh(0.0)]
    drive(machine, 0.0, GOOD)
    fresh += [machine.is_fresh(5.0), machine.is_fresh(20.0)]

    assert fresh == [True, False, True]


def test_a_breaker_with_a_permit_out_is_not_fresh() -> None:
    """Its result would be lost."""
    machine = breaker()
    permit = granted(machine, 0.0)
    out = machine.is_fresh(0.0)
    permit.settle(CANCELLED, 1.0, 1.0)

    assert (out, machine.is_fresh(1.0)) == (False, True)


def test_an_open_or_half_open_breaker_is_not_fresh() -> None:
    """However long nobody has called."""
    machine = open_breaker()
    opened = machine.is_fresh(1e6)
    granted(machine, 1e6).settle(CANCELLED, 0.0, 1e6)

    assert (opened, machine.is_fresh(1e6)) == (False, False)


def test_a_breaker_that_would_open_for_longer_is_not_fresh() -> None:
    """Until growth is forgotten."""
    machine = open_breaker()
    drive(machine, 5.0, GOOD)

    assert (machine.is_fresh(14.9), machine.is_fresh(15.0)) == (False, True)


def _never(_: BreakerCounts) -> bool:
    return False


def test_failures_in_a_row_are_kept_where_they_count() -> None:
    """They have no age; where only rates count, they do not matter."""
    by_count, by_predicate, by_rate = breaker(consecutive_failures=5), breaker(trip=_never), breaker()
    for machine in (by_count, by_predicate, by_rate):
        drive(machine, 0.0, BAD)

    assert [machine.is_fresh(1e6) for machine in (by_count, by_predicate, by_rate)] == [False, False, True]


@pytest.mark.parametrize("initial", ["closed", "isolated", "disabled", "monitor_only"])
def test_a_breaker_is_fresh_in_the_state_that_siblings_begin_in(initial: Any) -> None:
    """One that somebody set to another state by hand is kept."""
    machine = breaker(initial=initial)
    fresh = machine.is_fresh(0.0)
    for order, state in BY_HAND.items():
        machine.obey(order, 0.0)

        assert machine.is_fresh(0.0) == (state == initial)
    machine.obey("close", 0.0, monitoring=True)

    assert (fresh, machine.is_fresh(0.0)) == (True, initial == "monitor_only")
