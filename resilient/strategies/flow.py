"""The exact arithmetic behind buckets: what drains at a steady rate, in whole numbers.

The state is one number: the moment when all that was taken will have drained (the theoretical arrival time of the generic cell
rate algorithm, ITU-T I.371). Time is in nanoseconds and the rate is an exact fraction of them, so everything is a whole number
and a bucket that lets `size` through at once holds

    tokens taken ≤ size + rate × elapsed

to the token for every stretch of time. (In floats it does not, and a waiter may be told to wait for nothing, for ever.)
All mutable state besides that of a `Limiter`: the moment `_full_at`.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

from resilient import clock
from resilient.strategies.limiter import Limiter

__all__ = ("Flow", "FlowSettings")

_LONG_AGO: Final = -(1 << 127)


@dataclass(frozen=True, slots=True)
class FlowSettings:
    """What siblings share. `size` tokens are the most that one call may take, and one that is `smooth` lets one go at a time.

    A nanosecond brings `flow` units, a token is `unit` units; `at_once` and `most` are units, too.
    """

    rate: float
    per: float
    size: int
    max_wait: float | None
    smooth: bool
    flow: int
    unit: int
    at_once: int

    @property
    def most(self) -> int:
        """What one call may take, in units."""
        return self.size * self.unit

    @classmethod
    def of(cls, rate: float, per: float, size: int, max_wait: float | None, *, smooth: bool = False) -> Self:
        """The settings for arguments that were checked."""
        # str() gives the decimal that was meant: 0.1 is one tenth, not 3602879701896397 / 2**55.
        flow, unit = (Fraction(str(rate)) / (Fraction(str(per)) * 10**9)).as_integer_ratio()
        return cls(rate, per, size, max_wait, smooth, flow, unit, unit if smooth else size * unit)


class Flow(Limiter):
    """The base of buckets."""

    __slots__ = ("_full_at", "_settings", "_taken_at")

    def __init__(self, name: str, settings: FlowSettings) -> None:
        super().__init__(name)
        self._settings = settings
        self._full_at = _LONG_AGO
        self._taken_at = -math.inf  # when the last tokens were taken

    def sibling(self) -> Self:
        other = type(self).__new__(type(self))
        Flow.__init__(other, self.name, self._settings)
        return other

    @property
    def rate(self) -> float:
        """Tokens in `per` seconds."""
        return self._settings.rate

    @property
    def per(self) -> float:
        """Seconds."""
        return self._settings.per

    @property
    def max_wait(self) -> float | None:
        """Seconds that a caller may wait, or None."""
        return self._settings.max_wait

    @property
    def most(self) -> int:
        """How many tokens one call may take."""
        return self._settings.size

    @property
    def window(self) -> float:
        """Seconds in which so many flow in."""
        settings = self._settings
        return settings.size * settings.per / settings.rate

    def is_fresh(self, now: float) -> bool:
        return not self._line and not self._backlog(now)

    def retune(self, template: Self) -> bool:
        """Take over the settings of `template`. What was taken of late stays taken, and who waits goes on waiting."""
        self.name: str = template.name
        self._change(clock.now(), template._settings)
        self._wake_first()
        return True

    def _change(self, now: float, new: FlowSettings) -> None:
        """Have other settings: as many tokens are missing as before, and never a fraction fewer."""
        backlog, old = self._backlog(now), self._settings
        self._settings = new
        self._full_at = _here(now, new) + min(-(-backlog * new.unit // old.unit), new.most)

    def _leave(self, at: float, tokens: int) -> None:
        """See that at this time there are just so many tokens."""
        settings = self._settings
        self._full_at = _here(at, settings) + settings.most - tokens * settings.unit

    def _take(self, now: float, tokens: int) -> int | None:
        settings = self._settings
        units = tokens * settings.unit
        here = (now * 1e9).__round__() * settings.flow  # round() would take as long as all the rest
        full_at = self._full_at
        full_at = (full_at if full_at > here else here) + units  # noqa: FURB136  calling max() takes longer than all the rest
        full_in = full_at - here
        if full_in > settings.at_once and full_in > units:  # what is wider than the opening goes when it is free
            # The clock may have gone back, as that of a test does: no worse than empty.
            self._full_at = min(self._full_at, here + settings.most)
            return None
        self._full_at = full_at
        self._taken_at = now
        return full_at

    def _delay(self, now: float, tokens: int, ahead: int = 0) -> float:
        """In whole nanoseconds."""
        settings = self._settings
        units = tokens * settings.unit
        lacking = self._backlog(now) + ahead * settings.unit + units - max(units, settings.at_once)
        return -(-lacking // settings.flow) / 1e9 if lacking > 0 else 0.0

    def _there(self, now: float) -> float:
        settings = self._settings
        return (settings.most - self._backlog(now)) / settings.unit

    def _backlog(self, now: float) -> int:
        """Units that have not drained yet."""
        settings = self._settings
        return min(max(0, self._full_at - _here(now, settings)), settings.most)

    def put_back(self, tokens: int, mark: int) -> None:
        """Undo a take: exactly, or, where others have taken since, not at all.

        Others may have been let in meanwhile because the bucket was full; a late refund could let too many through.
        """
        if self._full_at == mark:
            self._full_at = mark - tokens * self._settings.unit
            self._wake_first()


def _here(now: float, settings: FlowSettings) -> int:
    return round(now * 1e9) * settings.flow
