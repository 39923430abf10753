"""The event loop of simulations: asyncio without a world outside.

There are no sockets, threads or signals, so a loop is no more than a line of callbacks and a heap of timers; where the line is
empty the clock jumps to the next timer. That is about twice as fast as an ordinary loop on virtual time, and exact: what is due
at the same time runs in the order in which it was asked for, so a run can be repeated. What is not needed here raises
`NotImplementedError`, as `asyncio.AbstractEventLoop` does.

All mutable state: the time, the line, the heap, and the first error that nobody handled.
"""

import asyncio
import contextlib
import gc
import heapq
import math
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar, TypeVarTuple

import anyio

from resilient import clock
from resilient.testing import Deadlock

__all__ = ("Loop", "run_simulated")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_ROOMY: Final = 100_000  # objects between two looks of the garbage collector: next to all of ours are freed without it


def run_simulated(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `await main()` in a loop of its own, with the clock of the library on its time. Where one runs already (a notebook)
    this is done in another thread, and waited for.

    Raises:
        Deadlock: everything waits for something that nothing can bring about.

    """
    try:
        anyio.get_current_task()
    except RuntimeError:
        return _run(main)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_run, main).result()


def _run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    loop = Loop()  # type: ignore[abstract]  # what is not there raises NotImplementedError
    real, clock.now = clock.now, loop.time
    try:
        with _less_garbage_collection():
            result: T = loop.run_until_complete(main())
            return result
    finally:
        clock.now = real


@contextlib.contextmanager
def _less_garbage_collection() -> Generator[None]:
    before = gc.get_threshold()
    gc.set_threshold(_ROOMY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Handle:
    """A callback that is to run in a context. It can be cancelled."""

    __slots__ = ("_when", "args", "callback", "context")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None, when: float = 0.0
    ) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context or copy_context()
        self._when = when

    def cancel(self) -> None:
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when


class Loop(asyncio.AbstractEventLoop):
    """A line of callbacks and a heap of timers."""

    def __init__(self) -> None:
        self._now = 0.0
        self._line: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._timer_count = 0
        self._error: BaseException | None = None

    def run_until_complete(self, future: Any) -> Any:
        """Run a coroutine to its end."""
        asyncio._set_running_loop(self)  # noqa: SLF001  as event loops must do, the documentation says
        try:
            task = self.create_task(future)
            self._run_until(task.done)
            if self._error is not None:
                raise self._error
            return task.result()
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001  see above
            self._line.clear()  # what is left over refers to this loop: it need not wait for the garbage collector
            self._timers.clear()

    def _run_until(self, done: Callable[[], bool]) -> None:
        """In each round all that is due now; where nothing is, time passes."""
        line, timers = self._line, self._timers
        following, ended = line.popleft, heapq.heappop
        while not done() and self._error is None:
            if not line:
                if not timers:
                    raise Deadlock
                self._now = max(self._now, timers[0][0])
            while timers and timers[0][0] <= self._now:
                line.append(ended(timers)[2])
            for _ in range(len(line)):
                handle = following()
                if handle.callback is not None:  # run from here: an exception keeps the frames below it, and they what they hold
                    handle.context.run(handle.callback, *handle.args)

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Any:
        handle = _Handle(callback, args, context)
        self._line.append(handle)
        return handle

    def call_at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Any:
        handle = _Handle(callback, args, context, when)
        if when < math.inf:
            self._timer_count += 1
            heapq.heappush(self._timers, (when, self._timer_count, handle))
        return handle

    def call_later(self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None) -> Any:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> Any:
        return asyncio.Task(coro, loop=self, **options)

    def get_task_factory(self) -> None:
        return None

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody handled: the simulation itself is at fault, so it must surface."""
        self._error = self._error or context.get("exception") or RuntimeError(context["message"])
