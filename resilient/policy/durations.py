"""Durations as people write them: `250ms`, `1.5s`, `2m`, `1h 30m`. For documents and for the command line."""

import re
from typing import Final

__all__ = ("PATTERN", "seconds_in")

_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART: Final = rf"([0-9]{{1,15}}(?:\.[0-9]{{1,15}})?)\s*({'|'.join(_UNITS)})\s*"
_PARTS: Final = re.compile(_PART, re.ASCII)
_DURATION: Final = re.compile(rf"\s*(-?)\s*((?:{_PART})+)", re.ASCII)

PATTERN: Final = rf"^\s*([0-9]+(\.[0-9]+)?\s*({'|'.join(_UNITS)})\s*)+$"
"""What is a duration, for JSON Schema."""


def seconds_in(text: str) -> float | None:
    """The seconds that a text stands for; None where it is no duration."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    total = sum(float(amount) * _UNITS[unit] for amount, unit in _PARTS.findall(found[2]))
    return -total if found[1] else total
