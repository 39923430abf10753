"""What the tests of bulkheads and rate limiters share: callers that can be watched, let go, and cancelled in every way."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from resilient.pipeline import Pipeline

__all__ = ("Caller", "How", "enters_at_once", "tasks", "through", "ticks", "ways_to_cancel")

How = Literal["scope", "native"]


async def through(face: str, gate: Any, fn: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run the function with a permit of the gate, which is asked for by one of its faces."""
    match face:
        case "block":
            async with gate:
                await fn()
        case "permit":
            async with gate.permit():
                await fn()
        case "acquire":
            with await gate.acquire():
                await fn()
        case "acquire_nowait":
            with gate.acquire_nowait():
                await fn()
        case "decorator":
            await gate(fn)()
        case "pipeline":
            await Pipeline(gate).call(fn)
        case _:
            await gate.call(fn)


async def enters_at_once(block: AbstractAsyncContextManager[Any]) -> bool:
    """Whether nobody else runs between asking for the block and being in it."""
    go, ran = anyio.Event(), False

    async def other() -> None:
        nonlocal ran
        await go.wait()
        ran = True

    async with tasks() as group:
        group.start_soon(other)
        await ticks(3)
        go.set()
        async with block:
            ran_in_between = ran
    assert ran
    return not ran_in_between


class Caller:
    """A task that enters a block, stays until it is told to leave, and remembers how that went.

    Attributes:
        state: "new", "waiting", "inside", "left", "cancelled", or "failed".
        error: the exception that it met.

    """

    def __init__(self, block: AbstractAsyncContextManager[Any], entered: list["Caller"] | None = None) -> None:
        self.block = block
        self.entered = entered if entered is not None else []
        self.scope = anyio.CancelScope()
        self.task: asyncio.Task[Any] | None = None
        self.state = "new"
        self.error: Exception | None = None
        self.leave = anyio.Event()
        self._natively = False

    async def run(self) -> None:
        if ways_to_cancel() != ("scope",):
            self.task = asyncio.current_task()
        with self.scope:
            try:
                self.state = "waiting"
                async with self.block:
                    self.state = "inside"
                    self.entered.append(self)
                    await self.leave.wait()
                self.state = "left"
            except anyio.get_cancelled_exc_class():
                self.state = "cancelled"
                if not self._natively:
                    raise
                assert self.task is not None
                self.task.uncancel()
            except Exception as error:  # noqa: BLE001  it is what the test asks for
                self.state, self.error = "failed", error

    def cancel(self, how: How) -> None:
        """Cancel it, by its scope or natively; a task that is done cannot hear it."""
        if how == "scope":
            self.scope.cancel()
        else:
            assert self.task is not None
            self._natively = self.task.cancel()


def ways_to_cancel() -> tuple[How, ...]:
    """How a task can be cancelled on the backend that runs."""
    on_asyncio = anyio.get_cancelled_exc_class() is asyncio.CancelledError
    return ("scope", "native") if on_asyncio else ("scope",)


@asynccontextmanager
async def tasks() -> AsyncGenerator[TaskGroup]:
    """A task group, of which type checkers know that it swallows nothing."""
    async with anyio.create_task_group() as group:
        yield group


async def ticks(number: int) -> None:
    """Let the event loop go round so many times."""
    for _ in range(number):
        await anyio.lowlevel.checkpoint()
