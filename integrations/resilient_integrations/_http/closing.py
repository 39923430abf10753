"""Closing that asyncio's own cancellation cannot cut in two.

A shielded scope keeps out the cancellation of scopes, not that of `task.cancel()` and `asyncio.timeout()`. One that arrives
while a response is closed leaves its place in the pool of httpcore taken for ever: the second close does nothing.
"""

import asyncio
from collections.abc import Awaitable, Generator
from types import coroutine
from typing import Any

__all__ = ("to_its_end",)


@coroutine
def to_its_end(work: Awaitable[object]) -> Generator[Any, Any, None]:
    """Await `work`. A cancellation of asyncio's that comes while it only lets others run is kept until it has ended.

    Where it waits for something, a lock that another holds, that was cancelled as well: it is told.
    """
    kept: BaseException | None = None
    steps: Any = work.__await__()
    resume, what = steps.send, None
    try:
        while True:
            waits_for = resume(what)
            try:
                resume, what = steps.send, (yield waits_for)
            except BaseException as error:  # noqa: BLE001  it is kept, or thrown on
                if waits_for is None and isinstance(error, asyncio.CancelledError):
                    kept, resume, what = error, steps.send, None
                else:
                    resume, what = steps.throw, error
    except StopIteration:
        pass
    finally:
        if kept is not None:
            raise kept
