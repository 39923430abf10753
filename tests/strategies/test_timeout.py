import asyncio
import math
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import anyio
import pytest

from helpers import Failure, Fatal, Script, cancelled_after
from resilient import clock
from resilient.errors import ResilienceError, TimeoutExceeded
from resilient.observe.events import TimedOut
from resilient.observe.timeline import record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.fallback import Fallback
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio

asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


# Its own expiry


async def test_what_is_in_time_is_not_touched() -> None:
    """A value and an error pass through as they are."""
    with pytest.raises(Failure):
        await Timeout(5).call(Script(Failure(), seconds=4))

    assert await Timeout(5).call(Script("value", seconds=4)) == "value"


async def test_what_takes_longer_is_cut_off() -> None:
    """Exactly at the limit; the error names it, and is a TimeoutError too."""
    with pytest.raises(TimeoutExceeded, match="within 5 s") as caught:
        await Timeout(5).call(anyio.sleep, 10)

    assert (clock.now(), caught.value.seconds) == (5, 5)
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, ResilienceError)


async def test_the_error_has_no_context() -> None:
    """The cancellation is how it is done, not why."""
    with pytest.raises(TimeoutExceeded) as caught:
        await Timeout(5).call(anyio.sleep, 10)

    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


async def test_the_clean_up_of_the_callee_is_awaited() -> None:
    """Nothing of it runs on when the call has returned (goresilience leaks here)."""
    cleaned = False

    async def callee() -> None:
        nonlocal cleaned
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            cleaned = True

    with pytest.raises(TimeoutExceeded):
        await Timeout(5).call(callee)

    assert (cleaned, clock.now()) == (True, 6)


async def test_an_error_of_the_clean_up_surfaces() -> None:
    """It is the callee's own; the timeout does not hide it."""

    async def callee() -> None:
        try:
            await anyio.sleep(10)
        finally:
            raise Fatal

    with pytest.raises(Fatal):
        await Timeout(5).call(callee)


async def test_a_value_that_comes_in_spite_of_the_cancellation_is_kept() -> None:
    """A callee that catches it and returns has finished, if late."""

    async def callee() -> str:
        try:
            await anyio.sleep(10)
        except anyio.get_cancelled_exc_class():
            pass  # what no one should do
        return "late"

    assert await Timeout(5).call(callee) == "late"


async def test_a_limit_of_zero_cuts_at_the_first_wait() -> None:
    """A callee that never waits is not cut."""

    async def at_once() -> int:
        return 1

    with pytest.raises(TimeoutExceeded):
        await Timeout(0).call(anyio.sleep, 1)

    assert await Timeout(0).call(at_once) == 1


async def test_a_limit_may_be_asked_for_at_each_call() -> None:
    """A function gives seconds, a timedelta, or None for no limit."""
    limits: list[Any] = [1, timedelta(seconds=2), None]
    timeout = Timeout(lambda: limits.pop(0))
    for _ in range(2):
        with pytest.raises(TimeoutExceeded):
            await timeout.call(anyio.sleep, 10)
    await timeout.call(anyio.sleep, 10)

    assert clock.now() == 13


async def test_a_limit_out_of_range_is_refused_where_it_is_given() -> None:
    """At construction; from a function at the call."""
    with pytest.raises(ValueError, match="seconds=-1 is out of range: expected a finite number at least 0 seconds"):
        Timeout(-1)
    with pytest.raises(ValueError, match="seconds=inf is out of range"):
        await Timeout(lambda: math.inf).call(anyio.sleep, 1)
    with pytest.raises(TypeError, match="seconds='5': expected seconds as a number or a timedelta"):
        Timeout("5")  # type: ignore[arg-type]


async def test_somebody_may_be_called_when_the_limit_is_reached() -> None:
    """Each time, before the error surfaces; not where there was time enough."""
    reached: list[float] = []
    timeout = Timeout(5, on_timeout=lambda: reached.append(clock.now()))
    await timeout.call(anyio.sleep, 1)
    with pytest.raises(TimeoutExceeded):
        await timeout.call(anyio.sleep, 10)

    assert reached == [6]


async def test_it_is_told_to_those_who_listen() -> None:
    """With its limit and the key of the call."""
    pipeline = Pipeline(Timeout(5), key=str)
    with record_timeline() as timeline, pytest.raises(TimeoutExceeded):
        await pipeline.call(anyio.sleep, 10)

    assert [(event.at, event.key, event.seconds) for event in timeline.events if isinstance(event, TimedOut)] == [(5, "10", 5)]


async def test_it_shows_its_limit() -> None:
    """In its repr."""
    assert repr(Timeout(timedelta(minutes=1))) == "Timeout(60.0)"


# Whose expiry it was


async def test_a_timeout_of_the_callee_is_not_relabelled() -> None:
    """Its own TimeoutError surfaces, the same object."""
    error = TimeoutError("socket")
    with pytest.raises(TimeoutError) as caught:
        await Timeout(5).call(Script(error))

    assert caught.value is error


@pytest.mark.parametrize(("inner", "outer"), [(2, 5), (5, 2)])
async def test_of_nested_timeouts_the_shorter_one_speaks(inner: float, outer: float) -> None:
    """Its limit is in the error."""
    with pytest.raises(TimeoutExceeded) as caught:
        await Pipeline(Timeout(outer), Timeout(inner)).call(anyio.sleep, 10)

    assert caught.value.seconds == 2


async def test_the_inner_of_two_equal_timeouts_or_the_outer_speaks_but_one() -> None:
    """Both expire in the same tick: the call ends once, as a timeout."""
    with record_timeline() as timeline, pytest.raises(TimeoutExceeded):
        await Pipeline(Timeout(5), Timeout(5)).call(anyio.sleep, 10)

    assert len([event for event in timeline.events if isinstance(event, TimedOut)]) == 1


async def test_cancellation_from_outside_passes_through() -> None:
    """By a scope around: no TimeoutExceeded, nothing told."""
    with record_timeline() as timeline:
        async with cancelled_after(2) as scope:
            await Timeout(5).call(anyio.sleep, 10)

    assert (scope.cancelled_caught, clock.now()) == (True, 2)
    assert not [event for event in timeline.events if isinstance(event, TimedOut)]


async def test_a_deadline_around_that_ends_first_is_not_its_own_expiry() -> None:
    """It is `fail_after` that raises."""
    with pytest.raises(TimeoutError) as caught, anyio.fail_after(2):
        await Timeout(5).call(anyio.sleep, 10)

    assert not isinstance(caught.value, TimeoutExceeded)


async def test_a_deadline_around_that_ends_in_the_same_tick_ends_it_too() -> None:
    """Whoever is first: it is over at that time, as some timeout."""
    with pytest.raises(TimeoutError), anyio.fail_after(5):
        await Timeout(5).call(anyio.sleep, 10)

    assert clock.now() == 5


async def test_inside_of_a_retry_it_bounds_an_attempt_and_outside_the_whole_call() -> None:
    """Its place says which."""
    hangs = Script(1, seconds=10)
    retry = Retry(on=TimeoutError, backoff=Constant(delay=1, jitter="none"))
    with pytest.raises(TimeoutExceeded) as caught:
        await Pipeline(Timeout(7), retry, Timeout(2)).call(hangs)

    assert hangs.at == [0, 3, 6]
    assert (caught.value.seconds, clock.now()) == (7, 7)


async def test_a_fallback_may_stand_in_for_what_took_too_long() -> None:
    """As for any other error."""
    assert await Pipeline(Fallback("cached"), Timeout(1)).call(Script("fresh", seconds=10)) == "cached"


# Libraries that answer a cancellation in their own way


async def plain() -> None:
    await asyncio.sleep(10)


async def replaces_cancellation() -> None:
    """As grpc.aio does: what it raises is not what it was told."""
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        raise asyncio.CancelledError from None


async def replaces_by_a_message() -> None:
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        raise asyncio.CancelledError("locally cancelled by application") from None


@asyncio_only
@pytest.mark.parametrize("callee", [replaces_cancellation, replaces_by_a_message])
async def test_a_library_that_raises_its_own_cancellation_still_ends_in_a_timeout(
    callee: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """With a plain cancel scope a bare CancelledError would surface."""
    with pytest.raises(TimeoutExceeded):
        await Timeout(5).call(callee)

    assert clock.now() == 5


@asyncio_only
async def test_within_nested_timeouts_it_is_the_right_one_that_speaks() -> None:
    """Also where it is the outer one that expired."""
    for limits in ((2, 5), (5, 2)):
        with pytest.raises(TimeoutExceeded) as caught:
            await Pipeline(*map(Timeout, limits)).call(replaces_cancellation)

        assert caught.value.seconds == 2


@asyncio_only
async def test_a_library_that_cancels_itself_is_cancelled_not_timed_out() -> None:
    """Nothing expired: its CancelledError surfaces."""

    async def callee() -> None:
        raise asyncio.CancelledError

    task = asyncio.create_task(Timeout(5)(callee)())
    await asyncio.wait([task])

    assert task.cancelled()


# Native cancellation


@asyncio_only
@pytest.mark.parametrize("callee", [plain, replaces_cancellation])
@pytest.mark.parametrize("when", [0, 2, 4.999])
async def test_native_cancellation_is_never_swallowed(callee: Callable[[], Coroutine[Any, Any, None]], when: float) -> None:
    """`task.cancel()` before the expiry ends the task, cancelled."""
    task = asyncio.create_task(Timeout(5)(callee)())
    await asyncio.sleep(when)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


@asyncio_only
@pytest.mark.parametrize("callee", [plain, replaces_cancellation])
@pytest.mark.parametrize("first", ["cancel", "expiry"])
async def test_native_cancellation_in_the_tick_of_the_expiry_is_not_swallowed(
    callee: Callable[[], Coroutine[Any, Any, None]], first: str
) -> None:
    """Whichever was asked for first: the task ends cancelled, and knows that it was asked to."""
    loop = asyncio.get_running_loop()
    task: asyncio.Task[None]

    def cancel() -> None:
        task.cancel()

    if first == "cancel":
        loop.call_at(5, cancel)
    task = asyncio.create_task(Timeout(5)(callee)())
    if first == "expiry":
        await asyncio.sleep(1)  # the scope has set its timer
        loop.call_at(5, cancel)
    await asyncio.wait([task])

    assert task.cancelled()
    assert loop.time() == 5


@asyncio_only
async def test_native_cancellation_after_the_expiry_does_not_undo_it() -> None:
    """The call has ended as a timeout already."""
    task = asyncio.create_task(Timeout(5)(plain)())
    await asyncio.sleep(6)

    assert isinstance(task.exception(), TimeoutExceeded)
    assert not task.cancel()


@asyncio_only
async def test_a_timeout_within_asyncio_timeout_keeps_both_apart() -> None:
    """The one around cancels natively; it must see its own cancellation come back."""
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(2):
            await Timeout(5).call(asyncio.sleep, 10)

    assert not isinstance(caught.value, TimeoutExceeded)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@asyncio_only
async def test_asyncio_timeout_within_a_timeout_keeps_both_apart() -> None:
    """Whichever is shorter."""

    async def callee(seconds: float) -> None:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(10)

    with pytest.raises(TimeoutExceeded):
        await Timeout(2).call(callee, 5)
    with pytest.raises(TimeoutError) as caught:
        await Timeout(5).call(callee, 2)

    assert not isinstance(caught.value, TimeoutExceeded)
