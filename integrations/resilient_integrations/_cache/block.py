"""The block in which something may go on in the background: `async with cache:`."""

from types import TracebackType
from typing import Self

import anyio
import anyio.abc

__all__ = ("Block",)


class Block:
    """What is not done at the end of the block is cancelled. All mutable state: the group, while the block runs."""

    _group: anyio.abc.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        if self._group is not None:
            msg = f"{self!r} is in a block already: enter it once, where the program starts"
            raise RuntimeError(msg)
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group
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
