from collections.abc import AsyncGenerator, Iterator

import anyio
import anyio.lowlevel
import pytest

from helpers import RETRY, Failure, Fatal, Script
from resilient import clock
from resilient.errors import TimeoutExceeded
from resilient.observe.events import RetryScheduled
from resilient.observe.timeline import record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.budget import RetryBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout
from resilient.testing import disabled, no_waits

pytestmark = pytest.mark.anyio


PATIENT = Retry(on=Failure, backoff=Constant(delay=30, maximum=30, jitter="none"))


def two_failures() -> Script:
    return Script(Failure(), Failure(), "value")


async def test_without_waits_a_retry_goes_on_at_once() -> None:
    """All attempts are made and no time passes."""
    with no_waits():
        value = await PATIENT.call(two_failures())

    assert (value, clock.now()) == ("value", 0.0)


async def test_without_waits_the_loop_form_goes_on_at_once() -> None:
    """`async for attempt in retry` waits by the same sleep."""
    callee, value = two_failures(), ""
    with no_waits():
        async for attempt in PATIENT:
            with attempt:
                value = await callee()

    assert (value, clock.now()) == ("value", 0.0)


async def test_without_waits_a_timeline_still_shows_the_delays() -> None:
    """The delay is chosen and reported, only not slept."""
    with no_waits(), record_timeline() as timeline:
        await PATIENT.call(two_failures())

    assert [event.delay for event in timeline.events if isinstance(event, RetryScheduled)] == [30, 30]


async def test_without_waits_a_timeout_still_counts_the_time_of_the_callee() -> None:
    """Only the waits of strategies are taken away."""
    with no_waits(), pytest.raises(TimeoutExceeded):
        await Timeout(1).call(anyio.sleep, 2)


async def test_a_wait_that_takes_no_time_is_still_a_checkpoint() -> None:
    """A call that would be retried for ever can be cancelled."""
    for_ever = PATIENT.replace(attempts=None)(Script(Failure()))
    with no_waits(), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(for_ever)
            await anyio.lowlevel.checkpoint()
            scope.cancel()

    assert scope.cancelled_caught


async def test_without_waits_a_caller_still_waits_in_a_queue() -> None:
    """Somebody must give a permit back first: that is no wait of the strategy's own making."""
    bulkhead = Bulkhead(1, max_queue=1)
    callee = Script(1, seconds=5)
    with no_waits():
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(bulkhead(callee))

    assert callee.at == [0, 5]


# Disabled


@pytest.fixture
def inert() -> Iterator[None]:
    with disabled():
        yield


@pytest.mark.usefixtures("inert")
async def test_disabled_strategies_call_the_callee_once() -> None:
    """Its error surfaces as it is: no retry, no fallback, no note."""
    pipeline = Pipeline(Fallback("instead"), Timeout(1), RETRY)
    with pytest.raises(Failure) as caught:
        await pipeline.call(Script(Failure()))

    assert not hasattr(caught.value, "__notes__")


@pytest.mark.usefixtures("inert")
async def test_disabled_strategies_do_not_cut_off_or_refuse() -> None:
    """Not even an isolated breaker."""
    breaker = CircuitBreaker(initial="isolated")
    await Pipeline(Timeout(1), breaker, TokenBucket(1, max_wait=0), key=str).call(anyio.sleep, 10)
    await breaker.call(anyio.sleep, 10)

    assert clock.now() == 20
    assert breaker.statistics().calls == 0


@pytest.mark.usefixtures("inert")
async def test_disabled_strategies_are_inert_as_decorators_too() -> None:
    """Functions and generators that were decorated before."""

    @Timeout(1)
    async def numbers() -> AsyncGenerator[int]:
        for number in range(3):
            await anyio.sleep(2)
            yield number

    assert [number async for number in numbers()] == [0, 1, 2]
    with pytest.raises(Failure):
        await RETRY(Script(Failure(), "value"))()


@pytest.mark.usefixtures("inert")
async def test_disabled_gates_hand_out_permits_without_end() -> None:
    """By hand, waiting or not, and as blocks; none of them counts."""
    bulkhead, bucket, breaker = Bulkhead(1), TokenBucket(1, max_wait=0), CircuitBreaker(initial="isolated")
    for gate in (bulkhead, bucket, breaker):
        with await gate.acquire(), gate.acquire_nowait():
            async with gate.permit():
                pass
    for _ in range(5):
        async with bulkhead, bulkhead, bucket:
            pass

    assert (bulkhead.statistics().active, bucket.statistics().tokens, clock.now()) == (0, 1, 0)


@pytest.mark.usefixtures("inert")
async def test_the_loop_form_of_a_disabled_retry_runs_once() -> None:
    """Its budget learns nothing, its time does not matter."""
    budget, calls = RetryBudget(), 0
    with pytest.raises(Failure):  # noqa: PT012  the loop is what raises
        async for attempt in RETRY.replace(budget=budget, timeout=0):
            with attempt:
                calls += 1
                raise Failure

    assert (calls, budget.statistics().calls) == (1, 0)


@pytest.mark.usefixtures("inert")
async def test_while_disabled_a_timeline_still_shows_the_call() -> None:
    """One attempt, and its end."""
    with record_timeline() as timeline:
        await Pipeline(RETRY, Bulkhead(1)).call(Script(1))

    assert [type(event).__name__ for event in timeline.events] == ["AttemptFinished", "CallFinished"]


async def test_everything_works_again_afterwards() -> None:
    """Also after an error, and where blocks are nested."""
    with disabled(), no_waits(), disabled(), no_waits():
        pass
    with pytest.raises(Fatal), disabled(), no_waits():
        await RETRY.call(Script(Fatal()))

    assert await RETRY.call(Script(Failure(), "value")) == "value"
    assert clock.now() == 1


async def test_both_reach_tasks_that_were_started_before() -> None:
    """They are for the whole process, not for a task."""
    callee = Script(Failure(), Failure(), 1)

    async def later() -> None:
        await anyio.sleep(1)
        with no_waits():
            await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(PATIENT.replace(backoff=Constant(delay=1.5, jitter="none"))(callee))
        group.start_soon(later)

    assert callee.at == [0, 1.5, 1.5]
