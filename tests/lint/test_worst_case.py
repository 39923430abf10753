"""The worst case of a composition."""

import math
from random import Random
from typing import Any

import pytest

from helpers import Failure, Script
from resilient import clock
from resilient.lint import WorstCase, worst_case
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import ByVerdict, Constant, Exponential
from resilient.strategies.base import Strategy
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.hedge import Hedge
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

RETRY = Retry(on=(Failure, TimeoutError), backoff=Constant(delay=1))
ENDLESS = Retry(on=Failure, attempts=None)


def broken(_: Any) -> float:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("strategies", "attempts", "seconds"),
    [
        ((), 1, math.inf),
        ((Timeout(2),), 1, 2),
        ((Timeout(lambda: 2),), 1, math.inf),
        ((RETRY, Timeout(2)), 3, 8),
        ((RETRY,), 3, math.inf),
        ((Timeout(5), RETRY, Timeout(2)), 3, 5),
        ((Timeout(50), RETRY, Timeout(2)), 3, 8),
        ((RETRY.replace(timeout=4), Timeout(2)), 3, 6),
        ((ENDLESS, Timeout(2)), math.inf, math.inf),
        ((ENDLESS.replace(timeout=10), Timeout(2)), math.inf, 12),
        ((RETRY, Pipeline(CircuitBreaker(), RETRY), Timeout(1)), 9, 17),
        ((RETRY, Hedge(0.5), Timeout(2)), 6, 9.5),
        ((Hedge(max_hedges=2), Timeout(2)), 3, 6),
        ((Hedge(9), Timeout(2)), 2, 4),
        ((Bulkhead(1, max_queue=1, queue_timeout=3), Timeout(2)), 1, 5),
        ((Bulkhead(1, max_queue=1), Timeout(2)), 1, math.inf),
        ((Bulkhead(1), Timeout(2)), 1, 2),
        ((TokenBucket(1, max_wait=3), Timeout(2)), 1, 5),
        ((RETRY.replace(timeout=4), TokenBucket(1), Timeout(2)), 3, 6),
        ((Timeout(4), TokenBucket(1), Timeout(2)), 1, 4),
        ((RETRY, TokenBucket(1, max_wait=3), Timeout(2)), 3, 17),
        ((Retry(on=Failure, backoff=Exponential(initial=1, jitter="decorrelated", maximum=4)), Timeout(1)), 3, 10),
        ((Retry(on=Failure, backoff=ByVerdict(lambda verdict: Constant(delay=3 if verdict.throttled else 1))), Timeout(1)), 3, 9),
        ((Retry(on=Failure, backoff=broken), Timeout(1)), 3, math.inf),
        ((Retry(on=Failure, attempts=1_000_001, backoff=[1, 2]), Timeout(1)), 1_000_001, 3_000_000),
        ((Retry(on=Failure, attempts=1, backoff=broken), Timeout(1)), 1, 1),
    ],
)
def test_it_is_worked_out_from_inside_to_outside(strategies: tuple[Strategy, ...], attempts: float, seconds: float) -> None:
    """Attempts multiply, times add up, and limits cut."""
    assert worst_case(strategies) == WorstCase(attempts, seconds)


@pytest.mark.anyio
async def test_it_comes_true() -> None:
    """A service that always hangs, chance that is never kind: the call makes that many attempts, and takes that long."""

    class Unlucky(Random):
        def uniform(self, a: float, b: float) -> float:
            return max(a, b)

    strategies = (RETRY.replace(random=Unlucky()), Timeout(2))
    callee = Script(1, seconds=60)
    with pytest.raises(TimeoutError):
        await Pipeline(*strategies).call(callee)

    assert (callee.calls, clock.now()) == worst_case(strategies)
