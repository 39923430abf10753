"""What policies name: classifiers, budgets and triggers of hedges, registered by name.

A name stands in a document where an object cannot. The built-in ones are always there; registering adds to them, or puts
something else in the place of one. All mutable state: the dictionary of a registry.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

from resilient._arguments import number
from resilient.outcome import Classifier
from resilient.policy.classifiers import ALWAYS, AUTO, http
from resilient.strategies.budget import Budget, BudgetStatistics, Spending, UnlimitedBudget
from resilient.strategies.latency import P50, P90, P95, P99, FixedDelay, Trigger

__all__ = ("FIXED_DELAY", "BudgetRef", "Names", "Registry", "Share", "nearest")

T = TypeVar("T")

FIXED_DELAY: Final[Trigger] = FixedDelay(0.2)
"""The trigger `"fixed_delay"`: the `delay` of the hedge, or 0.2 s where it gives none."""


@dataclass(frozen=True, slots=True)
class BudgetRef:
    """A budget by the name that an executor knows it by. All policies that name it share it.

    Args:
        name: the name.
        cost: how much of it one attempt costs, above 0 (default 1).

    """

    name: str
    cost: float = 1.0

    def __post_init__(self) -> None:
        number("cost", self.cost, above=0.0)


class Share(Budget):
    """A budget that others spend from too, at a price of its own."""

    __slots__ = ("budget", "cost", "mode")

    def __init__(self, name: str, budget: Budget, cost: float = 1.0, mode: str = "standard") -> None:
        super().__init__(name)
        self.budget = budget
        self.cost = cost
        self.mode = mode  # type: ignore[misc]  # of this one; other budgets have only one way to decide

    def deposit(self, now: float) -> None:
        self.budget.deposit(now)

    def pay(self, now: float, *, throttled: bool = False, times: float = 1.0) -> tuple[Spending | None, float]:
        return self.budget.pay(now, throttled=throttled, times=times * self.cost)

    def left(self, now: float) -> float:
        return self.budget.left(now) / self.cost

    def sibling(self) -> Self:
        return self

    def is_fresh(self, now: float) -> bool:
        return True  # nothing is lost with it: the budget itself is kept elsewhere

    def statistics(self) -> BudgetStatistics:
        return self.budget.statistics()

    def __repr__(self) -> str:
        return f"<Share of {self.budget!r} at {self.cost:g} an attempt>"


class Registry(Generic[T]):
    """Things by name.

    Args:
        kind: what they are, for messages.
        check: whether something is one of them.
        built_in: those that are always there; None is one that cannot be used here.
        more: those to add.

    """

    __slots__ = ("_check", "_things", "changed", "kind")

    def __init__(
        self, kind: str, check: Callable[[object], bool], built_in: Mapping[str, T | None], more: Mapping[str, T] | None = None
    ) -> None:
        self.kind = kind
        self._check = check
        self._things: dict[str, T] = {name: thing for name, thing in built_in.items() if thing is not None}
        self.changed: Callable[[], object] | None = None  # called after each registration
        for name, thing in (more or {}).items():
            self.register(name, thing)

    def register(self, name: str, thing: T) -> None:
        """Know `thing` by this name from now on, in place of what had it before.

        Raises:
            TypeError: it is not what the registry is for, or the name is no text.
            ValueError: the name is empty.

        """
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass what they have
            msg = f"name={name!r}: expected a text"
            raise TypeError(msg)
        if not name.strip():
            msg = f"name={name!r}: a {self.kind} needs a name"
            raise ValueError(msg)
        if not self._check(thing):
            msg = f"{name}={thing!r}: expected a {self.kind}"
            raise TypeError(msg)
        self._things[name.strip()] = thing
        if self.changed is not None:
            self.changed()

    def get(self, name: str) -> T | None:
        """What has this name, or None."""
        return self._things.get(name.strip())

    def missing(self, name: str) -> str:
        """A message that says that there is nothing of this name, and what there is."""
        return f"no {self.kind} {name!r} is registered{nearest(name, self._things)}"

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._things))

    def __repr__(self) -> str:
        return f"<{self.kind} registry: {', '.join(self._things)}>"


class Names:
    """All that a policy can name.

    Args:
        classifiers: beside `"always"`, `"auto"`, `"http"`.
        budgets: beside `"unlimited"`. Those who name the same one share it.
        triggers: beside `"fixed_delay"`, `"p50"`, `"p90"`, `"p95"`, `"p99"`.

    """

    __slots__ = ("budgets", "classifiers", "triggers")

    def __init__(
        self,
        *,
        classifiers: Mapping[str, Classifier] | None = None,
        budgets: Mapping[str, Budget] | None = None,
        triggers: Mapping[str, Trigger] | None = None,
    ) -> None:
        self.classifiers = Registry(
            "classifier", _is_a(Classifier), {"always": ALWAYS, "auto": AUTO, "http": http()}, classifiers
        )
        self.budgets = Registry[Budget]("budget", _is_a(Budget), {"unlimited": UnlimitedBudget()}, budgets)
        self.triggers = Registry[Trigger](
            "trigger", callable, {"fixed_delay": FIXED_DELAY, "p50": P50, "p90": P90, "p95": P95, "p99": P99}, triggers
        )

    def classifier(self, named: Classifier | str) -> Classifier:
        """The classifier of this name; one that is none passes through."""
        return named if isinstance(named, Classifier) else _found(self.classifiers, named)

    def budget(self, ref: BudgetRef) -> Budget:
        """The budget of this name, to be shared at its price."""
        return Share(ref.name, _found(self.budgets, ref.name), ref.cost)

    def trigger(self, name: str) -> Trigger:
        """The trigger of this name."""
        return _found(self.triggers, name)


def _found(registry: Registry[T], name: str) -> T:
    thing = registry.get(name)
    if thing is None:
        raise ValueError(registry.missing(name))
    return thing


def _is_a(kind: type) -> Callable[[object], bool]:
    return lambda thing: isinstance(thing, kind)


def nearest(name: str, known: Mapping[str, object]) -> str:
    """The end of a message: what may have been meant."""
    found = difflib.get_close_matches(name, known, 1)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f"; there are {', '.join(map(repr, known))}" if known else ""
