"""Machines that need an event loop: one on virtual time, which goes round only where a step says so."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from models.machines import Timed
from resilient import clock
from resilient.testing import virtual_time

__all__ = ("OnLoop",)

_ROUNDS = 8
"""Enough for a hand-off that is passed on a few times."""


class OnLoop(Timed):
    """What several steps do before the loop goes round happens in one tick: a hand-off and a cancellation, say."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = virtual_time("asyncio")
        clock.now = self._clock
        options = self._virtual.__enter__().options
        self.loop: asyncio.AbstractEventLoop = options["loop_factory"]()
        self.tasks: list[asyncio.Task[Any]] = []

    @property
    def now(self) -> float:
        return clock.now()

    def start(self, call: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = self.loop.create_task(call)
        self.tasks.append(task)
        return task

    def go_on(self, seconds: float = 0.0) -> None:
        """Let everything happen that can, for so many seconds."""
        if seconds:
            self.loop.run_until_complete(asyncio.sleep(seconds))
        self.loop.run_until_complete(_rounds())

    def teardown(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.go_on()
        left = asyncio.all_tasks(self.loop)
        self.loop.close()
        self._virtual.__exit__(None, None, None)
        super().teardown()

        assert not left


async def _rounds() -> None:
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)
