"""What a server says about its rate limit: the `RateLimit` fields of the IETF, the older ones, and those of language models.

    RateLimit-Policy: "burst";q=100;w=60        RateLimit: "burst";r=50;t=30          (draft-ietf-httpapi-ratelimit-headers)
    RateLimit: limit=100, remaining=50, reset=30                                       (the same, up to version 07)
    RateLimit-Remaining: 50                     RateLimit-Reset: 30                    (the same, up to version 06)
    X-RateLimit-Remaining: 50                   X-RateLimit-Reset: 1795000000          (in use everywhere; seconds, or a date)
    X-RateLimit-Remaining-Requests: 0           X-RateLimit-Reset-Requests: 6m0s        (OpenAI, and many like it)
    Anthropic-RateLimit-Requests-Remaining: 0   Anthropic-RateLimit-Requests-Reset: 2026-11-22T10:00:30Z

The last two are of buckets that fill evenly, and tell when they will be full: where the limit is told as well, the next call of
an empty one is there after its share of that time.

Whatever is malformed is no hint, and neither is a quota of anything but requests.
"""

import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from resilient.outcome import RateHint
from resilient_integrations._http.hints import seconds_until

__all__ = ("rate_hint",)

_PLAIN: Final = tuple((f"{prefix}remaining", f"{prefix}reset") for prefix in ("ratelimit-", "x-ratelimit-", "x-rate-limit-"))
_FILLING: Final = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-limit-requests"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset", "anthropic-ratelimit-requests-limit"),
)
_PIECES: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_MEMBER: Final = re.compile(r'("(?:[^"\\]|\\.)*")\s*(;.*)?')
_PARAMETER: Final = re.compile(r'[;,\s]*([a-z*][a-z0-9_.*-]*)\s*=\s*("(?:[^"\\]|\\.)*"|:[^:]*:|[^;,\s]+)', re.ASCII)
_COUNT: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,15}(\.[0-9]+)?", re.ASCII)
_DURATION: Final = re.compile(
    r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9}(?:\.[0-9]+)?)s)?(?:([0-9]{1,9}(?:\.[0-9]+)?)ms)?", re.ASCII
)
_REQUESTS: Final = '"requests"'
_EPOCH: Final = 1e8
"""A reset in so many seconds would be in three years: it is a date."""
_EPOCH_MILLISECONDS: Final = 1e11


def rate_hint(headers: Any) -> RateHint | None:
    """How many more requests the server takes, and for how long; None where it does not say. Of several quotas the tightest."""
    values: list[str] = headers.get_list("ratelimit")
    if values:
        hints = list(_standard(",".join(values), ",".join(headers.get_list("ratelimit-policy"))))
    else:
        hints = [hint for names in _PLAIN for hint in _plain(headers, *names)]
        hints += [hint for names in _FILLING for hint in _filling(headers, *names)]
    return max(hints, key=_tightness, default=None)


def _tightness(hint: RateHint) -> tuple[float, float]:
    return (hint.reset / hint.remaining if hint.remaining else math.inf, hint.reset)


def _standard(field: str, policy: str) -> Iterator[RateHint]:
    if '"' not in field:
        old = dict(_PARAMETER.findall(field))
        yield from _hint(old.get("remaining", ""), _number(old.get("reset", "")))
        return
    policies = dict(_items(policy))
    for name, said in _items(field):
        terms = policies.get(name, {})
        if terms.get("qu", _REQUESTS) == _REQUESTS:
            yield from _hint(said.get("r", ""), _number(said.get("t") or terms.get("w", "")))


def _items(field: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The members of a list, with their parameters (RFC 9651)."""
    for piece in _PIECES.findall(field):
        member = _MEMBER.fullmatch(piece.strip())
        if member is not None:
            yield member[1], dict(_PARAMETER.findall(member[2] or ""))


def _plain(headers: Any, remaining: str, reset: str) -> Iterator[RateHint]:
    left = headers.get(remaining, "").strip()
    if left:  # most answers have none of these fields
        yield from _hint(left, _seconds(headers.get(reset, "").strip(), headers))


def _filling(headers: Any, remaining: str, reset: str, limit: str) -> Iterator[RateHint]:
    for hint in _plain(headers, remaining, reset):
        size = _number(headers.get(limit, "").strip())
        yield hint if hint.remaining or not size else RateHint(0, hint.reset / max(1.0, size))


def _seconds(reset: str, headers: Any) -> float | None:
    """A reset in seconds from now: it may be a number of them, a date since the epoch, `6m0s`, or a date of RFC 3339."""
    number = _number(reset)
    if number is not None:
        return number if number <= _EPOCH else seconds_until(number / (1000 if number > _EPOCH_MILLISECONDS else 1), headers)
    parts = _DURATION.fullmatch(reset)
    if reset and parts is not None:
        hours, minutes, seconds, milliseconds = (float(part or 0) for part in parts.groups())
        return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
    try:
        date = datetime.fromisoformat(reset)
    except ValueError:
        return None
    return None if date.tzinfo is None else seconds_until(date.timestamp(), headers)


def _number(text: str) -> float | None:
    return float(text) if _DECIMAL.fullmatch(text) else None


def _hint(remaining: str, reset: float | None) -> Iterator[RateHint]:
    if reset is not None and _COUNT.fullmatch(remaining):
        yield RateHint(int(remaining), reset)
