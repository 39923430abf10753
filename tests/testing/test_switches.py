from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilient import clock
from resilient.errors import TimeoutExceeded
from resilient.observe.events import RetryScheduled
from resilient.observe.timeline import record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.fallback import Fallback
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout
from resilient.testing import disabled, no_waits

pytestmark = pytest.mark.anyio


def failing(times: int) -> Callable[[], Coroutine[Any, Any, int]]:
    """A callee that raises so many times, then returns the number of calls."""
    calls = 0

    async def callee() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise OSError(calls)
        return calls

    return callee


PATIENT = Retry(on=OSError, backoff=Constant(delay=30, maximum=30, jitter="none"))


async def test_without_waits_a_retry_goes_on_at_once() -> None:
    """All attempts are made and no time passes."""
    with no_waits():
        value = await PATIENT.call(failing(2))

    assert (value, clock.now()) == (3, 0.0)


async def test_without_waits_the_loop_form_goes_on_at_once() -> None:
    """`async for attempt in retry` waits by the same sleep."""
    callee, value = failing(2), 0
    with no_waits():
        async for attempt in PATIENT:
            with attempt:
                value = await callee()

    assert (value, clock.now()) == (3, 0.0)


async def test_without_waits_a_timeline_still_shows_the_delays() -> None:
    """The delay is chosen and reported, only not slept."""
    with no_waits(), record_timeline() as timeline:
        await PATIENT.call(failing(2))

    assert [event.delay for event in timeline.events if isinstance(event, RetryScheduled)] == [30, 30]


async def test_without_waits_a_timeout_still_counts_the_time_of_the_callee() -> None:
    """Only the waits of strategies are taken away."""
    with no_waits(), pytest.raises(TimeoutExceeded):
        await Timeout(1).call(anyio.sleep, 2)


async def test_a_wait_that_takes_no_time_is_still_a_checkpoint() -> None:
    """A call that would be retried for ever can be cancelled."""
    for_ever = PATIENT.replace(attempts=None)(failing(1_000_000))
    with no_waits(), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(for_ever)
            await anyio.lowlevel.checkpoint()
            scope.cancel()

    assert scope.cancelled_caught


async def test_disabled_strategies_call_the_callee_once() -> None:
    """Its error surfaces as it is: no retry, no fallback, no note."""
    pipeline = Pipeline(Fallback("instead"), Timeout(1), PATIENT)
    with disabled(), pytest.raises(OSError, match="1") as caught:
        await pipeline.call(failing(2))

    assert not hasattr(caught.value, "__notes__")
