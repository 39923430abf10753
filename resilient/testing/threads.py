"""Whether another thread may still wake an event loop in which every task waits.

A thread that is at work may. One that waits for work waits for us: a worker of an executor, of anyio or of trio that is kept for
the next time, or the listener of a log. It is known by where it stands, and that nothing was handed to it; since it may just have
taken that, it must stand there for a while. The thread by which pytest-timeout ends a test wakes nobody.

All mutable state: since when nobody was seen at work.
"""

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

__all__ = ("OtherThreads",)

_FOR_A_WHILE: Final = 0.5  # real seconds
_WAITING: Final = {"queue", "threading"}
"""Modules by which a worker waits."""
_WORKERS: Final[dict[tuple[str, str], tuple[bool, Callable[[dict[str, Any]], object]]]] = {
    ("anyio._backends._asyncio", "run"): (True, lambda names: names["self"].queue.qsize()),
    ("concurrent.futures.thread", "_worker"): (False, lambda names: names["work_queue"].qsize()),
    ("logging.handlers", "dequeue"): (True, lambda names: names["self"].queue.qsize()),
    ("trio._core._thread_cache", "_work"): (False, lambda names: names["self"]._job),  # noqa: SLF001
}
"""Functions that give a worker its work: whether they wait for it by these modules (the others wait in C), and what tells, by
their local names, that there is some: on a busy machine the worker may not have heard of it for long."""


class OtherThreads:
    """The threads of this process but this one."""

    __slots__ = ("_idle_since",)

    def __init__(self) -> None:
        self._idle_since: float | None = None

    def are_idle(self) -> bool:
        """Whether none of them is at work, and none was since the first time that this was asked."""
        if threading.active_count() == 1:
            return True
        frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  documented, whatever its name
        others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
        if not all(_wakes_nobody(thread, frames) for thread in others):
            self._idle_since = None
            return False
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since >= _FOR_A_WHILE


def _wakes_nobody(thread: threading.Thread, frames: dict[int, FrameType]) -> bool:
    if thread.name.startswith("pytest_timeout "):
        return True
    frame = frames.get(thread.ident or 0)
    waits = False
    while frame is not None and frame.f_globals.get("__name__") in _WAITING:
        waits, frame = True, frame.f_back
    if frame is None:
        return False
    known = _WORKERS.get((str(frame.f_globals.get("__name__")), frame.f_code.co_name))
    return known is not None and known[0] is waits and not known[1](frame.f_locals)
