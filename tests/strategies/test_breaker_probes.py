"""How the circuit breaker finds out whether the callee is well again: its machine, driven by hand.

`open_breaker()` has opened at 0.0 s for five seconds: from 5.0 s on the first call is a probe.
"""

import pytest

from resilient.observe.events import BreakerStateChanged
from resilient.outcome import Verdict
from strategies.breakers import (
    BAD,
    CANCELLED,
    GOOD,
    NOTHING,
    REJECTED,
    breaker,
    changes,
    drive,
    granted,
    open_breaker,
    refused,
    told,
)


@pytest.mark.parametrize("calls", [1, 3, 7])
def test_half_open_lets_exactly_so_many_calls_through(calls: int) -> None:
    """Of twenty that come at once, the others are refused, without a time that nobody knows."""
    machine = open_breaker(half_open_calls=calls)
    probes = [granted(machine, 5.0) for _ in range(calls)]
    rejections = [refused(machine, 5.0) for _ in range(20 - calls)]

    assert len(set(probes)) == calls
    assert {(each.state, each.retry_after) for each in rejections} == {("half_open", None)}


def test_it_closes_when_its_probes_have_succeeded() -> None:
    """By default all `half_open_calls`; the event says how many calls were refused since it opened."""
    machine = open_breaker(half_open_calls=3)
    for _ in range(4):
        refused(machine, 1.0)
    probes = [granted(machine, 5.0) for _ in range(3)]
    refused(machine, 5.0)
    states: list[str] = []
    for probe in probes:
        probe.settle(GOOD, 0.1, 5.1)
        states.append(machine.current.name)
    events = told(machine)

    assert states == ["half_open", "half_open", "closed"]
    assert changes(events) == [("open", "half_open", "open_elapsed"), ("half_open", "closed", "probes_succeeded")]
    assert isinstance(events[-1], BreakerStateChanged)
    assert events[-1].rejections == 5


def test_no_more_probes_are_sent_than_are_needed() -> None:
    """A place that a successful probe has left is not filled where the probes that are out can close it."""
    machine = open_breaker(half_open_calls=3)
    probes = [granted(machine, 5.0) for _ in range(3)]
    probes[0].settle(GOOD, 0.1, 5.1)

    assert refused(machine, 5.1).state == "half_open"


def test_more_successes_than_places_are_asked_for_one_after_the_other() -> None:
    """One place, three successes."""
    machine = open_breaker(half_open_calls=1, half_open_successes=3)
    states: list[str] = []
    for _ in range(3):
        probe = granted(machine, 5.0)
        refused(machine, 5.0)
        probe.settle(GOOD, 0.1, 5.0)
        states.append(machine.current.name)

    assert states == ["half_open", "half_open", "closed"]


def test_fewer_successes_than_places_close_it_early() -> None:
    """Five probes, and the first two that succeed decide; the other three are stale."""
    machine = open_breaker(half_open_calls=5, half_open_successes=2)
    probes = [granted(machine, 5.0) for _ in range(5)]
    for probe, verdict in zip(probes, [GOOD, GOOD, BAD, BAD, BAD], strict=True):
        probe.settle(verdict, 0.1, 5.1)

    assert machine.current.name == "closed"
    assert machine.window is None


def test_one_failed_probe_opens_it_again() -> None:
    """For longer than before; probes that are still out are stale."""
    machine = open_breaker(half_open_calls=2)
    failing, late = granted(machine, 5.0), granted(machine, 5.0)
    failing.settle(BAD, 0.1, 5.1)
    late.settle(GOOD, 0.1, 5.2)

    assert changes(told(machine))[1:] == [("half_open", "open", "probe_failed")]
    assert machine.ready_in(5.1) == 10.0


def test_a_probe_that_fails_after_a_long_time_is_no_calm() -> None:
    """The time open still grows: it was not closed meanwhile."""
    machine = open_breaker()
    granted(machine, 5.0).settle(BAD, 60.0, 65.0)

    assert machine.ready_in(65.0) == 10.0


@pytest.mark.parametrize("verdict", [GOOD, CANCELLED])
def test_a_slow_probe_opens_it_again(verdict: Verdict) -> None:
    """What trips a closed breaker does not close an open one; a hang that was cut off is slow."""
    machine = open_breaker(slow_call=2.0)
    drive(machine, 5.0, verdict, latency=2.0)

    assert changes(told(machine))[1:] == [("half_open", "open", "probe_slow")]


@pytest.mark.parametrize("verdict", [CANCELLED, NOTHING, REJECTED])
def test_a_probe_that_tells_nothing_frees_its_place(verdict: Verdict) -> None:
    """It neither closes nor opens it, and the next call is the probe."""
    machine = open_breaker()
    drive(machine, 5.0, *[verdict] * 10)
    still = machine.current.name
    drive(machine, 5.0, GOOD)

    assert (still, machine.current.name) == ("half_open", "closed")


def test_a_probe_that_hangs_loses_its_place() -> None:
    """When its lease is over the next call is the probe: nothing is refused for ever."""
    machine = open_breaker(probe_lease=30.0)
    granted(machine, 5.0)
    refused(machine, 34.9)
    drive(machine, 35.0, GOOD)

    assert machine.current.name == "closed"


@pytest.mark.parametrize("verdict", [GOOD, BAD])
@pytest.mark.parametrize("replaced", [True, False])
def test_the_result_of_a_probe_that_lost_its_place_is_stale(verdict: Verdict, *, replaced: bool) -> None:
    """It neither closes nor opens it, whether or not another call has taken the place meanwhile."""
    machine = open_breaker(probe_lease=30.0)
    hanging = granted(machine, 5.0)
    if replaced:
        granted(machine, 40.0)
    hanging.settle(verdict, 36.0, 41.0)

    assert machine.current.name == "half_open"
    if replaced:
        assert refused(machine, 41.0).state == "half_open"
    else:
        assert granted(machine, 41.0)


def test_a_probe_that_is_settled_twice_counts_once() -> None:
    """The second time changes nothing: no place is freed twice, no success is counted twice."""
    machine = open_breaker(half_open_calls=2)
    probe = granted(machine, 5.0)
    probe.settle(GOOD, 0.1, 5.1)
    probe.settle(GOOD, 0.1, 5.1)
    probe.settle(BAD, 0.1, 5.1)
    still = machine.current.name
    granted(machine, 5.1)

    assert still == "half_open"
    assert refused(machine, 5.1)


# Late results


@pytest.mark.parametrize("verdict", [GOOD, BAD, CANCELLED])
def test_a_result_from_before_the_trip_moves_nothing(verdict: Verdict) -> None:
    """Not while it is open, nor while it is half-open, nor after it has closed again."""
    machine = breaker(consecutive_failures=1, slow_call=50.0, minimum_calls=1)
    late = [granted(machine, 0.0) for _ in range(3)]
    drive(machine, 0.0, BAD)
    states = [machine.current.name]
    late[0].settle(verdict, 99.0, 1.0)
    states.append(machine.current.name)
    probe = granted(machine, 5.0)
    late[1].settle(verdict, 99.0, 5.1)
    states.append(machine.current.name)
    probe.settle(GOOD, 0.1, 5.2)
    late[2].settle(verdict, 99.0, 5.3)
    states.append(machine.current.name)

    assert states == ["open", "open", "half_open", "closed"]
    assert machine.window is None


def test_a_probe_of_an_earlier_half_open_time_is_stale_in_a_later_one() -> None:
    """It frees no place there, and does not count towards closing."""
    machine = open_breaker(half_open_calls=2)
    old, failing = granted(machine, 5.0), granted(machine, 5.0)
    failing.settle(BAD, 0.1, 5.1)
    new = [granted(machine, 15.1), granted(machine, 15.1)]
    old.settle(GOOD, 10.0, 15.2)
    rejection = refused(machine, 15.2)
    new[0].settle(GOOD, 0.1, 15.3)

    assert rejection.state == "half_open"
    assert machine.current.name == "half_open"
