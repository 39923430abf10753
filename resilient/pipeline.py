"""The pipeline: an ordered composition of strategies, outermost first.

It is folded once, at construction: neighbouring gates share one guard (one frame, one clock read for each decision),
every other strategy is a step around what is inside of it. A pipeline is itself a strategy: it can be called, used as a
decorator, and nested in another one. With a `key` it keeps fresh siblings of its stateful strategies for each key, in a
bounded `Keyed`; control flow is shared by all keys.
"""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from resilient.context import Attempt, current, invoke
from resilient.keyed import Siblings
from resilient.lint import Finding, lint
from resilient.observe.listeners import ears, sink
from resilient.outcome import Classifier
from resilient.strategies.base import Inside, Step, Strategy, watched
from resilient.strategies.gate import Gate
from resilient.strategies.guard import guarded
from resilient.strategies.hedge import Hedge

__all__ = ("Pipeline",)

KeyFunction = Callable[..., str]


class Pipeline(Strategy):
    """Several strategies as one, the outermost first.

    Args:
        strategies: what to compose. `Pipeline(Timeout(10), Retry(on=OSError), CircuitBreaker(), Timeout(2))` gives the whole
            call ten seconds, each attempt two, and lets the breaker see every attempt.
        classify: says what outcomes mean, to all strategies that have no `on` or `classify` of their own.
        key: what is called, for state per key: a function of the call's arguments, e.g.
            `key=lambda url, **_: urlsplit(url).hostname`. It must be of low cardinality: never an id. None (the default)
            shares one state among all calls.
        max_keys: how many keys may have state of their own at a time, at least 1 (default 10 000). Only keys whose state
            equals a fresh one are forgotten; where there are none, new keys share one overflow state.

    Raises:
        TypeError: something that is not a strategy, or a `Retry` that nobody tells what to retry.

    """

    __slots__ = ("_groups", "_step", "classifier", "key", "plain", "siblings", "strategies")

    def __init__(
        self,
        *strategies: Strategy,
        classify: Classifier | None = None,
        key: KeyFunction | None = None,
        max_keys: int = 10_000,
    ) -> None:
        for strategy in strategies:
            _check(strategy, classify)
        self.strategies = strategies
        self._groups = _grouped(strategies)
        self.classifier = classify
        self.key = key
        self.siblings = Siblings(_templates(self._groups), max_keys=max_keys) if key is not None else None
        own_start = type(self).start is not Pipeline.start
        self.plain: bool = not own_start and key is None and classify is None and all(each.plain for each in strategies)
        self._step = self._compose(invoke, ())

    def fold(self, inner: Step, inside: Inside = ()) -> Step:
        """All strategies around `inner`, as one step inside of another strategy."""
        step = self._compose(inner, inside)
        return step if self.key is None and self.classifier is None else partial(self._within, step)

    def _compose(self, step: Step, inside: Inside) -> Step:
        place = sum(len(group) for group in self._groups if isinstance(group, tuple))  # the gates come first in a key's state
        for group in reversed(self._groups):
            if isinstance(group, Strategy):
                step = group.fold(step, inside)
                inside = (*group.gates, *inside)
                continue
            place -= len(group)
            ours = slice(place, place + len(group))
            judged = any(gate.classifier is not None for gate in group)
            if self.siblings is None:
                step = partial(guarded, group, judged, step)
            else:
                step = partial(_guarded_by_key, self.siblings.templates, ours, judged, step)
            inside = (*group, *inside)
        return step

    @property
    def gates(self) -> Inside:
        if self.key is not None:
            return ()
        return tuple(gate for group in self._groups for gate in (group if isinstance(group, tuple) else group.gates))

    def run(self, call: Step, attempt: Attempt) -> Coroutine[Any, Any, Any]:
        return self.fold(call)(attempt)

    def begin(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        if ears and sink():
            return watched(self, Attempt(fn, args, kwargs))
        if self.plain and current() is None:
            return self._step([fn, args, kwargs, None])
        return self.start(Attempt(fn, args, kwargs))

    def start(self, attempt: Any) -> Coroutine[Any, Any, Any]:
        if not self.plain:
            self._enter(attempt)
        return self._step(attempt)

    @property
    def step(self) -> Step:
        """All strategies around the callee, for an attempt that has our classifier and, where there is one, our key already."""
        return self._step

    async def _within(self, step: Step, attempt: Attempt) -> Any:
        """Inside of another strategy: what is ours is not its own."""
        theirs = attempt.classifier, attempt.key, attempt.siblings
        self._enter(attempt)
        try:
            return await step(attempt)
        finally:
            attempt.classifier, attempt.key, attempt.siblings = theirs

    def _enter(self, attempt: Attempt) -> None:
        """Give the attempt our classifier, its key, and the state that belongs to that."""
        if self.classifier is not None:
            attempt.classifier = self.classifier
        if self.key is not None and self.siblings is not None:
            args, kwargs = attempt.args, attempt.kwargs
            attempt.key = self.key(*args, **kwargs) if kwargs else self.key(*args)
            attempt.siblings = ((self.siblings.templates, self.siblings[attempt.key]), *attempt.siblings)
            attempt.plain = False

    def lint(self) -> tuple[Finding, ...]:
        """What can't work or is dangerous in this composition, errors first; empty where all is well. See `resilient.lint`."""
        return lint(self.strategies, classify=self.classifier, keyed=self.key is not None)

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(repr(strategy) for strategy in self.strategies)})"


def _guarded_by_key(
    templates: tuple[Any, ...],
    group: slice,
    judged: bool,  # noqa: FBT001  as above
    call: Step,
    attempt: Attempt,
) -> Coroutine[Any, Any, Any]:
    state: Any
    known, state = attempt.siblings[0]  # of the innermost pipeline with a key, which is nearly always ours
    if known is not templates:
        state = next(other for known, other in attempt.siblings if known is templates)
    return guarded(state[group], judged, call, attempt)


def _check(strategy: object, classify: Classifier | None) -> None:
    if not isinstance(strategy, Strategy):
        msg = f"{strategy!r} is not a strategy: pass instances, e.g. Pipeline(Retry(on=OSError), CircuitBreaker())"
        raise TypeError(msg)
    if classify is None and getattr(strategy, "needs_classifier", False):
        msg = (
            f"{strategy!r} does not know what to retry: say Retry(on=(ConnectionError, TimeoutError)), "
            "or give the pipeline a classifier, Pipeline(..., classify=my_classifier)"
        )
        raise TypeError(msg)


def _grouped(strategies: Sequence[Strategy]) -> list[Strategy | tuple[Gate, ...]]:
    """Runs of neighbouring gates as tuples, all else as it is."""
    groups: list[Strategy | tuple[Gate, ...]] = []
    for strategy in strategies:
        last = groups[-1] if groups else None
        if not isinstance(strategy, Gate):
            groups.append(strategy)
        elif isinstance(last, tuple):
            groups[-1] = (*last, strategy)
        else:
            groups.append((strategy,))
    return groups


def _templates(groups: Sequence[Strategy | tuple[Gate, ...]]) -> list[Any]:
    """What has state of its own for each key: gates, what hedges have learned, and budgets, which may be shared."""
    states = [group.state for group in groups if isinstance(group, Hedge)]
    budgets = {id(budget): budget for group in groups if (budget := getattr(group, "budget", None)) is not None}
    return [*(gate for group in groups if isinstance(group, tuple) for gate in group), *states, *budgets.values()]
