"""What protects the two sides of a cache: the operations of its backend, and the loads of its origin."""

from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

from resilient import Attempt, Fallback, Outcome, Part, Pipeline, Step, Strategy, parts_of
from resilient.outcome import On, checked_on
from resilient_integrations._cache.entries import Entry
from resilient_integrations._cache.statistics import Count

__all__ = ("Called", "Origin")

_STALE: Final = object()
"""What a load gives where an old value stands in for it."""


class Called(Strategy):
    """Gives the calls of a cache its name for a key, so that events and log lines say which one it is."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, call: Step, attempt: Attempt) -> Coroutine[Any, Any, Any]:
        attempt.key = self.name
        return call(attempt)


class Origin:
    """Where values come from. Loads run under `protection`, and under a `Fallback` where there is an old value.

    `stale_on` says which errors an old value may hide. All mutable state: the counts, which are the cache's.
    """

    def __init__(self, name: str, protection: Strategy, stale_on: On | None, counts: Counter[Count]) -> None:
        hidden = None if stale_on is None else checked_on("stale_on", stale_on)
        self._strict = Pipeline(Called(name), protection)
        self._lenient = Pipeline(Called(name), Fallback(_STALE, on=hidden), protection)
        self._counts = counts

    def parts(self) -> Iterator[Part]:
        """What has a state."""
        return parts_of(self._strict)

    async def load(self, loader: Callable[[], Awaitable[Any]], old: Entry | None) -> tuple[Outcome[Any], bool]:
        """What the loader ended with, and whether it failed and the old value stands in."""
        self._counts["loads"] += 1
        try:
            value = await (self._strict if old is None else self._lenient).call(loader)
        except Exception as error:  # noqa: BLE001  it is told to all who wait, and raised by each of them
            self._counts["load_errors"] += 1
            return Outcome(error=error), False
        if old is not None and value is _STALE:
            self._counts["load_errors"] += 1
            return Outcome(old.value), True
        return Outcome(value), False
