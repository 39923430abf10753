"""The throttle: it refuses as much as the server would, never all, and forgets in time."""

import contextlib
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import BUSY, VALUES, Script, cancelled_after
from resilient import clock
from resilient.errors import BulkheadFull, Throttled
from resilient.keyed import Keyed
from resilient.observe.events import CallRejected, Event
from resilient.observe.listeners import listening
from resilient.outcome import CANCELLED, SUCCESS, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.throttle import Throttle, ThrottleStatistics

pytestmark = pytest.mark.anyio

REFUSED = Verdict(Kind.PERMANENT, Health.NEUTRAL, "bulkhead_full", rejected=True)
SLOW_DOWN = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", throttled=True)
NOT_FOUND = Verdict(Kind.PERMANENT, Health.HEALTHY, "http_404")


class Die(Random):
    """It shows what it is told to."""

    def __init__(self, shows: float) -> None:
        super().__init__()
        self.shows = shows

    def random(self) -> float:
        return self.shows


NEVER, ALWAYS = Die(1.0), Die(0.0)


def fed(throttle: Throttle, accepts: int, failures: int, now: float = 0.0) -> Throttle:
    """After so many calls of each kind; those that would be refused pass all the same."""
    permits = [throttle for _ in range(accepts + failures)]
    throttle._in_flight += len(permits)  # pyright: ignore[reportPrivateUsage]
    for number, permit in enumerate(permits):
        permit.settle(SUCCESS if number < accepts else BUSY, 0.1, now)
    return throttle


def passes(throttle: Throttle, now: float) -> bool:
    try:
        throttle.admit(now).settle(SUCCESS, 0.0, now)
    except Throttled:
        return False
    return True


# -- settings


def test_what_is_not_said_is_the_default() -> None:
    """It acts where fewer than half of at least ten calls in ten seconds are accepted, and lets one in ten pass."""
    throttle = Throttle()

    assert (throttle.multiplier, throttle.window, throttle.minimum_calls, throttle.maximum) == (2.0, 10.0, 10, 0.9)
    assert throttle.name == "throttle"


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"multiplier": 0.5}, ValueError, ["multiplier=0.5", "at least 1"]),
        ({"window": 0}, ValueError, ["window=0", "greater than 0"]),
        ({"minimum_calls": 0}, ValueError, ["minimum_calls=0", "at least 1"]),
        ({"maximum": -0.1}, ValueError, ["maximum=-0.1", "at least 0"]),
        ({"maximum": 1.5}, ValueError, ["maximum=1.5", "at most 1"]),
        ({"maximum": 1}, ValueError, ["maximum=1", "less than 1", "well again"]),
    ],
)
def test_arguments_are_checked_at_construction(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    """The message names the parameter, the value and the range."""
    with pytest.raises(error) as raised:
        Throttle(**settings)

    assert all(word in str(raised.value) for word in words)


async def test_it_shows_its_state_and_siblings_are_fresh() -> None:
    """Requests, accepts, refusals; a window that is empty again equals a fresh one."""
    throttle = fed(Throttle(multiplier=2.5, window=20, maximum=0.8, random=ALWAYS, minimum_calls=20, name="api"), 2, 18)
    assert not passes(throttle, 0.0)
    sibling = throttle.sibling()
    seen, fresh = throttle.statistics(), throttle.is_fresh(0.0)
    shown = repr(throttle)
    await anyio.sleep(20.0)

    assert seen == ThrottleStatistics(requests=21, accepts=2, rejected=1, probability=16 / 22, in_flight=0)
    assert shown == "<Throttle 'api': 2 of 21 calls accepted, 73% refused>"
    assert (fresh, sibling.is_fresh(0.0), throttle.is_fresh(clock.now())) == (False, True, True)
    assert (sibling.multiplier, sibling.window, sibling.minimum_calls, sibling.maximum) == (2.5, 20.0, 20, 0.8)
    assert (sibling.name, sibling._random) == ("api", ALWAYS)  # pyright: ignore[reportPrivateUsage]


async def test_each_key_has_a_throttle_of_its_own() -> None:
    """A server that is well does not pay for one that is not."""
    keyed = Keyed(Throttle(random=ALWAYS))
    fed(keyed["down"], 0, 20)

    assert (passes(keyed["down"], 0.0), passes(keyed["up"], 0.0)) == (False, True)


# -- how it decides


@given(multiplier=st.floats(1, 5), accepts=st.integers(0, 200), failures=st.integers(0, 200), maximum=st.floats(0, 0.99))
def test_the_probability_is_that_of_the_book(multiplier: float, accepts: int, failures: int, maximum: float) -> None:
    """max(0, (requests - K × accepts) / (requests + 1)), capped."""
    throttle = fed(Throttle(multiplier=multiplier, maximum=maximum, minimum_calls=1, random=NEVER), accepts, failures)
    requests = accepts + failures
    expected = min(maximum, max(0.0, (requests - multiplier * accepts) / (requests + 1)))
    refusal = throttle.refuse(0.0)

    assert refusal.probability == pytest.approx(expected)
    assert passes(throttle, 0.0)  # the die showed that it is none of those


def test_chance_is_asked_once_where_there_is_something_to_decide() -> None:
    """A call is refused where the die shows less than the probability."""
    throttle = fed(Throttle(random=(die := Die(0.79))), 1, 19)
    refused = [passes(throttle, 0.0)]
    die.shows = 0.95
    passed = passes(throttle, 0.0)
    die.shows = 0.0
    with pytest.raises(Throttled) as raised:
        throttle.admit(0.0)

    assert (refused, passed) == ([False], True)
    assert 0.7 < raised.value.probability < 0.9
    assert "of the calls are not sent" in str(raised.value)


@pytest.mark.parametrize(
    ("verdict", "requests", "accepts"),
    [(SUCCESS, 1, 1), (NOT_FOUND, 1, 1), (BUSY, 1, 0), (SLOW_DOWN, 1, 0), (CANCELLED, 0, 0), (REFUSED, 0, 0)],
    ids=lambda value: getattr(value, "reason", None),
)
async def test_what_counts_as_accepted_is_in_the_verdict(verdict: Verdict, requests: int, accepts: int) -> None:
    """An answer is, an overload is not, and what tells nothing does not count."""
    throttle = Throttle()
    throttle.admit(0.0).settle(verdict, 0.0, 0.0)
    seen = throttle.statistics()

    assert (seen.requests, seen.accepts, seen.in_flight) == (requests, accepts, 0)


async def test_errors_and_values_count_as_the_classifier_says() -> None:
    """The 503 that comes back as a value too; a cancelled call and one that was refused further in do not."""
    throttle = Throttle()
    pipeline = Pipeline(throttle, classify=VALUES)
    for outcome in (200, 503, ConnectionError()):
        with contextlib.suppress(ConnectionError):
            await pipeline.call(Script(outcome))
    with pytest.raises(BulkheadFull):
        await pipeline.call(Script(BulkheadFull()))
    async with cancelled_after(0.5):
        await pipeline.call(anyio.sleep, 5)
    seen = throttle.statistics()

    assert (seen.requests, seen.accepts, seen.in_flight) == (3, 1, 0)


async def test_calls_in_flight_speak_neither_for_nor_against() -> None:
    """A hundred at once at the start, to a server that is well: none is refused."""
    throttle = Throttle(minimum_calls=1, random=ALWAYS)
    permits = [throttle.admit(0.0) for _ in range(100)]
    await anyio.sleep(1.0)
    for permit in permits:
        permit.settle(SUCCESS, 1.0, 1.0)

    assert throttle.statistics() == ThrottleStatistics(100, 100, 0, 0.0, 0)


def test_a_few_failures_of_a_few_calls_are_not_enough() -> None:
    """Below `minimum_calls` nothing is refused."""
    assert passes(fed(Throttle(random=ALWAYS), 0, 9), 0.0)
    assert not passes(fed(Throttle(random=ALWAYS), 0, 10), 0.0)


def test_what_was_before_the_window_decides_nothing() -> None:
    """Also where no call came meanwhile: it expires when it is read, not when the next result is recorded."""
    throttle = fed(Throttle(window=0.2, random=ALWAYS), 0, 1000)
    during = sum(passes(throttle, 0.1) for _ in range(10))
    throttle = fed(Throttle(window=0.2, random=ALWAYS), 0, 1000)
    after = sum(passes(throttle, 2.2) for _ in range(1000))

    assert (during, after) == (0, 1000)


def simulate(throttle: Throttle, seconds: int, rate: int, capacity: float, start: float = 0.0) -> tuple[float, float]:
    """So many calls a second to a server that accepts `capacity` of them; how many a second were sent, and accepted."""
    sent = accepted = 0
    for second in range(seconds):
        room = capacity
        for number in range(rate):
            now = start + second + number / rate
            try:
                permit = throttle.admit(now)
            except Throttled:
                continue
            sent += 1
            room -= 1
            accepted += room >= 0
            permit.settle(SUCCESS if room >= 0 else SLOW_DOWN, 0.0, now)
    return sent / seconds, accepted / seconds


def test_an_overloaded_server_gets_a_multiple_of_what_it_accepts() -> None:
    """A thousand calls a second to one that can take a hundred: it gets about two hundred, and all its room is used."""
    throttle = Throttle(random=Random(7))
    simulate(throttle, 60, 1000, 100.0)
    sent, accepted = simulate(throttle, 60, 1000, 100.0, start=60.0)

    assert 170 < sent < 240
    assert accepted == pytest.approx(100.0, abs=1)


def test_it_recovers_by_itself() -> None:
    """After a minute in which nothing was accepted a tenth of the calls pass still, and show that the server is well again."""
    throttle = Throttle(random=Random(7))
    simulate(throttle, 60, 100, 0.0)
    while_down, _ = simulate(throttle, 10, 100, 0.0, start=60.0)
    simulate(throttle, 35, 100, 100.0, start=70.0)
    after, _ = simulate(throttle, 10, 100, 100.0, start=105.0)

    assert while_down == pytest.approx(10, abs=4)
    assert after == 100


# -- how it tells


async def test_a_refusal_is_told_and_nothing_is_sent() -> None:
    """As an exception of its own, with a reason code."""
    throttle, callee, told = fed(Throttle(random=ALWAYS, name="api"), 0, 20), Script(1), list[Event]()
    with listening(told.append), pytest.raises(Throttled) as raised:
        await throttle.call(callee)

    assert (callee.calls, raised.value.strategy, raised.value.retry_after) == (0, "api", None)
    assert [(event.strategy, event.reason) for event in told if isinstance(event, CallRejected)] == [("api", "throttled")]


async def test_it_can_be_retuned_and_keeps_what_it_counted() -> None:
    """Other thresholds, at once; counts of a window of another length mean something else."""
    throttle = fed(Throttle(random=NEVER), 10, 20)
    before = throttle.statistics()
    done = throttle.retune(Throttle(multiplier=1, maximum=0.5, minimum_calls=5, random=ALWAYS, name="new"))
    after = throttle.statistics()

    assert (done, throttle.name, throttle.minimum_calls) == (True, "new", 5)
    assert (before.requests, before.probability, after.requests, after.probability) == (30, 10 / 31, 30, 0.5)
    assert not passes(throttle, 0.0)  # it asks the new die
    assert not throttle.retune(Throttle(window=60))
    assert throttle.window == 10.0
