"""Virtual time on trio: its own `MockClock`, and a watch that notices when nothing can ever run again.

Imported only where trio is asked for. Trio shuffles the tasks that are ready; the switch by which Hypothesis makes it draw the
same order each time, its source of randomness, and the ways to end a run from outside, are private: only this file uses them.

All mutable state: how many rounds of the run loop no task has made a step, what other threads did meanwhile, when each task made
its last step, the deadlock that was told, and that switch.
"""

import contextlib
import math
import random as random_module
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, Final, NoReturn, cast

import trio
from trio._core import _run as inside_trio  # pyright: ignore[reportPrivateUsage]  see the top of this file
from trio.testing import MockClock

from resilient.testing.deadlock import Deadlock, Waiting, waiting
from resilient.testing.threads import OtherThreads

__all__ = ("trio_time",)

_IDLE_ROUNDS: Final = 3  # of the run loop: in the first the clock may jump, in the second deadlines expire


@contextlib.contextmanager
def trio_time(grace: float, random: random_module.Random | None) -> Generator[tuple[dict[str, Any], Callable[[], float]]]:
    """Options for `trio.run`, and what tells the time of the clock among them."""
    mock = MockClock(autojump_threshold=grace)
    with contextlib.nullcontext() if random is None else _ordered_by(random):
        yield {"clock": mock, "instruments": [_Watch(mock.current_time)]}, mock.current_time


@contextlib.contextmanager
def _ordered_by(random: random_module.Random) -> Generator[None]:
    inside: Any = inside_trio
    before = inside._r, inside._ALLOW_DETERMINISTIC_SCHEDULING  # noqa: SLF001
    inside._r, inside._ALLOW_DETERMINISTIC_SCHEDULING = random, True  # noqa: SLF001
    try:
        yield
    finally:
        inside._r, inside._ALLOW_DETERMINISTIC_SCHEDULING = before  # noqa: SLF001


class _Watch(trio.abc.Instrument):
    """Ends the run with a `Deadlock` where trio would go round for ever."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._idle = 0
        self._stepped: dict[trio.lowlevel.Task, float] = {}
        self._others = OtherThreads()
        self._told: Deadlock | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._idle:
            self._idle, self._others = 0, OtherThreads()
        self._stepped[task] = self._now()

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        self._stepped.pop(task, None)

    def after_io_wait(self, timeout: float) -> None:
        self._idle += 1
        if self._idle >= _IDLE_ROUNDS and self._others.are_idle() and _nothing_can_happen():
            self._end()

    def _end(self) -> None:
        """Raise it where the main task waits. Where that does not end the run, since others are shielded: in trio itself."""
        inside: Any = inside_trio.GLOBAL_RUN_CONTEXT
        runner = inside.runner
        if self._told is None:
            self._told = self._deadlock()
            runner.main_task._attempt_abort(partial(_raise_now, self._told))  # noqa: SLF001  so trio raises KeyboardInterrupt
        else:
            for task in _all_tasks(runner.init_task):
                _lay_open(task)
            trio.lowlevel.spawn_system_task(_raise, self._told)

    def _deadlock(self) -> Deadlock:
        now, told = self._now(), list[Waiting]()
        root = cast("trio.lowlevel.Task", trio.lowlevel.current_root_task())  # there is one: trio runs
        for task in sorted(_all_tasks(root), key=lambda task: task.name):
            told += waiting(task.name, task.iter_await_frames(), now - self._stepped.get(task, now))
        return Deadlock(told)


def _all_tasks(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _all_tasks(child)


def _lay_open(task: trio.lowlevel.Task) -> None:
    """What is shielded would wait on while the run is cancelled."""
    inside: Any = task
    status = inside._cancel_status  # noqa: SLF001
    while status is not None:
        status._scope.shield = False  # noqa: SLF001
        status = status.parent


def _nothing_can_happen() -> bool:
    statistics = trio.lowlevel.current_statistics()
    own_pipe_only = getattr(statistics.io_statistics, "tasks_waiting_read", math.inf) <= 1  # told on Linux only
    no_timer = statistics.seconds_to_next_deadline == math.inf
    nothing_to_do = not statistics.tasks_runnable and not statistics.run_sync_soon_queue_size
    return own_pipe_only and no_timer and nothing_to_do


async def _raise(deadlock: Deadlock) -> None:
    _raise_now(deadlock)


def _raise_now(deadlock: Deadlock) -> NoReturn:
    raise deadlock
