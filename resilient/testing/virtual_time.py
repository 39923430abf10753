"""Virtual time: where everything would sleep, the clock jumps to the next deadline instead.

`virtual_time("asyncio")` or `virtual_time("trio")` replaces the library's clock as a whole while its block runs, and
hands out what anyio needs to run on the same time: an event loop whose selector moves the clock instead of sleeping
(asyncio), or trio's own `MockClock`. Hours pass in no time, and two runs measure the same.

Time jumps as soon as no task can go on. It does not know of work outside of the event loop: a thread, another process, a
peer on the network. `grace` makes it wait a little for these before each jump; tests with real I/O are better run in real time.

A test that would hang for ever raises `Deadlock` where it is certain that nothing can run again.

All mutable state: the time of a `_LoopTime`, and `resilient.clock.now`, which is put back at the end.
"""

import asyncio
import contextlib
import contextvars
import math
import selectors
import threading
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Final, Literal, TypeVar, TypeVarTuple

import anyio

from resilient import clock
from resilient._arguments import seconds
from resilient.testing.deadlock import Deadlock

__all__ = ("VirtualTime", "run_virtual", "virtual_time")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Backend = Literal["asyncio", "trio"]

_PATIENCE: Final = 0.1  # real seconds between two looks at whether there still is somebody who can wake us


class VirtualTime:
    """A clock that stands still while tasks run; see `virtual_time`.

    Attributes:
        backend: `"asyncio"` or `"trio"`.
        options: the backend options by which anyio runs on this clock.

    """

    def __init__(self, backend: Backend, options: dict[str, Any], now: Callable[[], float]) -> None:
        self.backend = backend
        self.options = options
        self._now = now

    @property
    def anyio_backend(self) -> tuple[str, dict[str, Any]]:
        """What a pytest fixture called `anyio_backend` returns to run tests on this clock."""
        return self.backend, self.options

    def now(self) -> float:
        """Seconds that have passed since the clock was made."""
        return self._now()

    def run(self, fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts) -> T:
        """Run `await fn(*args)` in an event loop of its own on this clock.

        Raises:
            Deadlock: nothing can ever run again. It is noticed where no thread and no socket is in use.

        """
        try:
            return anyio.run(fn, *args, backend=self.backend, backend_options=self.options)
        except Exception as error:
            if _is_deadlock(error.__cause__):  # trio calls it an internal error of its own
                raise Deadlock from error
            raise


@contextlib.contextmanager
def virtual_time(backend: Backend = "asyncio", *, grace: float = 0.0) -> Generator[VirtualTime]:
    """Replace the library's clock by virtual time while the block runs.

    Args:
        backend: `"asyncio"` (the default) or `"trio"`, which must be installed.
        grace: real seconds to wait for threads and sockets each time before the clock jumps, at least 0 (default 0).

    Yields:
        The clock: `time.run(main)` runs a function on it, and `time.anyio_backend` is what a pytest fixture returns:

            @pytest.fixture(params=["asyncio", "trio"])
            def anyio_backend(request):
                with virtual_time(request.param) as time:
                    yield time.anyio_backend

    Raises:
        ValueError: another backend.

    """
    wait = seconds("grace", grace)
    if backend == "asyncio":
        time = _on_asyncio(wait)
    elif backend == "trio":
        time = _on_trio(wait)
    else:
        msg = f"backend={backend!r}: expected 'asyncio' or 'trio'"
        raise ValueError(msg)
    real, clock.now = clock.now, time.now
    try:
        yield time
    finally:
        clock.now = real


def run_virtual(fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, backend: Backend = "asyncio") -> T:
    """Run `await fn(*args)` under virtual time, in an event loop of its own: `run_virtual(main)`."""
    with virtual_time(backend) as time:
        return time.run(fn, *args)


class _LoopTime:
    """The time of the asyncio loops that run on it."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds


class _JumpingSelector(selectors.DefaultSelector):
    """Where the event loop would sleep, move its clock instead."""

    def __init__(self, time: _LoopTime, grace: float) -> None:
        super().__init__()
        self._time = time
        self._grace = grace

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        ready = super().select(self._grace)
        if ready:
            return ready
        if timeout is not None:
            self._time.seconds += timeout
            return ready
        while not ready:  # no timer is set: somebody else must wake us, in real time
            if len(self.get_map()) <= 1 and threading.active_count() == 1:  # 1: the loop's own pipe
                raise Deadlock
            ready = super().select(_PATIENCE)
        return ready


class _JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time."""

    def __init__(self, time: _LoopTime, grace: float) -> None:
        self._virtual = time
        super().__init__(_JumpingSelector(time, grace))

    def time(self) -> float:
        return self._virtual.seconds

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Not a timer where it never fires (`sleep_forever`): the clock would jump towards it day by day."""
        if when == math.inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  the interface of loops
        """Wait for the threads without a limit: that limit would be in virtual time."""
        await super().shutdown_default_executor()


def _on_asyncio(grace: float) -> VirtualTime:
    time = _LoopTime()
    return VirtualTime("asyncio", {"loop_factory": partial(_JumpingLoop, time, grace)}, time.now)


def _on_trio(grace: float) -> VirtualTime:
    from resilient.testing.trio_time import trio_time  # noqa: PLC0415  trio is optional

    options, mock = trio_time(grace)
    return VirtualTime("trio", options, mock.current_time)


def _is_deadlock(error: BaseException | None) -> bool:
    """Whether an error, or one in its groups, is a deadlock."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return isinstance(error, Deadlock) or any(map(_is_deadlock, inner))
