"""Live latency: a histogram that forgets, and the triggers that read it.

Times go into buckets whose edges grow by 4.4 % each; a quantile is the upper edge of the bucket that it falls into, so that no
more calls than asked for are above it. Once there are a thousand samples all of them lose half of their weight: what was long
ago fades. Quantiles are worked out anew after every sixteen samples, which makes the cost of a call constant.

Samples are *fair*: one for each call, of its original leg. A leg that was cut short (it lost, it failed, it was cancelled) ran
for *at least* so long. Where that is longer than the delay in force, it certainly lies above it and counts; where it is
shorter, it tells nothing and does not. To leave out the legs that lost would leave out the slow ones: the quantile would sink,
more calls would be hedged, and it would sink further. All mutable state: the weights, their sum, and
the quantile that was asked for last.
"""

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from resilient._arguments import integer, number

__all__ = ("P50", "P90", "P95", "P99", "FixedDelay", "Latency", "Percentile", "Trigger")

_STEPS: Final = 16  # buckets for each doubling
_MEMORY: Final = 1000.0
_RENEWAL: Final = 16
_LOST_WEIGHT: Final = 1 / 64
_SHORTEST, _LONGEST = 1e-6, 1e6
_IDLE: Final = 60.0
"""Seconds without a sample after which what was learned is not worth keeping, where memory is short."""


class Latency:
    """How long calls take of late.

    Args:
        minimum: how many samples there must be before it knows a quantile, at least 1 (default 50).

    Attributes:
        samples: how many it was given.

    """

    __slots__ = ("_known", "_last", "_lowest", "_total", "_weights", "minimum", "samples")

    def __init__(self, minimum: int = 50) -> None:
        self.minimum = integer("minimum", minimum)
        self.samples = 0
        self._weights: array[float] | None = None  # of the buckets from the lowest to the highest that hold something
        self._lowest = 0
        self._total = 0.0
        self._known: tuple[float, float] | None = None  # the share that was asked for last, and its quantile
        self._last = -math.inf

    def record(self, seconds: float, now: float) -> None:
        """A call took so long."""
        seconds = min(max(_SHORTEST, seconds), _LONGEST)
        place = math.ceil(math.log2(seconds) * _STEPS) - self._lowest
        weights = self._weights
        if weights is None or not 0 <= place < len(weights):
            weights, place = self._make_room(place)
        weights[place] += 1.0
        self._total += 1.0
        self.samples += 1
        self._last = now
        if self.samples % _RENEWAL == 0:
            self._known = None
        if self._total >= _MEMORY:
            self._fade()

    def record_at_least(self, seconds: float, now: float, delay: float | None) -> None:
        """A call was cut short after so many seconds, while `delay` was in force. See the top of this module."""
        if delay is not None and seconds >= delay:
            self.record(seconds, now)

    def quantile(self, share: float) -> float | None:
        """The seconds that `share` of the calls do not exceed; None where there are not samples enough."""
        if self.samples < self.minimum:
            return None
        known = self._known
        if known is None or known[0] != share:
            self._known = known = (share, self._work_out(share))
        return known[1]

    def _work_out(self, share: float) -> float:
        weights = self._weights or ()
        above, place = (1.0 - share) * self._total * (1 + 1e-9), len(weights)  # rounding must not take the next bucket
        while place and above >= 0:
            place -= 1
            above -= weights[place]
        return math.exp2((self._lowest + place) / _STEPS)

    def _make_room(self, place: int) -> tuple["array[float]", int]:
        """The weights with a bucket at that place, and where it is then."""
        weights = array("f") if self._weights is None else self._weights
        if not weights:
            self._lowest, place = self._lowest + place, 0
        if place < 0:
            weights[:0] = array("f", bytes(-place * weights.itemsize))
            self._lowest, place = self._lowest + place, 0
        weights.frombytes(bytes(max(0, place + 1 - len(weights)) * weights.itemsize))
        self._weights = weights
        return weights, place

    def _fade(self) -> None:
        """Halve all weights; buckets at the ends that hold hardly anything are given up."""
        weights = array("f", (weight / 2 if weight / 2 >= _LOST_WEIGHT else 0.0 for weight in self._weights or ()))
        while not weights[-1]:
            weights.pop()
        while not weights[0]:
            weights.pop(0)
            self._lowest += 1
        self._weights, self._total = weights, sum(weights)

    def sibling(self) -> Self:
        """A new one with the same settings."""
        return type(self)(self.minimum)

    def is_fresh(self, now: float) -> bool:
        """Whether nothing is lost when it is forgotten: it has learned nothing, or nothing of late."""
        return now - self._last > _IDLE

    def __repr__(self) -> str:
        median, high = self.quantile(0.5), self.quantile(0.95)
        seen = "" if median is None or high is None else f": p50 {median:.3g} s, p95 {high:.3g} s"
        return f"<Latency of {self.samples} samples{seen}>"


Trigger = Callable[[Latency], float | None]
"""Says when to hedge: from live latency to the seconds to wait for a leg before the next one is started; None: not at all."""


class Percentile(float):
    """The trigger that waits for as long as this share of the calls takes: `Percentile(0.95)`, or just `P95`.

    It is a float, so it may be given wherever a percentile is asked for.

    Args:
        share: above 0, and at most 0.9999.

    """

    __slots__ = ()

    def __new__(cls, share: float) -> Self:
        return super().__new__(cls, number("percentile", share, above=0.0, at_most=0.9999))

    def __call__(self, latency: Latency) -> float | None:
        return latency.quantile(self)


P50: Final = Percentile(0.50)
P90: Final = Percentile(0.90)
P95: Final = Percentile(0.95)
P99: Final = Percentile(0.99)


@dataclass(frozen=True, slots=True)
class FixedDelay:
    """The trigger that always waits for so many seconds."""

    seconds: float

    def __call__(self, latency: Latency) -> float | None:
        return self.seconds
