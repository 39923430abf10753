"""Exchanges whose response was dropped without being closed.

The garbage collector finds them at any moment, perhaps while a bulkhead is in the middle of a decision, or in another thread.
So they are only noted then, and ended where nothing else is going on: soon, if this thread runs an event loop, else
before the next request. All mutable state: the queue.
"""

import asyncio
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from resilient.strategies.lingering import Lingering

__all__ = ("Lost",)


class Lost:
    """The exchanges that wait for their end."""

    __slots__ = ("queue",)

    def __init__(self) -> None:
        self.queue: deque[Lingering] = deque()

    def add(self, exchange: Lingering) -> None:
        """Note one, and see that it is ended soon."""
        self.queue.append(exchange)
        with suppress(RuntimeError):  # no event loop of asyncio runs in this thread
            asyncio.get_running_loop().call_soon(self.end_all)
            return
        trio: Any = sys.modules.get("trio")
        with suppress(RuntimeError, AttributeError):  # nor one of trio
            trio.lowlevel.current_trio_token().run_sync_soon(self.end_all)

    def end_all(self) -> None:
        """End them: what they held is given back."""
        while self.queue:
            self.queue.popleft().ended()
