"""What a rate limiter has to tell: the `RateLimit` fields of the IETF draft (draft-ietf-httpapi-ratelimit-headers-11).

    RateLimit-Policy: "token_bucket";q=100;w=60       RateLimit: "token_bucket";r=42;t=35

`q` requests are what the limiter lets through at once, and `w` seconds the time in which that comes back; `r` of them are left,
and in `t` seconds all are there again.
"""

import math
from functools import lru_cache
from typing import Final

from resilient.strategies.limiter import Limiter

__all__ = ("Field", "quota_fields")

Field = tuple[bytes, bytes]
_UNQUOTED: Final = str.maketrans({'"': "'", "\\": "/"})


def quota_fields(limiter: Limiter) -> list[Field]:
    """The header fields that tell what a limiter lets through, and what is left of it."""
    quota = limiter.quota()
    shown = _quotable(limiter.name)
    return [
        (b"ratelimit-policy", f'"{shown}";q={quota.limit};w={max(1, math.ceil(quota.window))}'.encode()),
        (b"ratelimit", f'"{shown}";r={math.floor(quota.remaining)};t={math.ceil(quota.reset)}'.encode()),
    ]


@lru_cache(256)
def _quotable(name: str) -> str:
    return "".join(sign for sign in name.translate(_UNQUOTED) if sign.isascii() and sign.isprintable())
