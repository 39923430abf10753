"""The shape of a policy in a document: each field, what it may be, and its bounds. One table, for all who read documents.

A policy is a table of fields and *sections*; a section is a table that makes one part of a policy, e.g. `retry`. Where a part
comes in several kinds, `kind` says which; the first one is the default. Every section takes `enabled`, so that a part can be
switched off and keep its settings; it is true by default, but of `chaos`. Names of fields are those of the arguments in code.

Values out of bounds are brought into them (*clamped*) where a policy comes from a document: a mistake in a file must not make
clients hammer a service, nor stop them. What is of the wrong type, or unknown, is an error.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from resilient.policy.presets import PRESETS
from resilient.strategies.backoff import Jitter

__all__ = ("BOUNDS", "ENABLED", "FAULTS", "FIELDS", "KIND", "SECTIONS", "Bounds", "Field", "FieldType")

FieldType = Literal["integer", "number", "seconds", "text", "flag", "choice", "any"]

Bounds = tuple[float, float]
"""The least and the greatest value that is taken; both are in."""

KIND: Final = "kind"
ENABLED: Final = "enabled"

FAULTS: Final = ("ConnectionError", "ConnectionResetError", "OSError", "RuntimeError", "TimeoutError")
"""The exceptions that a document can ask `chaos` to raise."""

_DAY: Final = 86_400.0
_MILLISECOND: Final = 0.001
_MANY: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Field:
    """What a field may be.

    Attributes:
        type: `"seconds"` takes a number of seconds or a text like `"250ms"`, `"1.5s"`, `"2m"`, `"1h"`.
        bounds: of numbers and seconds; values out of them are clamped.
        choices: of a `"choice"`.
        zero_is_off: 0 means "none", and is not clamped to the least value.
        about: what it says, in a few words.

    """

    type: FieldType
    bounds: Bounds = (-math.inf, math.inf)
    choices: tuple[str, ...] = ()
    zero_is_off: bool = False
    about: str = ""


def _seconds(low: float, high: float, about: str, *, zero_is_off: bool = False) -> Field:
    return Field("seconds", (low, high), zero_is_off=zero_is_off, about=about)


def _integer(low: int, high: int, about: str) -> Field:
    return Field("integer", (low, high), about=about)


def _number(low: float, high: float, about: str) -> Field:
    return Field("number", (low, high), about=about)


def _text(about: str) -> Field:
    return Field("text", about=about)


def _share(about: str) -> Field:
    return _number(0.001, 1.0, about)


_NAME: Final = _text("what it is called in events, logs and errors")


def _budget(path: str) -> dict[str, Field]:
    return {
        f"{path}.name": _text("a budget that the executor knows by this name"),
        f"{path}.cost": _number(1, 1000, "how much of it one attempt costs"),
        f"{path}.ratio": _number(0, 10, "attempts that are paid for, per first attempt"),
        f"{path}.window": _seconds(0.1, 3600, "how long a first attempt counts"),
        f"{path}.floor": _number(0, _MANY, "attempts a second that are always paid for"),
        f"{path}.throttled_cost": _number(0.001, 1000, "what a retry of a throttled outcome costs"),
        f"{path}.transient_cost": _number(0.001, 1000, "what any other retry costs"),
        f"{path}.capacity": _number(0, _MANY, "tokens that there can be"),
        f"{path}.refill": _number(0, _MANY, "tokens that flow in, a second"),
    }


FIELDS: Final[Mapping[str, Field]] = {
    "id": _text("what the policy is called in events, e.g. a version"),
    "preset": Field(
        "choice", choices=tuple(PRESETS), about="the policy to start from; what else is given replaces single fields of it"
    ),
    "classifier": _text("a classifier that the executor knows by this name: what outcomes mean"),
    "timeout": _seconds(_MILLISECOND, _DAY, "for the whole call, waits included; 0: none", zero_is_off=True),
    "attempt_timeout": _seconds(_MILLISECOND, _DAY, "for each attempt; 0: none", zero_is_off=True),
    "fallback.value": Field("any", about="what to give in place of a failed outcome"),
    "retry.attempts": _integer(1, 10, "how many in total"),
    "retry.timeout": _seconds(_MILLISECOND, _DAY, "after which no attempt is started; 0: none", zero_is_off=True),
    "retry.max_retry_after": _seconds(0, _DAY, "the longest wait that a server may ask for"),
    "retry.backoff.initial": _seconds(_MILLISECOND, 30, "the first wait"),
    "retry.backoff.delay": _seconds(_MILLISECOND, 30, "every wait"),
    "retry.backoff.maximum": _seconds(_MILLISECOND, 30, "the longest wait; not below `initial` or `delay`"),
    "retry.backoff.factor": _number(1, 10, "how much longer each wait is"),
    "retry.backoff.increment": _seconds(0, 30, "how much longer each wait is"),
    "retry.backoff.jitter": Field("choice", choices=get_args(Jitter), about="how waits are spread"),
    **_budget("retry.budget"),
    "hedge.delay": _seconds(0.01, 3600, "how long to wait for an attempt before it is doubled"),
    "hedge.percentile": _number(0.5, 0.9999, "wait for as long as this share of the calls takes"),
    "hedge.trigger": _text("what says when, by a name that the executor knows, e.g. `p99`"),
    "hedge.max_hedges": _integer(1, 3, "further attempts"),
    "hedge.minimum": _integer(1, 100_000, "calls that must have been seen before a percentile is relied on"),
    **_budget("hedge.budget"),
    "throttle.name": _NAME,
    "throttle.multiplier": _number(1, 1000, "how many times as much as the server accepts may be sent"),
    "throttle.window": _seconds(0.1, 3600, "what it looks back over"),
    "throttle.minimum_calls": _integer(1, 100_000, "calls below which it refuses none"),
    "throttle.maximum": _number(0.001, 0.99, "the greatest share that it refuses"),
    "circuit_breaker.name": _NAME,
    "circuit_breaker.failure_rate": _share("the share of failures that trips it"),
    "circuit_breaker.window": _seconds(0.1, 3600, "what the rates look back over"),
    "circuit_breaker.window_calls": _integer(1, 100_000, "look back over so many calls instead"),
    "circuit_breaker.minimum_calls": _integer(1, 100_000, "calls below which no rate trips it"),
    "circuit_breaker.consecutive_failures": _integer(1, 100_000, "failures in a row that trip it"),
    "circuit_breaker.slow_call": _seconds(_MILLISECOND, _DAY, "from when on a call is slow"),
    "circuit_breaker.slow_rate": _share("the share of slow calls that trips it"),
    "circuit_breaker.open_for": _seconds(0.1, 3600, "how long it stays open"),
    "circuit_breaker.open_for_factor": _number(1, 10, "how much longer each time"),
    "circuit_breaker.open_for_max": _seconds(0.1, _DAY, "the longest time; not below `open_for`"),
    "circuit_breaker.half_open_calls": _integer(1, 1000, "probes at a time"),
    "circuit_breaker.half_open_successes": _integer(1, 1000, "probes that must succeed"),
    "circuit_breaker.probe_lease": _seconds(0.1, _DAY, "after which a probe loses its place"),
    "circuit_breaker.initial": Field(
        "choice", choices=("closed", "isolated", "disabled", "monitor_only"), about="the state of a new one"
    ),
    "bulkhead.name": _NAME,
    "bulkhead.max_concurrent": _integer(1, 100_000, "calls at a time"),
    "bulkhead.initial": _integer(1, 100_000, "calls at a time, at first"),
    "bulkhead.minimum": _integer(1, 100_000, "calls at a time, at least"),
    "bulkhead.maximum": _integer(1, 100_000, "calls at a time, at most"),
    "bulkhead.max_queue": _integer(0, _MANY, "callers that may wait"),
    "bulkhead.queue_timeout": _seconds(0, _DAY, "how long a caller may wait; needs `max_queue`"),
    "rate_limit.name": _NAME,
    "rate_limit.rate": _number(0.000_1, 10_000_000, "tokens that flow in during `per`"),
    "rate_limit.per": _seconds(_MILLISECOND, _DAY, "the span that the rate is for"),
    "rate_limit.burst": _integer(1, 10_000_000, "tokens that there can be"),
    "rate_limit.limit": _integer(1, 10_000_000, "calls in `per`"),
    "rate_limit.exact": Field("flag", about="count every call, and not by two windows"),
    "rate_limit.capacity": _integer(1, 10_000_000, "what the bucket holds"),
    "rate_limit.shape": Field("flag", about="space calls evenly, and do not only count them"),
    "rate_limit.floor": _number(0.000_1, 10_000_000, "the least rate"),
    "rate_limit.ceiling": _number(0.000_1, 10_000_000, "the greatest rate"),
    "rate_limit.max_wait": _seconds(0, _DAY, "how long a caller may wait"),
    "chaos.name": _NAME,
    "chaos.fault": Field("choice", choices=FAULTS, about="the exception to raise"),
    "chaos.fault_rate": _number(0, 1, "the share of calls that it is raised in"),
    "chaos.latency": _seconds(0, 3600, "how long to delay"),
    "chaos.latency_rate": _number(0, 1, "the share of calls that are delayed"),
}
"""Every field by its path. Fields of the sections that are switched on and off by their own table: see `SECTIONS`."""

BOUNDS: Final[Mapping[str, Bounds]] = {path: one.bounds for path, one in FIELDS.items() if one.bounds != (-math.inf, math.inf)}
"""The bounds of every number, in seconds where it is a duration: what a document can ask for at most."""

_RATIO: Final = ("ratio", "window", "floor", "throttled_cost", "transient_cost")
_BUDGETS: Final = {"ratio": _RATIO, "tokens": ("capacity", "refill"), "named": ("name", "cost")}

SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "fallback": {"value": ("value",)},
    "retry": {"retry": ("attempts", "timeout", "max_retry_after", "backoff", "budget")},
    "retry.backoff": {
        "exponential": ("initial", "factor", "maximum", "jitter"),
        "constant": ("delay", "maximum", "jitter"),
        "linear": ("initial", "increment", "maximum", "jitter"),
        "fibonacci": ("initial", "maximum", "jitter"),
    },
    "retry.budget": _BUDGETS,
    "hedge": {"hedge": ("delay", "percentile", "trigger", "max_hedges", "minimum", "budget")},
    "hedge.budget": _BUDGETS,
    "throttle": {"throttle": ("multiplier", "window", "minimum_calls", "maximum", "name")},
    "rate_limit": {
        "token_bucket": ("rate", "per", "burst", "max_wait", "name"),
        "sliding_window": ("limit", "per", "exact", "max_wait", "name"),
        "leaky_bucket": ("rate", "per", "capacity", "shape", "max_wait", "name"),
        "adaptive_rate": ("rate", "per", "floor", "ceiling", "burst", "max_wait", "name"),
    },
    "circuit_breaker": {
        "circuit_breaker": (
            "failure_rate",
            "window",
            "window_calls",
            "minimum_calls",
            "consecutive_failures",
            "slow_call",
            "slow_rate",
            "open_for",
            "open_for_factor",
            "open_for_max",
            "half_open_calls",
            "half_open_successes",
            "probe_lease",
            "initial",
            "name",
        ),
    },
    "bulkhead": {
        "bulkhead": ("max_concurrent", "max_queue", "queue_timeout", "name"),
        "adaptive_limit": ("initial", "minimum", "maximum", "max_queue", "queue_timeout", "name"),
    },
    "chaos": {"chaos": ("fault", "fault_rate", "latency", "latency_rate", "name")},
}
"""The sections, by path: their kinds, the default first, and the fields of each kind. A section within a section is one of
its fields."""
