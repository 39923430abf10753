"""The recorder: from events to counters and histograms, whatever the backend.

A backend says how a counter is raised and how a histogram takes a value. What is counted, and under which labels, is decided
here. It has no state of its own beside the keys that are labels, and what is watched.
"""

from abc import abstractmethod
from typing import Final, TypeVar

from resilient import Dispatch
from resilient.observe.events import (
    AttemptFinished,
    BreakerStateChanged,
    BudgetDecision,
    CallFinished,
    ChaosInjected,
    Event,
    FallbackUsed,
    HedgeFinished,
    HedgeStarted,
    PolicyRefused,
    PolicyReloaded,
    PolicyUnavailable,
    RetryScheduled,
    RetryStopped,
    TimedOut,
    Waited,
)
from resilient.observe.text import safe_text
from resilient_integrations._telemetry.instruments import (
    ATTEMPT_DURATION,
    ATTEMPTS,
    CALL_DURATION,
    CALLS,
    EVENTS,
    POLICY_RELOADS,
    WAIT_DURATION,
    Instrument,
    Keys,
)
from resilient_integrations._telemetry.levels import Level, Levels

__all__ = ("Recorder", "outcome_of")

T = TypeVar("T")

_STRATEGIES: Final[dict[type[Event], str]] = {
    # of events that do not name theirs
    FallbackUsed: "fallback",
    HedgeFinished: "hedge",
    HedgeStarted: "hedge",
    RetryScheduled: "retry",
    RetryStopped: "retry",
    TimedOut: "timeout",
}


def outcome_of(event: CallFinished) -> str:
    """What became of a call: `success`, `degraded`, `cancelled` or `failure`."""
    if event.reason == "cancelled":
        return "cancelled"
    if event.reason != "success":
        return "failure"
    return "degraded" if event.degraded else "success"


class Recorder(Dispatch):
    """A listener that counts. It is the base of what the backends have."""

    def __init__(self, max_keys: int) -> None:
        self._keys = Keys(max_keys)
        self._levels = Levels(self._keys)

    @abstractmethod
    def _add(self, instrument: Instrument, labels: tuple[str, ...]) -> None:
        """Raise a counter by one."""

    @abstractmethod
    def _record(self, instrument: Instrument, value: float, labels: tuple[str, ...]) -> None:
        """Give a value to a histogram."""

    def watch(self, thing: T, name: str = "") -> T:
        """Show the levels of a thing: the state of its breakers, how full its bulkheads are, which tokens are left.

        They are read when the metrics are, in the thread of the event loop. What is watched is kept alive until `unwatch`.

        Args:
            thing: a strategy, a `RetryBudget`, a `Keyed`, a `Pipeline`, a `Resilience`, or a `ResilientTransport`.
            name: the label `name` of its series (default ""), for each thing another one.

        Returns:
            The thing.

        Raises:
            TypeError: there is nothing to be read of it.
            ValueError: the name is taken.

        """
        self._levels.watch(thing, name)
        return thing

    def unwatch(self, name: str = "") -> None:
        """Undo `watch`; unknown names are ignored."""
        self._levels.unwatch(name)

    def __call__(self, event: Event) -> None:
        self._levels.home.seen()
        super().__call__(event)

    def on_call_started(self, event: Event) -> None:
        """Nothing is counted: its end is."""

    on_policy_applied = on_rejections_ended = on_call_started

    def on_call_finished(self, event: CallFinished) -> None:
        key, outcome = self._keys[event.key], outcome_of(event)
        self._record(CALL_DURATION, event.at - event.started, (key, outcome))
        self._add(CALLS, (key, outcome, event.reason))

    def on_attempt_finished(self, event: AttemptFinished) -> None:
        verdict = event.verdict
        labels = self._keys[event.key], event.kind, verdict.health.value
        self._record(ATTEMPT_DURATION, event.at - event.started, labels)
        self._add(ATTEMPTS, (*labels, verdict.reason))

    def on_waited(self, event: Waited) -> None:
        self._record(WAIT_DURATION, event.seconds, (self._keys[event.key], safe_text(event.strategy)))

    def on_policy_reloaded(self, event: PolicyReloaded) -> None:
        self._add(POLICY_RELOADS, (event.provider, "reloaded"))

    def on_policy_refused(self, event: PolicyRefused) -> None:
        self._add(POLICY_RELOADS, (event.provider, "refused"))

    def on_policy_unavailable(self, event: PolicyUnavailable) -> None:
        self._add(POLICY_RELOADS, (event.provider, "unavailable"))

    def on_breaker_state_changed(self, event: BreakerStateChanged) -> None:
        self._count(event, f"breaker_would_be_{event.new}" if event.monitor_only else f"breaker_{event.new}", event.why)

    def on_hedge_finished(self, event: HedgeFinished) -> None:
        self._count(event, f"hedge_{event.result}", event.why)

    def on_budget_decision(self, event: BudgetDecision) -> None:
        self._count(event, "budget_allowed" if event.allowed else "budget_denied", event.kind)

    def on_chaos_injected(self, event: ChaosInjected) -> None:
        self._count(event, event.name, event.kind)

    def on_retry_scheduled(self, event: RetryScheduled | FallbackUsed) -> None:
        self._count(event, event.name, event.verdict.reason)

    on_fallback_used = on_retry_scheduled

    def on_event(self, event: Event) -> None:
        """All others: of whatever strategy, with whatever reason they name."""
        self._count(event, event.name, _first_of(event, "reason", "why", "result"))

    def _count(self, event: Event, what: str, reason: str) -> None:
        strategy = _STRATEGIES.get(type(event), "") or _first_of(event, "strategy", "budget", "cache")
        self._add(EVENTS, (self._keys[event.key], safe_text(strategy), what, reason))

    def _read(self) -> list[Level]:
        return self._levels.read()


def _first_of(event: Event, *fields: str) -> str:
    """What the first of these fields says, of those that the event has; "" where none says anything."""
    return next((text for field in fields if (text := getattr(event, field, ""))), "")
