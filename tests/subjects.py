"""The strategies that the table of contracts is about, and how a test runs for each of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from helpers import SECOND, Failure
from resilient.pipeline import Pipeline
from resilient.strategies.adaptive_limit import AdaptiveLimit
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.base import Strategy
from resilient.strategies.budget import RetryBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.chaos import Chaos
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.hedge import Hedge
from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.sliding_window import SlidingWindow
from resilient.strategies.throttle import Throttle
from resilient.strategies.timeout import Timeout


@dataclass(frozen=True)
class Subject:
    """A strategy to be tested.

    Attributes:
        name: the public name of what is tested.
        make: a fresh one, which lets a call that works pass at once, and gives no value of its own.
        state: the parts of it that have statistics.
        wrong: makes one with an argument out of range.
        message: what the error then says.

    """

    name: str
    make: Callable[[], Strategy]
    state: Callable[[Any], list[Any]]
    wrong: Callable[[], object]
    message: str

    def idle(self, strategy: Strategy) -> bool:
        """Whether it holds nothing for anybody."""
        seen = [part.statistics() for part in self.state(strategy)]
        return not any(getattr(part, name, 0) for part in seen for name in ("active", "queued", "in_flight"))


def parts(*kinds: type) -> Callable[[Any], list[Any]]:
    """The parts of a pipeline that are of these kinds."""
    return lambda pipeline: [part for part in pipeline.strategies if isinstance(part, kinds)]


def itself(strategy: Any) -> list[Any]:
    return [strategy]


def nothing(_: Any) -> list[Any]:
    return []


def budget_of(retry: Any) -> list[Any]:
    return [retry.budget]


SUBJECTS = [
    Subject("Retry", lambda: Retry(on=Failure, backoff=SECOND), nothing, lambda: Retry(on=Failure, attempts=0), "attempts=0"),
    Subject(
        "RetryBudget",
        lambda: Retry(on=Failure, backoff=SECOND, budget=RetryBudget()),
        budget_of,
        lambda: RetryBudget(ratio=-1),
        "ratio=-1",
    ),
    Subject("Timeout", lambda: Timeout(5), nothing, lambda: Timeout(-1), "seconds=-1"),
    Subject("Fallback", lambda: Fallback(None, on=LookupError), nothing, Fallback, "give either a value"),
    Subject(
        "Chaos",
        lambda: Chaos(fault=Failure, fault_rate=0, enabled=True),
        itself,
        lambda: Chaos(fault=Failure, fault_rate=2),
        "fault_rate=2",
    ),
    Subject("Hedge", lambda: Hedge(5, on=Failure), itself, lambda: Hedge(-1), "delay=-1"),
    Subject("CircuitBreaker", CircuitBreaker, itself, lambda: CircuitBreaker(failure_rate=2), "failure_rate=2"),
    Subject("Bulkhead", lambda: Bulkhead(1, max_queue=100), itself, lambda: Bulkhead(0), "max_concurrent=0"),
    Subject(
        "AdaptiveLimit",
        lambda: AdaptiveLimit(1, maximum=1, max_queue=100),
        itself,
        lambda: AdaptiveLimit(9, maximum=8),
        "initial=9",
    ),
    Subject("TokenBucket", lambda: TokenBucket(1), itself, lambda: TokenBucket(0), "rate=0"),
    Subject("AdaptiveRate", lambda: AdaptiveRate(1), itself, lambda: AdaptiveRate(1, floor=2), "floor=2"),
    Subject("SlidingWindow", lambda: SlidingWindow(1, exact=True), itself, lambda: SlidingWindow(0), "limit=0"),
    Subject("LeakyBucket", lambda: LeakyBucket(1, capacity=100, shape=True), itself, lambda: LeakyBucket(0), "rate=0"),
    Subject("Throttle", Throttle, itself, lambda: Throttle(maximum=1), "maximum=1"),
    Subject(
        "Pipeline",
        lambda: Pipeline(
            Retry(on=Failure, backoff=SECOND), TokenBucket(1), CircuitBreaker(), Bulkhead(1, max_queue=100), Timeout(5)
        ),
        parts(TokenBucket, CircuitBreaker, Bulkhead),
        lambda: Pipeline(Retry),  # type: ignore[arg-type]
        "is not a strategy",
    ),
]

NO_PERMITS = "it grants no permits, so there is nothing to take by hand"
NO_STATE = "it has no state: a setting and nothing else"
NO_WAITS = "it never waits"


def every_strategy(**excuses: str) -> pytest.MarkDecorator:
    """Run a test for each strategy; those that are named do not apply, for the reason given."""
    unknown = set(excuses) - {subject.name for subject in SUBJECTS}
    assert not unknown, unknown
    cells = [
        pytest.param(
            subject, id=subject.name, marks=[pytest.mark.skip(reason=excuses[subject.name])] if subject.name in excuses else []
        )
        for subject in SUBJECTS
    ]
    return pytest.mark.parametrize("subject", cells)
