"""The entries of a cache in its backend, under the strategies that protect it.

`read`, `write` and `delete` raise what remains of a failure; `keep` and `forget` do what they can, for callers who have their
answer already. Data that cannot be read is no entry; the first time that is reported. All mutable state: the counts, which are
the cache's, and the troubles that were `_reported`.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

from resilient import Rejected, Strategy
from resilient_integrations._cache.backends import Backend
from resilient_integrations._cache.entries import Entry, Serializer, read_entry, write_entry
from resilient_integrations._cache.statistics import Count

__all__ = ("Store",)

T = TypeVar("T")


class Store:
    """Entries in a backend. `guard` runs its operations; entries are kept for `stale_for` seconds beyond their freshness."""

    def __init__(
        self,
        backend: Backend,
        guard: Strategy,
        *,
        name: str,
        serializer: Serializer | None,
        stale_for: float,
        jitter: float,
        random: Random,
        counts: Counter[Count],
    ) -> None:
        self._backend = backend
        self._guard = guard
        self._name = name
        self._serializer = serializer
        self._stale_for = stale_for
        self._jitter = jitter
        self._random = random
        self._counts = counts
        self._reported: set[str] = set()

    async def read(self, key: str) -> Entry | None:
        """What there is, as far as it may be used: fresh, or not stale for too long."""
        stored = await self._run(self._backend.get, key)
        if stored is None:
            return None
        try:
            entry = read_entry(self._serializer, stored)
        except Exception as error:  # noqa: BLE001  whatever stands there, it is no entry of ours
            self._report("an entry cannot be read, and counts as missing", error)
            return None
        return entry if entry.fresh_for > -self._stale_for else None

    async def write(self, key: str, value: Any, span: float) -> None:
        """Store a value that is fresh for so many seconds, less jitter."""
        await self._put(key, write_entry(self._serializer, value, self._stale_for), span)

    async def delete(self, key: str) -> None:
        """Have nothing."""
        await self._run(self._backend.delete, key)

    async def keep(self, key: str, value: Any, span: float) -> None:
        """As `write`, if it can be done."""
        try:
            data = write_entry(self._serializer, value, self._stale_for)
        except Exception as error:  # noqa: BLE001  the caller has the value all the same
            self._report("a value that was loaded cannot be written, and is not stored", error)
            return
        with contextlib.suppress(Exception):  # it was counted, and told by the strategies
            await self._put(key, data, span)

    async def forget(self, key: str) -> None:
        """As `delete`, if it can be done."""
        with contextlib.suppress(Exception):
            await self.delete(key)

    async def _put(self, key: str, data: Any, span: float) -> None:
        expires_in = span * (1 - self._jitter * self._random.random()) + self._stale_for
        await self._run(self._backend.set, key, data, expires_in)

    async def _run(self, operation: Callable[..., Awaitable[T]], *args: Any) -> T:
        try:
            value = await self._guard.call(operation, *args)
        except Rejected:
            raise
        except Exception:
            self._counts["operations"] += 1
            self._counts["errors"] += 1
            raise
        self._counts["operations"] += 1
        return value

    def _report(self, trouble: str, error: Exception) -> None:
        """Count a trouble with data, and tell of the first one of its kind. Its text may hold data, and is left out."""
        self._counts["unreadable"] += 1
        if trouble not in self._reported:
            self._reported.add(trouble)
            logging.getLogger("resilient").error(
                "cache %r: %s (%s); this is reported once", self._name, trouble, type(error).__name__
            )
