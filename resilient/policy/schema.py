"""Policy: which strategies, with which settings.

A `Policy` is a frozen value, a recipe: `pipeline()` cooks it, in the canonical order, with fresh state each time. Strategies
in it are templates; they are copied and never used themselves, so one policy can serve many clients without their sharing
a breaker by accident. What it names (a classifier, a budget, a trigger of hedges) is looked up when it is cooked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from resilient._arguments import Duration
from resilient.lint import Finding, lint
from resilient.outcome import Classifier
from resilient.pipeline import Pipeline
from resilient.policy.cooking import cook
from resilient.policy.names import BudgetRef, Names
from resilient.strategies.adaptive_limit import AdaptiveLimit
from resilient.strategies.base import Strategy
from resilient.strategies.budget import UnlimitedBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.chaos import Chaos
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.hedge import Hedge
from resilient.strategies.limiter import Limiter
from resilient.strategies.retry import Retry
from resilient.strategies.throttle import Throttle
from resilient.strategies.timeout import Timeout

__all__ = ("ORDER", "Normalisation", "Policy")

ORDER: Final[Mapping[str, tuple[type[Strategy], ...]]] = {
    "fallback": (Fallback,),
    "timeout": (Timeout,),
    "retry": (Retry,),
    "hedge": (Hedge,),
    "throttle": (Throttle,),
    "rate_limit": (Limiter,),
    "circuit_breaker": (CircuitBreaker,),
    "bulkhead": (Bulkhead, AdaptiveLimit),
    "attempt_timeout": (Timeout,),
    "chaos": (Chaos,),
}
"""The canonical order, outermost first, and what each place takes. Every send is rate-limited, recorded and permitted;
nothing is held while a retry sleeps."""

_EXAMPLES: Final = {"rate_limit": "TokenBucket(100)", "fallback": "Fallback(None)", "bulkhead": "Bulkhead(10)"}


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
        retry: what to retry, and how. Without `on` it follows the classifier.
        hedge: when to double an attempt that is slow. Its budget may be that of the retry: they stay one.
        throttle: how to refuse on this side what the service would refuse anyway.
        rate_limit: how many sends a second: a `TokenBucket` or any other rate limiter.
        circuit_breaker: when to stop calling a service that is unwell.
        bulkhead: how many calls at a time: a `Bulkhead` or an `AdaptiveLimit`.
        attempt_timeout: seconds for each attempt; the attempt is cut off. As `timeout`.
        chaos: what to break on purpose.
        classifier: says what outcomes mean, to all strategies that have no `on` or `classify` of their own: a `Classifier`, or
            the name of one, e.g. `"http"`. None (the default): the one that the pipeline or the executor is given.
        retry_budget: the name of the budget that pays for retries, or a `BudgetRef`; in place of `Retry(budget=...)`.
        hedge_budget: the same for hedges.
        hedge_trigger: the name of what says when to hedge, e.g. `"p99"`; in place of `Hedge(trigger=...)`.
        id: what it is called in events, e.g. a version.
        source: where it comes from: `"code"`, `"static"`, `"file"`, `"remote"`, `"lkg"` (the last one known to be good), or
            `"default"`. It is set by providers, and no part of what makes two policies equal.
        normalisation: which values of a document were brought into bounds. As `source`.

    Raises:
        TypeError: a strategy stands in the place of another one, or two fields say the same thing.

    """

    fallback: Fallback | None = None
    timeout: Timeout | Duration | None = None
    retry: Retry | None = None
    hedge: Hedge | None = None
    throttle: Throttle | None = None
    rate_limit: Limiter | None = None
    circuit_breaker: CircuitBreaker | None = None
    bulkhead: Bulkhead | AdaptiveLimit | None = None
    attempt_timeout: Timeout | Duration | None = None
    chaos: Chaos | None = None
    classifier: Classifier | str | None = None
    retry_budget: BudgetRef | str | None = None
    hedge_budget: BudgetRef | str | None = None
    hedge_trigger: str | None = None
    id: str = ""
    source: str = field(default="code", compare=False, repr=False)
    normalisation: Normalisation = field(default=Normalisation(), compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, kinds in ORDER.items():
            value = getattr(self, name)
            if Timeout in kinds and value is not None and not isinstance(value, Timeout):
                value = Timeout(value)
                object.__setattr__(self, name, value)
            if value is not None and not isinstance(value, kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                example = _EXAMPLES.get(name, f"{wanted}()")
                msg = f"{name}={value!r}: expected an instance of {wanted}, e.g. Policy({name}={example})"
                raise TypeError(msg)
        self._check_names()

    def _check_names(self) -> None:
        _check_type("classifier", self.classifier, Classifier, str)
        _check_type("hedge_trigger", self.hedge_trigger, str)
        if self.hedge_trigger is not None and self.hedge is not None and self.hedge.trigger is not None:
            msg = f"hedge_trigger={self.hedge_trigger!r}: the hedge has a trigger of its own; give one of them"
            raise TypeError(msg)
        for name, strategy in (("retry_budget", self.retry), ("hedge_budget", self.hedge)):
            value = getattr(self, name)
            _check_type(name, value, BudgetRef, str)
            if isinstance(value, str):
                object.__setattr__(self, name, BudgetRef(value))
            if value is not None and strategy is not None and strategy.budget is not None:
                msg = f"{name}={value!r}: the {name.removesuffix('_budget')} has a budget of its own; give one of them"
                raise TypeError(msg)

    @classmethod
    def http(cls) -> Self:
        """The defaults for HTTP clients, safe for production; `Policy.http().replace(...)` changes single fields.

        Three attempts with full jitter from 0.1 to 5 s, paid for by a budget; no wait and no new attempt more than 30 s after
        the call began, while an attempt that runs is never cut; a circuit breaker that opens for a second at a time. No hedge,
        bulkhead or limiter.
        """
        return cls._preset("http")

    @classmethod
    def database(cls) -> Self:
        """For queries: three attempts with equal jitter from 0.1 to 5 s, 30 s for each attempt and 60 s for the whole call."""
        return cls._preset("database")

    @classmethod
    def background_job(cls) -> Self:
        """For work that nobody waits for: five attempts with full jitter from 1 to 30 s, five minutes for the whole call."""
        return cls._preset("background_job")

    @classmethod
    def low_latency(cls) -> Self:
        """For calls that may be made twice and must be quick: two attempts with equal jitter from 10 to 50 ms, hedged up to two
        times after 100 ms each, 0.5 s for each attempt and 1 s for the whole call.
        """
        return cls._preset("low_latency")

    @classmethod
    def default(cls) -> Self:
        """Balanced: three attempts from 0.1 to 5 s, a breaker that opens for 30 s after five failures in a row and closes after
        three successes. It is what an executor falls back to where there is no policy.
        """
        return cls._preset("default")

    @classmethod
    def aggressive(cls) -> Self:
        """Tries hard: five attempts from 50 ms to 10 s, growing by half, a breaker that opens for 10 s after ten failures in a
        row and closes after five successes.
        """
        return cls._preset("aggressive")

    @classmethod
    def conservative(cls) -> Self:
        """Goes easy on the service: two attempts from 0.5 to 2 s, a breaker that opens for 60 s after three failures in a row
        and closes after one success.
        """
        return cls._preset("conservative")

    @classmethod
    def _preset(cls, name: str) -> Self:
        from resilient.policy.normalise import fields_of_preset  # noqa: PLC0415  it builds on this module

        return cls(**fields_of_preset(name))

    def replace(self, **changes: Any) -> Self:
        """A copy with other fields: `policy.replace(attempt_timeout=2.0)`."""
        return replace(self, **changes)

    @property
    def parts(self) -> dict[str, Strategy]:
        """The templates that are there by the names of their fields, outermost first."""
        return {name: strategy for name in ORDER if (strategy := getattr(self, name)) is not None}

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """The templates that are there, outermost first."""
        return tuple(self.parts.values())

    def lint(self) -> tuple[Finding, ...]:
        """What can't work or is dangerous in this policy, errors first; empty where all is well. See `resilient.lint`.

        Budgets that it names are taken to pay; nothing is looked up.
        """
        parts = self.parts
        for name, ref in (("retry", self.retry_budget), ("hedge", self.hedge_budget)):
            part = parts.get(name)
            if ref is not None and isinstance(part, (Retry, Hedge)):
                parts[name] = part.replace(budget=UnlimitedBudget())
        classify = self.classifier if isinstance(self.classifier, Classifier) else None
        return lint(tuple(parts.values()), names=tuple(parts), classify=classify)

    def fresh_strategies(self, *, names: Names | None = None) -> tuple[Strategy, ...]:
        """Copies of the templates with state of their own, outermost first: what a pipeline is made of.

        Args:
            names: where the budgets and the trigger that it names are looked up (default: only the built-in ones are known).

        Raises:
            ValueError: it names what is not there.

        """
        return tuple(cook(self, names).values())

    def pipeline(
        self,
        *,
        classify: Classifier | None = None,
        key: Callable[..., str] | None = None,
        max_keys: int = 10_000,
        names: Names | None = None,
    ) -> Pipeline:
        """A pipeline with fresh state.

        Args:
            classify: says what outcomes mean to strategies without an `on` or `classify` of their own; in place of `classifier`.
            key: the key of a call, from its arguments, for state per key.
            max_keys: how many keys may have state of their own.
            names: as in `fresh_strategies`; the classifier that it names is looked up there, too.

        Raises:
            ValueError: it names what is not there.

        """
        if classify is None and self.classifier is not None:
            classify = (names or Names()).classifier(self.classifier)
        return Pipeline(*self.fresh_strategies(names=names), classify=classify, key=key, max_keys=max_keys)


def _check_type(name: str, value: object, *kinds: type) -> None:
    if value is not None and not isinstance(value, kinds):
        msg = f"{name}={value!r}: expected {' or '.join('a name' if kind is str else f'a {kind.__name__}' for kind in kinds)}"
        raise TypeError(msg)
