"""The exact arithmetic behind buckets: what drains at a steady rate, in whole numbers.

The state is what had not drained when somebody last took some, and when that was; the moment when all of it will have drained is
the theoretical arrival time of the generic cell rate algorithm (ITU-T I.371). Time is in nanoseconds and the rate is an exact
fraction of them, so everything is a whole number and a bucket that lets `size` through at once holds

    tokens taken ≤ size + rate × elapsed

to the token for every stretch of time. (In floats it does not, and a waiter may be told to wait for nothing, for ever.)
All mutable state besides that of a `Limiter`: `_level`, in units, and `_taken_at`, in nanoseconds.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Final, Self

from resilient import clock
from resilient.strategies.limiter import Limiter

__all__ = ("Flow", "FlowSettings")

_LONG_AGO: Final = -(1 << 62)
_KNOWN: Final = 256
"""How many settings are kept to be shared."""


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
    @lru_cache(maxsize=_KNOWN)
    def of(cls, rate: float, per: float, size: int, max_wait: float | None, *, smooth: bool = False) -> Self:
        """The settings for arguments that were checked: the same object for the same ones."""
        # str() gives the decimal that was meant: 0.1 is one tenth, not 3602879701896397 / 2**55.
        flow, unit = (Fraction(str(rate)) / (Fraction(str(per)) * 10**9)).as_integer_ratio()
        return cls(rate, per, size, max_wait, smooth, flow, unit, unit if smooth else size * unit)


class Flow(Limiter):
    """The base of buckets."""

    __slots__ = ("_level", "_settings", "_taken_at")

    def __init__(self, name: str, settings: FlowSettings) -> None:
        super().__init__(name)
        self._settings = settings
        self._taken_at = _LONG_AGO
        self._level = 0

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
        self._taken_at = round(now * 1e9)
        self._level = min(-(-backlog * new.unit // old.unit), new.most)

    def _leave(self, at: float, tokens: int) -> None:
        """See that at this time there are just so many tokens."""
        settings = self._settings
        self._taken_at = round(at * 1e9)
        self._level = settings.most - tokens * settings.unit

    def _take(self, now: float, tokens: int) -> int | None:
        settings = self._settings
        units = settings.unit if tokens == 1 else tokens * settings.unit
        here = (now * 1e9).__round__()  # round() would take as long as all the rest
        before = self._level - (here - self._taken_at) * settings.flow
        level = before + units if before > 0 else units
        if level > settings.at_once and level > units:  # what is wider than the opening goes when it is free
            if before > settings.most:  # the clock has gone back, as that of a test does: no worse than empty
                self._taken_at, self._level = here, settings.most
            return None
        self._taken_at = here
        self._level = level
        return here

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
        return min(max(0, self._level - (round(now * 1e9) - self._taken_at) * settings.flow), settings.most)

    def put_back(self, tokens: int, mark: int) -> None:
        """Undo a take: exactly, or, where others have taken since, not at all.

        Others may have been let in meanwhile because the bucket was full; a late refund could let too many through.
        """
        if self._taken_at == mark:
            self._level -= tokens * self._settings.unit
            self._wake_first()
