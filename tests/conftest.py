"""How the tests run.

Virtual time, the rule: `pytestmark = pytest.mark.anyio` and `async def test_...` run on asyncio (debug), asyncio with
eager tasks (Python 3.12+) and trio. Each test has a clock of its own, at 0.0, which jumps where everything would sleep;
`resilient.clock.now()` and `anyio.current_time()` are that clock, so elapsed times are exact. It must not do real I/O.

Real time, for tests with sockets and threads: a test that asks for the fixture `real_backend` (as an argument, or by
`pytest.mark.usefixtures("real_backend")`) runs on asyncio (debug), uvloop and trio, and fails after 20 seconds. Its value
is the name of the backend: "asyncio", "uvloop" or "trio".

asyncio only: `@pytest.mark.asyncio` (pytest-asyncio), or `@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)`;
in real time `["real-asyncio", "real-uvloop"]`.

Other fixtures: `anyio_backend_name` ("asyncio" or "trio") is anyio's own. `tests/` is on the import path: helpers that
several files share are plain modules there.

After each test what is shared by the whole process must be as it was: clock, switches, listeners.

A bare `pytest` runs in as many processes as there are processors, at most four (pytest-xdist). A choice of tests runs in one
process, and so does what coverage measures; `pytest -n 0` asks for it.
"""

import asyncio
import asyncio.constants
import contextvars
import functools
import gc
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVarTuple

import anyio
import hypothesis
import pytest

from resilient import _switch, clock
from resilient.observe import listeners
from resilient.testing import virtual_time

Ts = TypeVarTuple("Ts")

VIRTUAL = ["asyncio", "eager", "trio"] if sys.version_info >= (3, 12) else ["asyncio", "trio"]
REAL = ["real-asyncio", "real-uvloop", "real-trio"]
GUARD = 20.0  # seconds after which a test in real time hangs: on a busy machine some take a few

# In debug mode asyncio notes the stack where each future and callback was made, for its error messages: that is a quarter of
# the time of the tests in virtual time. Futures in C ask `traceback` for the whole stack, the rest for so many frames.
asyncio.constants.DEBUG_STACK_DEPTH = 0  # type: ignore[misc]  # a constant to others
traceback.extract_stack.__defaults__ = (None, 0)

# Where coverage is asked for by this variable, each process that a test starts would write over the figures of this one.
os.environ.pop("COVERAGE_PROCESS_START", None)

# The same examples each time, and no stop-watch: what fails once fails again, on a busy machine too.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("suite")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Several processes pay for the whole suite only: each of them imports everything and collects all tests."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.keyword
    measured = "coverage" in sys.modules  # it sees one process
    return None if whole and not measured else 0  # None: pytest-xdist decides


def pytest_collection_finish() -> None:
    """Thousands of tests, which stay, are nothing that the garbage collector needs to look at again and again."""
    freeze()


def freeze() -> None:
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the backends of a test; a `parametrize` of its own wins."""
    chosen = any("anyio_backend" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "anyio_backend" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("anyio_backend", REAL if "real_backend" in metafunc.fixturenames else VIRTUAL, indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, Any]]]:
    """The backend that anyio's plugin runs the test on. See the top of this file."""
    name: str = request.param
    if name.startswith("real-"):
        yield _REAL_OPTIONS[name]
        return
    with virtual_time("trio" if name == "trio" else "asyncio") as time:
        backend, options = time.anyio_backend
        if name == "asyncio":
            options = {**options, "debug": True}
        elif name == "eager":
            options = {"loop_factory": functools.partial(_eager_loop, options["loop_factory"])}
        yield backend, options


class _LateLoop(asyncio.SelectorEventLoop):
    """What ends late in grpc.aio is handed to the loop that it belongs to, by that of the next test: it may be closed by then."""

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if self.is_closed():
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon_threadsafe(callback, *args, context=context)


_REAL_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "real-asyncio": ("asyncio", {"debug": True}),
    "real-uvloop": ("asyncio", {"use_uvloop": True}),
    "real-trio": ("trio", {}),
    "real-plain": ("asyncio", {}),  # twice as fast: for long tables, which name it themselves
    "real-grpc": ("asyncio", {"loop_factory": _LateLoop}),
}


def _eager_loop(make: Callable[[], asyncio.AbstractEventLoop]) -> asyncio.AbstractEventLoop:
    loop = make()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]  # Python 3.12
    return loop


@pytest.fixture
def real_backend(request: pytest.FixtureRequest, anyio_backend: object) -> str:  # noqa: ARG001  it must be set up first
    """Run the test in real time, with a limit. See the top of this file."""
    item: pytest.Function = request.node
    test: Callable[..., Awaitable[object]] = item.obj

    @functools.wraps(test)
    async def guarded(**arguments: object) -> None:
        with anyio.fail_after(GUARD):
            await test(**arguments)

    item.obj = guarded
    name: object = item.callspec.params["anyio_backend"]
    return str(name).removeprefix("real-")


@pytest.fixture(autouse=True, scope="module")
def garbage_is_found_where_it_was_made() -> Iterator[None]:
    """And what the tests of one module leave to pytest makes those of the next ones no slower."""
    yield
    freeze()


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """What the whole process shares is the same after the test as before."""
    before = _shared_state()
    yield

    assert _shared_state() == before


def _shared_state() -> dict[str, object]:
    return {
        "clock.now": clock.now,
        "clock.sleep": clock.sleep,
        "switch": _switch.enabled,
        "listeners": list(listeners.everywhere),
        "logs": list(listeners.notable),
    }
