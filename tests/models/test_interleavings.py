"""Concurrent scenarios in hundreds of orders of tasks. What fails names its seed: `run_virtual(scenario, seed=79)` shows it."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from helpers import Failure
from models.machines import SEEDS
from resilient import clock
from resilient.errors import BulkheadFull, CircuitOpen, RateLimited
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.budget import RetryBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.hedge import Hedge
from resilient.strategies.lingering import Lingering
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout
from resilient.testing import explore
from strategies.buckets import Ideal

Scenario = Callable[[], Coroutine[Any, Any, None]]


class Inside:
    """How many are inside, and how many there were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    @asynccontextmanager
    async def counted(self) -> AsyncGenerator[None]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1


async def a_while() -> None:
    """No time at all, or a little."""
    for _ in range(random.randrange(3)):
        await asyncio.sleep(0)
    await asyncio.sleep(random.choice([0, 0, 0.25, 0.5]))


async def contend(calls: int, call: Callable[[int], Awaitable[object]], *expected: type[Exception], cancel: float = 0.4) -> None:
    """So many tasks at a time, of which some are cancelled natively, at any moment, in the tick of a hand-off too."""

    async def one(number: int) -> None:
        await a_while()
        with contextlib.suppress(*expected):
            await call(number)

    tasks = [asyncio.create_task(one(number)) for number in range(calls)]
    for task in random.sample(tasks, len(tasks)):
        if random.random() < cancel:
            await a_while()
            task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome


async def slots_are_handed_over() -> None:
    """Never more inside than slots; nobody is forgotten in line; all slots are there in the end."""
    bulkhead, inside = Bulkhead(2, max_queue=6), Inside()

    async def enter(number: int) -> None:
        async with bulkhead if number % 2 else bulkhead.permit(), inside.counted():
            await a_while()

    await contend(10, enter, BulkheadFull)
    seen = bulkhead.statistics()

    assert inside.most <= 2
    assert (seen.active, seen.queued) == (0, 0)


async def probes_find_out() -> None:
    """In half-open never more than two at a time reach the callee, whatever becomes of them; good calls close it in the end."""
    breaker = CircuitBreaker(consecutive_failures=1, half_open_calls=2, open_for=1, open_for_factor=1, probe_lease=50)
    inside = Inside()

    async def callee() -> None:
        probing = breaker.state == "half_open"
        async with inside.counted() if probing else contextlib.nullcontext():
            await a_while()
            if random.random() < 0.3:
                raise Failure

    for _ in range(3):
        with contextlib.suppress(CircuitOpen, Failure):
            await breaker.call(_fail)
        await asyncio.sleep(1)
        await contend(8, lambda _: breaker.call(callee), CircuitOpen, Failure)
    await asyncio.sleep(60)
    for _ in range(3):
        await breaker.call(anyio.sleep, 0)

    assert inside.most <= 2
    assert breaker.state == "closed"
    assert breaker.statistics().in_flight == 0


async def _fail() -> None:
    raise Failure


async def a_budget_is_shared() -> None:
    """By retries and hedges of all tasks: what is made in all stays within what was promised."""
    budget = RetryBudget(ratio=0.5, floor=1)
    pipeline = Pipeline(Retry(on=Failure, attempts=5, backoff=Constant(delay=0.25), budget=budget), Hedge(0.25, budget=budget))
    made = 0

    async def callee() -> None:
        nonlocal made
        made += 1
        await a_while()
        raise Failure

    first = 12
    await contend(first, lambda _: pipeline.call(callee), Failure, cancel=0.2)

    assert made <= first + 0.5 * first + 1 * (clock.now() + 1)


class Body(Lingering):
    """A value that is in use until it is closed."""

    def __init__(self, open_ones: set["Body"]) -> None:
        self.open_ones = open_ones
        open_ones.add(self)

    async def discard(self) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            self.ended()

    def ended(self, error: BaseException | None = None) -> None:
        self.open_ones.discard(self)
        super().ended(error)


async def hedges_race() -> None:
    """Each call gets one value, all others are closed, no leg runs on, and no slot stays taken."""
    bulkhead, inside, open_ones = Bulkhead(40), Inside(), set[Body]()
    pipeline = Pipeline(Hedge(0.25, max_hedges=2, on=Failure), bulkhead)

    async def callee() -> Body:
        async with inside.counted():
            await a_while()
            if random.random() < 0.3:
                raise Failure
            return Body(open_ones)

    async def use(_: int) -> None:
        body = await pipeline.call(callee)
        body.ended()

    await contend(6, use, Failure)

    assert inside.now == 0
    assert not open_ones
    assert bulkhead.statistics().active == 0


async def callers_wait_for_tokens() -> None:
    """Of any weight: never more than the limit in any stretch of time, and nobody is left in line."""
    bucket, ideal, sent = TokenBucket(8, burst=3), Ideal(8, 1.0, 3), list[tuple[int, int]]()

    async def call(number: int) -> None:
        tokens = 1 + number % 3
        await bucket.acquire(tokens)
        sent.append((round(clock.now() * 1e9), tokens))

    await contend(8, call, RateLimited)

    assert ideal.holds(sent)
    assert bucket.queued == 0
    await asyncio.sleep(10)
    assert bucket.statistics().tokens == 3


async def all_of_them() -> None:
    """A pipeline of everything: whatever happens to its calls, it holds nothing in the end, and works."""
    bucket, breaker, bulkhead = TokenBucket(20), CircuitBreaker(minimum_calls=5, open_for=1), Bulkhead(2, max_queue=4)
    pipeline = Pipeline(
        Timeout(3),
        Retry(on=Failure, backoff=Constant(delay=0.25), budget=RetryBudget()),
        Hedge(0.4, on=Failure),
        bucket,
        breaker,
        bulkhead,
        Timeout(1),
    )

    async def callee() -> str:
        await a_while()
        if random.random() < 0.3:
            raise Failure
        return "good"

    await contend(10, lambda _: pipeline.call(callee), Failure, CircuitOpen, BulkheadFull, RateLimited, TimeoutError)
    await asyncio.sleep(100)
    seen = bulkhead.statistics()

    assert (seen.active, seen.queued, bucket.queued, breaker.statistics().in_flight) == (0, 0, 0, 0)
    assert await pipeline.call(_good) == "good"


async def _good() -> str:
    return "good"


SCENARIOS: list[Scenario] = [
    slots_are_handed_over,
    probes_find_out,
    a_budget_is_shared,
    hedges_race,
    callers_wait_for_tokens,
    all_of_them,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_whatever_the_order_of_tasks_its_promises_hold(scenario: Scenario) -> None:
    """See the scenario: what it asserts holds under every seed."""
    explore(scenario, seeds=SEEDS)
