"""Blocks in which something goes on in the background: `async with provider:`, `async with cache:`.

What is not done at the end of the block is cancelled, and awaited. All mutable state: the group of tasks, while the block runs.
"""

from types import TracebackType
from typing import ClassVar, Self

import anyio
import anyio.abc

__all__ = ("Block",)


class Block:
    """A thing that can be entered, once at a time. What goes on meanwhile are tasks of its group."""

    _group: anyio.abc.TaskGroup | None = None
    _entered: ClassVar[str] = "in a block"
    """What it is while it is entered: for the error where it is entered twice."""

    def _begin(self, group: anyio.abc.TaskGroup) -> None:
        """Start what goes on from the beginning of the block to its end: nothing, unless a subclass says so."""

    async def __aenter__(self) -> Self:
        if self._group is not None:
            msg = f"{self!r} is {self._entered} already: enter it once, where the program starts"
            raise RuntimeError(msg)
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group
        self._begin(group)
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
