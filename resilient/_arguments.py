"""Checks of arguments, made once, at construction.

Each check returns the value in the form that the library works with, or raises an error that names the
parameter, the value and the range.
"""

import math
from datetime import timedelta

__all__ = ("Duration", "fraction", "integer", "number", "seconds")

Duration = float | timedelta
"""Seconds, as a float or as a `timedelta`."""


def seconds(name: str, value: Duration, *, above: float | None = None, at_least: float = 0.0) -> float:
    """A finite duration as float seconds: greater than `above` where that is given, else at least `at_least`."""
    return number(name, value.total_seconds() if isinstance(value, timedelta) else value, above, at_least, " seconds")


def number(
    name: str, value: float, above: float | None = None, at_least: float = -math.inf, unit: str = "", at_most: float = math.inf
) -> float:
    """A finite number in its range, as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        expected = "seconds as a number or a timedelta" if unit else "a number"
        msg = f"{name}={value!r}: expected {expected}, got {type(value).__name__}"
        raise TypeError(msg)
    low = at_least if above is None else above
    in_range = (value >= low if above is None else value > low) and value <= at_most
    if not in_range or not math.isfinite(value):
        bound = f"{'at least' if above is None else 'greater than'} {low:g}{unit}"
        limit = f" and at most {at_most:g}{unit}" if at_most < math.inf else ""
        msg = f"{name}={value!r} is out of range: expected a finite number {bound}{limit}"
        raise ValueError(msg)
    return float(value)


def fraction(name: str, value: float) -> float:
    """A share in (0, 1]."""
    return number(name, value, above=0.0, at_most=1.0)


def integer(name: str, value: int, *, at_least: int = 1) -> int:
    """A whole number of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{name}={value!r}: expected a whole number, got {type(value).__name__}"
        raise TypeError(msg)
    if value < at_least:
        msg = f"{name}={value!r} is out of range: expected a whole number of at least {at_least}"
        raise ValueError(msg)
    return value
