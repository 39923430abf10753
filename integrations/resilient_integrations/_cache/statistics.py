"""What a cache counts, and the event of a lookup."""

from dataclasses import dataclass
from typing import Literal

from resilient import BreakerStatistics, Event

__all__ = ("CacheLookup", "CacheStatistics", "Count", "Result")

Result = Literal["hit", "stale", "miss", "coalesced", "shed"]

Count = Literal[
    "hits",
    "stale",
    "misses",
    "bypassed",
    "shed",
    "coalesced",
    "loads",
    "load_errors",
    "refreshes",
    "operations",
    "errors",
    "unreadable",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLookup(Event):
    """Somebody asked a cache. It is routine: made only while somebody listens. The key that was asked for is not in it.

    Attributes:
        cache: the name of the cache.
        result: `hit`; `stale`: an old value was given; `miss`; `coalesced`: it got what another one was finding out; `shed`: it
            was refused because the breaker is open.

    """

    cache: str
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStatistics:
    """A snapshot of a cache, since it was made or `reset()`.

    Each lookup that ended is one of `hits`, `stale`, `misses`, `shed` and `coalesced`.

    Attributes:
        hits: lookups that found a fresh value.
        stale: lookups that were given an old one.
        misses: lookups that found nothing, or could not ask.
        bypassed: how many of these could not ask: the backend failed, or its breaker was open.
        shed: lookups that were refused because the breaker was open (`on_open="shed"`).
        coalesced: lookups that got what another one was finding out.
        loads: how often a loader was asked.
        load_errors: how often that failed, the strategies around it included.
        refreshes: how many of the loads ran in the background.
        operations: operations of the backend that the breaker let through.
        errors: how many of them failed, retries included.
        unreadable: entries that could not be read, and values that could not be written.
        in_flight: keys that are being looked up or loaded.
        breaker: that of the backend.

    """

    hits: int
    stale: int
    misses: int
    bypassed: int
    shed: int
    coalesced: int
    loads: int
    load_errors: int
    refreshes: int
    operations: int
    errors: int
    unreadable: int
    in_flight: int
    breaker: BreakerStatistics

    @property
    def hit_rate(self) -> float:
        """The share of lookups that the cache answered, 0.0 to 1.0; 0.0 where there were none. Coalesced ones are left out."""
        answered = self.hits + self.stale
        asked = answered + self.misses + self.shed
        return answered / asked if asked else 0.0

    @property
    def success_rate(self) -> float:
        """The share of operations of the backend that did not fail, 0.0 to 1.0; 1.0 where there were none."""
        return 1.0 - self.errors / self.operations if self.operations else 1.0

    @property
    def is_healthy(self) -> bool:
        """Whether operations reach the backend as ever: the breaker is not open, half-open or isolated."""
        return self.breaker.is_healthy
