"""Windows: how many calls of late, how many of them failed, how many were slow.

`TimeCounts` looks back over a span of time in ten buckets that advance lazily; only those that hold something are kept, as
plain numbers in one array that is made on first need. `RingCounts` looks back over the last n calls, one byte each. Both take
constant time and memory, keep running totals, and expire what is old on reading as well as on writing. No clock inside.
"""

import math
from array import array
from dataclasses import dataclass
from typing import Final

from resilient._arguments import integer

__all__ = ("CountWindow", "RingCounts", "TimeCounts")

_BUCKETS: Final = 10
_FIELDS: Final = 4  # numbers that are kept of a bucket: when it ended, its calls, failures, slow calls


@dataclass(frozen=True)
class CountWindow:
    """The setting `window=CountWindow(100)`: look back over the last `size` calls instead of a span of time.

    Args:
        size: how many calls, at least 1.

    """

    size: int

    def __post_init__(self) -> None:
        integer("size", self.size)


class TimeCounts:
    """Sums over the last `span` seconds. Whatever is younger than nine tenths of the span counts, nothing that is older than it.

    Attributes:
        calls, failures, slow: the running totals as of the last `record` or `expire`.
        forgotten: calls that were counted once and are too old now.

    """

    __slots__ = ("_end", "_older", "_span", "calls", "failures", "forgotten", "slow")

    def __init__(self, span: float) -> None:
        self._span = span
        self._end = -math.inf  # of the current bucket; what it holds is what the older ones lack of the totals
        self._older: array[float] | None = None  # the others that hold something, oldest first
        self.calls: float = 0
        self.failures: float = 0
        self.slow: float = 0
        self.forgotten: float = 0

    def record(self, now: float, calls: float = 1, failures: float = 0, slow: float = 0) -> None:
        """Add to the current bucket."""
        if now >= self._end:
            self._advance(now)
        self.calls += calls
        if failures:
            self.failures += failures
        if slow:
            self.slow += slow

    def expire(self, now: float) -> None:
        """Forget what is older than the span."""
        if now >= self._end:
            self._advance(now)

    def is_fresh(self, now: float) -> bool:
        """Whether it holds nothing."""
        self.expire(now)
        return not (self.calls or self.failures or self.slow)

    def _advance(self, now: float) -> None:
        """Close the current bucket, forget the buckets that are too old, begin a new one."""
        older = array("d") if self._older is None else self._older
        calls, failures, slow = _sums(older)
        current = (self.calls - calls, self.failures - failures, self.slow - slow)
        if any(current):
            older.extend((self._end, *current))
        width = self._span / _BUCKETS
        self._end = max((now // width + 1) * width, math.nextafter(now, math.inf))  # rounding must not let it end at once
        horizon = self._end - self._span + width / 2  # ends are multiples of the width, but for rounding
        while older and older[0] < horizon:
            self.forgotten += older[1]
            del older[:_FIELDS]
        # Summed anew from what is left: subtracting would let the rounding of floats pile up.
        self.calls, self.failures, self.slow = _sums(older)
        self._older = older or None


def _sums(buckets: "array[float]") -> tuple[float, float, float]:
    return sum(buckets[1::_FIELDS]), sum(buckets[2::_FIELDS]), sum(buckets[3::_FIELDS])


class RingCounts:
    """Sums over the last `size` calls: a ring of one byte a call (bit 0: failed, bit 1: slow).

    Attributes:
        calls, failures, slow: the running totals.
        forgotten: calls that were counted once and have made room for others.

    """

    __slots__ = ("_next", "_ring", "calls", "failures", "forgotten", "slow")

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)
        self._next = 0
        self.calls = 0
        self.failures = 0
        self.slow = 0
        self.forgotten = 0

    def record(self, now: float, calls: int = 1, failures: int = 0, slow: int = 0) -> None:
        """Put a call in the place of the oldest one. The interface is that of `TimeCounts`: `calls` is always 1."""
        ring, place = self._ring, self._next
        if self.calls == len(ring):
            self.failures -= ring[place] & 1
            self.slow -= ring[place] >> 1
            self.forgotten += 1
        else:
            self.calls += 1
        ring[place] = failures | slow << 1
        self.failures += failures
        self.slow += slow
        self._next = place + 1 if place + 1 < len(ring) else 0

    def expire(self, now: float) -> None:
        """Nothing grows old here."""

    def is_fresh(self, now: float) -> bool:
        """Whether it remembers nothing bad: successes alone are not worth keeping, and would stay for ever."""
        return not (self.failures or self.slow)
