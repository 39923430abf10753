"""Streams that are cancelled, fail to clean up, or are lost: nothing is left behind."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from resilient import clock
from resilient.context import Attempt
from resilient.errors import RateLimited, TimeoutExceeded
from resilient.pipeline import Pipeline
from resilient.strategies.base import Step, Strategy
from resilient.strategies.fallback import Fallback
from resilient.strategies.timeout import Timeout
from strategies.sources import Counter, Source, cancel_scope, retry

pytestmark = pytest.mark.anyio


@pytest.fixture
def gate() -> Counter:
    return Counter()


async def test_cancelling_the_wait_for_the_first_item_leaves_nothing_behind(gate: Counter) -> None:
    """The generator is closed, the permit is back, and nothing was learnt."""
    source = Source()

    with anyio.move_on_after(0.5) as scope:
        await anext(Pipeline(retry(), gate)(source.items)())

    assert scope.cancelled_caught
    assert (source.closed, gate.active, gate.reasons) == (1, 0, ["cancelled"])


async def test_cancelling_the_wait_for_a_further_item_leaves_nothing_behind(gate: Counter) -> None:
    """Also through the scopes of timeouts, which do not take the cancellation for theirs."""
    source = Source()

    with anyio.move_on_after(1.5) as scope:
        async for _ in Pipeline(Timeout(60), retry(), Timeout(30), gate)(source.items)():
            pass

    assert scope.cancelled_caught
    assert (source.closed, gate.active, gate.reasons) == (1, 0, ["cancelled"])


async def test_cancelling_the_consumer_between_items_gives_permits_back(gate: Counter) -> None:
    """The clean-up of the generator is cancelled too, as that of a plain one; the permit comes back all the same."""

    @Pipeline(Timeout(5), gate)
    async def unclean() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(1)

    with anyio.move_on_after(3):
        async with contextlib.aclosing(unclean()) as stream:
            await anext(stream)
            await anyio.sleep(60)

    assert (clock.now(), gate.active, gate.reasons) == (3.0, 0, ["abandoned"])


async def test_a_clean_up_that_fails_surfaces_and_gives_permits_back(gate: Counter) -> None:
    """As from a plain generator."""

    @Pipeline(gate)
    async def unclean() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("clean-up")

    stream = unclean()
    await anext(stream)

    with pytest.raises(KeyError, match="clean-up"):
        await stream.aclose()
    assert gate.active == 0


class Late(Strategy):
    """Does something after the call, and so can lose its value."""

    async def run(self, call: Step, attempt: Attempt) -> Any:
        value = await call(attempt)
        await anyio.sleep(10)
        return value


async def test_a_stream_that_was_opened_by_a_call_that_was_then_cut_off_is_closed(gate: Counter) -> None:
    """The first item was there, the call around ran out of time: nobody will ever see the stream."""
    source = Source()

    with pytest.raises(TimeoutExceeded):
        await anext(Pipeline(Timeout(5), Late(), gate)(source.items)())

    assert (source.opened, source.closed) == (1, 1)
    assert (gate.active, gate.reasons) == (0, ["abandoned"])


async def test_a_stream_that_is_lost_to_a_cancellation_is_closed_with_time_to_clean_up(gate: Counter) -> None:
    """The clean-up is shielded: it may await, though the call is cancelled."""
    closed: list[float] = []

    @Pipeline(Late(), gate)
    async def careful() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(1)
            closed.append(clock.now())

    with anyio.move_on_after(5):
        await anext(careful())

    assert closed == [6.0]
    assert gate.active == 0


async def test_a_discarded_stream_gets_five_seconds_to_clean_up(gate: Counter) -> None:
    """One that hangs cannot hold its permit for ever."""

    @Pipeline(Late(), gate)
    async def stuck() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep_forever()

    with anyio.move_on_after(5):
        await anext(stuck())

    assert (clock.now(), gate.active) == (10.0, 0)


async def test_a_discarded_stream_that_fails_to_clean_up_does_not_hide_how_the_call_ended(
    gate: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged, the time-out surfaces."""

    @Pipeline(Timeout(5), Late(), gate)
    async def unclean() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyError

    with caplog.at_level(logging.WARNING, "resilient"), pytest.raises(TimeoutExceeded):
        await anext(unclean())

    assert "unclean> was discarded, and raised while it was closed" in caplog.text
    assert gate.active == 0


class Rejecting(Strategy):
    """Takes the value and raises."""

    async def run(self, call: Step, attempt: Attempt) -> Any:
        await call(attempt)
        raise RateLimited("rejecting")


@pytest.mark.parametrize("holds", [cancel_scope, anyio.create_task_group])
async def test_a_discarded_stream_that_holds_a_scope_is_closed_in_order(gate: Counter, holds: Any) -> None:
    """No shield is put around what must be closed inside of it."""
    closed: list[bool] = []

    @Pipeline(Fallback([]), Rejecting(), gate)
    async def holder() -> AsyncIterator[int]:
        try:
            async with holds():
                yield 1
        finally:
            closed.append(True)

    assert [item async for item in holder()] == []
    assert (closed, gate.active) == ([True], 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.5, 3.5])
async def test_native_cancellation_of_asyncio_leaves_nothing_behind(gate: Counter, seconds: float) -> None:
    """In the opening, at the moment of the first item, in a later step, and while the consumer works."""
    source = Source()

    async def consume() -> None:
        async with contextlib.aclosing(Pipeline(Timeout(30), retry(), Timeout(20), gate)(source.items)(2)) as stream:
            async for _ in stream:
                pass
            await anyio.sleep(60)

    task = asyncio.ensure_future(consume())
    await anyio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (source.opened, source.closed, gate.active) == (1, 1, 0)


class Twice(Strategy):
    """Opens two streams, of which one is lost."""

    async def run(self, call: Step, attempt: Attempt) -> Any:
        await call(attempt)
        return await call(attempt.again())


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_native_cancellation_while_streams_are_discarded_loses_no_permit(gate: Counter) -> None:
    """A shield does not keep it off: the clean-up is cut short, and every permit is back."""

    @Pipeline(Late(), Twice(), gate)
    async def slow_to_close() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(3)

    async def consume() -> None:
        await anext(slow_to_close())

    task = asyncio.ensure_future(consume())
    await anyio.sleep(5)
    task.cancel()
    await anyio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (clock.now(), gate.active) == (9.0, 0)


async def test_of_two_streams_that_were_opened_only_the_one_that_is_handed_out_stays_open(gate: Counter) -> None:
    """A strategy of one's own need not think of streams that it loses."""
    source = Source()

    assert [item async for item in Pipeline(Twice(), gate)(source.items)(1)] == [0]
    assert (source.opened, source.closed) == (2, 2)
    assert gate.reasons == ["abandoned", "success"]
