"""The instruments: what is measured, in which unit, and by which labels it is told apart. One table for every backend.

Names are without the prefix `resilience`, in the way of OpenTelemetry. Labels are of low cardinality: keys are, by contract,
and are bounded besides (`Keys`); reasons, kinds and names of strategies are few. Attempt numbers, ids and messages are none.

All mutable state: the keys that `Keys` has seen.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from resilient._arguments import integer
from resilient.observe.text import safe_text
from resilient.strategies.breaker_states import BreakerState

__all__ = (
    "ADAPTIVE_LIMIT",
    "ADAPTIVE_RATE",
    "ATTEMPTS",
    "ATTEMPT_DURATION",
    "BREAKER_FAILURE_RATIO",
    "BREAKER_SLOW_RATIO",
    "BREAKER_STATE",
    "BREAKER_STATES",
    "BUCKETS",
    "BUDGET_AVAILABLE",
    "BULKHEAD_ACTIVE",
    "BULKHEAD_LIMIT",
    "BULKHEAD_QUEUED",
    "CALLS",
    "CALL_DURATION",
    "EVENTS",
    "HEDGE_DELAY",
    "INSTRUMENTS",
    "LIMITER_LIMIT",
    "LIMITER_QUEUED",
    "LIMITER_TOKENS",
    "POLICY_RELOADS",
    "THROTTLE_PROBABILITY",
    "WAIT_DURATION",
    "Instrument",
    "Keys",
)


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    """Something that is measured; there is one object of each.

    Attributes:
        name: what it is called, without the prefix.
        kind: a counter goes up, a gauge is read when somebody looks, a histogram takes single values.
        unit: a base unit: `s` for seconds, `1` for shares, `{call}` for things that are counted.
        labels: what tells its series apart.
        text: what it says.

    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    text: str


_PLACE: Final = ("name", "key", "strategy")


def _gauge(name: str, unit: str, text: str, *labels: str) -> Instrument:
    return Instrument(name, "gauge", unit, (*_PLACE, *labels), text)


CALL_DURATION: Final = Instrument(
    "call.duration", "histogram", "s", ("key", "outcome"), "Time that calls took, all attempts and waits included"
)
CALLS: Final = Instrument("calls", "counter", "{call}", ("key", "outcome", "reason"), "Calls that have ended")
ATTEMPT_DURATION: Final = Instrument(
    "attempt.duration", "histogram", "s", ("key", "kind", "health"), "Time that single attempts took"
)
ATTEMPTS: Final = Instrument("attempts", "counter", "{attempt}", ("key", "kind", "health", "reason"), "Attempts that have ended")
EVENTS: Final = Instrument("events", "counter", "{event}", ("key", "strategy", "event", "reason"), "What strategies decided")
WAIT_DURATION: Final = Instrument(
    "wait.duration", "histogram", "s", ("key", "strategy"), "Time that callers waited for a permit that they then had"
)
POLICY_RELOADS: Final = Instrument(
    "policy.reloads", "counter", "{reload}", ("provider", "result"), "What became of documents of policies"
)

BREAKER_STATE: Final = _gauge("breaker.state", "1", "1 for the state that the breaker is in, 0 for the others", "state")
BREAKER_FAILURE_RATIO: Final = _gauge("breaker.failure_ratio", "1", "Share of failures in the window of the breaker")
BREAKER_SLOW_RATIO: Final = _gauge("breaker.slow_ratio", "1", "Share of slow calls in the window of the breaker")
BULKHEAD_ACTIVE: Final = _gauge("bulkhead.active", "{call}", "Slots that are out")
BULKHEAD_LIMIT: Final = _gauge("bulkhead.limit", "{call}", "How many slots there are")
BULKHEAD_QUEUED: Final = _gauge("bulkhead.queued", "{call}", "Callers that wait for a slot")
LIMITER_TOKENS: Final = _gauge("limiter.tokens", "{token}", "Calls that would be admitted at once")
LIMITER_LIMIT: Final = _gauge("limiter.limit", "{token}", "How many that can be at most")
LIMITER_QUEUED: Final = _gauge("limiter.queued", "{call}", "Callers that wait for a token")
ADAPTIVE_LIMIT: Final = _gauge("adaptive.limit", "{call}", "Calls at a time that an adaptive limit has arrived at")
ADAPTIVE_RATE: Final = _gauge("adaptive.rate", "{call}/s", "Calls a second that an adaptive rate has arrived at")
THROTTLE_PROBABILITY: Final = _gauge("throttle.probability", "1", "Probability that the throttle refuses the next call")
BUDGET_AVAILABLE: Final = _gauge("retry.budget.available", "{retry}", "Retries that the budget would pay for")
HEDGE_DELAY: Final = _gauge("hedge.delay", "s", "Time after which a hedge is started")

INSTRUMENTS: Final = (
    CALL_DURATION,
    CALLS,
    ATTEMPT_DURATION,
    ATTEMPTS,
    EVENTS,
    WAIT_DURATION,
    POLICY_RELOADS,
    BREAKER_STATE,
    BREAKER_FAILURE_RATIO,
    BREAKER_SLOW_RATIO,
    BULKHEAD_ACTIVE,
    BULKHEAD_LIMIT,
    BULKHEAD_QUEUED,
    LIMITER_TOKENS,
    LIMITER_LIMIT,
    LIMITER_QUEUED,
    ADAPTIVE_LIMIT,
    ADAPTIVE_RATE,
    THROTTLE_PROBABILITY,
    BUDGET_AVAILABLE,
    HEDGE_DELAY,
)

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""The bounds of the histograms, in seconds: from a call on the same network to one that was retried for long."""

BREAKER_STATES: Final = tuple(state for states in get_args(BreakerState) for state in get_args(states))


class Keys:
    """The keys that are labels: the first ones that come, so many; all others are one."""

    OTHERS: Final = "(others)"

    def __init__(self, most: int) -> None:
        self.most = integer("max_keys", most)
        self._labels: dict[str, str] = {}

    def __getitem__(self, key: str | None) -> str:
        """The label of a key; "" where there is none."""
        if key is None:
            return ""
        label = self._labels.get(key)
        if label is None:
            if len(self._labels) >= self.most:
                return self.OTHERS
            label = self._labels[key] = safe_text(key)
        return label
