"""When the circuit breaker trips: its machine, driven by hand."""

import logging
from typing import Any

import pytest

from resilient.observe.events import BreakerStateChanged
from resilient.strategies.circuit_breaker import BreakerCounts, CircuitBreaker
from resilient.strategies.windows import CountWindow
from strategies.breakers import BAD, CANCELLED, GOOD, NOTHING, REJECTED, breaker, changes, drive, told

# When it trips


def test_it_trips_at_the_failure_rate_once_there_are_enough_calls() -> None:
    """By default: half of at least twenty calls within ten seconds."""
    machine = breaker()
    drive(machine, 0.0, *[BAD] * 9, *[GOOD] * 9, BAD)
    before = machine.current.name
    drive(machine, 0.0, BAD)

    assert (before, machine.current.name) == ("closed", "open")
    assert changes(told(machine)) == [("closed", "open", "failure_rate")]


@pytest.mark.parametrize("rate", [0.07, 0.14, 0.28, 0.29, 0.55, 0.57, 1.0])
def test_a_rate_that_is_reached_exactly_trips(rate: float) -> None:
    """Rounding of floats does not ask for one failure more."""
    failures = round(rate * 100)
    machine = breaker(failure_rate=rate, minimum_calls=100)
    drive(machine, 0.0, *[GOOD] * (100 - failures), *[BAD] * (failures - 1))
    before = machine.current.name
    drive(machine, 0.0, BAD)

    assert (before, machine.current.name) == ("closed", "open")


def test_below_the_rate_it_stays_closed() -> None:
    """However many calls fail, or are slow, as long as they are less than that share."""
    machine = breaker(slow_call=1.0, slow_rate=0.5)
    drive(machine, 0.0, *[GOOD, BAD, GOOD] * 50)
    for number in range(150):
        drive(machine, 0.0, GOOD, latency=2.0 if number % 3 == 1 else 0.1)

    assert machine.current.name == "closed"


def test_a_change_is_told_with_all_that_belongs_to_it() -> None:
    """By whom, when, from where to where, why; for how long, where it has opened."""
    machine = breaker(consecutive_failures=1, open_for=7.0, name="orders")
    drive(machine, 3.0, BAD)
    tripped = told(machine)
    machine.obey("isolate", 4.0)

    opened: dict[str, Any] = {"strategy": "orders", "old": "closed", "new": "open", "why": "consecutive_failures"}
    assert tripped == [BreakerStateChanged(at=3.0, open_for=7.0, rejections=0, **opened)]
    by_hand: dict[str, Any] = {"strategy": "orders", "old": "open", "new": "isolated", "why": "by_hand"}
    assert told(machine) == [BreakerStateChanged(at=4.0, rejections=0, **by_hand)]


def test_few_calls_do_not_trip_a_rate() -> None:
    """The first failure of a day does not open it, nor the first nineteen."""
    machine = breaker()
    drive(machine, 0.0, *[BAD] * 19)

    assert machine.current.name == "closed"


def test_a_success_never_trips() -> None:
    """Though the twentieth call makes the rate count, a good one does not open it: the next failure does."""
    machine = breaker()
    drive(machine, 0.0, *[BAD] * 19, GOOD)
    before = machine.current.name
    drive(machine, 0.0, BAD)

    assert (before, machine.current.name) == ("closed", "open")


def test_failures_in_a_row_trip() -> None:
    """A success in between starts the count anew; what tells nothing does not."""
    machine = breaker(consecutive_failures=3)
    drive(machine, 0.0, BAD, BAD, GOOD, BAD, CANCELLED, NOTHING, REJECTED, BAD)
    before = machine.current.name
    drive(machine, 9000.0, BAD)

    assert (before, machine.current.name) == ("closed", "open")
    assert changes(told(machine)) == [("closed", "open", "consecutive_failures")]


def test_failures_in_a_row_take_the_place_of_the_rate() -> None:
    """Half of the calls may fail then, as long as there are never so many in a row."""
    machine = breaker(consecutive_failures=3)
    drive(machine, 0.0, *[BAD, BAD, GOOD] * 20)

    assert machine.current.name == "closed"


def test_a_rate_that_is_asked_for_stands_beside_failures_in_a_row() -> None:
    """Either trips it."""
    machine = breaker(consecutive_failures=3, failure_rate=0.5)
    drive(machine, 0.0, *[BAD, BAD, GOOD] * 6, BAD, BAD)

    assert changes(told(machine)) == [("closed", "open", "failure_rate")]


def test_a_predicate_on_the_counts_trips() -> None:
    """It is asked after each failed or slow call, not after good ones, and sees what the window holds."""
    seen: list[BreakerCounts] = []

    def trip(counts: BreakerCounts) -> bool:
        seen.append(counts)
        return counts.failures >= 2 and counts.slow_rate > 0.3

    machine = breaker(trip=trip, slow_call=1.0)
    drive(machine, 0.0, GOOD, BAD)
    drive(machine, 0.0, GOOD, BAD, latency=1.0)

    assert seen == [BreakerCounts(2, 1, 0, 1), BreakerCounts(3, 1, 1, 0), BreakerCounts(4, 2, 2, 1)]
    assert changes(told(machine)) == [("closed", "open", "trip")]


def test_a_predicate_that_raises_says_no_and_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The permit is settled, the call counts, the error is logged once for all siblings."""

    def trip(counts: BreakerCounts) -> bool:
        raise ZeroDivisionError(counts)

    machine = breaker(trip=trip)
    with caplog.at_level(logging.ERROR, "resilient"):
        drive(machine, 0.0, BAD, BAD)
        drive(machine.sibling(), 0.0, BAD)

    assert machine.current.name == "closed"
    assert machine.statistics().in_flight == 0
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_a_predicate_may_itself_change_the_state() -> None:
    """What it did stands: its answer belongs to a state that is gone."""

    def trip(_: BreakerCounts) -> bool:
        machine.obey("isolate", 0.0)
        return True

    machine: CircuitBreaker = breaker(trip=trip)
    drive(machine, 0.0, BAD)

    assert machine.current.name == "isolated"


def test_what_tells_nothing_is_not_counted() -> None:
    """Cancellation, rejections further in and throttling neither dilute the rate nor raise it."""
    machine = breaker()
    drive(machine, 0.0, *[CANCELLED, NOTHING, REJECTED] * 50)

    assert machine.window is None


# Slow calls


def test_slow_calls_trip_though_they_succeed() -> None:
    """Half of them by default."""
    machine = breaker(slow_call=2.0)
    drive(machine, 0.0, *[GOOD] * 10, latency=1.99)
    drive(machine, 0.0, *[GOOD] * 10, latency=2.0)

    assert changes(told(machine)) == [("closed", "open", "slow_rate")]


def test_a_hang_that_is_cancelled_from_outside_trips() -> None:
    """A cancelled call tells nothing but how long it took: at least `slow_call`, so it is slow."""
    machine = breaker(slow_call=2.0)
    drive(machine, 0.0, *[CANCELLED] * 20, latency=2.0)

    assert changes(told(machine)) == [("closed", "open", "slow_rate")]


def test_a_cancelled_call_does_not_end_a_row_of_failures_however_slow_it_was() -> None:
    """It is no success."""
    machine = breaker(slow_call=2.0, consecutive_failures=3)
    drive(machine, 0.0, BAD, BAD)
    drive(machine, 0.0, CANCELLED, latency=2.0)
    drive(machine, 0.0, BAD)

    assert changes(told(machine)) == [("closed", "open", "consecutive_failures")]


def test_a_long_wait_that_ends_in_a_rejection_is_not_slow() -> None:
    """Nothing was sent: a full bulkhead or an empty bucket further in is not the callee's fault."""
    machine = breaker(slow_call=2.0)
    drive(machine, 0.0, *[REJECTED] * 20, latency=60.0)

    assert machine.window is None


def test_slow_calls_count_beside_failures() -> None:
    """A call can be both; which condition it meets first names the reason."""
    machine = breaker(slow_call=1.0, minimum_calls=2)
    drive(machine, 0.0, GOOD)
    drive(machine, 0.0, BAD, latency=1.0)

    assert changes(told(machine)) == [("closed", "open", "failure_rate")]


# Windows


def test_failures_of_long_ago_do_not_count() -> None:
    """After ten idle windows the next failure meets an empty window."""
    machine = breaker()
    drive(machine, 0.0, *[BAD] * 19)
    drive(machine, 100.0, BAD)

    assert machine.current.name == "closed"


def test_a_count_window_looks_back_over_calls_however_old() -> None:
    """The last ten calls decide."""
    machine = breaker(window=CountWindow(10), minimum_calls=10)
    drive(machine, 0.0, *[BAD] * 4)
    drive(machine, 1e6, *[GOOD] * 5, BAD)

    assert changes(told(machine)) == [("closed", "open", "failure_rate")]


def test_it_closes_with_an_empty_window() -> None:
    """What tripped it does not count again."""
    machine = breaker(minimum_calls=2)
    drive(machine, 0.0, BAD, BAD)
    drive(machine, 5.0, GOOD, BAD)

    assert machine.current.name == "closed"
