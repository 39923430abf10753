"""Seeds: which of the ready tasks runs next, again and again the same; and what asyncio must be like for that."""

import asyncio
import random
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import pytest

from resilient import CircuitBreaker, Retry, clock
from resilient.testing import ScriptedCallee, explore, run_virtual, virtual_time
from resilient.testing.inside_asyncio import pending_timers, waits_for

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Backend = Literal["asyncio", "trio"]

LOOPS: Final = ["plain", "debug", "eager"] if sys.version_info >= (3, 12) else ["plain", "debug"]


def run_on(kind: str, seed: int | None, fn: Callable[[], Any]) -> Any:
    """Run it on a loop of this kind."""
    with virtual_time(seed=seed) as time:
        options = dict(time.options)
        if kind == "debug":
            options["debug"] = True
        if kind == "eager":
            make = options["loop_factory"]

            def eager() -> asyncio.AbstractEventLoop:
                loop: asyncio.AbstractEventLoop = make()
                loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # Python 3.12
                return loop

            options["loop_factory"] = eager
        return anyio.run(fn, backend="asyncio", backend_options=options)


async def race() -> list[tuple[int, int]]:
    """Who runs when, of five tasks that take three steps each."""
    order: list[tuple[int, int]] = []

    async def runner(number: int) -> None:
        for step in range(3):
            order.append((number, step))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(runner, number)
    return order


async def cancelled_race() -> list[int]:
    """In which order five tasks are woken that one scope cancels: anyio keeps them in a set, whose order is none."""
    woken: list[int] = []

    async def sleeper(number: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            woken.append(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(sleeper, number)
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    return woken


@both
def test_a_seed_decides_the_order(backend: Backend) -> None:
    """The same each time under one seed, another one under others; each task makes its steps in their order."""
    orders = [run_virtual(race, backend=backend, seed=seed) for seed in range(20)]

    assert orders == [run_virtual(race, backend=backend, seed=seed) for seed in range(20)]
    assert len({tuple(order) for order in orders}) > 15
    for order in orders:
        assert [step for number, step in order if number == 2] == [0, 1, 2]


def test_a_task_may_be_far_ahead_of_another_one() -> None:
    """Not only the order within a round of the loop is drawn: one may finish before another one begins."""
    orders = [run_virtual(race, seed=seed) for seed in range(50)]

    assert any(order.index((first, 2)) < order.index((last, 0)) for order in orders for first in range(5) for last in range(5))


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("fn", [race, cancelled_race])
def test_it_is_exact_on_every_kind_of_loop(kind: str, fn: Callable[[], Any]) -> None:
    """In debug mode, with eager tasks, and where a set of tasks is cancelled at once."""
    orders = [run_on(kind, seed, fn) for seed in range(20)]

    assert orders == [run_on(kind, seed, fn) for seed in range(20)]
    assert len({tuple(order) for order in orders}) > 5


@pytest.mark.parametrize("kind", LOOPS)
def test_callbacks_of_no_task_keep_their_order(kind: str) -> None:
    """As asyncio promises: transports and timers rely on it."""

    async def main() -> list[int]:
        loop, order = asyncio.get_running_loop(), list[int]()
        for number in range(10):
            loop.call_soon(order.append, number)
        loop.call_later(1, order.append, 10)
        loop.call_later(1, order.append, 11)
        await asyncio.sleep(2)
        return order

    assert [run_on(kind, seed, main) for seed in range(20)] == [list(range(12))] * 20


@pytest.mark.parametrize("kind", LOOPS)
def test_sockets_threads_and_cancelled_callbacks_work_under_a_seed(kind: str) -> None:
    """What comes from outside of the loop finds its way in."""

    async def main() -> tuple[bytes, int]:
        asyncio.get_running_loop().call_soon(sys.exit, 1).cancel()
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            data = await reader.read()
            writer.close()
            await writer.wait_closed()
        return data, await asyncio.to_thread(lambda: 42)

    assert run_on(kind, 3, main) == (b"", 42)


@both
def test_what_strategies_draw_follows_from_the_seed(backend: Backend) -> None:
    """Jitter of a retry that was given no randomness, of breakers, and the module `random`. All are put back."""

    async def main() -> tuple[object, ...]:
        await Retry(on=OSError).call(ScriptedCallee(OSError, OSError, 1))
        breaker = CircuitBreaker(consecutive_failures=1)
        with pytest.raises(OSError, match="down"):
            await breaker.call(ScriptedCallee(OSError("down")))
        return clock.now(), breaker.statistics().open_remaining, random.random()

    before = random.getstate()
    same = [run_virtual(main, backend=backend, seed=1) for _ in range(3)]

    assert random.getstate() == before
    assert len(set(same)) == 1
    assert run_virtual(main, backend=backend, seed=2) != same[0]
    assert run_virtual(main, backend=backend) != same[0]


@both
def test_a_run_that_fails_tells_its_seed(backend: Backend) -> None:
    """In a note of the error, which every traceback shows."""

    async def main() -> None:
        raise LookupError

    with pytest.raises(LookupError) as caught:
        run_virtual(main, backend=backend, seed=7)

    assert caught.value.__notes__ == [f"it ran under seed=7 on {backend}: run it under this seed to see it again"]


class LossySemaphore:
    """A semaphore with a classic bug: a permit that is handed to a waiter which is cancelled in the same tick is lost."""

    def __init__(self) -> None:
        self.free = True
        self.waiters: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        if self.free:
            self.free = False
            return
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        await waiter

    def release(self) -> None:
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self.free = True


async def lossy(seconds: float = 1) -> None:
    """A holder releases in the instant in which a waiter is cancelled."""
    semaphore = LossySemaphore()
    await semaphore.acquire()

    async def cancel(task: asyncio.Task[None]) -> None:
        await anyio.sleep(seconds)
        task.cancel()

    async def release() -> None:
        await anyio.sleep(seconds)
        semaphore.release()

    async def use() -> None:
        await semaphore.acquire()
        semaphore.release()

    waiter = asyncio.create_task(use())
    await asyncio.gather(cancel(waiter), release(), waiter, return_exceptions=True)
    assert semaphore.free, "the permit is lost"


def test_exploring_finds_an_interleaving_that_fails() -> None:
    """A lost permit that the usual order never shows. The error is that of the function, with the seed that shows it again."""
    run_virtual(lossy)
    with pytest.raises(AssertionError, match="the permit is lost") as caught:
        explore(lossy, 2.0)

    replay, passed = caught.value.__notes__
    seed = int(replay.partition("seed=")[2].partition(" ")[0])
    assert passed == f"{seed} seeds before it passed"
    for _ in range(5):
        with pytest.raises(AssertionError, match="the permit is lost"):
            run_virtual(lossy, 2.0, seed=seed)


@both
def test_exploring_tries_all_seeds_that_it_is_given(backend: Backend) -> None:
    """By number, or one by one; with the arguments."""
    seen: list[float] = []

    async def note(number: int) -> None:
        seen.append(number + random.random())

    explore(note, 5, seeds=10, backend=backend)
    explore(note, 5, seeds=[3, 4], backend=backend)

    assert len(set(seen)) == 10
    assert seen[10:] == seen[3:5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(run_virtual, race, seed=-1), "seed=-1 is out of range"),
        (partial(explore, race, seeds=0), "seeds=0 is out of range"),
        (partial(explore, race, seeds=[]), "nothing would run; expected how many, or which"),
    ],
)
def test_seeds_out_of_range_are_refused(call: Callable[[], object], message: str) -> None:
    """Before anything runs."""
    with pytest.raises(ValueError, match=message):
        call()


def test_trio_is_put_back_into_its_own_order() -> None:
    """Its switch for tests, and its source of randomness."""
    from trio._core import _run  # noqa: PLC0415  # pyright: ignore[reportPrivateUsage]

    inside: Any = _run
    before = inside._r, inside._ALLOW_DETERMINISTIC_SCHEDULING
    run_virtual(race, backend="trio", seed=1)

    assert (inside._r, inside._ALLOW_DETERMINISTIC_SCHEDULING) == before


# What asyncio must be like


def test_the_private_attributes_of_asyncio_are_what_they_were() -> None:
    """A queue that is used as a deque, handles that know their callback, steps that are methods of their tasks."""

    async def nothing() -> None: ...

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        task = asyncio.create_task(nothing())
        step = loop._ready[-1]

        assert type(loop._ready) is deque
        assert step._callback.__self__ is task
        assert waits_for(task) is None
        waiter = asyncio.create_task(asyncio.sleep(5))
        await task
        timers = pending_timers(loop)
        assert isinstance(waits_for(waiter), asyncio.Future)
        assert len(timers) == 1
        waiter.cancel()
        await asyncio.sleep(0)
        assert pending_timers(loop) == []

    asyncio.run(main())
