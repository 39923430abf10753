"""What rules look at: the strategies of a pipeline in one row, outermost first, each with the way that leads to it.

Nested pipelines are laid open: what stands in one of them stands, for every purpose of a rule, in the place of the pipeline.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final, Generic, Literal, TypeVar, cast

from resilient.outcome import Classifier
from resilient.strategies.base import Strategy
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

__all__ = ("Finding", "Layer", "Problem", "Severity", "Stack", "flatten", "snake", "where")

S = TypeVar("S", bound=Strategy)
A = TypeVar("A", bound=Strategy)
B = TypeVar("B", bound=Strategy)

Severity = Literal["error", "warning", "note"]

_CAMEL: Final = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a composition that can't work, is dangerous, or is worth a second look.

    Attributes:
        code: which rule found it, a stable name: `"retry-inside-breaker"`.
        severity: `"error"`: it does not do what it says. `"warning"`: it is dangerous, or does less than it seems to.
            `"note"`: right in some places, worth a look.
        where: which strategies, outermost first: `"retry > pipeline[1] > circuit_breaker"`.
        message: what is wrong, and what comes of it.
        mend: what to do.

    """

    code: str
    severity: Severity
    where: str
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.severity} {self.code} at {self.where}: {self.message} {self.mend}"


@dataclass(frozen=True, slots=True, eq=False)
class Layer(Generic[S]):
    """A strategy in its place.

    Attributes:
        strategy: what stands there.
        path: the pipelines that lead to it and its own name, as in `Finding.where`.
        classifier: that of the pipeline around, or None.
        scope: the path of its pipeline where that keeps its state per key; None where it is one for all calls.

    """

    strategy: S
    path: tuple[str, ...]
    classifier: Classifier | None
    scope: tuple[str, ...] | None


Problem = tuple[tuple[Layer[Any], ...], str, str]
"""What a rule finds: the layers, outermost first, the message and the mend."""


class Stack:
    """All layers, outermost first."""

    __slots__ = ("layers",)

    def __init__(self, layers: Sequence[Layer[Any]]) -> None:
        self.layers = tuple(layers)

    def of(self, kind: type[A] | tuple[type[A], ...]) -> Iterator[Layer[A]]:
        """The layers of a kind."""
        return (layer for layer in self.layers if isinstance(layer.strategy, kind))

    def outside(self, layer: Layer[Any]) -> "Stack":
        """What stands outside of a layer."""
        return Stack(self.layers[: self.layers.index(layer)])

    def inside(self, layer: Layer[Any]) -> "Stack":
        """What stands inside of a layer."""
        return Stack(self.layers[self.layers.index(layer) + 1 :])

    def pairs(
        self, outer: type[A] | tuple[type[A], ...], inner: type[B] | tuple[type[B], ...]
    ) -> Iterator[tuple[Layer[A], Layer[B]]]:
        """Each layer of one kind, with the next one of the other kind inside of it."""
        for layer in self.of(outer):
            first = next(self.inside(layer).of(inner), None)
            if first is not None:
                yield layer, first

    def ordered(self, *layers: Layer[Any]) -> tuple[Layer[Any], ...]:
        """These layers, outermost first."""
        return tuple(sorted(layers, key=self.layers.index))

    @property
    def strategies(self) -> tuple[Strategy, ...]:
        """Only the strategies."""
        return tuple(layer.strategy for layer in self.layers)

    def limits(self) -> Iterator[tuple[Layer[Timeout], float]]:
        """The timeouts whose seconds are known."""
        for layer in self.of(Timeout):
            if isinstance(layer.strategy.seconds, float):
                yield layer, layer.strategy.seconds

    def has_deadline(self) -> bool:
        """Whether anything bounds the waits of what is inside of all layers."""
        return any(isinstance(one, Timeout) or (isinstance(one, Retry) and one.timeout is not None) for one in self.strategies)


def flatten(
    strategies: Sequence[Strategy],
    *,
    names: Sequence[str] = (),
    classify: Classifier | None = None,
    keyed: bool = False,
    above: tuple[str, ...] = (),
) -> list[Layer[Any]]:
    """The layers of these strategies, nested pipelines laid open. `names` take the place of those of the top-level ones."""
    kinds = [snake(strategy) for strategy in strategies]
    count = Counter(kinds)
    layers: list[Layer[Any]] = []
    for place, (strategy, kind) in enumerate(zip(strategies, kinds, strict=True)):
        parts: object = getattr(strategy, "strategies", None)
        is_unique = count[kind] == 1 and not isinstance(parts, tuple)
        path = (*above, names[place] if names else kind if is_unique else f"{kind}[{place}]")
        if isinstance(parts, tuple):
            inner = getattr(strategy, "classifier", None) or classify
            has_key = getattr(strategy, "key", None) is not None
            layers += flatten(cast("tuple[Strategy, ...]", parts), classify=inner, keyed=has_key, above=path)
        else:
            layers.append(Layer(strategy, path, classify, above if keyed else None))
    return layers


def snake(strategy: Strategy) -> str:
    """The name of a kind of strategy in paths: `circuit_breaker`."""
    return _CAMEL.sub("_", type(strategy).__name__).lower()


def where(*layers: Layer[Any]) -> str:
    """The way from the first layer to the last one; what leads to all of them is said once."""
    paths = [layer.path for layer in layers]
    common = len(list(takewhile(lambda names: len(set(names)) == 1, zip(*(path[:-1] for path in paths), strict=False))))
    return " > ".join((*paths[0][:common], *(name for path in paths for name in path[common:])))
