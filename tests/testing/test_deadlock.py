"""The report of a deadlock: who waits, where, and for how long."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from resilient.strategies.backoff import Constant
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.fallback import Fallback
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout
from resilient.testing import Deadlock, run_virtual
from resilient.testing.deadlock import waiting

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Backend = Literal["asyncio", "trio"]

HERE = str(Path(__file__))


@pytest.fixture(autouse=True)
def no_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trio keeps its threads for a while; here nobody waits for them to go."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)


async def keep(bulkhead: Bulkhead, after: float) -> None:
    await anyio.sleep(after)
    await bulkhead.acquire()
    await anyio.sleep(2)


async def forget() -> None:
    """A task takes the only permit and never gives it back; another one waits for it."""
    bulkhead = Bulkhead(1, max_queue=1)
    async with anyio.create_task_group() as group:
        group.start_soon(keep, bulkhead, 1, name="first")
        group.start_soon(keep, bulkhead, 5, name="second")


@both
def test_it_tells_who_waits_where_and_for_how_long(backend: Backend) -> None:
    """The innermost line of the code that is tested, and the function of the library that does not come back."""
    with pytest.raises(Deadlock) as caught:
        run_virtual(forget, backend=backend)

    main, second = sorted(caught.value.waiting, key=lambda one: one.task != "second", reverse=True)
    line = inspect.getsourcelines(keep)[1] + 2
    assert (second.task, second.seconds, second.file, second.line) == ("second", 0.0, HERE, line)
    assert (second.function, second.within) == ("keep", "Slots.wait")
    assert (main.function, main.seconds, main.is_theirs) == ("forget", 5.0, True)
    assert main.within.endswith("TaskGroup.__aexit__")
    assert second.strategy == "<Bulkhead 'bulkhead': 1 of 1 active, 1 of 1 queued>"
    told = f"- task 'second' has waited for 0 s at {HERE}:{line}, in keep, within Slots.wait of {second.strategy}: await bulkhead"
    assert told in str(caught.value)


async def start(*waits: Callable[[], Coroutine[Any, Any, object]]) -> None:
    async with anyio.create_task_group() as group:
        for wait in waits:
            group.start_soon(wait, name=wait.__qualname__)


@both
def test_a_task_without_code_of_its_own_is_told_by_the_first_line_of_a_library(backend: Backend) -> None:
    """What it was started with; trio itself has tasks too, which nobody asks for."""
    bulkhead = Bulkhead(1, max_queue=1)
    bulkhead.acquire_nowait()
    with pytest.raises(Deadlock) as caught:
        run_virtual(start, bulkhead.acquire, anyio.sleep_forever, backend=backend)

    told = {one.task: one for one in caught.value.waiting if not one.is_theirs}
    assert told.keys() == {"Gate.acquire", "sleep_forever"}
    assert (told["Gate.acquire"].within, told["Gate.acquire"].strategy) == (
        "Slots.wait",
        "<Bulkhead 'bulkhead': 1 of 1 active, 1 of 1 queued>",
    )
    assert Path(told["sleep_forever"].file).parent.name == "_core"


async def wait_whatever_happens() -> None:
    with anyio.CancelScope(shield=True):
        await anyio.Event().wait()


async def wait_behind_a_timeout() -> None:
    await Timeout(3).call(wait_whatever_happens)


async def wait_for_one_who_does() -> None:
    await start(wait_behind_a_timeout)


async def try_again() -> None:
    retry = Retry(on=BaseException, attempts=None, backoff=Constant(delay=1))
    await Fallback("saved", on=Exception).call(retry.call, wait_whatever_happens)


async def wait_again() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True), contextlib.suppress(BaseException):
            await anyio.sleep(1)
            await anyio.Event().wait()


@both
@pytest.mark.parametrize("fn", [wait_behind_a_timeout, wait_for_one_who_does, try_again, wait_again])
def test_nothing_keeps_it_from_being_told(fn: Callable[[], Awaitable[None]], backend: Backend) -> None:
    """Neither a shield, nor a retry or a fallback; and what a task waits for while it ends does not take its place."""
    with pytest.raises(Deadlock) as caught:
        run_virtual(fn, backend=backend)

    assert "Event.wait" in str(caught.value) or fn is wait_again
    assert ("sleep_forever" in str(caught.value)) is (fn is wait_again)


def test_one_who_swallows_everything_does_not_hide_it_from_trio() -> None:
    """Asyncio is left as it stands; trio ends with an error of its own."""

    async def main() -> None:
        with contextlib.suppress(BaseException):
            await anyio.sleep_forever()
        await anyio.sleep_forever()

    with pytest.raises(Deadlock):
        run_virtual(main, backend="trio")


def test_what_has_no_frame_or_no_known_time_is_told_as_far_as_it_goes() -> None:
    """A generator-based coroutine counts; a future that another loop's code made has no time."""

    class Silent:
        def __await__(self) -> "asyncio.Future[None]":
            future: asyncio.Future[None] = asyncio.Future()
            return future.__await__()  # type: ignore[return-value]

    async def main() -> None:
        await Silent()  # type: ignore[misc]

    with pytest.raises(Deadlock) as caught:
        run_virtual(main)

    (told,) = caught.value.waiting
    assert (told.seconds, told.function.rpartition(".")[2]) == (None, "main")
    assert " for " not in str(told).partition(" at ")[0]


def test_a_task_without_frames_is_not_told() -> None:
    """A coroutine that was compiled to C has none."""
    assert waiting("compiled", [], 1.0) == []
