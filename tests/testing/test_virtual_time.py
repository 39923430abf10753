import asyncio
import gc
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from logging.handlers import QueueListener
from queue import Queue, SimpleQueue
from typing import Literal

import anyio
import anyio.to_thread
import pytest

from resilient import clock
from resilient.testing import Deadlock, run_virtual, virtual_time
from resilient.testing.virtual_time import VirtualTime

BACKENDS = ("asyncio", "trio")

both = pytest.mark.parametrize("backend", BACKENDS)
Backend = Literal["asyncio", "trio"]


@pytest.fixture
def no_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio keeps its threads for a while; here nobody waits for them to go."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)


@both
def test_a_long_sleep_takes_no_time_and_exactly_as_long_as_it_says(backend: Backend) -> None:
    """Both clocks begin at zero and jump by the sleep."""

    async def main() -> tuple[float, ...]:
        before = clock.now(), anyio.current_time()
        await anyio.sleep(3600)
        return *before, clock.now(), anyio.current_time()

    real = time.monotonic()

    assert run_virtual(main, backend=backend) == (0.0, 0.0, 3600.0, 3600.0)
    assert time.monotonic() - real < 5


@both
def test_timers_fire_in_their_order_at_their_time(backend: Backend) -> None:
    """A scope that ends at 25 s lets sleepers of 10 and 20 s finish, and not one of 30 s."""
    woken: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append((seconds, clock.now()))

    async def main() -> float:
        with anyio.move_on_after(25):
            async with anyio.create_task_group() as group:
                for seconds in (30, 10, 20):
                    group.start_soon(sleeper, seconds)
        return clock.now()

    assert (run_virtual(main, backend=backend), woken) == (25.0, [(10, 10.0), (20, 20.0)])


@both
def test_time_stands_still_while_tasks_run(backend: Backend) -> None:
    """However many steps they take."""

    async def main() -> float:
        for _ in range(1000):
            await anyio.lowlevel.checkpoint()
        return clock.now()

    assert run_virtual(main, backend=backend) == 0.0


@both
def test_a_wait_of_many_days_is_one_wait(backend: Backend) -> None:
    """The event loop of asyncio cuts a wait into pieces of a day; nobody sees it."""

    async def main() -> float:
        await anyio.sleep(10_000_000)  # noqa: ASYNC116  it does end
        return clock.now()

    assert run_virtual(main, backend=backend) == 10_000_000.0


@both
def test_the_clock_is_put_back_whatever_happens(backend: Backend) -> None:
    """An error inside leaves the library on real time."""

    async def main() -> None:
        raise OSError("no luck")

    with pytest.raises(OSError, match="no luck"):
        run_virtual(main, backend=backend)

    assert clock.now is time.monotonic


@both
def test_the_clock_is_known_by_the_library_outside_of_a_loop_too(backend: Backend) -> None:
    """A strategy that is made before the loop runs sees the same time; so does who reads it afterwards."""
    with virtual_time(backend) as virtual:
        before = clock.now()
        virtual.run(anyio.sleep, 5)

        assert (before, clock.now(), virtual.now()) == (0.0, 5.0, 5.0)


@both
def test_several_loops_in_turn_share_the_time_of_one_block(backend: Backend) -> None:
    """The second loop goes on where the first one stopped."""
    with virtual_time(backend) as virtual:
        virtual.run(anyio.sleep, 5)
        virtual.run(anyio.sleep, 5)

        assert clock.now() == 10.0


@both
def test_blocks_can_be_nested(backend: Backend) -> None:
    """The inner one has a time of its own; the outer one's comes back."""
    with virtual_time(backend) as outer:
        outer.run(anyio.sleep, 5)
        with virtual_time("asyncio") as inner:
            inner.run(anyio.sleep, 1)

            assert clock.now() == 1.0
        assert clock.now() == 5.0


@both
def test_a_function_that_gets_arguments_returns_its_value(backend: Backend) -> None:
    """Positional ones, as with anyio.run; others by partial."""

    async def main(a: int, *, b: int) -> int:
        return a + b

    assert run_virtual(partial(main, b=2), 1, backend=backend) == 3


@both
@pytest.mark.usefixtures("no_other_threads")
def test_what_hangs_for_ever_is_told_at_once(backend: Backend) -> None:
    """An event that nobody sets is an error, not a test that never ends."""

    async def main() -> None:
        await anyio.sleep(5)
        await anyio.Event().wait()

    with pytest.raises(Deadlock, match="nothing can ever run again"):
        run_virtual(main, backend=backend)


@both
def test_a_deadlock_of_another_loop_is_not_ours(backend: Backend) -> None:
    """An error with any other cause surfaces as it is."""

    async def main() -> None:
        raise OSError("no luck") from ExceptionGroup("several", [ValueError()])

    with pytest.raises(OSError, match="no luck"):
        run_virtual(main, backend=backend)


@both
def test_a_thread_ends_the_wait_for_it(backend: Backend) -> None:
    """Where no timer is set, the loop waits for it in real time."""

    async def main() -> int:
        return await anyio.to_thread.run_sync(threading.get_ident)

    assert run_virtual(main, backend=backend) != threading.get_ident()


@both
def test_with_a_grace_the_clock_waits_for_threads_before_it_jumps(backend: Backend) -> None:
    """A thread that is quick wins against a timer."""

    async def main() -> float:
        with anyio.fail_after(5):
            await anyio.to_thread.run_sync(lambda: None, abandon_on_cancel=True)
        return clock.now()

    with virtual_time(backend, grace=0.5) as virtual:
        assert virtual.run(main) == 0.0


def test_the_default_executor_is_waited_for_without_a_limit() -> None:
    """In asyncio threads have 300 seconds to end: in virtual time they would be over at once."""
    release = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, release.wait, 1)
        await asyncio.sleep(3600)
        release.set()

    run_virtual(main)


@both
def test_sockets_within_the_process_work(backend: Backend) -> None:
    """What one task writes is there for the other before any time passes."""

    async def main() -> tuple[bytes, float]:
        left, right = socket.socketpair()
        async with await anyio.abc.SocketStream.from_socket(left) as one, await anyio.abc.SocketStream.from_socket(right) as two:
            with anyio.fail_after(5):
                await one.send(b"hello")
                return await two.receive(), clock.now()

    assert run_virtual(main, backend=backend) == (b"hello", 0.0)


def test_an_unknown_backend_is_refused() -> None:
    """The message names those that there are."""
    with pytest.raises(ValueError, match="backend='curio': expected 'asyncio' or 'trio'"), virtual_time("curio"):  # type: ignore[arg-type]
        pass


def test_where_trio_is_not_installed_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to install."""
    monkeypatch.delitem(sys.modules, "resilient.testing.trio_time", raising=False)
    monkeypatch.setitem(sys.modules, "trio", None)
    with pytest.raises(ModuleNotFoundError, match="needs trio, which is not installed: pip install trio"), virtual_time("trio"):
        pass


def test_a_negative_grace_is_refused() -> None:
    """It is checked before anything is replaced."""
    with pytest.raises(ValueError, match="grace=-1 is out of range"), virtual_time(grace=-1):
        pass


def test_it_hands_out_what_a_fixture_of_the_plugin_returns() -> None:
    """A name and options, for `anyio_backend`."""
    with virtual_time("trio") as virtual:
        name, options = virtual.anyio_backend

    assert isinstance(virtual, VirtualTime)
    assert (name, sorted(options)) == ("trio", ["clock", "instruments"])


@pytest.mark.usefixtures("no_other_threads")
def test_a_deadlock_leaves_nothing_to_be_collected_with_a_warning() -> None:
    """The tasks that waited are cancelled, their loop is closed."""

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.Event().wait)

    with pytest.raises(Deadlock):
        run_virtual(main)
    gc.collect()


@pytest.fixture
def only_new_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that other tests have left at work, pollers of gRPC say, are not looked at."""
    before, every = set(threading.enumerate()), threading.enumerate
    monkeypatch.setattr(threading, "enumerate", lambda: [thread for thread in every() if thread not in before])


@both
@pytest.mark.usefixtures("only_new_threads")
def test_threads_that_are_kept_for_later_hide_no_deadlock(backend: Backend) -> None:
    """Workers of anyio, of trio and of an executor, the listener of a log, and who ends tests for pytest-timeout, wake nobody."""

    async def main() -> None:
        await anyio.to_thread.run_sync(lambda: None)
        executor.submit(lambda: None).result()
        await anyio.Event().wait()

    guard = threading.Timer(60, lambda: None)
    guard.name = "pytest_timeout test_it"
    guard.start()
    listener = QueueListener(Queue())
    listener.start()
    with ThreadPoolExecutor(1) as executor, pytest.raises(Deadlock, match=r"Event\.wait"):
        run_virtual(main, backend=backend)
    listener.stop()
    guard.cancel()


@both
def test_a_thread_at_work_may_still_wake_the_loop(backend: Backend) -> None:
    """Whatever it waits for itself: only who waits for work waits for us."""
    real = time.monotonic()
    queue: SimpleQueue[str] = SimpleQueue()
    timer = threading.Timer(0.8, queue.put, ["value"])
    timer.start()

    async def main() -> str:
        return await anyio.to_thread.run_sync(queue.get)

    assert run_virtual(main, backend=backend) == "value"
    assert time.monotonic() - real >= 0.8


def test_a_clock_runs_in_its_own_block_only() -> None:
    """Outside of it, and inside of another one, the library would be on another time than the loop."""
    with virtual_time() as over:
        pass
    with pytest.raises(RuntimeError, match=r"run\(\) belongs inside the block of its own virtual_time"):
        over.run(anyio.sleep, 1)
    with virtual_time() as outer, virtual_time(), pytest.raises(RuntimeError, match="the innermost one"):
        outer.run(anyio.sleep, 1)


@both
def test_virtual_time_is_refused_inside_of_a_running_loop(backend: Backend) -> None:
    """That loop would stay on its own time."""

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"the task '.*main' runs in one already: use it in a function that is not async"):
            run_virtual(anyio.sleep, 1)

    anyio.run(main, backend=backend)


@both
def test_a_coroutine_in_place_of_its_function_is_told(backend: Backend) -> None:
    """And closed: no warning follows."""
    with pytest.raises(TypeError, match=r"expected an async function, not what it returned: run\(main\), run\(main, 42\)"):
        run_virtual(anyio.sleep(1), backend=backend)  # type: ignore[arg-type]


def test_a_deadlock_is_noticed_when_the_last_thread_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """While there are other threads, one of them may still wake the loop."""
    counts = iter([2, 2, 1])
    monkeypatch.setattr(threading, "active_count", lambda: next(counts))
    with pytest.raises(Deadlock):
        run_virtual(anyio.sleep_forever)
