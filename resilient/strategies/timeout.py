"""Timeout: cut off what takes too long.

A cancel scope around what is inside. Its own expiry, and only that, becomes `TimeoutExceeded`: a `TimeoutError` of the
callee stays what it is, and a cancellation from outside passes through. Some libraries (grpc.aio) answer a cancellation
with a fresh `CancelledError` that anyio does not know as its own; a checkpoint inside the scope makes anyio deliver its
own again, so that the expiry is recognised.
"""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from resilient import clock
from resilient._arguments import Duration
from resilient._arguments import seconds as check_seconds
from resilient.context import Attempt
from resilient.errors import TimeoutExceeded
from resilient.observe.events import TimedOut
from resilient.strategies.base import Step, Strategy
from resilient.strategies.streams import Stream

__all__ = ("Timeout",)


class Timeout(Strategy):
    """Cut off what takes longer than `seconds`.

    Where it stands says what it bounds: outside of a `Retry` the whole call with its waits, inside each attempt. Of a
    stream it bounds the time to the first item, and then the wait for each further one; the consumer's own time never
    counts. What is inside is cancelled and its clean-up is awaited.

    Args:
        seconds: the limit (float or `timedelta`), at least 0; or a function without arguments that is asked at each call and
            may return None for no limit.
        on_timeout: called without arguments each time the limit was reached, before the error surfaces.

    Raises:
        TimeoutExceeded: from the call, when the limit was reached. It is also a `TimeoutError`.

    """

    __slots__ = ("on_timeout", "seconds")

    def __init__(
        self, seconds: Duration | Callable[[], Duration | None], *, on_timeout: Callable[[], object] | None = None
    ) -> None:
        self.seconds = seconds if callable(seconds) else check_seconds("seconds", seconds)
        self.on_timeout = on_timeout

    async def run(self, call: Step, attempt: Attempt) -> Any:
        limit = self.seconds
        if callable(limit):
            dynamic = limit()
            if dynamic is None:
                return await call(attempt)
            limit = check_seconds("seconds", dynamic)
        with anyio.CancelScope(deadline=anyio.current_time() + limit) as scope:
            try:
                value = await call(attempt)
            except anyio.get_cancelled_exc_class():
                if scope.cancel_called:
                    await anyio.lowlevel.checkpoint()  # see the top of this module
                raise
            if isinstance(value, Stream):
                await value.limit_items(self, attempt)
            return value
        attempt.notify(TimedOut(at=clock.now(), key=attempt.key, call_id=attempt.identify(), seconds=limit))
        if self.on_timeout is not None:
            self.on_timeout()
        raise TimeoutExceeded(limit)

    def __repr__(self) -> str:
        return f"Timeout({self.seconds!r})"
