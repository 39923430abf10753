"""The presets, as documents: what `Policy.http()` and its like are made of, and what `preset = "http"` starts from."""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ("PRESETS",)


def _retry(attempts: int, initial: float, maximum: float, *, factor: float = 2.0, jitter: str = "full") -> dict[str, Any]:
    backoff = {"kind": "exponential", "initial": initial, "factor": factor, "maximum": maximum, "jitter": jitter}
    return {"attempts": attempts, "backoff": backoff}


def _breaker(failures: int, open_for: float, successes: int) -> dict[str, Any]:
    return {
        "consecutive_failures": failures,
        "open_for": open_for,
        "open_for_factor": 1.0,
        "half_open_calls": successes,
        "half_open_successes": successes,
    }


PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "http": {
        "retry": {**_retry(3, 0.1, 5.0), "timeout": 30.0, "budget": {"kind": "ratio"}},
        # Found with the simulator: what grows to a minute sleeps through the good times of a service that flaps, and through the
        # end of an outage; a queue that has to drain is spared by several short pauses as well as by a long one.
        "circuit_breaker": {"open_for": 1.0, "open_for_factor": 1.0},
    },
    "database": {
        "timeout": 60.0,
        "retry": _retry(3, 0.1, 5.0, jitter="equal"),
        "attempt_timeout": 30.0,
    },
    "background_job": {
        "timeout": 300.0,
        "retry": _retry(5, 1.0, 30.0),
    },
    "low_latency": {
        "timeout": 1.0,
        "retry": _retry(2, 0.01, 0.05, jitter="equal"),
        "hedge": {"delay": 0.1, "max_hedges": 2},
        "attempt_timeout": 0.5,
    },
    "default": {"retry": _retry(3, 0.1, 5.0), "circuit_breaker": _breaker(5, 30.0, 3)},
    "aggressive": {"retry": _retry(5, 0.05, 10.0, factor=1.5), "circuit_breaker": _breaker(10, 10.0, 5)},
    "conservative": {"retry": _retry(2, 0.5, 2.0), "circuit_breaker": _breaker(3, 60.0, 1)},
}
