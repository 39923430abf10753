"""What all gates have in common, and no history at random would notice."""

import pytest

from resilient import clock
from resilient.outcome import SUCCESS
from resilient.strategies.adaptive_limit import AdaptiveLimit
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.gate import Gate
from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.sliding_window import SlidingWindow
from resilient.strategies.throttle import Throttle

GATES: dict[str, Gate] = {
    "adaptive_limit": AdaptiveLimit(),
    "adaptive_rate": AdaptiveRate(1),
    "bulkhead": Bulkhead(1),
    "circuit_breaker": CircuitBreaker(),
    "leaky_bucket": LeakyBucket(1),
    "sliding_window": SlidingWindow(1),
    "throttle": Throttle(),
    "token_bucket": TokenBucket(1),
}
LINGERING = {"adaptive_limit", "bulkhead", "circuit_breaker"}
"""Those whose permits are out until the value has ended."""


@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_called_what_it_is_and_refuses_with_what_it_says(name: str) -> None:
    """Events and errors name it; a retry asks it beforehand what it would refuse with."""
    gate = GATES[name]
    refusal = gate.refuse(0.0)

    assert gate.name == refusal.strategy == name
    assert type(refusal) is gate.refusal


@pytest.mark.parametrize("name", GATES)
def test_its_permit_says_whether_it_waits_for_the_end_of_the_value(name: str) -> None:
    """Occupancy and samples of a closed breaker do; what is decided when the value is returned does not."""
    permit = GATES[name].sibling().admit(0.0)
    assert permit is not None
    permit.settle(SUCCESS, 0.0, 0.0)

    assert permit.lingers is (name in LINGERING)


def test_a_bucket_that_is_retuned_counts_in_whole_numbers_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """After eleven days floats of so many units do not tell a nanosecond: it is still one too early, and then it is not."""
    at = 10**6 * 10**9
    monkeypatch.setattr(clock, "now", lambda: at / 1e9)
    bucket = TokenBucket(99.99, per=60, burst=3, max_wait=0)
    bucket.acquire_nowait(2)
    bucket.retune(TokenBucket(1 / 3, per=3600, burst=3, max_wait=0))
    wait = round((bucket.refuse(at / 1e9, 3).retry_after or 0.0) * 1e9)

    assert bucket.refuse((at + wait - 1) / 1e9, 3).retry_after
    assert not bucket.refuse((at + wait) / 1e9, 3).retry_after
