"""Hedging: what becomes of the legs that lost, of cancelled calls, budgets and streams; and what is told of it all."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest

from helpers import VALUES, Failure, cancelled_after
from resilient import clock
from resilient.observe.timeline import record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.budget import RetryBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.hedge import Hedge
from resilient.strategies.lingering import Lingering
from strategies.legs import Abrupt, Legs, Stubborn, told

pytestmark = pytest.mark.anyio


class Body(Lingering):
    """A value that lives on."""


# Values that lost


async def test_a_value_that_comes_too_late_is_discarded() -> None:
    """A leg that finishes in spite of its cancellation: nobody will use what it returns."""
    bodies = Body(), Body()

    assert await Hedge(1).call(Stubborn((4, bodies[0]), (1, bodies[1]))) is bodies[1]
    assert clock.now() == 4  # all legs are awaited
    assert [body.has_ended for body in bodies] == [True, False]


async def test_a_value_that_failed_is_discarded_when_there_is_something_better() -> None:
    """It was kept until then: it is what surfaces where there is nothing else."""
    disposed: list[int] = []
    hedge = Hedge(5, max_hedges=2, classify=VALUES, dispose=disposed.append)

    assert await hedge.call(Legs((1, 503), (1, 200))) == 200
    assert await hedge.call(Legs((1, 503))) == 503
    assert disposed == [503, 503, 503]


async def test_an_error_that_lost_is_not_disposed_of() -> None:
    """There is no value then."""
    disposed: list[object] = []
    hedge = Hedge(5, on=Failure, dispose=disposed.append)

    assert await hedge.call(Legs((1, Failure()), (1, "second"))) == "second"
    assert disposed == []


@pytest.mark.parametrize("is_async", [False, True])
async def test_disposing_may_be_a_function_of_either_kind(*, is_async: bool) -> None:
    """It is awaited, shielded from the cancellation of the leg."""
    disposed: list[str] = []

    async def close(value: str) -> None:
        await anyio.sleep(1)
        disposed.append(value)

    hedge = Hedge(1, dispose=close if is_async else disposed.append)

    assert await hedge.call(Stubborn((4, "first"), (1, "second"))) == "second"
    assert disposed == ["first"]


async def test_disposing_that_raises_does_not_hide_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """One line says so."""

    def close(_: object) -> None:
        raise Failure

    with caplog.at_level(logging.WARNING, logger="resilient"):
        assert await Hedge(1, dispose=close).call(Stubborn((4, "first"), (1, "second"))) == "second"

    lines = [(record.name, record.getMessage(), record.exc_info and record.exc_info[0]) for record in caplog.records]
    assert lines == [("resilient", "a value that lost was disposed of, which raised", Failure)]


async def test_disposing_is_bounded_in_time() -> None:
    """Five seconds, and the answer is handed out."""
    hedge = Hedge(1, dispose=lambda _: anyio.sleep_forever())

    assert await hedge.call(Stubborn((4, "first"), (1, "second"))) == "second"
    assert clock.now() == 9


async def test_what_is_kept_is_discarded_when_the_call_is_cancelled() -> None:
    """A failed value that would have surfaced, had the other leg failed as well."""
    disposed: list[int] = []
    async with cancelled_after(3) as scope:
        await Hedge(1, classify=VALUES, dispose=disposed.append).call(Legs((9, 200), (1, 503)))

    assert scope.cancelled_caught
    assert disposed == [503]


async def test_an_answer_is_handed_out_or_discarded() -> None:
    """The call is cancelled while the leg that lost still cleans up: the answer is not lost in between."""
    body, got = Body(), list[Body]()
    async with cancelled_after(3):
        got.append(await Hedge(1).call(Stubborn((5, None), (1, body))))

    assert (got == [body]) is not body.has_ended


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_an_answer_is_discarded_when_its_task_is_cancelled_natively() -> None:
    """As before, by other means."""
    body = Body()
    task = asyncio.create_task(Hedge(1).call(Stubborn((5, None), (1, body))))
    await asyncio.sleep(3)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    assert body.has_ended


async def test_an_error_that_comes_too_late_is_dropped() -> None:
    """Some turn their cancellation into an error of their own."""

    async def callee() -> str:
        calls.append(clock.now())
        if len(calls) > 1:
            return "second"
        try:
            await anyio.sleep(5)
        except anyio.get_cancelled_exc_class():
            raise Failure from None
        return "first"

    calls: list[float] = []

    assert await Hedge(1, on=Failure).call(callee) == "second"


# Cancellation


@pytest.mark.parametrize("seconds", [0, 0.5, 1, 1.5])
async def test_a_call_that_is_cancelled_leaves_nothing_behind(seconds: float) -> None:
    """All its legs are cancelled, and awaited."""
    callee = Legs((10, "value"))
    bulkhead = Bulkhead(2)
    async with cancelled_after(seconds) as scope:
        await Pipeline(Hedge(1), bulkhead).call(callee)

    assert scope.cancelled_caught
    assert (callee.active, bulkhead.statistics().active) == (0, 0)
    assert clock.now() == seconds


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("ticks", range(8))
async def test_a_task_that_is_cancelled_natively_while_it_is_decided(ticks: int) -> None:
    """Whatever came first, the call returns or is cancelled: never anything else, and nothing is left running."""
    release = asyncio.Event()
    active = 0

    async def callee() -> str:
        nonlocal active
        active += 1
        try:
            if active == 1:
                await anyio.sleep(10)
            await release.wait()
        finally:
            active -= 1
        return "second"

    task = asyncio.create_task(Hedge(1).call(callee))
    await asyncio.sleep(2)
    release.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled() is not was_done or task.result() == "second"
    assert was_done or task.cancelled()
    assert active == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_the_cancellation_of_a_leg_that_lost_may_be_replaced() -> None:
    """Some libraries raise a CancelledError of their own: it must not look like one from outside."""

    async def callee() -> str:
        calls.append(clock.now())
        if len(calls) > 1:
            return "second"
        with contextlib.suppress(asyncio.CancelledError):
            await anyio.sleep(5)
        raise asyncio.CancelledError  # not in the except: nothing refers to the one of anyio

    calls: list[float] = []

    assert await Hedge(1).call(callee) == "second"


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_cancellation_that_a_hedge_makes_up_ends_only_that_hedge() -> None:
    """A library's own CancelledError that nobody asked for: the original goes on, or what it ended with surfaces."""
    callee = Legs((5, "first"), (1, asyncio.CancelledError()))
    with record_timeline() as timeline:
        assert await Hedge(1).call(callee) == "first"

    assert told(timeline) == ["lost: cancelled"]
    with pytest.raises(Failure):
        await Hedge(1).call(Legs((1.5, Failure()), (1, asyncio.CancelledError())))


@pytest.mark.parametrize("legs", [[(1.5, Abrupt()), (9, None)], [(9, None), (1, Abrupt())]])
async def test_an_interruption_surfaces_as_it_is(legs: list[tuple[float, Any]]) -> None:
    """From any leg; no group is made of it."""
    callee = Legs(*legs)
    with pytest.raises(Abrupt):
        await Hedge(1).call(callee)

    assert callee.active == 0


async def test_a_hedge_that_is_decided_before_its_first_step_sends_nothing() -> None:
    """It was started in the same instant in which the original answered."""
    hedge = Hedge(1, budget=RetryBudget(floor=1), on=Failure)
    for order in range(2):
        callee = Legs((1, "first") if order else (1 - 1e-12, "first"))
        with record_timeline() as timeline:
            await hedge.call(callee)

        assert len(callee.at) <= 2
        assert told(timeline) in ([], ["lost: original_won"])


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_hedge_that_has_not_begun_is_not_begun() -> None:
    """The answer comes in one of the rounds of the loop in which the hedge is started: what was paid for nothing is refunded."""
    seen: set[tuple[int, tuple[str, ...], float]] = set()
    for rounds in range(8):
        budget = RetryBudget(floor=1, ratio=0)
        calls, began = 0, clock.now()

        async def callee(rounds: int, began: float) -> str:
            nonlocal calls
            calls += 1
            await anyio.sleep(began + 1 - clock.now() if calls == 1 else 60)
            for _ in range(rounds):
                await asyncio.sleep(0)
            return "first"

        with record_timeline() as timeline:
            assert await Hedge(1, budget=budget).call(callee, rounds, began) == "first"
        seen.add((calls, tuple(told(timeline)), budget.statistics().reserve))

    lost = ("lost: original_won",)
    assert seen == {(1, lost, 1.0), (2, lost, 0.0)}


# Streams


class Pages:
    """An async generator function: each stream of it takes its time to open."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.opened = 0
        self.closed: list[int] = []

    async def __call__(self) -> AsyncGenerator[str]:
        nth = self.opened
        self.opened += 1
        try:
            await anyio.sleep(self.seconds[nth])
            yield f"{nth}.1"
            yield f"{nth}.2"
        finally:
            self.closed.append(nth)


@pytest.mark.parametrize(("seconds", "winner"), [((9, 1), 1), ((3, 9), 0)])
async def test_the_opening_of_a_stream_can_be_hedged(seconds: tuple[float, float], winner: int) -> None:
    """The first to give an item is walked to its end; the other one is closed before."""
    source = Pages(*seconds)
    items: list[str] = []
    async for item in Hedge(1)(source.__call__)():
        assert source.closed == [1 - winner]
        items.append(item)

    assert items == [f"{winner}.1", f"{winner}.2"]


async def test_a_stream_that_comes_too_late_is_closed() -> None:
    """Both gave their first item in the same instant."""
    source = Pages(2, 1)
    items = [item async for item in Hedge(1)(source.__call__)()]

    assert len(items) == 2
    assert sorted(source.closed) == [0, 1]


@pytest.mark.parametrize("delay", [60, None])
async def test_a_generator_that_holds_a_scope_cannot_be_hedged(delay: float | None) -> None:
    """Its scope belongs to one task. It is refused always, not just when another task opened it."""

    @Hedge(delay)
    async def pages() -> AsyncGenerator[int]:
        with anyio.CancelScope():
            yield 1

    with pytest.raises(RuntimeError, match="cannot be hedged"):
        await anext(pages())


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_no_hedge_starts_while_a_cancelled_call_ends() -> None:
    """It is due in the very tick in which the first leg has heard of the cancellation: nobody would await it."""
    for rounds in range(8):
        steps: list[str] = []

        async def cancelled_at_once(steps: list[str], rounds: int) -> None:
            steps.append("begun")
            first = asyncio.current_task() if len(steps) == 1 else None
            try:
                for _ in range(rounds):
                    await asyncio.sleep(0)
                if first is not None:
                    first.cancel()
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                steps.append("cancelled")
                raise

        call = asyncio.create_task(Hedge(0).call(cancelled_at_once, steps, rounds))
        await asyncio.wait([call])
        await asyncio.sleep(1)

        assert call.cancelled()
        assert "begun" not in steps[steps.index("cancelled") :]
