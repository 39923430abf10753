"""What the tests of adaptive rates share: what calls may end with, and calls."""

from dataclasses import replace

from resilient.errors import RateLimited
from resilient.outcome import SUCCESS, Health, Kind, RateHint, Verdict
from resilient.strategies.adaptive_rate import AdaptiveRate

BUSY = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", throttled=True)
DOWN = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503")
REFUSED = Verdict(Kind.PERMANENT, Health.NEUTRAL, "circuit_open", retry_after=9.0, rejected=True)


def told(verdict: Verdict = SUCCESS, *, wait: float | None = None, limits: RateHint | None = None) -> Verdict:
    """The same, with the server's word."""
    return replace(verdict, retry_after=wait, limits=limits)


def call(rate: AdaptiveRate, now: float, verdict: Verdict = SUCCESS, latency: float = 0.01) -> bool:
    """One call at this time, if a token is there."""
    try:
        permit = rate.admit(now)
    except RateLimited:
        return False
    if permit is None:
        return False
    permit.settle(verdict, latency, now + latency)
    return True
