"""Virtual time on trio: its own `MockClock`, and a watch that notices when nothing can ever run again.

Imported only where trio is asked for. All mutable state: how many rounds of the run loop no task has made a step.
"""

import math
import threading
from typing import Any, Final

import trio
from trio.testing import MockClock

from resilient.testing.deadlock import Deadlock

__all__ = ("trio_time",)

_IDLE_ROUNDS: Final = 3  # of the run loop: in the first the clock may jump, in the second deadlines expire


def trio_time(grace: float) -> tuple[dict[str, Any], MockClock]:
    """Options for `trio.run`, and the clock among them."""
    mock = MockClock(autojump_threshold=grace)
    return {"clock": mock, "instruments": [_Watch()]}, mock


class _Watch(trio.abc.Instrument):
    """Ends the run with a `Deadlock` where trio would go round for ever."""

    def __init__(self) -> None:
        self._idle = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._idle = 0

    def after_io_wait(self, timeout: float) -> None:
        self._idle += 1
        if self._idle >= _IDLE_ROUNDS and _nobody_can_wake_us():
            trio.lowlevel.spawn_system_task(_raise_deadlock)


def _nobody_can_wake_us() -> bool:
    statistics = trio.lowlevel.current_statistics()
    own_pipe_only = getattr(statistics.io_statistics, "tasks_waiting_read", math.inf) <= 1  # told on Linux only
    no_timer = statistics.seconds_to_next_deadline == math.inf
    nothing_to_do = not statistics.tasks_runnable and not statistics.run_sync_soon_queue_size
    return own_pipe_only and no_timer and nothing_to_do and threading.active_count() == 1


async def _raise_deadlock() -> None:
    raise Deadlock
