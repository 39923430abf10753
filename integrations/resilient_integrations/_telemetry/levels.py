"""Levels: what the gauges show. They are read when somebody looks, from the statistics of what is watched.

A snapshot tells by its fields what it is of, so that a strategy of one's own, or one whose state is elsewhere, is seen too.

All mutable state: what is watched, by name, and the sources that were `_reported`.
"""

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from resilient import Hedge, Keyed, Pipeline, Resilience, Retry
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


Snapshot = tuple[str, str, Any]
"""A key, the name of a strategy, and its statistics."""


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
        if not _can_be_read(thing):
            msg = f"{thing!r} has no statistics: watch a strategy, a Keyed, a Pipeline, a Resilience, or a transport"
            raise TypeError(msg)
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
        for key, strategy, seen in _snapshots(thing):
            label = self._keys[key]
            if label is Keys.OTHERS:
                continue  # levels of several keys do not add up
            place = label, strategy
            times[place] = nth = times.get(place, 0) + 1  # two strategies of one name
            labels = (name, label, strategy if nth == 1 else f"{strategy}_{nth}")
            for instrument, value, *more in _values(seen):
                if value is not None and math.isfinite(value):
                    yield Level(instrument, float(value), (*labels, *more))


def _can_be_read(thing: Any) -> bool:
    return (
        isinstance(thing, Pipeline | Retry)
        or hasattr(thing, "statistics")
        or isinstance(getattr(thing, "pipeline", None), Pipeline)
    )


def _snapshots(thing: Any) -> Iterator[Snapshot]:
    """The statistics of all that is inside."""
    if isinstance(thing, Resilience):
        for key, parts in thing.statistics().items():
            for name, seen in parts.items():
                yield key, name, seen
    elif isinstance(thing, Keyed):
        for key, seen in thing.statistics().items():  # pyright: ignore[reportUnknownMemberType]  of whatever template
            yield key, _name_of(thing.template), seen  # pyright: ignore[reportUnknownMemberType]  see above
    elif isinstance(thing, Pipeline):
        yield from _of_pipeline(thing)
    elif isinstance(getattr(thing, "pipeline", None), Pipeline):
        yield from _of_pipeline(thing.pipeline)
    else:
        for part in (thing, getattr(thing, "budget", None)):
            yield from _own("", _name_of(part), part)


def _of_pipeline(pipeline: Pipeline) -> Iterator[Snapshot]:
    """What a pipeline with keys has for each of them; else its strategies."""
    siblings = pipeline.siblings
    if siblings is None:
        for strategy in pipeline.strategies:
            yield from _snapshots(strategy)
        return
    for key in siblings:
        for template, part in zip(siblings.templates, siblings[key], strict=True):
            yield from _own(key, _name_of(template), part)


def _own(key: str, name: str, part: Any) -> Iterator[Snapshot]:
    if hasattr(part, "statistics"):
        yield key, name, part.statistics()


def _name_of(part: Any) -> str:
    return getattr(part, "name", "") or ("hedge" if isinstance(part, Hedge) else type(part).__name__.lower())


Value = tuple[Instrument, float | None] | tuple[Instrument, float | None, str]


def _values(seen: Any) -> Iterator[Value]:
    """What a snapshot says."""
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


def _bucket(seen: Any) -> Iterator[Value]:
    yield LIMITER_TOKENS, max(0.0, seen.tokens)
    yield LIMITER_LIMIT, seen.burst
    yield LIMITER_QUEUED, seen.queued


def _window(seen: Any) -> Iterator[Value]:
    yield LIMITER_TOKENS, max(0.0, seen.limit - seen.taken)
    yield LIMITER_LIMIT, seen.limit
    yield LIMITER_QUEUED, seen.queued


def _leaky_bucket(seen: Any) -> Iterator[Value]:
    yield LIMITER_TOKENS, max(0.0, seen.capacity - seen.level)
    yield LIMITER_LIMIT, seen.capacity
    yield LIMITER_QUEUED, seen.queued


_SHAPES: tuple[tuple[str, Callable[[Any], Iterator[Value]]], ...] = (
    # a field that only such a snapshot has, and what the snapshot says
    ("failure_rate", _breaker),
    ("max_concurrent", _bulkhead),
    ("baseline", _adaptive_limit),
    ("tokens", _bucket),
    ("taken", _window),
    ("capacity", _leaky_bucket),
    ("opens_in", lambda seen: iter([(ADAPTIVE_RATE, seen.rate / seen.per)])),
    ("probability", lambda seen: iter([(THROTTLE_PROBABILITY, seen.probability)])),
    ("reserve", lambda seen: iter([(BUDGET_AVAILABLE, seen.left)])),
    ("delay", lambda seen: iter([(HEDGE_DELAY, seen.delay)])),
)
