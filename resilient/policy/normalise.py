"""From plain data to a policy: everything that is wrong at once, and what is out of bounds brought into them.

A document is read along the table of fields (`resilient.policy.fields`). A value of the wrong type, an unknown name or a
contradiction is a `Problem` with its path; all of them are found before any is told, and there is no policy that is half
applied. A number that is out of its bounds is clamped, and its path is noted.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast

from resilient.errors import InvalidPolicy, Problem
from resilient.policy.durations import seconds_in
from resilient.policy.fields import BOUNDS, ENABLED, FIELDS, KIND, SECTIONS, Bounds, Field
from resilient.policy.names import BudgetRef, nearest
from resilient.policy.presets import PRESETS
from resilient.policy.schema import Normalisation, Policy
from resilient.strategies.adaptive_limit import AdaptiveLimit
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.backoff import Constant, Exponential, Fibonacci, Linear
from resilient.strategies.budget import RetryBudget, TokenBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.chaos import Chaos
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.hedge import Hedge
from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.sliding_window import SlidingWindow
from resilient.strategies.throttle import Throttle
from resilient.strategies.windows import CountWindow

__all__ = ("checked_bounds", "fields_of_preset", "policy_from_document", "shown")

Table = Mapping[str, Any]
Make = Callable[..., Any]

_SHOWN: Final = 60  # characters of a value that a message shows


def policy_from_document(document: object, *, bounds: Mapping[str, Bounds] | None = None, source: str = "code") -> Policy:
    """The policy that plain data describes: what a parser of TOML, YAML or JSON gives.

    Args:
        document: a mapping; its shape is in `resilient.policy.fields`.
        bounds: other bounds for single fields, by path, e.g. `{"retry.attempts": (1, 5)}`; both ends are in.
        source: where it comes from, for events.

    Raises:
        InvalidPolicy: it is no policy; `problems` lists everything that is wrong.
        ValueError: `bounds` names a field that has none, or its least value is above its greatest one.

    """
    reader = _Reader(checked_bounds(bounds or {}))
    fields = reader.policy(document)
    if reader.problems:
        raise InvalidPolicy(tuple(reader.problems))
    return Policy(**fields, source=source, normalisation=Normalisation(tuple(reader.changed)))


def fields_of_preset(name: str) -> dict[str, Any]:
    """The arguments of `Policy` for a preset."""
    return _Reader(BOUNDS).policy(PRESETS[name])


class _Reader:
    """Reads one document. It goes on after a problem, so as to find them all."""

    def __init__(self, bounds: Mapping[str, Bounds]) -> None:
        self._bounds = bounds
        self.problems: list[Problem] = []
        self.changed: list[str] = []

    def problem(self, path: str, message: str) -> None:
        self.problems.append(Problem(tuple(path.split(".")) if path else (), message))

    def policy(self, document: object) -> dict[str, Any]:
        """The arguments of `Policy`."""
        table = self._table("", document)
        preset = self._value("preset", table["preset"], FIELDS["preset"]) if "preset" in table else None
        table = {name: value for name, value in table.items() if name != "preset"}
        if preset is not None:
            table = _merged(PRESETS[preset], table)
        top = [path for path in (*FIELDS, *SECTIONS) if "." not in path]
        fields = self._fields("", table, top)
        for section, strategy in (("retry", fields.get("retry")), ("hedge", fields.get("hedge"))):
            if strategy is not None:
                made, named = strategy
                fields[section] = made
                fields.update(named)
        return fields

    def _fields(self, path: str, table: Table, known: list[str]) -> dict[str, Any]:
        """The values of a table, made into what they stand for. What has a problem, or says "none", is left out."""
        prefix = path + "." if path else ""
        values: dict[str, Any] = {}
        for name, value in table.items():
            where = prefix + name
            if name not in known:
                parts = (*path.split("."), name) if path else (name,)  # it may have a dot in it
                self.problems.append(Problem(parts, "unknown" + nearest(name, dict.fromkeys(known))))
            elif where in SECTIONS:
                values[name] = self._section(where, value)
            else:
                values[name] = self._value(where, value, FIELDS[where])
        return {name: value for name, value in values.items() if value is not None}

    def _section(self, path: str, value: object) -> Any:
        """The part of a policy that a section describes, or None where it is off or has a problem."""
        before = len(self.problems)
        if path.endswith(".budget") and isinstance(value, str):
            value = {KIND: "named", "name": value}
        table = dict(self._table(path, value))
        on = table.pop(ENABLED, path != "chaos")
        if not isinstance(on, bool):
            self.problem(f"{path}.{ENABLED}", f"{shown(on)}: expected true or false")
        kinds = SECTIONS[path]
        kind = _kind(path, table)
        table.pop(KIND, None)
        if kind is None:
            kind = next(iter(kinds))
        if not isinstance(kind, str) or kind not in kinds:
            self.problem(f"{path}.{KIND}", f"{shown(kind)}: expected one of {', '.join(map(repr, kinds))}")
            return None
        misplaced = [name for name in table if name not in kinds[kind] and any(name in names for names in kinds.values())]
        for name in misplaced:
            others = [other for other, names in kinds.items() if name in names]
            self.problem(f"{path}.{name}", f"{path} of the kind {kind!r} has none: say kind = {others[0]!r}, or leave it out")
            del table[name]
        fields = self._fields(path, table, list(kinds[kind]))
        if len(self.problems) > before:
            return None
        return self._made(path, kind, fields) if on else None

    def _made(self, path: str, kind: str, fields: dict[str, Any]) -> Any:
        make = _MAKERS[path.removeprefix("retry.").removeprefix("hedge."), kind]
        for low, high in _PAIRS.get(path, ()):
            self._raise_to(path, fields, low, high)
        lacking = [name for name in _required(make) if name not in fields]
        for name in lacking:
            self.problem(f"{path}.{name}", "it must be given")
        if lacking:
            return None
        try:
            return make(**fields)
        except (TypeError, ValueError) as error:
            self.problem(path, str(error))
        return None

    def _raise_to(self, path: str, fields: dict[str, Any], low: str, high: str) -> None:
        """A greatest value that is below the least one is raised to it."""
        if low in fields and high in fields and fields[high] < fields[low]:
            fields[high] = fields[low]
            self._note(f"{path}.{high}")

    def _note(self, path: str) -> None:
        if path not in self.changed:
            self.changed.append(path)

    def _table(self, path: str, value: object) -> Table:
        if not isinstance(value, Mapping):
            self.problem(path, f"{shown(value)}: expected a table")
            return {}
        table = cast("Mapping[object, Any]", value)
        for name in table:
            if not isinstance(name, str):
                self.problem(path, f"{shown(name)}: the name of a field is a text")
        return {name: each for name, each in table.items() if isinstance(name, str)}

    def _value(self, path: str, value: object, field: Field) -> Any:
        """The value of a field, or None where it has a problem, or says "none"."""
        if field.type == "any":
            return value
        if field.type in {"integer", "number", "seconds"}:
            return self._number(path, value, field)
        wanted, expected = (bool, "true or false") if field.type == "flag" else (str, "a text")
        if not isinstance(value, wanted):
            self.problem(path, f"{shown(value)}: expected {expected}")
        elif field.type == "choice" and value not in field.choices:
            end = nearest(str(value), dict.fromkeys(field.choices))
            self.problem(
                path, f"{shown(value)}: expected one of {', '.join(map(repr, field.choices))}{end.partition('; there')[0]}"
            )
        else:
            return value
        return None

    def _number(self, path: str, value: object, field: Field) -> Any:
        number = _seconds(value) if field.type == "seconds" else value
        integral = field.type == "integer"
        if isinstance(number, bool) or not isinstance(number, int if integral else (int, float)):
            self.problem(path, f"{shown(value)}: expected {_EXPECTED[field.type]}")
            return None
        if isinstance(number, float) and not math.isfinite(number):
            self.problem(path, f"{shown(value)}: expected {_EXPECTED[field.type]}")
            return None
        low, high = self._bounds[path]
        if field.zero_is_off:
            if number < 0:
                self._note(path)
            if number <= 0:
                return None
        if not low <= number <= high:
            number = low if number < low else high
            self._note(path)
        return int(number) if integral else float(number)


_EXPECTED: Final = {
    "integer": "a whole number",
    "number": "a number",
    "seconds": "seconds as a number, or a text like '250ms', '1.5s', '2m', '1h'",
}


def _seconds(value: object) -> object:
    """A duration as a number of seconds; what is none is handed back."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    seconds = seconds_in(value) if isinstance(value, str) else None
    return value if seconds is None else seconds


def shown(value: object) -> str:
    """A value for a message: of bounded length, and never a number of a million digits."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**_SHOWN:
        return "a very large number"
    if isinstance(value, (list, Mapping)):
        return "a list" if isinstance(value, list) else "a table"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _merged(base: Table, over: Table, path: str = "") -> dict[str, Any]:
    """A table with the values of another one put over it. A section of another kind replaces the one that it is put over."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, dict) and isinstance(value, Mapping):
            where, section = f"{path}.{name}" if path else name, cast("Table", value)
            mine = _kind(where, section)
            if mine is None or mine == _kind(where, cast("Table", below)):
                merged[name] = _merged(cast("Table", below), section, where)
                continue
        merged[name] = value
    return merged


def _kind(path: str, table: Table) -> object:
    """The kind that a section names; of budgets also that which has such fields."""
    if KIND in table or not path.endswith(".budget"):
        return table.get(KIND)
    return next((kind for name, kind in _BY_FIELD.items() if name in table), None)


_BY_FIELD: Final = {"name": "named", "cost": "named", "capacity": "tokens", "refill": "tokens"}


def _required(make: Make) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(make).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]


def checked_bounds(bounds: Mapping[str, Bounds]) -> Mapping[str, Bounds]:
    """All bounds, these in the place of those of the table.

    Raises:
        ValueError: there is no such field, or its least value is above its greatest one.

    """
    for path, (low, high) in bounds.items():
        if path not in BOUNDS:
            msg = f"bounds[{path!r}]: there is no such bound{nearest(path, BOUNDS).partition('; there')[0]}"
            raise ValueError(msg)
        if not low <= high:
            msg = f"bounds[{path!r}]={(low, high)!r}: the least value is above the greatest one"
            raise ValueError(msg)
    return {**BOUNDS, **bounds}


def _split(
    section: str, make: Make, budget: object = None, trigger: str | None = None, **settings: Any
) -> tuple[Any, dict[str, Any]]:
    """A strategy that takes a budget, and what its policy says for it by name."""
    named: dict[str, Any] = {}
    if isinstance(budget, BudgetRef):
        named[f"{section}_budget"] = budget
    elif budget is not None:
        settings["budget"] = budget
    if trigger is not None:
        named[f"{section}_trigger"] = trigger
    return make(**settings), named


def _breaker(window_calls: int | None = None, **settings: Any) -> CircuitBreaker:
    if window_calls is not None:
        if "window" in settings:
            msg = "window and window_calls both say what to look back over: give one of them"
            raise ValueError(msg)
        settings["window"] = CountWindow(window_calls)
    return CircuitBreaker(**settings)


def _chaos(fault: str | None = None, **settings: Any) -> Chaos:
    return Chaos(fault=None if fault is None else _FAULTS[fault], enabled=True, **settings)


_FAULTS: Final[Mapping[str, type[Exception]]] = {
    kind.__name__: kind for kind in (ConnectionError, ConnectionResetError, OSError, RuntimeError, TimeoutError)
}

_PAIRS: Final = {
    "retry.backoff": (("initial", "maximum"), ("delay", "maximum")),
    "circuit_breaker": (("open_for", "open_for_max"),),
    "bulkhead": (("minimum", "maximum"),),
}
"""Pairs of fields of which the second one is never below the first."""

_MAKERS: Final[Mapping[tuple[str, str], Make]] = {
    ("fallback", "value"): Fallback,
    ("retry", "retry"): partial(_split, "retry", Retry),
    ("backoff", "exponential"): Exponential,
    ("backoff", "constant"): Constant,
    ("backoff", "linear"): Linear,
    ("backoff", "fibonacci"): Fibonacci,
    ("budget", "ratio"): RetryBudget,
    ("budget", "tokens"): TokenBudget,
    ("budget", "named"): BudgetRef,
    ("hedge", "hedge"): partial(_split, "hedge", Hedge),
    ("throttle", "throttle"): Throttle,
    ("rate_limit", "token_bucket"): TokenBucket,
    ("rate_limit", "sliding_window"): SlidingWindow,
    ("rate_limit", "leaky_bucket"): LeakyBucket,
    ("rate_limit", "adaptive_rate"): AdaptiveRate,
    ("circuit_breaker", "circuit_breaker"): _breaker,
    ("bulkhead", "bulkhead"): Bulkhead,
    ("bulkhead", "adaptive_limit"): AdaptiveLimit,
    ("chaos", "chaos"): _chaos,
}
