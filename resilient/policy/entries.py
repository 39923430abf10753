"""What an executor keeps of each key, bounded: the policy as the provider gave it, and what was made of it."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from resilient import clock
from resilient.context import Attempt
from resilient.errors import Rejected
from resilient.keyed import Bounded
from resilient.observe.events import CallRejected
from resilient.outcome import Classifier
from resilient.pipeline import Pipeline
from resilient.policy.key import PolicyKey
from resilient.policy.schema import Policy
from resilient.strategies.base import Step, Strategy
from resilient.strategies.gate import Gate
from resilient.strategies.hedge import Hedge
from resilient.strategies.retry import Retry

__all__ = ("NO_POLICY", "UNSEEN", "Denial", "Entries", "Entry", "states_of")

UNSEEN: Final = object()
"""What a new entry has seen of the provider."""

NO_POLICY: Final = Policy(id="none")
"""The template in whose place an attempt finds the policy of its call."""


_EMPTY: Final = Pipeline()


class Entry:
    """What is kept of a key: the policy as the provider gave it, and what was made of it."""

    __slots__ = ("classifier", "error", "facts", "key", "name", "parts", "pipeline", "policy", "seen", "siblings", "step")

    def __init__(self) -> None:
        self.key = PolicyKey()
        self.name = ""  # the key as a plain text, for events
        self.seen: object = UNSEEN  # by the provider: what it gave, to be compared by identity
        self.error = ""
        self.policy = NO_POLICY
        self.parts: dict[str, Strategy] = {}
        self.pipeline: Strategy = _EMPTY
        self.step: Step = _EMPTY.step  # the pipeline without its entrance, which the executor does in passing
        self.classifier: Classifier | None = None
        self.facts: dict[str, Any] = {}  # of `CallStarted`
        self.siblings: Any = ()

    @property
    def counted(self) -> dict[str, Any]:
        """The parts that have statistics, and the budgets, by name."""
        parts: dict[str, Any] = {**self.parts, **states_of(self.parts)}
        return {name: part for name, part in parts.items() if hasattr(part, "statistics")}


def states_of(parts: Mapping[str, Strategy]) -> dict[str, Any]:
    """What has state: gates, and what retries and hedges hold, by name."""
    states: dict[str, Any] = {}
    for name, part in parts.items():
        if isinstance(part, Gate):
            states[name] = part
        elif isinstance(part, (Retry, Hedge)):
            if isinstance(part, Hedge):
                states["hedge_state"] = part.state
            if part.budget is not None:
                states[f"{name}_budget"] = part.budget
    return states


class Entries(Bounded[Entry]):
    """The entries by key."""

    __slots__ = ("find",)

    def __init__(self, max_keys: int) -> None:
        super().__init__(max_keys)
        self.find = self._states.get

    def _make(self, key: str | None) -> Entry:
        return Entry()

    def _is_fresh(self, state: Entry, now: float) -> bool:
        return all(part.is_fresh(now) for part in states_of(state.parts).values())

    def all(self) -> list[Entry]:
        """Every entry, the shared one included."""
        return [*self._states.values(), *filter(None, [self._overflow])]


class Denial(Strategy):
    """What takes the place of a pipeline where there is nothing to run the call with.

    Of many refusals in a row the first one is an event even if nobody listens: that is a line in the log.
    """

    __slots__ = ("_make", "_times")

    def __init__(self, make: Callable[[], Rejected]) -> None:
        self._make = make
        self._times = 0

    async def run(self, call: Step, attempt: Attempt) -> Any:
        rejection = self._make()
        rejection.key = key = attempt.key
        self._times += 1
        if self._times == 1 or attempt.watch is not None:
            attempt.notify(
                CallRejected(
                    at=clock.now(),
                    key=key,
                    call_id=attempt.identify(),
                    strategy=rejection.strategy,
                    reason=rejection.reason,
                    nth=self._times,
                )
            )
        raise rejection
