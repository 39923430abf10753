"""What a server says about coming back: `Retry-After` in both forms, and the vendors' finer ones.

A hint is never made shorter. Whatever is malformed is no hint.
"""

import email.utils
import re
import time
from collections.abc import Callable
from datetime import UTC
from typing import Any, Final

__all__ = ("retry_after", "seconds_until", "should_retry")

wall_clock: Callable[[], float] = time.time
"""Seconds since the epoch: a date can be read in no other way, where the response does not say when it was sent."""

_LONGEST: Final = 1e9
"""Seconds: longer than anybody waits, and a number that can be calculated with."""
_MILLISECONDS: Final = ("retry-after-ms", "x-ms-retry-after-ms")
_SHOULD_RETRY: Final = ("x-should-retry", "stripe-should-retry")
_SECONDS: Final = re.compile(r"[0-9]+", re.ASCII)  # int() takes "1_000", "+5" and digits of other scripts as well
_DECIMAL: Final = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)


def retry_after(headers: Any) -> float | None:
    """Seconds to wait before the next request, or None where the headers do not say.

    Milliseconds of a vendor (`retry-after-ms`, `x-ms-retry-after-ms`) go before `Retry-After`, which servers round. Of several
    values of one header the largest counts (RFC 9110 section 10.2.3 knows only one).
    """
    for name in _MILLISECONDS:
        finer = _largest(_milliseconds(value) for value in headers.get_list(name))
        if finer is not None:
            return finer
    values: list[str] = headers.get_list("retry-after")
    if not values:
        return None
    return _largest(hint for value in values for hint in _seconds_or_date(value, headers))


def should_retry(headers: Any) -> bool | None:
    """What the server itself says (`x-should-retry`, `stripe-should-retry`), or None where it says nothing."""
    for name in _SHOULD_RETRY:
        word = headers.get(name, "").strip().lower()
        if word in {"true", "false"}:
            return bool(word == "true")
    return None


def seconds_until(date: float, headers: Any) -> float:
    """Seconds from now to a date in seconds since the epoch, by the clock of the server, so that the two need not agree."""
    sent = _timestamp(headers.get("date", ""))
    return max(0.0, date - (wall_clock() if sent is None else sent))


def _seconds_or_date(value: str, headers: Any) -> list[float | None]:
    pieces = [piece.strip() for piece in value.split(",")]  # two headers that a proxy has joined
    if all(_SECONDS.fullmatch(piece) for piece in pieces):
        return [float(piece) for piece in pieces]
    date = _timestamp(value)
    if date is None:
        return [None]
    return [seconds_until(date, headers)]


def _milliseconds(value: str) -> float | None:
    text = value.strip()
    return float(text) / 1000 if _DECIMAL.fullmatch(text) else None


def _largest(hints: Any) -> float | None:
    known = [hint for hint in hints if hint is not None]
    return min(max(known), _LONGEST) if known else None


def _timestamp(value: str) -> float | None:
    """An HTTP-date in any of its three forms, as seconds since the epoch."""
    try:
        date = email.utils.parsedate_to_datetime(value)
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
