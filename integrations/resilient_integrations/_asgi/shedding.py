"""When there is too much to do: how busy the process is, and for whom that is too much.

Two things are known of it before a request is run: which share of the slots is taken, and the lag of the event loop. The lag is
measured without a task of its own: a request that comes in lets the loop go once round and looks how long that took, every 20 ms
at most. While a handler computes or blocks, the round takes as long. What was measured is smoothed over a second, and no single
measurement weighs more than a tenth, so a hiccup sheds nobody. Nothing is known after five seconds without requests.

All mutable state: the smoothed `lag`, and when it was last measured.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import anyio.lowlevel

from resilient import clock
from resilient._arguments import Duration, seconds
from resilient.errors import Rejected
from resilient.outcome import Verdict
from resilient.strategies.gate import Gate

__all__ = ("LoadShed", "LoopLag", "LoopLagStatistics", "Shedder", "fullness")

_EVERY: Final = 0.02
_SMOOTHED: Final = 1.0
_HEAVIEST: Final = 0.1
_FORGOTTEN: Final = 5.0


class LoadShed(Rejected):
    """The process is too busy for a request of this priority.

    Attributes:
        load: how busy it is, 1.0 where it can take no more.
        share: the load up to which the request would have been taken.

    """

    reason: ClassVar[str] = "load_shed"

    def __init__(self, strategy: str = "", retry_after: float | None = None, load: float = 1.0, share: float = 1.0) -> None:
        super().__init__(strategy, retry_after)
        self.load = load
        self.share = share

    def _why(self) -> str:
        return f"the load is {self.load:.0%}, and requests like this one are taken below {self.share:.0%}; it was not run"


@dataclass(frozen=True, slots=True)
class LoopLagStatistics:
    """A snapshot of the lag of the event loop.

    Attributes:
        lag: seconds that a round of the event loop takes of late.
        limit: seconds from which on it is too busy.

    """

    lag: float
    limit: float


class LoopLag:
    """How long the event loop takes to come round, as a sign of overload. Share one by all middlewares of a process.

    Args:
        limit: seconds of lag at which the process counts as full, above 0 (default 0.1).

    """

    def __init__(self, limit: Duration = 0.1) -> None:
        self.limit = seconds("limit", limit, above=0.0)
        self._lag = 0.0
        self._measured_at = -math.inf

    async def measure(self) -> None:
        """Let the event loop go once round and see how long it takes, unless somebody has just done so."""
        started = clock.now()
        if started - self._measured_at < _EVERY:
            return
        since, self._measured_at = started - self._measured_at, started
        await anyio.lowlevel.checkpoint()
        self.hear(clock.now() - started, since)

    def hear(self, lag: float, since: float) -> float:
        """Take a measurement into account, so many seconds after the one before. Returns the lag, smoothed."""
        if since >= _FORGOTTEN:
            self._lag = 0.0
        weight = -math.expm1(-min(since, _HEAVIEST) / _SMOOTHED)
        self._lag += weight * (lag - self._lag)
        return self._lag

    @property
    def lag(self) -> float:
        """Seconds that a round takes of late; 0.0 where nothing is known."""
        return self._lag if clock.now() - self._measured_at < _FORGOTTEN else 0.0

    @property
    def load(self) -> float:
        """The share of the limit: 1.0 where the process is full."""
        return self.lag / self.limit

    def statistics(self) -> LoopLagStatistics:
        """A snapshot."""
        return LoopLagStatistics(self.lag, self.limit)

    def __repr__(self) -> str:
        return f"<LoopLag: {self.lag * 1000:.3g} of {self.limit * 1000:.3g} ms>"


class Shedder(Gate):
    """Refuses requests for whose priority there is too much to do. All mutable state: what is asked at the moment."""

    __slots__ = ("_load", "_loop_lag", "_share")

    lingers = False

    def __init__(self, loop_lag: LoopLag | None) -> None:
        super().__init__("load")
        self._loop_lag = loop_lag
        self._load = 0.0
        self._share = 1.0

    async def check(self, share: float, taken: float) -> None:
        """Raises `LoadShed` unless the load is below `share`. `taken` is the share of the slots that are out.

        Who may have all of them (1.0 and above) may also wait for one.
        """
        lag = 0.0
        if self._loop_lag is not None:
            await self._loop_lag.measure()
            lag = self._loop_lag.load
        self._share, self._load = share, max(lag, taken) if share < 1 else lag
        self.acquire_nowait()

    def admit(self, now: float) -> Self:
        if self._load >= self._share:
            raise self.refuse(now)
        return self

    def refuse(self, now: float) -> LoadShed:
        return LoadShed(self.name, None, self._load, self._share)

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        """Nothing was taken."""


def fullness(statistics: Any) -> float:
    """The share of the slots that are out, by the statistics of a bulkhead or adaptive limit; 0.0 for what has no slots."""
    slots = getattr(statistics, "limit", getattr(statistics, "max_concurrent", math.inf))
    return float(getattr(statistics, "active", 0) / slots)
