"""What virtual time raises where real time would hang: `Deadlock`, which tells who waits, where, and for how long.

A task that waits is told by the innermost line of its own code: frames of the standard library, of anyio and trio, and of this
library are passed over where there are others; a task that has no other is told by the first of them. Tasks of trio itself and of
a test runner are left out.
"""

import linecache
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

from resilient.strategies.base import Strategy

__all__ = ("Deadlock", "Waiting", "awaited_frames", "waiting")

_NOT_THEIRS: Final = sys.stdlib_module_names | {"anyio", "outcome", "resilient", "resilient_integrations", "sniffio", "trio"}

_RUNNERS: Final = "EntryQueue.", "Runner.", "TestRunner."
"""Classes of which are the tasks of trio itself, and of the plugin of anyio where it runs no test."""

_TOLD: Final = (
    "every task waits, and no timer is set: nothing can ever run again. "
    "Look for an event that nobody sets, or a permit that nobody gives back"
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A task that waits.

    Attributes:
        task: its name.
        seconds: for how long, in virtual time; None where that is not known.
        file: where its own code waits.
        line: the line in that file.
        function: the qualified name of the function around it.
        within: the qualified name of the function of a library that does not come back: the innermost of this one
            (`Slots.wait`), or else what that line has called (`Event.wait`).
        strategy: the strategy whose function that is, as its repr shows it; empty where it is of none.
        is_theirs: whether the line is of the code that is tested, and not of a library.

    """

    task: str
    seconds: float | None
    file: str
    line: int
    function: str
    within: str
    is_theirs: bool
    strategy: str = ""

    def __str__(self) -> str:
        since = "" if self.seconds is None else f" for {self.seconds:g} s"
        within = f"{self.within} of {self.strategy}" if self.strategy else self.within
        source = linecache.getline(self.file, self.line).strip()
        return f"task {self.task!r} has waited{since} at {self.file}:{self.line}, in {self.function}, within {within}: {source}"


class Deadlock(BaseException):
    """Under virtual time every task waits for something that no task, timer, thread or socket can bring about.

    No `Exception`: neither a retry nor a fallback of the code that is tested may take it for a failure of the callee.

    Attributes:
        waiting: the tasks that wait.

    """

    def __init__(self, waiting: Iterable[Waiting] = ()) -> None:
        self.waiting = tuple(waiting)
        super().__init__(self.waiting)

    def __str__(self) -> str:
        return "\n- ".join([_TOLD, *map(str, self.waiting)])


def waiting(name: str, frames: Iterable[tuple[FrameType, int]], seconds: float | None) -> list[Waiting]:
    """A task that waits, by its frames, outermost first, each with its line. An empty list where it has none to tell of."""
    told = list(frames)
    if not told:
        return []
    theirs = [place for place, (frame, _) in enumerate(told) if _package(frame) not in _NOT_THEIRS]
    if not theirs and told[0][0].f_code.co_qualname.startswith(_RUNNERS):
        return []
    place = theirs[-1] if theirs else min(1, len(told) - 1)  # 0: what started it
    (frame, line), called = told[place], told[place + 1 :] or [told[place]]
    ours = [inner for inner, _ in called if _package(inner) == "resilient"]
    within = ours[-1] if ours else called[0][0]
    code, caller = frame.f_code, within.f_locals.get("self")
    strategy = repr(caller) if isinstance(caller, Strategy) else ""
    return [Waiting(name, seconds, code.co_filename, line, code.co_qualname, within.f_code.co_qualname, bool(theirs), strategy)]


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def awaited_frames(coroutine: Any) -> Iterable[tuple[FrameType, int]]:
    """The frames of a coroutine that is suspended, and of what it awaits, outermost first."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            yield frame, frame.f_lineno
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
