"""Timeouts of streams, and generators that hold scopes of their own."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilient import clock
from resilient.errors import TimeoutExceeded
from resilient.observe.events import Event, TimedOut
from resilient.observe.listeners import listening
from resilient.outcome import Health
from resilient.pipeline import Pipeline
from resilient.strategies.timeout import Timeout
from strategies.sources import Counter, Source, cancel_scope, collect, retry

pytestmark = pytest.mark.anyio


@pytest.fixture
def gate() -> Counter:
    return Counter()


async def test_a_timeout_bounds_the_time_to_the_first_item(gate: Counter) -> None:
    """The opening takes a second."""
    source = Source()

    with pytest.raises(TimeoutExceeded):
        await anext(Pipeline(Timeout(0.5), gate)(source.items)())

    assert clock.now() == 0.5
    assert (source.closed, gate.active, gate.reasons) == (1, 0, ["cancelled"])


async def test_a_timeout_then_bounds_the_wait_for_each_further_item(gate: Counter) -> None:
    """The expiry closes the generator, is told as an event, and is a failure for gates."""
    events: list[Event] = []
    expired: list[float] = []
    closed: list[float] = []

    @Pipeline(Timeout(2, on_timeout=lambda: expired.append(clock.now())), gate)
    async def slower() -> AsyncIterator[int]:
        try:
            for seconds in (1, 1, 5, 1):
                await anyio.sleep(seconds)
                yield seconds
        finally:
            closed.append(clock.now())

    seen: list[int] = []
    with listening(events.append), pytest.raises(TimeoutExceeded) as caught:
        await collect(slower(), seen)

    assert (seen, caught.value.seconds) == ([1, 1], 2.0)
    assert expired == closed == [4.0]
    assert [event.at for event in events if isinstance(event, TimedOut)] == [4.0]
    assert (gate.active, gate.verdicts[0].health) == (0, Health.UNHEALTHY)


async def test_a_timeout_never_counts_the_time_of_the_consumer() -> None:
    """A consumer may take as long as it likes between items."""
    seen: list[int] = []

    async for item in Timeout(1.5)(Source().items)():
        seen.append(item)
        await anyio.sleep(100)

    assert seen == [0, 1, 2]


async def test_the_shortest_of_several_timeouts_counts_for_items() -> None:
    """Those of the whole call and of an attempt both bound each item."""
    for first, second in ((2, 30), (30, 2)):

        @Pipeline(Timeout(first), retry(), Timeout(second))
        async def slow() -> AsyncIterator[int]:
            yield 1
            await anyio.sleep(60)
            yield 2

        stream = slow()
        await anext(stream)
        with pytest.raises(TimeoutExceeded) as caught:
            await anext(stream)

        assert caught.value.seconds == 2.0


async def test_a_timeout_may_change_from_item_to_item() -> None:
    """A function as the limit is asked for each item; None is no limit."""
    limits: list[float | None] = [5, None, 5, 0.5]

    stream = Timeout(lambda: limits.pop(0))(Source().items)()

    assert [await anext(stream), await anext(stream), await anext(stream)] == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_timeout_error_of_the_generator_keeps_its_name() -> None:
    """Only the expiry of the limit is a `TimeoutExceeded`."""

    @Timeout(5)
    async def stream() -> AsyncIterator[int]:
        yield 1
        raise TimeoutError("mine")

    items = stream()
    await anext(items)

    with pytest.raises(TimeoutError, match="mine") as caught:
        await anext(items)
    assert not isinstance(caught.value, TimeoutExceeded)


@pytest.mark.parametrize("holds", [cancel_scope, anyio.create_task_group])
async def test_a_generator_that_holds_a_scope_cannot_be_opened_under_a_timeout(gate: Counter, holds: Any) -> None:
    """The error says what is wrong and what to do; the generator is closed in order and the task is as sane as before."""
    closed: list[bool] = []

    @Pipeline(Timeout(5), gate)
    async def holder() -> AsyncIterator[int]:
        try:
            async with holds():
                yield 1
        finally:
            closed.append(True)

    with anyio.CancelScope() as around:
        with pytest.raises(
            RuntimeError, match=r"holder> keeps a cancel scope or a task group open across a `yield`.*anyio\.fail_after"
        ):
            await anext(holder())
        around.cancel()
        await anyio.sleep(1)

    assert around.cancelled_caught
    assert (closed, gate.active) == ([True], 0)


async def test_a_generator_that_opens_a_scope_later_is_found_out_at_that_item(gate: Counter) -> None:
    """Each step is looked at."""

    @Pipeline(Timeout(5), gate)
    async def later() -> AsyncIterator[int]:
        yield 1
        with anyio.move_on_after(60):
            yield 2

    items = later()
    await anext(items)

    with pytest.raises(RuntimeError, match="across a `yield`"):
        await anext(items)
    assert gate.active == 0


async def test_a_generator_that_holds_a_scope_works_without_a_timeout(gate: Counter) -> None:
    """Retries and gates open no scope of their own around its steps."""

    @Pipeline(retry(), gate)
    async def holder() -> AsyncIterator[int]:
        with anyio.CancelScope():
            yield 1
            yield 2

    assert [item async for item in holder()] == [1, 2]
    assert gate.active == 0


async def test_a_scope_inside_of_one_step_is_no_problem() -> None:
    """It is closed before the item is handed out."""

    @Timeout(5)
    async def fine() -> AsyncIterator[int]:
        for number in range(2):
            with anyio.fail_after(1):
                await anyio.sleep(0.5)
            yield number

    assert [item async for item in fine()] == [0, 1]
