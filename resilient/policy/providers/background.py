"""What watches a source of policies while a block runs."""

import logging
from abc import ABC, abstractmethod

import anyio.abc

from resilient.blocks import Block

__all__ = ("Watching",)


class Watching(Block, ABC):
    """A provider that looks for news in the background: `async with provider:`, or `await provider.watch()` in a task."""

    _entered = "being watched"

    @abstractmethod
    async def watch(self) -> None:
        """Look for news until it is cancelled."""

    def _begin(self, group: anyio.abc.TaskGroup) -> None:
        group.start_soon(self._watch)

    async def _watch(self) -> None:
        try:
            await self.watch()
        except Exception:
            logging.getLogger("resilient").exception("%r is no longer watched: what it has stays as it is", self)
