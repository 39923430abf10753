"""The sliding window: exact where it says so, wrong by no more than it says where it estimates."""

import tracemalloc
from datetime import timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient import clock
from resilient.context import deadline
from resilient.errors import CircuitOpen, RateLimited
from resilient.keyed import Keyed
from resilient.outcome import Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.gate import Permit
from resilient.strategies.sliding_window import SlidingWindow, SlidingWindowStatistics
from strategies.callers import Caller, tasks, ticks, ways_to_cancel

pytestmark = pytest.mark.anyio

REFUSED = Verdict(Kind.PERMANENT, Health.NEUTRAL, "circuit_open", rejected=True)
SECOND = 10**9  # nanoseconds
both = pytest.mark.parametrize("exact", [False, True], ids=["counters", "log"])


def taken(window: SlidingWindow, at: int, tokens: int = 1) -> Permit | None:
    """The permit for so many tokens at this nanosecond, or None where they are not there."""
    try:
        return window.admit(at / 1e9, tokens)
    except RateLimited:
        return None


def fullest(admitted: list[tuple[int, int]], span: int = SECOND) -> int:
    """The most tokens in any window."""
    return max((sum(n for at, n in admitted if begin <= at < begin + span) for begin, _ in admitted), default=0)


async def times(window: SlidingWindow, number: int, tokens: int = 1) -> list[float]:
    """When each of so many callers, who come at once, gets its tokens; in seconds from now."""
    started, got = anyio.current_time(), list[float]()

    async def call() -> None:
        await window.acquire(tokens)
        got.append(anyio.current_time() - started)

    async with tasks() as group:
        for _ in range(number):
            group.start_soon(call)
    return got


# -- settings


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"limit": 0}, ValueError, ["limit=0", "at least 1"]),
        ({"limit": 1.5}, TypeError, ["limit=1.5", "whole number"]),
        ({"limit": 1, "per": 0}, ValueError, ["per=0", "greater than 0"]),
        ({"limit": 1, "max_wait": -1}, ValueError, ["max_wait=-1", "at least 0"]),
    ],
)
def test_arguments_are_checked_at_construction(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    """The message names the parameter, the value and the range."""
    with pytest.raises(error) as raised:
        SlidingWindow(**settings)

    assert all(word in str(raised.value) for word in words)


def test_defaults() -> None:
    """A second, estimated, and callers wait as long as they may."""
    window = SlidingWindow(5)

    assert (window.limit, window.per, window.exact, window.max_wait, window.name) == (5, 1.0, False, None, "sliding_window")
    assert SlidingWindow(5, timedelta(minutes=1)).per == 60.0


@both
@pytest.mark.parametrize("tokens", [0, 11, 1.5])
def test_more_tokens_than_the_window_ever_holds_are_an_error(*, exact: bool, tokens: Any) -> None:
    """Waiting for them would never end; the message says what to change."""
    window = SlidingWindow(10, exact=exact)
    with pytest.raises((ValueError, TypeError), match=f"tokens={tokens}") as raised:
        window.acquire_nowait(tokens)

    assert tokens != 11 or "raise limit" in str(raised.value)


@both
async def test_it_shows_its_state(*, exact: bool) -> None:
    """Half a window later the estimate has half forgotten, the count has not."""
    window = SlidingWindow(4, 2.0, exact=exact, name="api")
    window.acquire_nowait(tokens=3)
    await anyio.sleep(3.0 if not exact else 1.0)

    shown = "3 of 4" if exact else "about 1.5 of 4"
    assert repr(window) == f"<SlidingWindow 'api': {shown} taken in the last 2 s, 0 queued>"
    assert window.statistics() == SlidingWindowStatistics(3 if exact else 1.5, 4, 0)


@both
async def test_siblings_have_the_same_settings_and_fresh_state(*, exact: bool) -> None:
    """A window that has forgotten everything equals a fresh one."""
    window = SlidingWindow(2, 2.0, exact=exact, max_wait=0, name="api")
    window.acquire_nowait()
    sibling = window.sibling()
    fresh = [window.is_fresh(clock.now()), sibling.is_fresh(clock.now())]
    await anyio.sleep(4.0)

    assert fresh == [False, True]
    assert window.is_fresh(clock.now())
    assert (sibling.limit, sibling.per, sibling.exact, sibling.max_wait, sibling.name) == (2, 2.0, exact, 0.0, "api")


async def test_each_key_has_a_window_of_its_own() -> None:
    """And one that is not empty is not forgotten."""
    keyed = Keyed(SlidingWindow(1, exact=True), max_keys=2)
    keyed["busy"].acquire_nowait()
    keyed["idle"].statistics()
    keyed["new"].acquire_nowait()

    assert ("busy" in keyed, "idle" in keyed, "new" in keyed) == (True, False, True)


def test_the_memory_of_the_estimate_does_not_grow_with_the_limit() -> None:
    """A few hundred bytes for a limit of a million."""
    template = SlidingWindow(10**6)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    siblings = [template.sibling() for _ in range(200)]
    for sibling in siblings:
        sibling.acquire_nowait()
    each = (tracemalloc.get_traced_memory()[0] - before) / len(siblings)
    tracemalloc.stop()

    assert each < 400


# -- exactness

unhurried = settings(max_examples=150)
gaps = st.one_of(st.just(0), st.integers(1, 1000), st.integers(0, 2 * SECOND), st.sampled_from([SECOND, SECOND - 1, SECOND // 2]))
steps = st.lists(
    st.tuples(gaps, st.integers(1, 6), st.sampled_from(["call", "call", "call", "refuse first", "refuse last"])), max_size=60
)


def play(window: SlidingWindow, steps: list[tuple[int, int, str]]) -> list[tuple[int, int]]:
    """When which tokens were sent: calls that were refused further in, at any time later, were not."""
    at, out = 5 * SECOND, list[tuple[int, int, Permit]]()
    for gap, wish, step in steps:
        at += gap
        tokens = min(wish, window.limit)
        if step == "call":
            permit = taken(window, at, tokens)
            if permit is not None:
                out.append((at, tokens, permit))
        elif out:
            out.pop(0 if step == "refuse first" else -1)[2].settle(REFUSED, 0.0, at / 1e9)
    return [(at, tokens) for at, tokens, _ in out]


def test_the_worst_window_of_the_estimate_is_as_bad_as_it_says() -> None:
    """A burst at the end of a window, and as much as it lets through in the next one: the bound is no exaggeration."""
    window, sent = SlidingWindow(10, max_wait=0), list[tuple[int, int]]()
    for at in (SECOND - 1, *range(SECOND, 2 * SECOND - 1, SECOND // 1000)):
        while taken(window, at):
            sent.append((at, 1))

    assert fullest(sent) == 20


def test_where_calls_come_evenly_the_estimate_is_right() -> None:
    """Twice as many as the limit allows: half of them go, for ever, and a window holds the limit, or one more."""
    window, sent = SlidingWindow(10, max_wait=0), list[tuple[int, int]]()
    for at in range(0, 10 * SECOND, SECOND // 20):
        if taken(window, at):
            sent.append((at, 1))

    assert fullest(sent) <= 11
    assert len(sent) == 100


@unhurried
@given(
    limit=st.integers(1, 5),
    exact=st.booleans(),
    past=st.lists(st.tuples(gaps, st.integers(1, 5)), max_size=12),
    weights=st.one_of(st.lists(st.just(1), max_size=12), st.just([])),
    wish=st.integers(1, 5),
)
def test_the_time_that_it_foretells_is_when_the_tokens_are_there(
    *, limit: int, exact: bool, past: list[tuple[int, int]], weights: list[int], wish: int
) -> None:
    """Behind any number of single ones: not a nanosecond earlier, and not later."""
    window, at = SlidingWindow(limit, exact=exact), 0
    for gap, tokens in past:
        at += gap
        taken(window, at, min(tokens, limit))
    wanted = [*weights, min(wish, limit)]
    foretold = round(window._delay(at / 1e9, wanted[-1], sum(weights)) * 1e9)  # pyright: ignore[reportPrivateUsage]
    then = at
    for tokens in wanted:
        wait = round(window._delay(then / 1e9, tokens) * 1e9)  # pyright: ignore[reportPrivateUsage]
        if wait:
            assert taken(window, then + wait - 1, tokens) is None
        then += wait
        assert taken(window, then, tokens) is not None

    assert then - at == foretold


@both
async def test_a_window_that_lives_through_another_clock_is_full_at_worst(*, exact: bool) -> None:
    """A module's window in tests: each test starts its clock anew."""
    window = SlidingWindow(2, exact=exact)
    window.admit(1e6)
    window.admit(1e6)
    got = await times(window, 2)

    assert got[-1] <= 2.0


def test_a_clock_that_has_gone_back_makes_no_room() -> None:
    """However often one asks, for one token or for all; and what was taken in a time that never was does not come back."""
    window = SlidingWindow(3, exact=True, max_wait=0)
    early = [taken(window, 100 * SECOND), taken(window, 100 * SECOND)]
    seen = [taken(window, 50 * SECOND, tokens) is None for tokens in (3, 2, 3)]
    early[0].settle(REFUSED, 0.0, 50.0)  # type: ignore[union-attr]  # it was granted

    assert seen == [True, True, True]
    assert taken(window, 50 * SECOND, 2) is None
    assert taken(window, 51 * SECOND, 3) is not None


def test_what_fits_now_is_not_waited_for() -> None:
    """At the very beginning of a window too, where that before still counts in full."""
    window = SlidingWindow(4, max_wait=0)
    for _ in range(2):
        taken(window, 0)

    assert window.ready_in(1.0) == 0.0


# -- waiting


@pytest.mark.parametrize(("exact", "expected"), [(True, [0, 0, 0, 1, 1, 1, 2]), (False, [0, 0, 0, 7 / 6, 9 / 6, 11 / 6, 13 / 6])])
async def test_callers_wait_for_their_turn(*, exact: bool, expected: list[float]) -> None:
    """A burst is let go again as a burst by the log, and evened out by the estimate."""
    got = await times(SlidingWindow(3, exact=exact), 7)

    assert got == [pytest.approx(at, abs=5e-6) for at in expected]


@both
async def test_waiters_are_served_first_come_first_served(*, exact: bool) -> None:
    """Whoever wants many is not starved by those who want one and came later."""
    window = SlidingWindow(5, exact=exact)
    window.acquire_nowait(5)
    order: list[int] = []

    async def call(tokens: int) -> None:
        await window.acquire(tokens)
        order.append(tokens)

    async with tasks() as group:
        for tokens in (1, 5, 2):
            group.start_soon(call, tokens)
            await ticks(2)
        with pytest.raises(RateLimited):
            window.acquire_nowait()
        queued = window.statistics().queued

    assert (queued, order) == (3, [1, 5, 2])


@both
async def test_what_would_take_too_long_is_refused_at_once(*, exact: bool) -> None:
    """Longer than `max_wait`, or than the deadline; the error says when to come again."""
    patient, hurried = SlidingWindow(1, exact=exact), SlidingWindow(1, exact=exact, max_wait=0.5)
    for window in (patient, hurried):
        window.acquire_nowait()
    expected = 1.0 if exact else 1.5
    with pytest.raises(RateLimited) as by_setting:
        await hurried.acquire()
    with pytest.raises(RateLimited) as by_deadline, deadline(0.9):
        await patient.acquire()

    assert clock.now() == 0.0
    assert (by_setting.value.retry_after, by_deadline.value.retry_after) == (expected, expected)
    assert (hurried.ready_in(0.0), patient.ready_in(0.0)) == (expected - 0.5, 0.0)


@both
async def test_cancelled_waiters_leave_nothing_behind(*, exact: bool) -> None:
    """The next caller waits as if they had never been."""
    for how in ways_to_cancel():
        window = SlidingWindow(1, exact=exact)
        window.acquire_nowait()
        waiters = [Caller(window) for _ in range(20)]
        async with tasks() as group:
            for waiter in waiters:
                group.start_soon(waiter.run)
            await ticks(3)
            for waiter in waiters:
                waiter.cancel(how)
        before = anyio.current_time()
        await window.acquire()

        assert anyio.current_time() - before <= 2.0
        assert window._wanted == 0  # pyright: ignore[reportPrivateUsage]  # no ghosts
        await anyio.sleep(2.0 - anyio.current_time() % 2.0)


# -- what comes back


@both
async def test_a_call_that_an_inner_gate_refused_costs_nothing(*, exact: bool) -> None:
    """Nothing was sent; what was refused long ago changes nothing either."""
    window, breaker = SlidingWindow(3, exact=exact), CircuitBreaker()
    breaker.isolate()
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            await Pipeline(window, breaker).call(anyio.sleep, 0)
    seen = window.statistics().taken
    first, second = window.acquire_nowait(2), window.acquire_nowait()
    await anyio.sleep(1.0)
    second.settle(CircuitOpen())
    await anyio.sleep(1.0)
    window.acquire_nowait(3)
    first.settle(CircuitOpen())

    assert seen == 0
    assert window.statistics().taken == 3


async def test_what_was_taken_in_the_window_before_comes_back_there() -> None:
    """It counts there by its share, and no more once it was put back; what is older still is gone anyway."""
    window = SlidingWindow(10, per=1)
    early, late = window.acquire_nowait(), window.acquire_nowait()
    await anyio.sleep(1.5)
    before = window.statistics().taken
    early.settle(CircuitOpen())
    after = window.statistics().taken
    await anyio.sleep(5)
    late.settle(CircuitOpen())

    assert (before, after, window.statistics().taken) == (1.0, 0.5, 0.0)


# -- retuning


@both
async def test_it_can_be_retuned_and_keeps_what_it_counted(*, exact: bool) -> None:
    """More room lets those who wait go at once; less makes others wait."""
    window, got = SlidingWindow(2, exact=exact), list[float]()
    window.acquire_nowait(2)

    async def call() -> None:
        await window.acquire()
        got.append(anyio.current_time())

    async with tasks() as group:
        group.start_soon(call)
        await anyio.sleep(0.5)
        wider = window.retune(SlidingWindow(3, exact=exact, max_wait=0, name="new"))
    now = window.statistics()
    narrower = window.retune(SlidingWindow(1, exact=exact))

    assert (wider, got, now.taken, now.limit) == (True, [0.5], 3, 3)
    assert (narrower, window.name, window.max_wait, window.statistics().taken) == (True, "sliding_window", None, 1)


async def test_state_of_another_shape_is_not_taken_over() -> None:
    """The caller puts a fresh one in its place; a log fits windows of every length."""
    counters, log = SlidingWindow(2), SlidingWindow(2, exact=True)

    assert not counters.retune(SlidingWindow(2, exact=True))
    assert not counters.retune(SlidingWindow(2, 60))
    assert not log.retune(SlidingWindow(2))
    assert log.retune(SlidingWindow(2, 60, exact=True))
    assert (counters.per, log.per) == (1.0, 60.0)


async def test_a_waiter_that_wants_more_than_there_is_after_retuning_takes_what_there_is() -> None:
    """It would block the line for ever otherwise."""
    window = SlidingWindow(4, exact=True)
    window.acquire_nowait(4)
    async with tasks() as group:
        group.start_soon(window.acquire, 4)
        await ticks(3)
        window.retune(SlidingWindow(2, exact=True))

    assert anyio.current_time() == pytest.approx(1.0)
    assert window.statistics().taken == 2
