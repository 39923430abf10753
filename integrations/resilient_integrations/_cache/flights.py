"""Single flight: of all who want a key at a time one looks it up and loads it, the others wait for what it finds.

The one who leads runs in its own task. What it finds it *tells*, and may tell again something newer; an error is told like a
value. Where it is cancelled it has told nothing: those who wait wake up, and the first of them leads the next flight.
All mutable state of a flight: its `answer`, the traceback that an error had then, and the event that waiters wait for.
"""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import anyio

from resilient import Outcome

__all__ = ("Flight",)


class Flight:
    """A key that is being looked up or loaded.

    Attributes:
        key: what is looked up, as the backend knows it.
        loader: gives the value where the backend has none.
        span: for how many seconds the value is fresh then.
        answer: what those who ask get, as soon as there is something.
        superseded: whether the key was set or deleted meanwhile: what is loaded must not be stored.
        in_background: whether it goes on when the one who led it has its answer.

    """

    __slots__ = ("_event", "_traceback", "answer", "in_background", "key", "loader", "span", "superseded")

    def __init__(self, key: str, loader: Callable[[], Awaitable[Any]], span: float) -> None:
        self.key = key
        self.loader = loader
        self.span = span
        self.answer: Outcome[Any] | None = None
        self.superseded = False
        self.in_background = False
        self._event: anyio.Event | None = None
        self._traceback: TracebackType | None = None

    def tell(self, answer: Outcome[Any]) -> None:
        """Give this to all who wait, and to those who ask from now on."""
        self.answer = answer
        self._traceback = answer.error.__traceback__ if answer.error is not None else None
        self.wake()

    def wake(self) -> None:
        """Let those who wait go on: there is an answer, or there will be none."""
        if self._event is not None:
            self._event.set()

    async def wait(self) -> bool:
        """Wait for an answer. False where there will be none."""
        if self.answer is None:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
        return self.answer is not None

    def hand_out(self) -> Any:
        """The value that was told. An error is raised, the same object for all, with the traceback that it came with."""
        answer = self.answer or Outcome[Any]()
        if answer.error is not None:
            raise answer.error.with_traceback(self._traceback)
        return answer.value
