"""Permits of streams: held until a stream has ended, and given back on every way out."""

import contextlib
import gc

import anyio
import pytest

from resilient import clock
from resilient.errors import CircuitOpen, Rejected
from resilient.outcome import Health
from resilient.pipeline import Pipeline
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from strategies.sources import Counter, Source, collect, retry

pytestmark = pytest.mark.anyio


@pytest.fixture
def gate() -> Counter:
    return Counter()


async def test_permits_that_linger_are_held_until_the_stream_is_exhausted() -> None:
    """Others are settled when the first item is there."""
    lingering, prompt = Counter(), Counter(lingers=False)
    stream = Pipeline(lingering, prompt)(Source().items)(2)

    await anext(stream)

    assert (lingering.active, prompt.active) == (1, 0)
    assert await anext(stream) == 1
    assert lingering.active == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert lingering.active == 0


async def test_a_refused_call_opens_nothing_and_a_permit_that_is_free_again_lets_the_next_one_in() -> None:
    """The consumer of the second stream hears the rejection at its first item."""
    gate, source = Counter(1), Source()
    stream = Pipeline(retry(), gate)(source.items)

    async with contextlib.aclosing(stream()) as first:
        await anext(first)
        with pytest.raises(Rejected):
            await anext(stream())

        assert source.opened == 1
    assert [item async for item in stream(1)] == [0]


async def test_closing_gives_permits_back_and_tells_nothing_of_the_callee(gate: Counter) -> None:
    """A consumer that has seen enough is neither a success nor a failure."""
    source = Source()

    async with contextlib.aclosing(Pipeline(gate)(source.items)()) as stream:
        async for _ in stream:
            break
        assert gate.active == 1

    assert (gate.active, gate.reasons) == (0, ["abandoned"])
    assert gate.verdicts[0].health is Health.NEUTRAL
    assert source.closed == 1


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio tells to use aclosing, and is right
async def test_a_stream_that_was_dropped_gives_its_permits_back_when_it_is_collected(gate: Counter) -> None:
    """A `break` without `aclosing`: the finalizer of the event loop closes it."""

    async def consume() -> None:
        async for _ in Pipeline(gate)(Source().items)():
            break

    await consume()
    gc.collect()
    await anyio.sleep(1)

    assert (gate.active, gate.reasons) == (0, ["abandoned"])


async def test_a_bulkhead_and_a_breaker_guard_a_stream_until_it_ends() -> None:
    """The waiter gets the permit when the stream ahead ends; two streams that break in the middle trip the breaker."""
    bulkhead, breaker = Bulkhead(1, max_queue=1), CircuitBreaker(consecutive_failures=2)
    stream = Pipeline(breaker, bulkhead)(Source(1, 1).items)
    failures: list[float] = []

    async def consume() -> None:
        with pytest.raises(ConnectionError):
            await collect(stream(), [])
        failures.append(clock.now())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        tasks.start_soon(consume)
    with pytest.raises(CircuitOpen):
        await anext(stream())

    assert failures == [1.0, 2.0]
    assert bulkhead.statistics().active == 0


async def test_a_probe_is_decided_by_the_first_item_and_what_follows_is_one_more_sample() -> None:
    """An hour-long stream does not hold up a half-open breaker; its failure later on is heard all the same."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=10)
    stream = breaker(Source(0, 1).items)
    with pytest.raises(ConnectionError):
        await anext(stream())
    await anyio.sleep(60)

    probe = stream()
    await anext(probe)
    states = [breaker.state]
    with pytest.raises(ConnectionError):
        await anext(probe)
    states.append(breaker.state)

    assert states == ["closed", "open"]
