"""What watches a source of policies while a block runs."""

import logging
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

__all__ = ("Watching",)


class Watching(ABC):
    """A provider that looks for news in the background: `async with provider:`, or `await provider.watch()` in a task.

    All mutable state: the group of the task that watches, while the block runs.
    """

    _group: anyio.abc.TaskGroup | None = None

    @abstractmethod
    async def watch(self) -> None:
        """Look for news until it is cancelled."""

    async def __aenter__(self) -> Self:
        if self._group is not None:
            msg = f"{self!r} is being watched already: enter it once, where the program starts"
            raise RuntimeError(msg)
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group
        group.start_soon(self._watch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        group, self._group = self._group, None
        assert group is not None  # noqa: S101  __aenter__ has set it
        group.cancel_scope.cancel()
        if isinstance(error, Exception):  # the block's own error surfaces as it is: a group would wrap it
            await group.__aexit__(None, None, None)
            return None
        return await group.__aexit__(kind, error, traceback)

    async def _watch(self) -> None:
        try:
            await self.watch()
        except Exception:
            logging.getLogger("resilient").exception("%r is no longer watched: what it has stays as it is", self)
