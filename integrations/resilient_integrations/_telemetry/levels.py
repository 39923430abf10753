"""Levels: what the gauges show. They are read when somebody looks, from the statistics of what is watched.

A limiter tells its quota; of all else a snapshot tells by its fields what it is of, so that a strategy of one's own, or one
whose state is elsewhere, is seen too.

All mutable state: what is watched, by name, and the sources that were `_reported`.
"""

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from resilient import parts_of
from resilient.strategies.limiter import Limiter
from resilient_integrations._telemetry.home import Home
from resilient_integrations._telemetry.instruments import (
    ADAPTIVE_LIMIT,
    ADAPTIVE_RATE,
    BREAKER_FAILURE_RATIO,
    BREAKER_SLOW_RATIO,
    BREAKER_STATE,
    BREAKER_STATES,
    BUDGET_AVAILABLE,
    BULKHEAD_ACTIVE,
    BULKHEAD_LIMIT,
    BULKHEAD_QUEUED,
    HEDGE_DELAY,
    LIMITER_LIMIT,
    LIMITER_QUEUED,
    LIMITER_TOKENS,
    THROTTLE_PROBABILITY,
    Instrument,
    Keys,
)

__all__ = ("Level", "Levels")

T = TypeVar("T")


class Level(NamedTuple):
    """What a gauge shows: its value, and the values of its labels in the order of `Instrument.labels`."""

    instrument: Instrument
    value: float
    labels: tuple[str, ...]


class Levels:
    """What is watched."""

    def __init__(self, keys: Keys) -> None:
        self.home = Home()
        self._keys = keys
        self._watched: dict[str, Any] = {}
        self._reported: set[str] = set()

    def watch(self, thing: Any, name: str) -> None:
        """Read the thing from now on. See `Recorder.watch`."""
        if name in self._watched:
            msg = f"name={name!r} is taken: give each thing that is watched a name of its own, e.g. watch(thing, name='payments')"
            raise ValueError(msg)
        parts_of(thing)  # raises where it has none
        self.home.seen()
        self._watched[name] = thing

    def unwatch(self, name: str) -> None:
        """Read it no more."""
        self._watched.pop(name, None)
        self._reported.discard(name)

    def read(self) -> list[Level]:
        """All levels, now; none where the event loop does not answer."""
        return self.home.read(self._read) or []

    def _read(self) -> list[Level]:
        return [level for name in tuple(self._watched) for level in self._of(name)]

    def _of(self, name: str) -> list[Level]:
        """The levels of one thing. One that cannot be read must not hide the others."""
        try:
            return list(self._levels(name, self._watched[name]))
        except Exception:
            if name not in self._reported:
                self._reported.add(name)
                logging.getLogger("resilient").exception("%r cannot be read; this is reported once, the others are", name)
            return []

    def _levels(self, name: str, thing: Any) -> Iterator[Level]:
        times: dict[tuple[str, str], int] = {}
        for key, strategy, part in parts_of(thing):
            label = self._keys[key]
            if label is Keys.OTHERS:
                continue  # levels of several keys do not add up
            place = label, strategy
            times[place] = nth = times.get(place, 0) + 1  # two strategies of one name
            labels = (name, label, strategy if nth == 1 else f"{strategy}_{nth}")
            for instrument, value, *more in _values(part):
                if value is not None and math.isfinite(value):
                    yield Level(instrument, float(value), (*labels, *more))


Value = tuple[Instrument, float | None] | tuple[Instrument, float | None, str]


def _values(part: Any) -> Iterator[Value]:
    """What a part says."""
    seen = part.statistics()
    if isinstance(part, Limiter):
        quota = part.quota()
        yield from ((LIMITER_TOKENS, quota.remaining), (LIMITER_LIMIT, quota.limit), (LIMITER_QUEUED, part.queued))
    for field, values in _SHAPES:
        if hasattr(seen, field):
            yield from values(seen)


def _breaker(seen: Any) -> Iterator[Value]:
    for state in BREAKER_STATES:
        yield BREAKER_STATE, float(seen.state == state), state
    yield BREAKER_FAILURE_RATIO, seen.failure_rate
    yield BREAKER_SLOW_RATIO, seen.slow_rate


def _bulkhead(seen: Any) -> Iterator[Value]:
    yield BULKHEAD_ACTIVE, seen.active
    yield BULKHEAD_LIMIT, seen.max_concurrent
    yield BULKHEAD_QUEUED, seen.queued


def _adaptive_limit(seen: Any) -> Iterator[Value]:
    yield BULKHEAD_ACTIVE, seen.active
    yield BULKHEAD_LIMIT, seen.limit
    yield BULKHEAD_QUEUED, seen.queued
    yield ADAPTIVE_LIMIT, seen.limit


_SHAPES: tuple[tuple[str, Callable[[Any], Iterator[Value]]], ...] = (
    # a field that only such a snapshot has, and what the snapshot says
    ("failure_rate", _breaker),
    ("max_concurrent", _bulkhead),
    ("baseline", _adaptive_limit),
    ("opens_in", lambda seen: iter([(ADAPTIVE_RATE, seen.rate / seen.per)])),
    ("probability", lambda seen: iter([(THROTTLE_PROBABILITY, seen.probability)])),
    ("reserve", lambda seen: iter([(BUDGET_AVAILABLE, seen.left)])),
    ("delay", lambda seen: iter([(HEDGE_DELAY, seen.delay)])),
)
