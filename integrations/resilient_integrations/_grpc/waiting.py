"""Waiting for a call of grpc.aio.

What is awaited is given a task of its own: grpc.aio answers a cancellation with a CancelledError of its own, without the message
by which anyio knows that it was its scope that cancelled, and loses one that comes in the moment of the answer.
"""

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, TypeVar

from resilient.errors import TimeoutExceeded
from resilient_integrations._grpc.errors import adopt

__all__ = ("answer_of", "retrieve")

T = TypeVar("T")


async def answer_of(call: Any, waiting: Awaitable[T], seconds: float = math.inf) -> T:
    """Wait for something of a call, for so many seconds at most. The call is cancelled where it is no longer waited for.

    Raises:
        TimeoutExceeded: it took too long.

    """
    task = asyncio.ensure_future(waiting)
    task.add_done_callback(retrieve)
    try:
        await asyncio.wait((task,), timeout=None if seconds == math.inf else seconds)
    except asyncio.CancelledError:
        call.cancel()
        raise
    if not task.done():
        call.cancel()
        raise adopt(TimeoutExceeded(seconds))
    return task.result()


def retrieve(task: "asyncio.Future[Any]") -> None:
    """See that asyncio does not complain of an exception that nobody wants to hear of any more."""
    if not task.cancelled():
        task.exception()
