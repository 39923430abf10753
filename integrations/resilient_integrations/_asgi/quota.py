"""What a rate limiter has to tell: the `RateLimit` fields of the IETF draft (draft-ietf-httpapi-ratelimit-headers-11).

    RateLimit-Policy: "token_bucket";q=100;w=60       RateLimit: "token_bucket";r=42;t=35

`q` requests are what the limiter lets through at once, and `w` seconds the time in which that comes back; `r` of them are left,
and in `t` seconds all are there again. A limiter that does not know tells nothing.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.sliding_window import SlidingWindow

__all__ = ("Field", "Quota", "quota_fields", "quota_of")

Field = tuple[bytes, bytes]
_UNQUOTED: Final = str.maketrans({'"': "'", "\\": "/"})


@dataclass(frozen=True, slots=True)
class Quota:
    """What a limiter lets through, and what is left of it.

    Attributes:
        name: that of the limiter.
        size: how many requests.
        window: seconds in which they come back.
        remaining: how many are left.
        reset: seconds until all are there again; None where that is not known.

    """

    name: str
    size: int
    window: float
    remaining: float
    reset: float | None


def quota_of(limiter: Any) -> Quota | None:
    """The quota of a limiter; None where it has none that could be told."""
    if isinstance(limiter, TokenBucket):
        each, tokens = limiter.per / limiter.rate, limiter.statistics().tokens
        return Quota(limiter.name, limiter.burst, limiter.burst * each, tokens, (limiter.burst - tokens) * each)
    if isinstance(limiter, LeakyBucket):
        each, level = limiter.per / limiter.rate, limiter.statistics().level
        return Quota(limiter.name, limiter.capacity, limiter.capacity * each, limiter.capacity - level, level * each)
    if isinstance(limiter, SlidingWindow):
        return Quota(limiter.name, limiter.limit, limiter.per, limiter.limit - limiter.statistics().taken, None)
    return None


@lru_cache(256)
def _quotable(name: str) -> str:
    return "".join(sign for sign in name.translate(_UNQUOTED) if sign.isascii() and sign.isprintable())


def quota_fields(quota: Quota) -> list[Field]:
    """The header fields that tell it."""
    shown = _quotable(quota.name)
    reset = "" if quota.reset is None else f";t={math.ceil(quota.reset)}"
    return [
        (b"ratelimit-policy", f'"{shown}";q={quota.size};w={max(1, math.ceil(quota.window))}'.encode()),
        (b"ratelimit", f'"{shown}";r={max(0, math.floor(quota.remaining))}{reset}'.encode()),
    ]
