"""Virtual time: where everything would sleep, the clock jumps to the next deadline instead.

`virtual_time("asyncio")` or `virtual_time("trio")` replaces the library's clock as a whole while its block runs, and
hands out what anyio needs to run on the same time: an event loop whose selector moves the clock instead of sleeping
(asyncio), or trio's own `MockClock`. Hours pass in no time, and two runs measure the same.

Time jumps as soon as no task can go on. It does not know of work outside of the event loop: a thread, another process, a
peer on the network. `grace` makes it wait a little for these before each jump; tests with real I/O are better run in real time.

A test that would hang for ever raises `Deadlock` where it is certain that nothing can run again. A `seed` decides in which order
tasks run that are ready at the same time: `explore` tries many, and what fails under one fails under it again.

All mutable state: the time of a `_LoopTime`, when the futures of a loop were made, the deadlock of a loop, the clocks of
the blocks that are open (`_blocks`), and `resilient.clock.now`, which is put back at the end.
"""

import asyncio
import contextlib
import contextvars
import inspect
import math
import selectors
from collections.abc import Awaitable, Callable, Generator, Iterable
from functools import partial
from random import Random
from typing import Any, Final, Literal, TypeVar, TypeVarTuple

import anyio

from resilient import clock
from resilient._arguments import integer, seconds
from resilient.testing.deadlock import Deadlock, Waiting, awaited_frames, waiting
from resilient.testing.inside_asyncio import InterleavedLoop, waits_for
from resilient.testing.seeds import seeded
from resilient.testing.threads import OtherThreads

__all__ = ("Backend", "VirtualTime", "explore", "run_virtual", "virtual_time")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Backend = Literal["asyncio", "trio"]

_MADE: Final = "__resilient_made__"
"""The attribute of a future that says when it was made."""
_PATIENCE: Final = 0.1  # real seconds between two looks at whether there still is somebody who can wake us


class VirtualTime:
    """A clock that stands still while tasks run; see `virtual_time`.

    Attributes:
        backend: `"asyncio"` or `"trio"`.
        options: the backend options by which anyio runs on this clock.
        seed: what decides the order of tasks that are ready at the same time; None where nothing does.

    """

    def __init__(self, backend: Backend, options: dict[str, Any], now: Callable[[], float], seed: int | None) -> None:
        self.backend = backend
        self.options = options
        self.seed = seed
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

        What it raises has a note with the seed, where there is one.

        Raises:
            Deadlock: nothing can ever run again. It is noticed where no thread and no socket is in use.
            RuntimeError: the block of this clock is over, or there is another one within it.
            TypeError: `fn` is no function, but the coroutine that it returned.

        """
        if inspect.iscoroutine(fn):
            fn.close()
            msg = f"fn={fn!r}: expected an async function, not what it returned: run(main), run(main, 42), not run(main(42))"
            raise TypeError(msg)
        if _blocks[-1:] != [self]:
            msg = "the library has another clock now: run() belongs inside the block of its own virtual_time, the innermost one"
            raise RuntimeError(msg)
        try:
            return self._run(fn, *args)
        except BaseException as error:
            if self.seed is not None:
                error.add_note(f"it ran under seed={self.seed} on {self.backend}: run it under this seed to see it again")
            raise

    def _run(self, fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts) -> T:
        try:
            return anyio.run(fn, *args, backend=self.backend, backend_options=self.options)
        except BaseException as error:
            deadlock = _deadlock_in(error) or _deadlock_in(error.__cause__)  # in groups; or trio calls it an internal error
            if deadlock is not None and deadlock is not error:
                raise Deadlock(deadlock.waiting) from error
            raise


_blocks: Final[list[VirtualTime]] = []


@contextlib.contextmanager
def virtual_time(backend: Backend = "asyncio", *, grace: float = 0.0, seed: int | None = None) -> Generator[VirtualTime]:
    """Replace the library's clock by virtual time while the block runs.

    Args:
        backend: `"asyncio"` (the default) or `"trio"`, which must be installed.
        grace: real seconds to wait for threads and sockets each time before the clock jumps, at least 0 (default 0).
        seed: a whole number of at least 0, by which everything is drawn: which of the tasks that are ready goes first, the
            jitter of strategies that were given no `random`, and the module `random`. None (the default): asyncio runs tasks
            in the order in which they became ready, trio shuffles them, and jitter is random.

    Yields:
        The clock: `time.run(main)` runs a function on it, and `time.anyio_backend` is what a pytest fixture returns:

            @pytest.fixture(params=["asyncio", "trio"])
            def anyio_backend(request):
                with virtual_time(request.param) as time:
                    yield time.anyio_backend

    Raises:
        ModuleNotFoundError: trio is not installed.
        RuntimeError: an event loop runs already; it would stay on its own time.
        ValueError: another backend, or an argument out of range.

    """
    _refuse_in_a_loop()
    wait = seconds("grace", grace)
    with contextlib.ExitStack() as undo:
        random = None if seed is None else undo.enter_context(seeded(integer("seed", seed, at_least=0)))
        if backend == "asyncio":
            options, now = _on_asyncio(wait, random)
        elif backend == "trio":
            options, now = undo.enter_context(_on_trio(wait, random))
        else:
            msg = f"backend={backend!r}: expected 'asyncio' or 'trio'"
            raise ValueError(msg)
        undo.callback(setattr, clock, "now", clock.now)
        clock.now = now
        _blocks.append(VirtualTime(backend, options, now, seed))
        undo.callback(_blocks.pop)
        yield _blocks[-1]


def _refuse_in_a_loop() -> None:
    try:
        running = anyio.get_current_task()
    except RuntimeError:  # no event loop runs
        return
    msg = (
        f"virtual time brings an event loop of its own, and the task {running.name!r} runs in one already: use it in a function "
        "that is not async; an async test is marked with @pytest.mark.virtual_time instead"
    )
    raise RuntimeError(msg)


def run_virtual(fn: Callable[[*Ts], Awaitable[T]], /, *args: *Ts, backend: Backend = "asyncio", seed: int | None = None) -> T:
    """Run `await fn(*args)` under virtual time, in an event loop of its own: `run_virtual(main)`. See `virtual_time`."""
    with virtual_time(backend, seed=seed) as time:
        return time.run(fn, *args)


def explore(
    fn: Callable[[*Ts], Awaitable[object]], /, *args: *Ts, seeds: int | Iterable[int] = 500, backend: Backend = "asyncio"
) -> None:
    """Run `await fn(*args)` under many seeds, each time in an event loop of its own: `explore(scenario, seeds=500)`.

    It stops at the first seed that fails. The error that surfaces is that of `fn`, with a note that names the seed:
    `run_virtual(fn, seed=79)` shows it again. What `fn` uses must be made by `fn`: state that is left from one run would be
    found by the next.

    Args:
        fn: an async function.
        args: its arguments.
        seeds: how many, at least 1, beginning with 0 (default 500); or which.
        backend: `"asyncio"` (the default) or `"trio"`.

    Raises:
        ValueError: no seed, or one out of range.

    """
    chosen = list(range(integer("seeds", seeds)) if isinstance(seeds, int) else seeds)
    if not chosen:
        msg = "seeds=[]: nothing would run; expected how many, or which"
        raise ValueError(msg)
    for passed, seed in enumerate(chosen):
        try:
            run_virtual(fn, *args, backend=backend, seed=seed)
        except BaseException as error:
            error.add_note(f"{passed} seeds before it passed")
            raise


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
        self._told: Deadlock | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        ready = super().select(self._grace)
        if ready:
            return ready
        if timeout is not None:
            self._time.seconds += timeout
            return ready
        others = OtherThreads()
        while not ready:  # no timer is set: somebody else must wake us, in real time
            alone = len(self.get_map()) <= 1 and others.are_idle()  # 1: the loop's own pipe
            ready = super().select(0 if alone else _PATIENCE)  # the last of them may just have woken us
            if alone and not ready:
                self._told = self._told or _deadlock(self._time.seconds)  # once: what hangs while it is cancelled says less
                raise self._told
        return ready


class _JumpingLoop(InterleavedLoop):
    """An event loop on virtual time."""

    def __init__(self, time: _LoopTime, grace: float, random: Random | None) -> None:
        self._virtual = time
        super().__init__(_JumpingSelector(time, grace))
        if random is not None:
            self.interleave(random)

    def time(self) -> float:
        return self._virtual.seconds

    def create_future(self) -> asyncio.Future[Any]:
        """Note when: a `Deadlock` tells how long it was waited for."""
        future = super().create_future()
        setattr(future, _MADE, self._virtual.seconds)
        return future

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


def _on_trio(
    grace: float, random: Random | None
) -> contextlib.AbstractContextManager[tuple[dict[str, Any], Callable[[], float]]]:
    try:
        from resilient.testing.trio_time import trio_time  # noqa: PLC0415  trio is optional
    except ModuleNotFoundError as error:
        msg = "backend='trio' needs trio, which is not installed: pip install trio"
        raise ModuleNotFoundError(msg, name=error.name) from error
    return trio_time(grace, random)


def _on_asyncio(grace: float, random: Random | None) -> tuple[dict[str, Any], Callable[[], float]]:
    time = _LoopTime()
    return {"loop_factory": partial(_JumpingLoop, time, grace, random)}, time.now


def _deadlock(now: float) -> Deadlock:
    """Who waits in the loop that runs now. Tasks are told in the order of their names."""
    told: list[Waiting] = []
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        made = getattr(waits_for(task), _MADE, None)
        told += waiting(task.get_name(), awaited_frames(task.get_coro()), None if made is None else now - made)
    return Deadlock(told)


def _deadlock_in(error: BaseException | None) -> Deadlock | None:
    """An error, or one in its groups, if it is a deadlock."""
    if isinstance(error, Deadlock):
        return error
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return next(filter(None, map(_deadlock_in, inner)), None)
