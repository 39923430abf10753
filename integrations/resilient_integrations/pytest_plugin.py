"""The pytest plugin of the test kit: a marker that runs async tests under virtual time, and fixtures.

pytest loads it at every start, also where no test needs it: so it imports nothing but pytest, and the test kit
(`resilient.testing`) only when a test asks for one of its fixtures.

A test that is marked with `virtual_time` needs no other plugin for async tests, and none may run it: it brings its own loop.
"""

import contextlib
import functools
import inspect
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


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", _MEANING)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, obj: object) -> None:
    """Give the clock to async tests that are marked, by themselves, by their class, or by their module."""
    if inspect.iscoroutinefunction(obj):
        marks = [*getattr(obj, "pytestmark", ()), *collector.iter_markers(_MARKER)]
        if any(mark.name == _MARKER for mark in marks):
            pytest.mark.usefixtures(_MARKER)(obj)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a marked test once for each backend and seed; its name tells both."""
    mark = metafunc.definition.get_closest_marker(_MARKER)
    if mark is not None and _MARKER in metafunc.fixturenames:
        if "anyio_backend" in metafunc.fixturenames or metafunc.definition.get_closest_marker("asyncio"):
            pytest.fail(_TWO_LOOPS, pytrace=False)
        backends, seeds = mark.args or ("asyncio",), mark.kwargs.get("seeds")
        chosen = [None] if seeds is None else range(seeds) if isinstance(seeds, int) else seeds
        cases = [(backend, seed) for backend in backends for seed in chosen]
        names = [backend if seed is None else f"{backend}-seed{seed}" for backend, seed in cases]
        metafunc.parametrize(_MARKER, cases, indirect=True, ids=names)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked test on its clock."""
    test: Any = pyfuncitem.obj
    if pyfuncitem.get_closest_marker(_MARKER) is None or not inspect.iscoroutinefunction(test):
        return None
    given: dict[str, Any] = pyfuncitem.funcargs
    names = inspect.signature(test).parameters
    given[_MARKER].run(functools.partial(test, **{name: value for name, value in given.items() if name in names}))
    return True


@pytest.fixture
def virtual_time(request: pytest.FixtureRequest) -> "Iterator[VirtualTime]":
    """The clock of the test, which stands at 0.0. A test that is not async runs functions on it: `virtual_time.run(main)`."""
    from resilient import testing  # noqa: PLC0415  see the top of this file

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
