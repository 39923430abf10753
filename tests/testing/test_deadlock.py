"""The report of a deadlock: who waits, where, and for how long."""

import asyncio
import inspect
import threading
from pathlib import Path
from typing import Literal

import anyio
import pytest

from resilient.strategies.bulkhead import Bulkhead
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
    assert f"- task 'second' has waited for 0 s at {HERE}:{line}, in keep, within Slots.wait: await bulkhead.acquire()" in str(
        caught.value
    )


@both
def test_a_task_without_code_of_its_own_is_told_where_there_is_no_other(backend: Backend) -> None:
    """By its innermost line, of whatever library."""
    with pytest.raises(Deadlock) as caught:
        run_virtual(anyio.sleep_forever, backend=backend)

    assert caught.value.waiting
    assert not any(one.is_theirs for one in caught.value.waiting)
    assert "sleep" in str(caught.value)


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
