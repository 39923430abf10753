"""Windows: how many calls of late, how many of them failed, how many were slow.

`TimeCounts` looks back over a span of time in ten buckets that advance lazily: scalars for the current bucket, a list
for the older ones that is made on first need. `RingCounts` looks back over the last n calls, one byte each. Both take
constant time and memory, keep running totals, and expire what is old on reading as well as on writing. No clock inside.
"""

from dataclasses import dataclass
from typing import Final

from resilient._arguments import integer

__all__ = ("CountWindow", "RingCounts", "TimeCounts")

_BUCKETS: Final = 10


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
    """Sums over the last `span` seconds, in ten buckets: the oldest tenth is forgotten as a whole.

    Attributes:
        calls, failures, slow: the running totals as of the last `record` or `expire`.

    """

    __slots__ = ("_calls", "_failures", "_index", "_older", "_slow", "_width", "calls", "failures", "slow")

    def __init__(self, span: float) -> None:
        self._width = span / _BUCKETS
        self._index = -(1 << 62)  # number of the current bucket; none yet
        self._older: list[tuple[int, float, float, float]] | None = None  # bucket number and its sums, oldest first
        self._calls = self._failures = self._slow = 0.0  # of the current bucket
        self.calls = self.failures = self.slow = 0.0

    def record(self, now: float, calls: float = 1, failures: float = 0, slow: float = 0) -> None:
        """Add to the current bucket."""
        index = int(now // self._width)
        if index != self._index:
            self._advance(index)
        self._calls += calls
        self.calls += calls
        if failures:
            self._failures += failures
            self.failures += failures
        if slow:
            self._slow += slow
            self.slow += slow

    def expire(self, now: float) -> None:
        """Forget what is older than the span."""
        index = int(now // self._width)
        if index != self._index:
            self._advance(index)

    def _advance(self, index: int) -> None:
        older = self._older
        if self._calls or self._failures or self._slow:
            if older is None:
                older = self._older = []
            older.append((self._index, self._calls, self._failures, self._slow))
            self._calls = self._failures = self._slow = 0.0
        self._index = index
        if older:
            keep = index - _BUCKETS
            while older and older[0][0] <= keep:
                older.pop(0)
            # Summed anew from what is left: subtracting would let the rounding of floats pile up.
            self.calls = sum(bucket[1] for bucket in older)
            self.failures = sum(bucket[2] for bucket in older)
            self.slow = sum(bucket[3] for bucket in older)


class RingCounts:
    """Sums over the last `size` calls: a ring of one byte a call (bit 0: failed, bit 1: slow).

    Attributes:
        calls, failures, slow: the running totals.

    """

    __slots__ = ("_next", "_ring", "calls", "failures", "slow")

    def __init__(self, size: int) -> None:
        self._ring = bytearray(size)
        self._next = 0
        self.calls = self.failures = self.slow = 0

    def record(self, now: float, calls: int = 1, failures: int = 0, slow: int = 0) -> None:  # noqa: ARG002  the face of TimeCounts
        """Put a call in the place of the oldest one."""
        ring, place = self._ring, self._next
        if self.calls == len(ring):
            self.failures -= ring[place] & 1
            self.slow -= ring[place] >> 1
        else:
            self.calls += 1
        ring[place] = failures | slow << 1
        self.failures += failures
        self.slow += slow
        self._next = place + 1 if place + 1 < len(ring) else 0

    def expire(self, now: float) -> None:
        """Nothing grows old here."""
