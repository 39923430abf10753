"""What a server says about its rate limit: the `RateLimit` fields of the IETF, and the older ones.

    RateLimit-Policy: "burst";q=100;w=60        RateLimit: "burst";r=50;t=30          (draft-ietf-httpapi-ratelimit-headers)
    RateLimit: limit=100, remaining=50, reset=30                                       (the same, up to version 07)
    RateLimit-Remaining: 50                     RateLimit-Reset: 30                    (the same, up to version 06)
    X-RateLimit-Remaining: 50                   X-RateLimit-Reset: 1795000000          (in use everywhere; seconds, or a date)

Whatever is malformed is no hint, and neither is a quota of anything but requests.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from resilient.outcome import RateHint
from resilient_integrations._http.hints import seconds_until

__all__ = ("rate_hint",)

_PREFIXES: Final = ("ratelimit-", "x-ratelimit-", "x-rate-limit-")
_PIECES: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_MEMBER: Final = re.compile(r'("(?:[^"\\]|\\.)*")\s*(;.*)?')
_PARAMETER: Final = re.compile(r'[;,\s]*([a-z*][a-z0-9_.*-]*)\s*=\s*("(?:[^"\\]|\\.)*"|:[^:]*:|[^;,\s]+)', re.ASCII)
_COUNT: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,15}(\.[0-9]+)?", re.ASCII)
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
        hints = [hint for prefix in _PREFIXES if (hint := _plain(headers, prefix)) is not None]
    return max(hints, key=_tightness, default=None)


def _tightness(hint: RateHint) -> tuple[float, float]:
    return (hint.reset / hint.remaining if hint.remaining else math.inf, hint.reset)


def _standard(field: str, policy: str) -> Iterator[RateHint]:
    if '"' not in field:
        old = dict(_PARAMETER.findall(field))
        yield from _hint(old.get("remaining", ""), old.get("reset", ""))
        return
    policies = dict(_items(policy))
    for name, said in _items(field):
        terms = policies.get(name, {})
        if terms.get("qu", _REQUESTS) == _REQUESTS:
            yield from _hint(said.get("r", ""), said.get("t") or terms.get("w", ""))


def _items(field: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The members of a list, with their parameters (RFC 9651)."""
    for piece in _PIECES.findall(field):
        member = _MEMBER.fullmatch(piece.strip())
        if member is not None:
            yield member[1], dict(_PARAMETER.findall(member[2] or ""))


def _plain(headers: Any, prefix: str) -> RateHint | None:
    remaining = headers.get(f"{prefix}remaining", "").strip()
    reset = headers.get(f"{prefix}reset", "").strip()
    if _DECIMAL.fullmatch(reset) and float(reset) > _EPOCH:
        date = float(reset) / (1000 if float(reset) > _EPOCH_MILLISECONDS else 1)
        reset = f"{seconds_until(date, headers):f}"
    return next(_hint(remaining, reset), None)


def _hint(remaining: str, reset: str) -> Iterator[RateHint]:
    if _COUNT.fullmatch(remaining) and _DECIMAL.fullmatch(reset):
        yield RateHint(int(remaining), float(reset))
