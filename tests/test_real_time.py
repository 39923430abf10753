"""What virtual time cannot show: the real clocks, which have different origins on trio, and uvloop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from helpers import Failure, Script
from resilient import clock
from resilient.context import deadline
from resilient.errors import DeadlineExceeded, RateLimited, TimeoutExceeded
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("real_backend")]

SHORT = 0.01  # seconds

RETRY = Retry(on=(Failure, TimeoutError), backoff=Constant(delay=SHORT, jitter="none"))


async def hang() -> None:
    await anyio.sleep_forever()


async def replaces_cancellation() -> None:
    try:
        await anyio.sleep_forever()
    except asyncio.CancelledError:
        raise asyncio.CancelledError from None


async def test_a_timeout_expires() -> None:
    """Each attempt, and the call around them."""
    started = clock.now()
    with pytest.raises(TimeoutExceeded):
        await Pipeline(RETRY, Timeout(SHORT)).call(hang)
    with pytest.raises(TimeoutExceeded):
        await Pipeline(Timeout(SHORT), RETRY.replace(attempts=None)).call(hang)

    assert clock.now() - started > 5 * SHORT


async def test_a_retry_waits_and_keeps_to_its_deadline() -> None:
    """A wait that cannot end in time is not begun, one that can is not refused."""
    callee, started = Script(Failure()), clock.now()
    with pytest.raises(Failure), deadline(60):
        await RETRY.call(callee)
    with pytest.raises(Failure), deadline(60):
        await RETRY.replace(backoff=Constant(delay=100, maximum=100, jitter="none")).call(callee)

    assert callee.calls == 4
    assert 2 * SHORT <= clock.now() - started < 60


async def test_a_deadline_cuts_off() -> None:
    """The block, whatever waits in it."""
    bulkhead = Bulkhead(1, max_queue=1)
    with bulkhead.acquire_nowait(), pytest.raises(DeadlineExceeded), deadline(SHORT):
        await bulkhead.call(hang)

    assert bulkhead.statistics().queued == 0


async def test_tokens_come_back_and_too_long_a_wait_for_them_is_refused() -> None:
    """By the same clock."""
    bucket = TokenBucket(1 / SHORT, burst=1)
    async with bucket, bucket, bucket:
        pass
    dry = TokenBucket(0.001)
    async with dry:
        with pytest.raises(RateLimited), deadline(60):
            await dry.acquire()


async def test_a_breaker_that_is_open_lets_a_probe_through_in_time() -> None:
    """And closes."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=SHORT)
    pipeline = Pipeline(Retry(on=Failure, attempts=9, backoff=Constant(delay=2 * SHORT, jitter="none")), breaker)

    assert await pipeline.call(Script(Failure(), "value")) == "value"
    assert breaker.state == "closed"


async def test_a_library_that_replaces_a_cancellation_still_ends_in_a_timeout(real_backend: str) -> None:
    """On the event loops that have a CancelledError."""
    callee = hang if real_backend == "trio" else replaces_cancellation
    with pytest.raises(TimeoutExceeded):
        await Timeout(SHORT).call(callee)


@pytest.mark.parametrize("anyio_backend", ["real-asyncio", "real-uvloop"], indirect=True)
@pytest.mark.parametrize("callee", [hang, replaces_cancellation])
async def test_native_cancellation_is_not_swallowed(callee: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """In a call that waits, with everything around it."""
    pipeline = Pipeline(Timeout(60), RETRY, TokenBucket(10), CircuitBreaker(), Bulkhead(1), Timeout(50))
    task = asyncio.create_task(pipeline(callee)())
    await anyio.wait_all_tasks_blocked()
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
