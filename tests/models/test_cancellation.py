"""Every strategy, and all of them together: cancelled at every suspension, in every way, they leave nothing behind."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from helpers import SECOND, Failure
from models.cancelling import Scenario, cancel_at_every_suspension, statistics_of, ways
from resilient.keyed import Keyed
from resilient.pipeline import Pipeline
from resilient.strategies.adaptive_limit import AdaptiveLimit
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.budget import TokenBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.gate import Gate
from resilient.strategies.hedge import Hedge
from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.limiter import Limiter
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.sliding_window import SlidingWindow
from resilient.strategies.slots import Slots
from resilient.strategies.throttle import Throttle
from resilient.strategies.timeout import Timeout
from strategies.breakers import down

pytestmark = pytest.mark.anyio


async def good() -> str:
    return "good"


async def work() -> str:
    await anyio.sleep(1)
    await anyio.sleep(1)
    return "good"


class Failing:
    """Fails a few times, and takes its time."""

    def __init__(self, failures: int = 9, seconds: float = 0.5) -> None:
        self.failures, self.seconds, self.calls = failures, seconds, 0

    async def __call__(self, *_: Any) -> str:
        self.calls += 1
        failed = self.calls <= self.failures
        await anyio.sleep(self.seconds)
        if failed:
            raise Failure
        return "good"


def a_wait_for_a_slot(gate: Slots) -> Scenario:
    async def hold() -> None:
        async with gate:
            await anyio.sleep(1)

    return Scenario(lambda: gate.call(work), lambda: gate.call(good), statistics_of(gate), hold)


def a_wait_for_a_token(gate: Limiter) -> Scenario:
    gate.acquire_nowait()
    return Scenario(lambda: gate.call(work), lambda: gate.call(good), statistics_of(gate))


def a_block(gate: Any) -> Scenario:
    async def block() -> None:
        async with gate, gate.permit():
            await work()

    return Scenario(block, lambda: gate.call(good), statistics_of(gate))


def a_retry() -> Scenario:
    callee, budget = Failing(), TokenBudget(5)
    retry = Retry(on=Failure, backoff=SECOND, budget=budget)
    return Scenario(
        lambda: retry.call(callee), lambda: retry.call(good), statistics_of(), budget=budget, sent=lambda: callee.calls
    )


def a_retry_loop() -> Scenario:
    callee, budget = Failing(), TokenBudget(5)
    retry = Retry(on=Failure, backoff=SECOND, budget=budget)

    async def loop() -> None:
        async for attempt in retry:
            with attempt:
                await callee()

    return Scenario(loop, good, statistics_of(), budget=budget, sent=lambda: callee.calls)


def a_race() -> Scenario:
    callee, budget = Failing(0, 5), TokenBudget(5)
    hedge = Hedge(1, max_hedges=2, on=Failure, budget=budget)
    return Scenario(
        lambda: hedge.call(callee), lambda: hedge.call(good), statistics_of(), budget=budget, sent=lambda: callee.calls
    )


def a_race_in_which_legs_fail() -> Scenario:
    callee, budget = Failing(1, 0.5), TokenBudget(5)
    hedge = Hedge(1, max_hedges=2, on=Failure, budget=budget)
    return Scenario(
        lambda: hedge.call(callee), lambda: hedge.call(good), statistics_of(), budget=budget, sent=lambda: callee.calls
    )


def a_timeout() -> Scenario:
    timeout = Timeout(30)
    return Scenario(lambda: timeout.call(work), lambda: timeout.call(good), statistics_of())


def a_probe() -> Scenario:
    breaker = CircuitBreaker(consecutive_failures=1, probe_lease=600)

    async def probe() -> str:
        return await breaker.call(work)

    async def trip() -> None:
        with pytest.raises(Exception):  # noqa: B017, PT011  whatever `down` raises
            await breaker.call(down)

    async def tripped_before() -> str:
        await trip()
        await anyio.sleep(10)
        return await probe()

    return Scenario(tripped_before, lambda: breaker.call(good), statistics_of(breaker))


def a_fallback() -> Scenario:
    async def slowly(_: object) -> str:
        return await work()

    fallback = Fallback(function=slowly, on=Failure)
    return Scenario(lambda: fallback.call(Failing()), lambda: fallback.call(good), statistics_of())


def a_stream() -> Scenario:
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    pipeline = Pipeline(Retry(on=Failure), breaker, bulkhead, Timeout(5))

    @pipeline
    async def pages() -> AsyncGenerator[int]:
        for page in range(3):
            await anyio.sleep(1)
            yield page

    async def walk() -> None:
        async with aclosing(pages()) as stream:
            async for _ in stream:
                await anyio.sleep(1)

    return Scenario(walk, lambda: pipeline.call(good), statistics_of(breaker, bulkhead))


def everything(budget: TokenBudget) -> tuple[Any, ...]:
    return (
        Fallback("saved", on=LookupError),
        Timeout(60),
        Retry(on=Failure, backoff=SECOND, budget=budget),
        Hedge(1, on=Failure),
        Throttle(),
        TokenBucket(1),
        CircuitBreaker(consecutive_failures=5),
        Bulkhead(1, max_queue=5),
        Timeout(5),
    )


def a_pipeline() -> Scenario:
    callee, budget = Failing(2), TokenBudget(5)
    pipeline = Pipeline(*everything(budget))
    gates = [part for part in pipeline.strategies if isinstance(part, Gate)]

    async def hold() -> None:
        await pipeline.call(work)

    return Scenario(
        lambda: pipeline.call(callee),
        lambda: pipeline.call(good),
        statistics_of(*gates),
        hold,
        budget,
        lambda: callee.calls,
    )


def a_keyed_pipeline() -> Scenario:
    callee = Failing(2)
    pipeline = Pipeline(*everything(TokenBudget(5)), key=_its_key)

    async def hold() -> None:
        await pipeline.call(_work_for, "one")

    def states() -> list[Any]:
        assert pipeline.siblings is not None
        return [gate for key in ("one", "other") for gate in pipeline.siblings[key] if isinstance(gate, Gate)]

    return Scenario(lambda: pipeline.call(callee, "one"), lambda: pipeline.call(_work_for, "one"), states, hold)


def _its_key(key: str) -> str:
    return key


async def _work_for(_: str) -> str:
    return await work()


def by_hand_for_a_key() -> Scenario:
    bulkheads = Keyed(Bulkhead(1, max_queue=3))

    async def hold() -> None:
        async with bulkheads["one"]:
            await anyio.sleep(1)

    async def enter() -> None:
        with await bulkheads["one"].acquire():
            await work()

    return Scenario(enter, lambda: bulkheads["one"].call(good), lambda: [bulkheads["one"]], hold)


SCENARIOS: dict[str, tuple[Callable[[], Scenario], int]] = {
    "bulkhead": (lambda: a_wait_for_a_slot(Bulkhead(1, max_queue=2)), 3),
    "bulkhead with a queue timeout": (lambda: a_wait_for_a_slot(Bulkhead(1, max_queue=2, queue_timeout=9)), 3),
    "adaptive limit": (lambda: a_wait_for_a_slot(AdaptiveLimit(1, maximum=1, max_queue=2)), 3),
    "token bucket": (lambda: a_wait_for_a_token(TokenBucket(1)), 3),
    "adaptive rate": (lambda: a_wait_for_a_token(AdaptiveRate(1)), 3),
    "sliding window": (lambda: a_wait_for_a_token(SlidingWindow(1, exact=True)), 3),
    "leaky bucket": (lambda: a_wait_for_a_token(LeakyBucket(1, shape=True)), 3),
    "blocks": (lambda: a_block(Bulkhead(2)), 2),
    "retry": (a_retry, 5),
    "retry loop": (a_retry_loop, 5),
    "hedge": (a_race, 1),
    "hedge, a leg fails": (a_race_in_which_legs_fail, 2),
    "timeout": (a_timeout, 2),
    "half-open probe": (a_probe, 3),
    "fallback": (a_fallback, 3),
    "stream": (a_stream, 6),
    "pipeline": (a_pipeline, 5),
    "keyed pipeline": (a_keyed_pipeline, 5),
    "key by hand": (by_hand_for_a_key, 3),
}
"""Each with the suspensions that it has at least: else it would not wait for what it is about."""


@pytest.mark.parametrize("name", SCENARIOS)
async def test_cancelled_at_any_suspension_it_leaves_nothing_behind(name: str) -> None:
    """No permit out, nobody in line, no probe lost, no task, no timer; what was not sent is not paid for; calls still work."""
    make, least = SCENARIOS[name]
    for way in ways():
        assert await cancel_at_every_suspension(make, way) >= least
