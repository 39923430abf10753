"""Where a cache keeps what it knows: the protocol of a backend, and one in the memory of the process.

A backend knows texts, data and how long they stay; it knows nothing of freshness, failures or loads. It tells how long an
entry will still stay, by its own clock: so processes whose clocks differ agree on what is fresh, and none writes a time down.
All mutable state of the one in memory: `_entries`, the least recently used first.
"""

from collections import OrderedDict
from typing import Any, NamedTuple, Protocol

from resilient import clock

__all__ = ("Backend", "MemoryBackend", "Stored")


class Stored(NamedTuple):
    """What a backend has for a key.

    Attributes:
        data: as it was given to `set`.
        expires_in: seconds until it is gone; infinity where it stays.

    """

    data: Any
    expires_in: float


class Backend(Protocol):
    """What a cache needs of a backend. Whatever exception it raises means that it failed.

    `data` are bytes, unless the backend has an attribute `keeps_objects = True`: then any object, handed out as it was put in.
    """

    async def get(self, key: str, /) -> Stored | None:
        """What there is for the key; None where there is nothing."""
        ...

    async def set(self, key: str, data: Any, expires_in: float, /) -> None:
        """Keep the data for so many seconds, in place of what there was."""
        ...

    async def delete(self, key: str, /) -> None:
        """Have nothing for the key. It is no error where there was nothing."""
        ...


class MemoryBackend:
    """Objects in the memory of the process: the least recently used go first where there are too many.

    All who ask get the same object: treat it as immutable.

    Args:
        max_entries: how many are kept, at least 1 (default 10 000).

    Raises:
        TypeError, ValueError: the argument is wrong.

    """

    keeps_objects = True

    def __init__(self, max_entries: int = 10_000) -> None:
        if isinstance(max_entries, bool) or not isinstance(max_entries, int):
            msg = f"max_entries={max_entries!r}: expected a whole number, got {type(max_entries).__name__}"
            raise TypeError(msg)
        if max_entries < 1:
            msg = f"max_entries={max_entries!r} is out of range: expected a whole number of at least 1"
            raise ValueError(msg)
        self.max_entries = max_entries
        self._entries: OrderedDict[str, tuple[Any, float]] = OrderedDict()

    async def get(self, key: str, /) -> Stored | None:
        found = self._entries.get(key)
        if found is None:
            return None
        data, expires_at = found
        left = expires_at - clock.now()
        if left <= 0:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return Stored(data, left)

    async def set(self, key: str, data: Any, expires_in: float, /) -> None:
        self._entries[key] = (data, clock.now() + expires_in)
        self._entries.move_to_end(key)
        if len(self._entries) > self.max_entries:
            self._entries.popitem(last=False)

    async def delete(self, key: str, /) -> None:
        self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<MemoryBackend: {len(self)} of {self.max_entries} entries>"
