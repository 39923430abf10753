"""Hedge: start a second attempt while the first one is slow, and take what comes first.

`Hedge` is a frozen setting and the state that goes with it: how long calls take of late, and what hedging brought about. Each
call that may be hedged runs a `Race`: its first leg in the caller's own task, its hedges in a task group around that. A call
that may not be (nothing is known of the latency yet, a breaker inside is not closed) goes straight through.

The idea is the *hedged request* of Dean and Barroso, "The Tail at Scale" (2013). All mutable state: that of `HedgeState`.
"""

from collections.abc import Callable, Coroutine
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from typing import Any, Self

from resilient import clock
from resilient._arguments import Duration, integer, seconds
from resilient.context import Attempt
from resilient.outcome import Classifier, On, retry_on
from resilient.strategies.base import Inside, Step, Strategy
from resilient.strategies.budget import Budget
from resilient.strategies.hedge_race import Race, is_answer, obstacle_inside
from resilient.strategies.latency import P95, FixedDelay, Latency, Percentile, Trigger
from resilient.strategies.streams import Stream

__all__ = ("Hedge", "HedgeState", "HedgeStatistics")


@dataclass(frozen=True, slots=True)
class HedgeStatistics:
    """A snapshot of a hedge.

    Attributes:
        calls: how many there were.
        hedges: hedges that were started.
        wins: how many of them won.
        samples: how many calls the live latency has learned from.
        delay: seconds that the next call would wait before its first hedge, or None where it would not be hedged.

    """

    calls: int
    hedges: int
    wins: int
    samples: int
    delay: float | None


class HedgeState:
    """What a hedge knows of those whom it calls: the live latency, and what came of hedging.

    Attributes:
        latency: how long calls take of late.
        calls, hedges, wins: as in `HedgeStatistics`.

    """

    __slots__ = ("calls", "hedges", "latency", "wins")

    def __init__(self, minimum: int = 50) -> None:
        self.latency = Latency(minimum)
        self.calls = 0
        self.hedges = 0
        self.wins = 0

    def sibling(self) -> Self:
        """A new one with the same settings."""
        return type(self)(self.latency.minimum)

    def is_fresh(self, now: float) -> bool:
        """Whether nothing is lost when it is forgotten: nothing was learned of late."""
        return self.latency.is_fresh(now)

    def retune(self, template: Self) -> bool:
        """Take over the settings of another one, and keep what was learned."""
        self.latency.minimum = template.latency.minimum
        return True


@dataclass(frozen=True)
class Hedge(Strategy):
    """Start a further attempt while the ones before are slow, and take the first answer.

    For callees that may safely be called twice. An answer is a success, or an error that says that the callee is well (a 404).
    A leg that failed never wins while another one lives. Those that lost are cancelled and awaited, and what they returned
    is disposed of; when all have failed, the outcome of the first one that says most surfaces: a permanent failure before one
    that may pass, that before a rejection.

    Args:
        delay: seconds to wait for a leg before the next one is started, at least 0 (float, `timedelta`, or a function without
            arguments that is asked at each call and may return None for no hedge). Without it `percentile` says so.
        percentile: wait for as long as this share of the calls takes (default 0.95): about one in twenty is hedged then.
            Between 0 and 0.9999.
        max_hedges: how many further attempts there may be, at least 1 (default 1). Each waits for the delay in its turn.
        budget: pays for hedges: that of the `Retry` around, so that both together cannot become a storm (default none).
        trigger: from the live latency to the seconds to wait, in place of `delay` and `percentile`.
        minimum: how many calls must have been seen before the live latency is relied on, at least 1 (default 50).
        when: which calls may be hedged: a predicate on their arguments (default: all).
        on: which exceptions start the next hedge at once: a type, a tuple of types, or a predicate. By default what the
            pipeline's classifier calls retryable; without any, none do.
        never: which do not; it beats `on`.
        classify: a classifier of outcomes, in place of `on`; needed to judge values.
        dispose: called with a value that lost, sync or async; values that linger are discarded anyway.
        state: what was learned, to be shared or kept; by default its own.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range, at construction.

    A call that is cancelled cancels all its legs and awaits them. The exception of the callee surfaces, the same object.

    """

    delay: Duration | Callable[[], Duration | None] | None = None
    _: KW_ONLY
    percentile: float = P95
    max_hedges: int = 1
    budget: Budget | None = None
    trigger: Trigger | None = None
    minimum: int = 50
    when: Callable[..., bool] | None = None
    on: On | None = None
    never: On | None = None
    classify: Classifier | None = None
    dispose: Callable[[Any], object] | None = None
    state: HedgeState = field(default=None, repr=False, compare=False)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  made below
    classifier: Classifier | None = field(init=False, repr=False, compare=False)
    _ask: Trigger = field(init=False, repr=False, compare=False)
    _learns: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.on is not None and self.classify is not None:
            msg = "on= and classify= both say what a failure is: give one of them"
            raise TypeError(msg)
        if self.on is None and self.never is not None:
            msg = "never= needs on=: say what starts a hedge at once, e.g. Hedge(on=OSError, never=PermissionError)"
            raise TypeError(msg)
        if self.trigger is not None and self.delay is not None:
            msg = "delay= and trigger= both say when to hedge: give one of them"
            raise TypeError(msg)
        integer("max_hedges", self.max_hedges)
        integer("minimum", self.minimum)
        settle = partial(object.__setattr__, self)
        settle("percentile", Percentile(self.percentile))
        if self.delay is not None and not callable(self.delay):
            settle("delay", seconds("delay", self.delay))
        settle("_ask", self._trigger())
        settle("_learns", self.delay is None and not isinstance(self.trigger, FixedDelay))
        settle("classifier", self.classify if self.on is None else retry_on(self.on, self.never))
        if self.state is None:  # pyright: ignore[reportUnnecessaryComparison]  the default
            settle("state", HedgeState(self.minimum))

    def _trigger(self) -> Trigger:
        delay = self.delay
        if callable(delay):
            return lambda _: None if (wait := delay()) is None else seconds("delay", wait)
        if delay is not None:
            return FixedDelay(delay)  # type: ignore[arg-type]  # a float  # pyright: ignore[reportArgumentType]
        return self.trigger or Percentile(self.percentile)

    def replace(self, **changes: Any) -> Self:
        """A copy with other settings and the same state: `hedge.replace(max_hedges=2)`."""
        return replace(self, **changes)

    def sibling(self) -> Self:
        """A copy with fresh state."""
        return self.replace(state=self.state.sibling())

    def statistics(self) -> HedgeStatistics:
        """A snapshot. A `delay` that is a function is asked."""
        state = self.state
        return HedgeStatistics(state.calls, state.hedges, state.wins, state.latency.samples, self._ask(state.latency))

    def fold(self, inner: Step, inside: Inside = ()) -> Step:
        return partial(self._run, inner, inside)

    def run(self, call: Step, attempt: Attempt) -> Coroutine[Any, Any, Any]:
        return self._run(call, (), attempt)

    async def _run(self, call: Step, inside: Inside, attempt: Attempt) -> Any:
        now = clock.now()
        state = attempt.sibling(self.state)
        state.calls += 1
        budget = None if self.budget is None else attempt.sibling(self.budget)
        if budget is not None and attempt.kind == "original" and attempt.earned is not budget:
            attempt.earned = budget  # a retry around that shares it has told it already
            budget.deposit(now)
        delay = self._ask(state.latency)
        if delay is None or not self._may_hedge(attempt) or obstacle_inside(inside, attempt, now):
            return await self._alone(call, attempt, state.latency, now)
        return await Race(self, call, inside, attempt, state, budget, delay, learns=self._learns).run(now)

    def _may_hedge(self, attempt: Attempt) -> bool:
        return self.when is None or self.when(*attempt.args, **(attempt.kwargs or {}))

    async def _alone(self, call: Step, attempt: Attempt, latency: Latency, started: float) -> Any:
        """A call that is not hedged: it is learned from, where it gives an answer."""
        value = await call(attempt)
        if isinstance(value, Stream):
            await value.check_movable()
        if self._learns and is_answer(attempt.verdict(value, error=False, classifier=self.classifier)):
            now = clock.now()
            latency.record(now - started, now)
        return value

    def __repr__(self) -> str:
        seen = self.statistics()
        when = "not hedging yet" if seen.delay is None else f"after {seen.delay:.3g} s"
        return f"<Hedge {when}, at most {self.max_hedges}: {seen.hedges} of {seen.calls} calls hedged, {seen.wins} won>"
