"""Each rule: a composition in which it finds something, and its neighbours in which it must be silent."""

from collections.abc import Iterator
from typing import Any

import pytest

from helpers import Failure, on_errors
from resilient.errors import CircuitOpen, Rejected
from resilient.lint import RULES, lint
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.adaptive_limit import AdaptiveLimit
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.backoff import Backoff, ByVerdict, Constant, Exponential
from resilient.strategies.base import Strategy
from resilient.strategies.budget import RetryBudget, TokenBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.chaos import Chaos
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.hedge import Hedge
from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.limiter import Limiter
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.sliding_window import SlidingWindow
from resilient.strategies.throttle import Throttle
from resilient.strategies.timeout import Timeout
from resilient.strategies.windows import CountWindow

Strategies = tuple[Strategy, ...]


def is_lookup(error: Exception) -> bool:
    return isinstance(error, LookupError)


def ten_users(user: str) -> str:
    return user


RETRY = Retry(on=OSError)
NO_RETRY = Retry(on=OSError, attempts=1)
ENDLESS = Retry(on=OSError, attempts=None, timeout=10, budget=RetryBudget())
BUCKET = TokenBucket(100, max_wait=1)
BREAKER = CircuitBreaker()
BULKHEAD = Bulkhead(10)
CHAOS = Chaos(fault=Failure, fault_rate=0.1)
SLOW_RETRY = Retry(on=OSError, backoff=Constant(delay=3, jitter="none"))
BOTH = ByVerdict(lambda verdict: Constant(delay=5) if verdict.throttled else Constant(delay=1))


class OwnLimiter(Limiter):
    """A limiter of a user's own: nothing is known of it."""

    @property
    def max_wait(self) -> float:
        return 0.0


def broken(_: Verdict) -> Backoff:
    raise ZeroDivisionError


def broken_delay(_: int) -> float:
    raise ZeroDivisionError


FOUND: dict[str, list[Strategies]] = {
    "fallback-inside-retry": [
        (RETRY, Fallback(None)),
        (RETRY, Fallback(None, on=ConnectionError)),
        (Retry(on=(KeyError, ConnectionError)), Fallback(None, on=(ValueError, Exception))),
    ],
    "fallback-inside-hedge": [(Hedge(), Fallback(None)), (Hedge(on=OSError), Fallback(None, on=TimeoutError))],
    "fallback-inside-breaker": [(BREAKER, Fallback(None))],
    "gate-twice": [(BREAKER, RETRY, BREAKER), (BULKHEAD, Pipeline(BULKHEAD))],
    "backoff-beyond-timeout": [(Timeout(2), SLOW_RETRY), (SLOW_RETRY.replace(timeout=3),)],
    "breaker-cannot-trip": [
        (TokenBucket(1, burst=1), BREAKER),
        (BREAKER, TokenBucket(1, burst=1)),
        (TokenBucket(0.5, burst=1), RETRY, CircuitBreaker()),
        (SlidingWindow(1, 1), BREAKER),
        (LeakyBucket(1), BREAKER),
        (AdaptiveRate(1), BREAKER),
    ],
    "budget-pays-nothing": [
        (RETRY.replace(budget=RetryBudget(ratio=0, floor=0)),),
        (Hedge(budget=TokenBudget(0)),),
    ],
    "hedge-beyond-timeout": [
        (Timeout(2), Hedge(2)),
        (Hedge(3), Timeout(2)),
        (Hedge(7), Retry(on=OSError, backoff=Constant(delay=0)), Timeout(2)),
    ],
    "retry-inside-breaker": [(BREAKER, RETRY), (BREAKER, ENDLESS)],
    "retry-inside-bulkhead": [(BULKHEAD, RETRY), (AdaptiveLimit(), Timeout(10), RETRY)],
    "retry-inside-rate-limit": [(BUCKET, RETRY), (BUCKET, ENDLESS)],
    "retry-inside-hedge": [(Hedge(), RETRY), (Hedge(), ENDLESS)],
    "hedge-inside-gate": [(BREAKER, Hedge()), (BUCKET, Hedge()), (BULKHEAD, Hedge())],
    "retries-multiply": [(RETRY, RETRY), (RETRY, Pipeline(BREAKER, Pipeline(RETRY))), (ENDLESS, RETRY)],
    "retry-of-rejections": [
        (Retry(on=(OSError, CircuitOpen)), BREAKER),
        (Retry(on=Rejected), BREAKER),
        (Retry(on=lambda _: True), BREAKER),
    ],
    "attempt-timeout-outside-breaker": [(RETRY, Timeout(2), BREAKER)],
    "retry-inside-throttle": [(Throttle(), RETRY)],
    "no-time-to-retry": [
        (Timeout(2.5), RETRY, Timeout(2)),
        (RETRY.replace(timeout=2), Timeout(2)),
        (Timeout(7), SLOW_RETRY, Timeout(3)),
        (Timeout(9), Retry(on=OSError, backoff=BOTH), Timeout(3)),
    ],
    "attempts-beyond-timeout": [
        (Timeout(5), RETRY, Timeout(2)),
        (RETRY.replace(timeout=3), Timeout(2)),
        (Timeout(10), Retry(on=OSError, backoff=BOTH), Timeout(1)),
    ],
    "timeout-never-reached": [(Timeout(2), RETRY, Timeout(2)), (Timeout(2), Pipeline(Timeout(3)))],
    "retry-without-limit": [(Retry(on=OSError, attempts=None),)],
    "retry-without-budget": [(Retry(on=OSError, attempts=4),), (Retry(on=OSError, attempts=None),)],
    "retry-without-wait": [
        (Retry(on=OSError, backoff=Constant(delay=0)),),
        (Retry(on=OSError, attempts=None, backoff=[0.0]),),
    ],
    "unbounded-queue": [(TokenBucket(1),), (RETRY, SlidingWindow(1)), (LeakyBucket(1, shape=True),)],
    "slow-call-unreachable": [
        (CircuitBreaker(slow_call=5), Timeout(2)),
        (Timeout(2), CircuitBreaker(slow_call=5)),
    ],
    "probe-lease-too-short": [(CircuitBreaker(probe_lease=5), Timeout(10))],
    "hedge-floods": [(Hedge(0),), (Hedge(percentile=0.1),)],
    "timeout-outside-fallback": [(Timeout(2), Fallback(None))],
    "hang-never-trips": [(Timeout(2), BREAKER), (Timeout(2), RETRY, BREAKER)],
    "no-attempt-timeout": [(Timeout(2), RETRY), (Timeout(lambda: None), RETRY)],
    "timeout-not-retried": [(Retry(on=ConnectionError), Timeout(2))],
    "max-retry-after-beyond-timeout": [
        (Timeout(5), RETRY.replace(max_retry_after=30)),
        (RETRY.replace(timeout=5, max_retry_after=30),),
    ],
    "backoff-without-jitter": [(Retry(on=OSError, backoff=Exponential(jitter="none")),)],
    "unbounded-wait": [(Bulkhead(1, max_queue=5),), (AdaptiveLimit(max_queue=5),)],
    "same-kind-twice": [
        (CircuitBreaker(), CircuitBreaker()),
        (Bulkhead(1), Bulkhead(2)),
        (TokenBucket(1), TokenBucket(2)),
    ],
    "chaos-outside": [(CHAOS, RETRY), (CHAOS, Timeout(2), Chaos(fault=Failure, fault_rate=0.1))],
    "chaos-enabled": [(Chaos(fault=Failure, fault_rate=0.1, enabled=lambda: True),)],
}

SILENT: dict[str, list[Strategies]] = {
    "fallback-inside-retry": [
        (Fallback(None), RETRY),
        (RETRY, Fallback(None, on=LookupError)),
        (RETRY, Fallback(None, on=is_lookup)),
        (Retry(on=is_lookup), Fallback(None, on=LookupError)),
    ],
    "fallback-inside-hedge": [(Fallback(None), Hedge()), (Hedge(on=OSError), Fallback(None, on=LookupError))],
    "fallback-inside-breaker": [(Fallback(None), BREAKER), (CircuitBreaker(slow_call=1), Fallback(None))],
    "gate-twice": [(BREAKER, RETRY, CircuitBreaker())],
    "backoff-beyond-timeout": [
        (Timeout(4), SLOW_RETRY),
        (Timeout(0.01), RETRY),
        (Timeout(1), Retry(on=OSError, backoff=broken_delay)),
    ],
    "breaker-cannot-trip": [
        (TokenBucket(2), BREAKER),
        (TokenBucket(1, burst=1), RETRY, BREAKER),
        (TokenBucket(1, burst=1), ENDLESS, BREAKER),
        (TokenBucket(1, burst=1), CircuitBreaker(window=CountWindow(20))),
        (TokenBucket(1, burst=1), CircuitBreaker(consecutive_failures=5)),
        (TokenBucket(1, burst=1), CircuitBreaker(trip=lambda counts: counts.failures > 5)),
        (BREAKER, Pipeline(TokenBucket(1, burst=1), key=ten_users)),
        (SlidingWindow(10), BREAKER),
        (AdaptiveRate(1, ceiling=100), BREAKER),
        (OwnLimiter("own"), BREAKER),  # type: ignore[abstract]  # it is looked at, and never used
    ],
    "budget-pays-nothing": [(RETRY.replace(budget=RetryBudget()),), (Hedge(budget=TokenBudget(5)),), (RETRY,)],
    "hedge-beyond-timeout": [(Timeout(2), Hedge(1)), (Hedge(), Timeout(2)), (Hedge(3), RETRY, Timeout(2)), (Hedge(3),)],
    "retry-inside-breaker": [(RETRY, BREAKER), (BREAKER, NO_RETRY)],
    "retry-inside-bulkhead": [(RETRY, BULKHEAD), (BULKHEAD, NO_RETRY)],
    "retry-inside-rate-limit": [(RETRY, BUCKET), (BUCKET, NO_RETRY)],
    "retry-inside-hedge": [(RETRY, Hedge()), (Hedge(), NO_RETRY)],
    "hedge-inside-gate": [(Hedge(), BREAKER, BUCKET, BULKHEAD)],
    "retries-multiply": [(RETRY, NO_RETRY), (RETRY, Hedge())],
    "retry-of-rejections": [
        (Retry(on=Exception), BREAKER),
        (BREAKER, Retry(on=CircuitOpen)),
        (Retry(on=Rejected, attempts=1), BREAKER),
    ],
    "attempt-timeout-outside-breaker": [
        (RETRY, BREAKER, Timeout(2)),
        (RETRY, Timeout(5), BREAKER, Timeout(2)),
        (RETRY, Timeout(2), CircuitBreaker(slow_call=1)),
        (Timeout(2), RETRY, BREAKER),
    ],
    "retry-inside-throttle": [(RETRY, Throttle()), (Throttle(), NO_RETRY)],
    "no-time-to-retry": [
        (Timeout(4), RETRY, Timeout(2)),
        (Timeout(2), RETRY, Timeout(2)),
        (RETRY.replace(timeout=3), Timeout(2)),
        (RETRY.replace(timeout=3),),
        (Timeout(3), RETRY),
        (Timeout(3), NO_RETRY, Timeout(2)),
        (Timeout(10), Retry(on=OSError, backoff=ByVerdict(broken)), Timeout(5)),
    ],
    "attempts-beyond-timeout": [
        (Timeout(6.5), RETRY, Hedge(), Timeout(2)),
        (Timeout(7), RETRY, Timeout(2)),
        (RETRY.replace(timeout=5), Timeout(2)),
        (Timeout(5), RETRY),
        (Timeout(5), ENDLESS, Timeout(2)),
        (Timeout(5), NO_RETRY, Timeout(2)),
        (Timeout(3), Retry(on=OSError, backoff=ByVerdict(broken)), Timeout(2)),
        (Timeout(3), Retry(on=OSError, backoff=broken_delay), Timeout(2)),
    ],
    "timeout-never-reached": [(Timeout(5), Timeout(2)), (Timeout(lambda: 1), Timeout(2))],
    "retry-without-limit": [(ENDLESS,), (Timeout(9), Retry(on=OSError, attempts=None)), (RETRY,)],
    "retry-without-budget": [(RETRY,), (ENDLESS,), (Retry(on=OSError, attempts=9, budget=RetryBudget()),)],
    "retry-without-wait": [
        (RETRY,),
        (ENDLESS,),
        (Retry(on=OSError, backoff=[0.0, 1.0]),),
        (Retry(on=OSError, backoff=broken_delay),),
    ],
    "unbounded-queue": [(BUCKET,), (Timeout(9), TokenBucket(1)), (ENDLESS, TokenBucket(1)), (LeakyBucket(1),), (BULKHEAD,)],
    "slow-call-unreachable": [
        (CircuitBreaker(slow_call=1), Timeout(2)),
        (CircuitBreaker(slow_call=5), RETRY, Timeout(2)),
        (BREAKER, Timeout(2)),
    ],
    "probe-lease-too-short": [(BREAKER, Timeout(10)), (Timeout(4), CircuitBreaker(probe_lease=5), Timeout(10)), (BREAKER,)],
    "hedge-floods": [(Hedge(),), (Hedge(0, budget=RetryBudget()),), (Hedge(0.1),)],
    "timeout-outside-fallback": [(Fallback(None), Timeout(2))],
    "hang-never-trips": [(Timeout(9), BREAKER, Timeout(2)), (BREAKER,), (RETRY, Timeout(2), BREAKER)],
    "no-attempt-timeout": [(Timeout(9), RETRY, Timeout(2)), (RETRY,), (Timeout(9), NO_RETRY)],
    "timeout-not-retried": [
        (Retry(on=TimeoutError), Timeout(2)),
        (RETRY, Timeout(2)),
        (Timeout(2), Retry(on=ConnectionError)),
        (Retry(), Timeout(2)),
        (Retry(on=ConnectionError), Retry(on=TimeoutError), Timeout(2)),
    ],
    "max-retry-after-beyond-timeout": [(Timeout(5), RETRY), (Timeout(50), RETRY.replace(max_retry_after=30))],
    "backoff-without-jitter": [(RETRY,), (Retry(on=OSError, backoff=[1.0, 2.0]),), (Retry(on=OSError, backoff=BOTH),)],
    "unbounded-wait": [(BULKHEAD,), (Bulkhead(1, max_queue=5, queue_timeout=1),), (Timeout(9), Bulkhead(1, max_queue=5))],
    "same-kind-twice": [
        (TokenBucket(10), TokenBucket(100, per=3600)),
        (Bulkhead(1), Pipeline(Bulkhead(2))),
        (BREAKER, RETRY, CircuitBreaker()),
        (CircuitBreaker(on=OSError), CircuitBreaker(on=LookupError)),
        (Timeout(5), Timeout(2)),
    ],
    "chaos-outside": [(RETRY, CHAOS), (RETRY, CHAOS, Chaos(fault=Failure, fault_rate=0.1))],
    "chaos-enabled": [(CHAOS,)],
}


def cases(table: dict[str, list[Strategies]]) -> Iterator[Any]:
    for code, compositions in table.items():
        for number, composition in enumerate(compositions):
            yield pytest.param(code, composition, id=f"{code}-{number}")


@pytest.mark.parametrize(("code", "strategies"), list(cases(FOUND)))
def test_a_rule_finds_what_it_is_there_for(code: str, strategies: Strategies) -> None:
    """Once, with its severity, the way to it, what is wrong and what to do."""
    found = [finding for finding in lint(strategies) if finding.code == code]

    assert len(found) == 1
    assert found[0].severity == RULES[code][0]
    assert found[0].where
    assert found[0].message.endswith((".", "!"))
    assert found[0].mend.endswith(".")
    assert str(found[0]).startswith(f"{found[0].severity} {code} at ")


@pytest.mark.parametrize(("code", "strategies"), list(cases(SILENT)))
def test_a_rule_is_silent_where_all_is_well(code: str, strategies: Strategies) -> None:
    """A false alarm teaches people not to look."""
    assert code not in {finding.code for finding in lint(strategies)}


def test_every_rule_is_tested_both_ways() -> None:
    """A new one is tested by being added to both tables."""
    assert set(FOUND) == set(SILENT) == set(RULES)


def test_a_rule_asks_the_classifier_of_the_pipeline() -> None:
    """Where the retry has none of its own; that of the nested pipeline, or else the one around."""
    always = on_errors(Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "always"))
    never = on_errors(Verdict(Kind.PERMANENT, Health.UNHEALTHY, "never"))

    def codes(own: Classifier | None, around: Classifier) -> set[str]:
        inner = Pipeline(Retry(), BREAKER, Timeout(1), classify=own or around)
        return {finding.code for finding in Pipeline(inner, classify=around).lint()}

    assert codes(always, never) >= {"retry-of-rejections"}
    assert codes(None, never) == {"timeout-not-retried"}
