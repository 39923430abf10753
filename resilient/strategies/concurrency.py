"""How many calls a service takes at a time: the estimate behind an adaptive limit, without clock and without I/O.

Outcomes are gathered in windows, latencies by their logarithm: a few that are very slow do not drown the rest. While latency is
that of a service with room (the *baseline*) the limit grows by half of its root with each window; where a full window is slower,
by more than a tolerance and its own noise, the limit shrinks in proportion; and it shrinks by the share of calls that were
dropped. The baseline is learned while there is room and never from a full house, or a long overload would pass for the normal
state, as it does with moving averages. In place of that a *probe* halves the limit for a window now and then, and takes what it
sees there for the baseline. The first ones come soon, and so do those after a window that was far slower than the last one had
promised, or where the limit has halved or doubled.

Sources: Netflix's concurrency-limits (the gradient), Envoy's adaptive concurrency filter (the probe, there down to a minimum),
DCTCP, RFC 8257 (to shrink by the share of what was marked).

All mutable state: the estimate (`limit`, `baseline`), the window, and the probes (`_before`: the limit to come back to,
`_draining`, `_probe_in` and `_gap`: full windows until the next and between them, `_probed_at`: the limit at the last).
"""

import math
from random import Random
from typing import Final, Literal

__all__ = ("Concurrency", "Why")

Why = Literal["room", "slower", "drops", "probe", "probe_over"]

_SECONDS: Final = 1.0
_OUTCOMES: Final = 20
"""What makes a window: so long, twice the latency in it (it shows what the limit before has led to), and so many outcomes."""
_NOISE: Final = 2.0
"""In standard errors of the mean."""
_TOLERANCE: Final = math.log(1.25)
_FULL: Final = 0.95
_STEEPEST: Final = 0.5
"""How much smaller a limit can become with one window."""
_LEARN: Final = 0.1
_PROBE_EVERY: Final = 60
"""Full windows from one probe to the next, a quarter more or less."""
_PROBE_SOON: Final = 3
"""The same where little is known: each gap is four times the one before."""
_FAR: Final = math.log(1.3)
"""So much slower than is tolerated: the limit, or the baseline, is far from what it should be."""
_SHORTEST: Final = 1e-6
"""Seconds: what a latency is at least."""


class _Window:
    """What was heard since it began: the logarithms of `count` latencies, `drops`, and how many calls were in flight at most."""

    __slots__ = ("_squares", "_total", "begun", "count", "drops", "peak")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.count = self.drops = self.peak = 0
        self._total = self._squares = 0.0

    def add(self, latency: float | None, active: int) -> None:
        self.peak = max(self.peak, active)
        if latency is None:
            self.drops += 1
        else:
            log = math.log(max(latency, _SHORTEST))
            self.count += 1
            self._total += log
            self._squares += log * log

    def is_over(self, now: float) -> bool:
        if self.count + self.drops < _OUTCOMES:
            return False
        return now - self.begun >= max(_SECONDS, 2 * math.exp(self.mean))

    @property
    def mean(self) -> float:
        """Of the logarithms."""
        return self._total / self.count if self.count else -math.inf

    @property
    def noise(self) -> float:
        """How far off the mean may be."""
        variance = max(0.0, self._squares / self.count - self.mean**2)
        return _NOISE * math.sqrt(variance / self.count)

    @property
    def dropped(self) -> float:
        """The share of the drops."""
        return self.drops / (self.count + self.drops)


class Concurrency:
    """The estimate for one service. `hear()` is told of every outcome that says something.

    Attributes:
        limit: how many calls may be in flight; the fraction counts only for itself.
        heard_at: when it last heard of an outcome; minus infinity at first.

    """

    __slots__ = ("_baseline", "_before", "_draining", "_gap", "_probe_in", "_probed_at", "_window", "heard_at", "limit")

    def __init__(self, initial: float) -> None:
        self.limit = initial
        self.heard_at = -math.inf
        self._baseline: float | None = None  # a logarithm
        self._window: _Window | None = None
        self._before: float | None = None
        self._draining = False
        self._gap = self._probe_in = _PROBE_SOON
        self._probed_at = initial

    @property
    def slots(self) -> int:
        """How many calls may be in flight."""
        return int(self.limit)

    @property
    def baseline(self) -> float | None:
        """Seconds that a call takes where the service has room; None where nothing is known."""
        return None if self._baseline is None else math.exp(self._baseline)

    @property
    def probing(self) -> bool:
        """Whether the limit is low for a while, to see how fast the service can be."""
        return self._before is not None

    def hear(self, now: float, latency: float | None, active: int, minimum: int, maximum: int, random: Random) -> Why | None:
        """Hear of an outcome: its latency in seconds, None for a drop. `active` calls were in flight, this one among them.

        Returns why the number of slots has changed, or None where it has not.
        """
        window, self.heard_at = self._window, now
        if window is None or now < window.begun:
            window = self._window = _Window(now)
        if self._draining:
            if active <= self.slots + 1:  # and one of them has ended
                self._draining, self._window = False, _Window(now)
            return None
        if latency is None or not self.probing or now - latency >= window.begun:  # a probe heeds only what began in it
            window.add(latency, active)
        if not window.is_over(now):
            return None
        self._window, before = None, self.slots
        why = self._end_probe(window, random) if self.probing else self._judge(window, minimum)
        if window.drops:
            self.limit *= max(_STEEPEST, 1 - window.dropped)
            if why is None or (why == "room" and self.slots < before):
                why = "drops"
        self.limit = min(max(self.limit, minimum), maximum)
        if why != "probe_over" and self._probe_is_due(window, before):
            self._begin_probe(minimum)
            why = "probe"
        return why if self.slots != before else None

    def _judge(self, window: _Window, minimum: int) -> Why | None:
        if not window.count:
            return None
        full = window.peak >= _FULL * self.slots
        if self._baseline is None:
            self._baseline = window.mean
            self._probe_in = 1 if full else _PROBE_EVERY  # what was learned from a full house is to be doubted
        elif not full or window.mean + window.noise < self._baseline or self.slots <= minimum:
            self._baseline += _LEARN * (window.mean - self._baseline)
        slower = window.mean - window.noise - self._baseline - _TOLERANCE
        if slower <= 0 and window.peak * 2 >= self.limit:
            self.limit += math.sqrt(self.limit) / 2
            return "room"
        if slower > 0 and full:
            self.limit *= max(_STEEPEST, math.exp(-slower))
            if slower > _FAR:
                self._gap = _PROBE_SOON
                self._probe_in = min(self._probe_in, _PROBE_SOON)
            return "slower"
        return None

    def _probe_is_due(self, window: _Window, slots: int) -> bool:
        if self._baseline is None or window.peak < _FULL * slots:
            return False
        self._probe_in -= 1
        return self._probe_in <= 0 or not self._probed_at / 2 < self.limit < self._probed_at * 2

    def _begin_probe(self, minimum: int) -> None:
        self._before = self.limit
        self._draining = True
        self.limit = max(minimum, self.limit / 2)

    def _end_probe(self, window: _Window, random: Random) -> Why:
        if window.count:
            self._baseline = window.mean
        self._gap = min(4 * self._gap, _PROBE_EVERY)
        self._probe_in = round(self._gap * random.uniform(0.75, 1.25))
        self.limit = self._probed_at = self._before or self.limit
        self._before = None
        return "probe_over"
