"""How an entry is written down: a value, and for how many seconds beyond its freshness it is kept.

Bytes have a header of our own before what the serializer made: the version of the format, and those seconds. What does not begin
so was written by somebody else, and is no entry. No entry holds a point in time: see `backends`.
"""

import json
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from resilient_integrations._cache.backends import Stored

__all__ = ("JSON", "Entry", "Serializer", "read_entry", "write_entry")

_VERSION: Final = b"1"


class Serializer(NamedTuple):
    """A pair of functions: from a value to bytes, and back. What `loads` raises means that an entry is not readable."""

    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


def _to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


JSON: Final = Serializer(_to_json, json.loads)
"""Plain data: what is no JSON cannot be written, a tuple comes back as a list."""


class Entry(NamedTuple):
    """What is known of a key.

    Attributes:
        value: what was stored.
        fresh_for: seconds for which it is fresh; negative: since when it is stale.

    """

    value: Any
    fresh_for: float

    @property
    def is_fresh(self) -> bool:
        return self.fresh_for > 0


def write_entry(serializer: Serializer | None, value: Any, stale_for: float) -> Any:
    """The data for a backend. Raises what the serializer raises, and TypeError where it gives no bytes."""
    if serializer is None:
        return value, stale_for
    payload: object = serializer.dumps(value)
    if not isinstance(payload, bytes):
        msg = f"the serializer gave {type(payload).__name__}: expected bytes"
        raise TypeError(msg)
    return b"%b %b %b" % (_VERSION, repr(stale_for).encode(), payload)


def read_entry(serializer: Serializer | None, stored: Stored) -> Entry:
    """The entry in what a backend has. Raises whatever it may where there is none."""
    if serializer is None:
        value, stale_for = stored.data
        return Entry(value, stored.expires_in - stale_for)
    version, seconds, payload = stored.data.split(b" ", 2)
    stale_for = float(seconds)
    if version != _VERSION or not 0 <= stale_for < math.inf:
        msg = f"an entry of another format, {version[:20]!r}"
        raise ValueError(msg)
    return Entry(serializer.loads(payload), stored.expires_in - stale_for)
