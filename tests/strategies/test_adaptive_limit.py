"""The adaptive limit as a strategy: what it learns from, and that its slots are those of a bulkhead."""

import contextlib
import tracemalloc
from random import Random
from typing import Any

import anyio
import pytest

from helpers import Failure, Script, cancelled_after, on_errors
from resilient import clock
from resilient.context import deadline
from resilient.errors import BulkheadFull, DeadlineExceeded
from resilient.keyed import Keyed
from resilient.observe.events import Event, LimitChanged
from resilient.observe.listeners import listening
from resilient.observe.timeline import record_timeline
from resilient.outcome import CANCELLED, SUCCESS, Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.adaptive_limit import (
    AdaptiveLimit,
    AdaptiveLimitStatistics,
    _entered,  # pyright: ignore[reportPrivateUsage]  what a block keeps, and lets go of
)
from resilient.strategies.lingering import Lingering
from resilient.strategies.outbox import announce
from resilient.testing import disabled
from strategies.callers import Caller, tasks, ticks

pytestmark = pytest.mark.anyio

HEALTHY = Verdict(Kind.PERMANENT, Health.HEALTHY, "http_404")
BUSY = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", throttled=True)
DOWN = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503")
REFUSED = Verdict(Kind.PERMANENT, Health.NEUTRAL, "circuit_open", rejected=True)


def settled(limit: AdaptiveLimit, verdict: Verdict, latency: float = 0.1, busy: int = 1) -> AdaptiveLimitStatistics:
    """The limit after a window of such outcomes, with so many calls in flight."""
    start = limit._concurrency.heard_at if limit._concurrency.heard_at > 0 else 0.0  # pyright: ignore[reportPrivateUsage]
    for _ in range(busy - 1):
        limit.admit(start)
    for index in range(21):
        limit.admit(start)
        limit.settle(verdict, latency, start + 1 + index / 20)
    for _ in range(busy - 1):
        limit.settle(CANCELLED, 0.0, start)
    return limit.statistics()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"initial": 0}, ValueError, ["initial=0", "at least 1"]),
        ({"initial": 1.5}, TypeError, ["initial=1.5", "whole number"]),
        ({"initial": 300}, ValueError, ["initial=300", "maximum=200"]),
        ({"minimum": 0}, ValueError, ["minimum=0", "at least 1"]),
        ({"minimum": 9, "maximum": 8}, ValueError, ["maximum=8", "at least 9"]),
        ({"initial": 4, "minimum": 5}, ValueError, ["initial=4", "at least 5"]),
        ({"max_queue": -1}, ValueError, ["max_queue=-1"]),
        ({"queue_timeout": 1.0}, ValueError, ["queue_timeout=1.0", "max_queue"]),
    ],
)
def test_arguments_are_checked_at_construction(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    """The message names the parameter, the value and the range."""
    with pytest.raises(error) as raised:
        AdaptiveLimit(**settings)

    assert all(word in str(raised.value) for word in words)


def test_defaults_and_what_it_shows() -> None:
    """Twenty at first, or what of it is in the range; then also what is known of the service."""
    limit = AdaptiveLimit(max_queue=3, name="db")
    shown = repr(limit)
    settled(limit, SUCCESS, 0.1)

    assert shown == "<AdaptiveLimit 'db': 0 of 20 active, 0 of 3 queued, limit 1 to 200>"
    assert repr(limit) == "<AdaptiveLimit 'db': 0 of 20 active, 0 of 3 queued, limit 1 to 200, 100 ms where there is room>"
    seen = limit.statistics()
    assert seen.baseline == pytest.approx(0.1)
    assert (seen.limit, seen.minimum, seen.maximum, seen.max_queue) == (20, 1, 200, 3)
    assert (AdaptiveLimit(maximum=5).limit, AdaptiveLimit(minimum=30).limit, AdaptiveLimit(7).initial) == (5, 30, 7)


@pytest.mark.parametrize(
    ("verdict", "limit", "learns"),
    [
        (SUCCESS, 22, True),
        (HEALTHY, 22, True),
        (BUSY, 10, False),
        (DOWN, 10, False),
        (CANCELLED, 20, False),
        (REFUSED, 20, False),
    ],
)
def test_it_learns_from_healthy_outcomes_and_drops_and_from_nothing_else(verdict: Verdict, limit: int, *, learns: bool) -> None:
    """A 404 is an answer as good as any; a 429 and a failure are drops; what is neutral says nothing."""
    adaptive = AdaptiveLimit()
    seen = settled(adaptive, verdict, busy=12)

    assert seen.limit == limit
    assert (seen.baseline is not None) is learns
    assert seen.active == 0


async def test_a_pipeline_says_what_its_outcomes_mean_and_a_classifier_of_its_own_wins() -> None:
    """By itself every exception is a drop."""
    by_itself, in_pipeline, own = AdaptiveLimit(), AdaptiveLimit(), AdaptiveLimit(classify=on_errors(HEALTHY))
    pipeline = Pipeline(in_pipeline, classify=on_errors(HEALTHY))
    for call in (by_itself.call, pipeline.call, own.call):
        for _ in range(22):
            with pytest.raises(Failure):
                await call(Script(Failure(), seconds=0.1))

    assert [each.statistics().limit for each in (by_itself, in_pipeline, own)] == [10, 20, 20]
    assert [each.statistics().baseline for each in (by_itself, in_pipeline, own)] == [
        None,
        pytest.approx(0.1),
        pytest.approx(0.1),
    ]


async def test_it_grows_under_load_and_lets_those_in_who_wait() -> None:
    """A limit of two in front of a service that takes all: a new slot goes to the first in line at once."""
    limit = AdaptiveLimit(2, max_queue=100)
    done: list[float] = []
    running = peak = 0

    @limit
    async def call() -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await anyio.sleep(0.1)
        running -= 1
        done.append(clock.now())

    async with tasks() as group:
        for _ in range(100):
            group.start_soon(call)

    assert len(done) == 100
    assert peak > 2
    assert limit.statistics().active == 0


async def test_where_it_shrinks_nobody_is_let_in_until_it_fits() -> None:
    """Slots that come back are handed to nobody meanwhile; then the line moves on."""
    limit = AdaptiveLimit(3, max_queue=10)
    callers = [Caller(limit) for _ in range(5)]
    async with tasks() as group:
        for caller in callers:
            group.start_soon(caller.run)
            await ticks(3)
        limit.resize(1)
        with pytest.raises(BulkheadFull):
            limit.acquire_nowait()
        seen: list[list[str]] = []
        for caller in callers[:3]:
            caller.leave.set()
            await ticks(5)
            seen.append([each.state for each in callers[3:]])
        limit.resize(2)
        await ticks(5)
        seen.append([each.state for each in callers[3:]])
        for caller in callers:
            caller.leave.set()

    assert seen == [["waiting", "waiting"], ["waiting", "waiting"], ["inside", "waiting"], ["inside", "inside"]]
    assert limit.statistics().active == 0


async def test_a_block_tells_how_long_it_took_and_how_it_ended() -> None:
    """Also where blocks of several limits are inside of one another, and are left in another order."""
    outer, inner = AdaptiveLimit(), AdaptiveLimit()
    for _ in range(22):
        async with outer:
            await anyio.sleep(0.1)
            async with inner:
                await anyio.sleep(0.2)
    crossed, other = AdaptiveLimit(), AdaptiveLimit()
    for _ in range(22):
        await crossed.__aenter__()
        await anyio.sleep(0.1)
        await other.__aenter__()
        await crossed.__aexit__(None, None, None)
        await other.__aexit__(None, None, None)
    failing = AdaptiveLimit()
    for _ in range(22):
        with contextlib.suppress(Failure):
            async with failing:
                await anyio.sleep(0.1)
                raise Failure

    assert outer.statistics().baseline == pytest.approx(0.3)
    assert inner.statistics().baseline == pytest.approx(0.2)
    assert crossed.statistics().baseline == pytest.approx(0.1)
    assert failing.statistics().limit == 10
    assert {each.statistics().active for each in (outer, inner, crossed, failing)} == {0}


class Noted(AdaptiveLimit):
    """Notes what it hears."""

    def __init__(self, heard: list[tuple[str, str, float]], name: str) -> None:
        super().__init__(name=name, classify=on_errors(DOWN))
        self.heard = heard

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self.heard.append((self.name, verdict.reason, latency))
        super().settle(verdict, latency, now)


async def test_blocks_may_be_left_in_any_order() -> None:
    """Each is told how long it took and how it ended, and nothing is kept of it."""
    heard: list[tuple[str, str, float]] = []
    first, second, third = (Noted(heard, name) for name in ("first", "second", "third"))
    before = _entered.get()
    for limit in (first, second, third):
        await limit.__aenter__()
        await anyio.sleep(1)
    await second.__aexit__(Failure, Failure(), None)
    await first.__aexit__(None, None, None)
    await third.__aexit__(None, None, None)

    assert heard == [("second", "http_503", 2), ("first", "success", 3), ("third", "success", 1)]
    assert _entered.get() == before


async def test_a_block_that_another_task_leaves_gives_its_slot_back_and_tells_nothing() -> None:
    """Nobody knows when it was entered."""
    limit = AdaptiveLimit()
    active: list[int] = []
    async with tasks() as group:
        for _ in range(22):
            group.start_soon(limit.__aenter__)
            await anyio.sleep(0.1)
            active.append(limit.statistics().active)
            await limit.__aexit__(None, None, None)

    assert set(active) == {1}
    assert (limit.statistics().active, limit.statistics().baseline) == (0, None)


async def test_a_cancelled_call_tells_nothing() -> None:
    """However long it took."""
    limit = AdaptiveLimit()
    for _ in range(25):
        async with cancelled_after(0.1):
            await limit.call(anyio.sleep, 10)

    assert limit.statistics() == AdaptiveLimit().statistics()


class Body(Lingering):
    """A value that is still in use after the call returned."""


async def test_a_value_that_lives_on_holds_its_slot_and_its_sample_is_that_of_the_return() -> None:
    """A response that is read for an hour was quick all the same."""
    limit = AdaptiveLimit()
    active: list[int] = []
    for _ in range(22):
        body: Body = await limit.call(Script(Body(), seconds=0.1))
        active.append(limit.statistics().active)
        await anyio.sleep(60)
        body.ended()

    assert set(active) == {1}
    assert limit.statistics().active == 0
    assert limit.statistics().baseline == pytest.approx(0.1)


async def test_a_wait_is_bounded_as_that_of_a_bulkhead() -> None:
    """By the queue, its timeout, and the deadline of the call."""
    limit = AdaptiveLimit(1, maximum=1, max_queue=1, queue_timeout=1.0)
    async with limit:
        started = clock.now()
        with pytest.raises(BulkheadFull) as raised:
            await limit.acquire()
        waited = clock.now() - started
        with pytest.raises(DeadlineExceeded), deadline(0.5):
            await limit.acquire()

    assert (waited, raised.value.waited) == (1.0, 1.0)
    assert limit.statistics().active == 0


def test_a_change_is_told_to_those_who_listen() -> None:
    """And not made where nobody does."""
    limit, told = AdaptiveLimit(name="db"), list[Event]()
    settled(limit, SUCCESS, busy=12)
    silent = limit.outbox
    with listening(told.append):
        settled(limit, DOWN, busy=12)
        announce(limit)

    assert not silent
    (change,) = told
    assert isinstance(change, LimitChanged)
    assert (change.strategy, change.old, change.new, change.why) == ("db", 22, 11, "drops")


async def test_a_change_is_a_row_of_the_timeline_of_the_call_that_brought_it_about() -> None:
    """A block tells it too, and belongs to no call."""
    limit, block = AdaptiveLimit(4, name="db"), AdaptiveLimit(4, name="db")
    with record_timeline() as timeline:
        for _ in range(22):
            with contextlib.suppress(Failure):
                await limit.call(Script(Failure(), seconds=0.1))
    told: list[Event] = []
    with listening(told.append):
        for _ in range(22):
            with contextlib.suppress(Failure):
                async with block:
                    await anyio.sleep(0.1)
                    raise Failure
    (change,) = (event for event in timeline.events if isinstance(event, LimitChanged))

    assert (change.old, change.new, change.why, change.call_id > 0) == (4, 2, "drops", True)
    assert "db 4 → 2, drops" in timeline.render()
    assert [(type(event), event.call_id) for event in told] == [(LimitChanged, 0)]


def test_siblings_have_the_same_settings_and_fresh_state() -> None:
    """One that has not heard of anything for long is as good as new, and may be forgotten for another key."""
    random, classify = Random(1), on_errors(DOWN)
    limit = AdaptiveLimit(5, minimum=2, maximum=9, max_queue=1, queue_timeout=2.0, name="db", random=random, classify=classify)
    fresh_at_first = limit.is_fresh(0.0)
    permit = limit.admit(0.0)
    while_busy = limit.is_fresh(0.0)
    assert permit is limit
    limit.settle(SUCCESS, 0.1, 1.0)
    sibling = limit.sibling()

    assert (fresh_at_first, while_busy, limit.is_fresh(2.0), limit.is_fresh(601.0)) == (True, False, False, True)
    assert sibling.statistics() == AdaptiveLimitStatistics(0, 0, 5, None, probing=False, minimum=2, maximum=9, max_queue=1)
    assert (sibling.queue_timeout, sibling.name, sibling.is_fresh(2.0)) == (2.0, "db", True)
    assert (sibling._random, sibling.classifier) == (random, classify)  # pyright: ignore[reportPrivateUsage]  chance shows late


def test_keys_have_limits_of_their_own_and_take_little_room() -> None:
    """What one service takes says nothing of another; a thousand that have learned something take half a megabyte."""
    keyed = Keyed(AdaptiveLimit(), max_keys=10_000)
    settled(keyed["slow"], DOWN, busy=12)
    limits = keyed["slow"].limit, keyed["other"].limit
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for key in range(1000):
        settled(keyed[str(key)], SUCCESS)
    each = (tracemalloc.get_traced_memory()[0] - before) / 1000
    tracemalloc.stop()

    assert limits == (10, 20)
    assert each <= 1000


def test_settings_can_be_changed_and_what_was_learned_stays() -> None:
    """The limit moves only as far as the new range asks for. One that has learned nothing begins at the new place."""
    limit, unused = AdaptiveLimit(), AdaptiveLimit()
    settled(limit, SUCCESS, busy=12)
    template = AdaptiveLimit(8, minimum=2, maximum=21, max_queue=4, queue_timeout=1.0, classify=on_errors(DOWN), name="new")
    results = limit.retune(template), unused.retune(template)

    assert results == (True, True)
    seen = limit.statistics()
    assert seen.baseline == pytest.approx(0.1)
    assert (seen.limit, seen.minimum, seen.maximum, seen.max_queue) == (21, 2, 21, 4)
    assert (limit.queue_timeout, limit.name, limit.classifier) == (1.0, "new", template.classifier)
    assert (unused.limit, unused.sibling().limit) == (8, 8)


async def test_while_strategies_are_disabled_nobody_is_refused() -> None:
    """What was entered then may be left later."""
    limit = AdaptiveLimit(1, maximum=1)
    async with limit:
        with disabled():
            async with limit:
                await limit.call(anyio.sleep, 0)
        with pytest.raises(BulkheadFull):
            limit.acquire_nowait()

    assert limit.statistics().active == 0


async def test_a_classifier_of_values_is_asked_too() -> None:
    """A response that says 503 is a drop."""

    def values(value: Any) -> Verdict | None:
        return DOWN if value == 503 else None

    limit = AdaptiveLimit(classify=Classifier(lambda _error: None, values))
    for _ in range(22):
        await limit.call(Script(503, seconds=0.1))

    assert limit.limit == 10
