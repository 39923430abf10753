"""Policy: which strategies, with which settings.

A `Policy` is a frozen value, a recipe: `pipeline()` cooks it, in the canonical order, with fresh state each time. Strategies
in it are templates; they are copied and never used themselves, so one policy can serve many clients without their sharing
a breaker by accident.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from resilient._arguments import Duration
from resilient.outcome import Classifier
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Exponential
from resilient.strategies.base import Strategy
from resilient.strategies.budget import Budget, RetryBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.gate import Gate
from resilient.strategies.hedge import Hedge
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

__all__ = ("Normalisation", "Policy")

_KINDS: Final[dict[str, type[Strategy]]] = {
    "fallback": Fallback,
    "timeout": Timeout,
    "retry": Retry,
    "hedge": Hedge,
    "rate_limit": TokenBucket,
    "circuit_breaker": CircuitBreaker,
    "bulkhead": Bulkhead,
    "attempt_timeout": Timeout,
}
"""The canonical order, outermost first, and what each place takes. Every send is rate-limited, recorded and permitted;
nothing is held while a retry sleeps."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What was done to values of a document that were out of bounds.

    Attributes:
        fields: the paths of the values that were changed, e.g. `"retry.attempts"`, in the order of the document.

    """

    fields: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether any value was changed."""
        return bool(self.fields)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A bundle of strategy settings. What is None is left out.

    Args:
        fallback: what to give in place of a failed outcome.
        timeout: seconds for the whole call, waits included; the call is cut off. A number, a `timedelta` or a `Timeout`.
        retry: what to retry, and how. Without `on` it follows the classifier that the pipeline is given.
        hedge: when to double an attempt that is slow. Its budget may be that of the retry: they stay one.
        rate_limit: how many sends a second.
        circuit_breaker: when to stop calling a service that is unwell.
        bulkhead: how many calls at a time.
        attempt_timeout: seconds for each attempt; the attempt is cut off. As `timeout`.
        id: what it is called in events, e.g. a version.
        source: where it comes from: `"code"`, `"static"`, `"file"`, `"remote"`, `"lkg"` (the last one known to be good), or
            `"default"`. It is set by providers, and no part of what makes two policies equal.
        normalisation: which values of a document were brought into bounds. As `source`.

    Raises:
        TypeError: a strategy stands in the place of another one.

    """

    fallback: Fallback | None = None
    timeout: Timeout | Duration | None = None
    retry: Retry | None = None
    hedge: Hedge | None = None
    rate_limit: TokenBucket | None = None
    circuit_breaker: CircuitBreaker | None = None
    bulkhead: Bulkhead | None = None
    attempt_timeout: Timeout | Duration | None = None
    id: str = ""
    source: str = field(default="code", compare=False, repr=False)
    normalisation: Normalisation = field(default=Normalisation(), compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if kind is Timeout and value is not None and not isinstance(value, Timeout):
                value = Timeout(value)
                object.__setattr__(self, name, value)
            if value is not None and not isinstance(value, kind):
                msg = f"{name}={value!r}: expected an instance of {kind.__name__}, e.g. Policy({name}={kind.__name__}(...))"
                raise TypeError(msg)

    @classmethod
    def http(cls) -> Self:
        """The defaults for HTTP clients, safe for production; `Policy.http().replace(...)` changes single fields.

        Three attempts with full jitter from 0.1 to 5 s, paid for by a budget; no wait and no new attempt more than 30 s after
        the call began, while an attempt that runs is never cut; a circuit breaker. No hedge, bulkhead or limiter.
        """
        retry = Retry(attempts=3, backoff=Exponential(initial=0.1, maximum=5.0), timeout=30.0, budget=RetryBudget())
        return cls(retry=retry, circuit_breaker=CircuitBreaker())

    def replace(self, **changes: Any) -> Self:
        """A copy with other fields: `policy.replace(attempt_timeout=2.0)`."""
        return replace(self, **changes)

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """The templates that are there, outermost first."""
        return tuple(strategy for name in _KINDS if (strategy := getattr(self, name)) is not None)

    def fresh_strategies(self) -> tuple[Strategy, ...]:
        """Copies of the templates with state of their own, outermost first: what a pipeline is made of."""
        budgets: dict[int, Budget] = {}
        return tuple(_fresh(template, budgets) for template in self.strategies)

    def pipeline(
        self, *, classify: Classifier | None = None, key: Callable[..., str] | None = None, max_keys: int = 10_000
    ) -> Pipeline:
        """A pipeline with fresh state.

        Args:
            classify: says what outcomes mean to strategies without an `on` or `classify` of their own.
            key: the key of a call, from its arguments, for state per key.
            max_keys: how many keys may have state of their own.

        """
        return Pipeline(*self.fresh_strategies(), classify=classify, key=key, max_keys=max_keys)


def _fresh(template: Strategy, budgets: dict[int, Budget]) -> Strategy:
    """A copy with state of its own. `budgets` are those that were copied already: one that is shared stays shared."""
    if isinstance(template, (Gate, Hedge)):
        template = template.sibling()
    if isinstance(template, (Retry, Hedge)) and template.budget is not None:
        budget = budgets.setdefault(id(template.budget), template.budget.sibling())
        template = template.replace(budget=budget)
    return template
