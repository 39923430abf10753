"""The pytest plugin of the test kit: a marker that runs async tests under virtual time, and fixtures.

pytest loads it at every start, also where no test needs it: so it imports nothing but pytest, and the test kit
(`resilient.testing`) only when a test asks for one of its fixtures.

A test that is marked with `virtual_time` needs no other plugin for async tests, and none may run it: it brings its own loop.
"""

import contextlib
import functools
import inspect
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from resilient.testing import Fault, FaultProxy, Recording, VirtualTime
    from resilient.testing.virtual_time import Backend

__all__ = ("SharedFaultProxy", "fault_proxy", "no_leaks", "resilience_events", "virtual_time")

_MARKER: Final = "virtual_time"
_MEANING: Final = (
    "virtual_time(*backends, seeds=None): run an async test under virtual time, on 'asyncio' (the default), 'trio', or both; "
    "seeds=50 runs it once for each of 50 seeds, which decide the order of tasks that are ready at the same time."
)
_TWO_LOOPS: Final = (
    "the marker virtual_time runs the test in an event loop of its own, and so does that of anyio or pytest-asyncio: keep one. "
    "For the plugin of anyio on virtual time override its fixture anyio_backend"
)
_OPTIONS: Final = (
    "virtual_time{given}: the marker takes backends, 'asyncio' or 'trio', and seeds=, how many (at least 1) or a list of seeds"
)
_OTHER_LOOP: Final = (
    "async fixtures of a test that is marked with virtual_time run in another event loop, on real time: {}. "
    "Make them in the test, or run the test by the plugin of anyio, with its fixture anyio_backend on virtual time"
)
_REAL_LOOP: Final = (
    "the fixture virtual_time does not reach the event loop of an async test: mark the test with @pytest.mark.virtual_time, "
    "which runs it on this clock. For the plugin of anyio override its fixture anyio_backend"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MEANING)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, obj: object) -> None:
    """Give the clock to async tests that are marked, by themselves, by their class, or by their module."""
    if inspect.iscoroutinefunction(obj) and _is_marked(_MARKER, obj, collector):
        pytest.mark.usefixtures(_MARKER)(obj)


def _is_marked(name: str, obj: object, parent: pytest.Collector | None) -> bool:
    """Whether somebody marked a test, or its class or module: in auto mode pytest-asyncio marks every async one itself."""
    marks = [*getattr(obj, "pytestmark", ()), *(parent.iter_markers(name) if parent is not None else ())]
    return any(mark.name == name for mark in marks)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a marked test once for each backend and seed; its name tells both."""
    mark = metafunc.definition.get_closest_marker(_MARKER)
    if mark is not None and _MARKER in metafunc.fixturenames:
        if "anyio_backend" in metafunc.fixturenames or _is_marked("asyncio", metafunc.function, metafunc.definition.parent):
            pytest.fail(_TWO_LOOPS, pytrace=False)
        backends, seeds = mark.args or ("asyncio",), mark.kwargs.get("seeds")
        chosen = [None] if seeds is None else list(range(seeds) if isinstance(seeds, int) else seeds)
        if not chosen or mark.kwargs.keys() - {"seeds"} or set(backends) - {"asyncio", "trio"}:
            given = ", ".join([*map(repr, mark.args), *(f"{name}={value!r}" for name, value in mark.kwargs.items())])
            pytest.fail(_OPTIONS.format(given=f"({given})"), pytrace=False)
        cases = [(backend, seed) for backend in backends for seed in chosen]
        names = [backend if seed is None else f"{backend}-seed{seed}" for backend, seed in cases]
        metafunc.parametrize(_MARKER, cases, indirect=True, ids=names)


def _is_async(fixture: object) -> bool:
    return inspect.iscoroutinefunction(fixture) or inspect.isasyncgenfunction(fixture)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked test on its clock."""
    test: Any = pyfuncitem.obj
    if pyfuncitem.get_closest_marker("asyncio") is not None:  # in auto mode: pytest-asyncio has put a function around it
        test = getattr(test, "__wrapped__", test)
    if pyfuncitem.get_closest_marker(_MARKER) is None or not inspect.iscoroutinefunction(test):
        return None
    given: dict[str, Any] = pyfuncitem.funcargs
    names = inspect.signature(test).parameters
    defined: Any = pyfuncitem._fixtureinfo.name2fixturedefs  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    elsewhere = [name for name in names if name in defined and _is_async(defined[name][-1].func)]
    if elsewhere:
        pytest.fail(_OTHER_LOOP.format(", ".join(elsewhere)), pytrace=False)

    @functools.wraps(test)  # the task has the name of the test
    async def run() -> None:
        await test(**{name: value for name, value in given.items() if name in names})

    clock: VirtualTime = given[_MARKER]
    if clock.seed is not None:
        random.seed(clock.seed)  # once more: after the fixtures pytest-randomly sets it to what it thinks right
    clock.run(run)
    return True


@pytest.fixture
def virtual_time(request: pytest.FixtureRequest) -> "Iterator[VirtualTime]":
    """The clock of the test, which stands at 0.0. A test that is not async runs functions on it: `virtual_time.run(main)`."""
    from resilient import testing  # noqa: PLC0415  see the top of this file

    others = request.node.get_closest_marker(_MARKER) is not None or "anyio_backend" in request.fixturenames
    if inspect.iscoroutinefunction(request.node.obj) and not others:
        pytest.fail(_REAL_LOOP, pytrace=False)
    chosen: tuple[Backend, int | None] = getattr(request, "param", ("asyncio", None))
    backend, seed = chosen
    with testing.virtual_time(backend, seed=seed) as time:
        yield time


@pytest.fixture
def resilience_events() -> "Iterator[Recording]":
    """Every event of the process while the test runs, with assertions on them."""
    from resilient import testing  # noqa: PLC0415  see the top of this file

    with testing.recorded() as events:
        yield events


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest) -> None:
    """Let the test fail where it leaves permits, waiters, open values, tasks or timers behind."""
    from resilient import testing  # noqa: PLC0415  see the top of this file

    test: Callable[..., Any] = request.node.obj

    @functools.wraps(test)
    async def run(**arguments: object) -> None:
        with testing.no_leaks():
            await test(**arguments)

    request.node.obj = run if inspect.iscoroutinefunction(test) else testing.no_leaks()(test)


class SharedFaultProxy:
    """A `FaultProxy` that runs in a thread of its own: for tests of any kind, blocking clients too.

    Attributes:
        port: where it listens.

    """

    def __init__(self, portal: "BlockingPortal", proxy: "FaultProxy") -> None:
        self._portal = portal
        self._proxy = proxy
        self.port = proxy.port

    @property
    def connections(self) -> int:
        """How many it has accepted."""
        return self._proxy.connections

    @property
    def fault(self) -> "tuple[Fault, ...]":
        """What happens to connections now. Set it to one fault, several in a tuple, or None."""
        return self._proxy.fault

    @fault.setter
    def fault(self, fault: "Fault | tuple[Fault, ...] | None") -> None:
        self._portal.call(setattr, self._proxy, "fault", fault)


@pytest.fixture
def fault_proxy() -> "Iterator[Callable[..., SharedFaultProxy]]":
    """A function that starts a proxy for the rest of the test.

    It takes the arguments of `FaultProxy` (a host, a port, faults) and returns a `SharedFaultProxy`: real sockets, in a thread.
    """
    from anyio.from_thread import start_blocking_portal  # noqa: PLC0415  see the top of this file

    from resilient import testing  # noqa: PLC0415  see the top of this file

    with start_blocking_portal() as portal, contextlib.ExitStack() as started:

        def start(*arguments: Any, **options: Any) -> SharedFaultProxy:
            proxy = testing.FaultProxy(*arguments, **options)
            started.enter_context(portal.wrap_async_context_manager(proxy))
            return SharedFaultProxy(portal, proxy)

        yield start
