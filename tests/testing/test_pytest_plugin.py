"""The pytest plugin, as a project that uses it sees it: pytest runs in a process of its own."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import resilient
import resilient_integrations

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = [str(Path(package.__path__[0]).parent) for package in (resilient, resilient_integrations)]
PLUGIN: Final = "resilient_integrations.pytest_plugin"

USES: Final = """
import socket
import threading

import anyio
import pytest

from resilient import Bulkhead, Constant, Retry, clock
from resilient.observe.events import RetryScheduled
from resilient.testing import Reset, ScriptedCallee

RETRY = Retry(on=OSError, backoff=Constant(delay=60, maximum=60, jitter="none"))


@pytest.mark.virtual_time("asyncio", "trio")
async def test_marked(resilience_events, no_leaks):
    assert await RETRY.call(ScriptedCallee(OSError, 42)) == 42
    assert clock.now() == 60
    assert resilience_events.one(RetryScheduled).delay == 60


@pytest.mark.virtual_time(seeds=3)
class TestSeeds:
    @pytest.mark.parametrize("letter", "ab")
    async def test_order(self, letter, virtual_time):
        order = []

        async def append(number):
            order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(append, number)
        assert (letter, order) != ("b", [0, 2, 1]), virtual_time.seed

    def test_plain(self, virtual_time):
        virtual_time.run(anyio.sleep, 5)
        assert virtual_time.now() == 5


@pytest.mark.virtual_time(seeds=[7])
async def test_leak(no_leaks):
    global bulkhead
    bulkhead = Bulkhead(1)
    await bulkhead.acquire()


def test_plain_leak(no_leaks):
    global other
    other = Bulkhead(1)
    other.acquire_nowait()


def test_plain_without_leak(no_leaks, tmp_path):
    assert tmp_path.exists()


@pytest.mark.anyio
async def test_of_anyio(no_leaks, resilience_events):
    await RETRY.call(ScriptedCallee(42))
    assert clock.now() > 0
    assert len(resilience_events.calls) == 1


def test_proxy(fault_proxy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = fault_proxy("127.0.0.1", server.getsockname()[1], seed=1)
        proxy.fault = Reset()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
            client.sendall(b"hello")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
    assert (proxy.fault, proxy.connections) == ((Reset(),), 1)
"""

MODULES: Final = """
import sys


def pytest_sessionfinish():
    print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules} | set(sys.modules)))
"""


def run_pytest(directory: Path, *plugins: str) -> str:
    options = [option for plugin in plugins for option in ([plugin] if plugin.startswith("-") else ["-p", plugin])]
    done = subprocess.run(  # noqa: S603  our own files
        [sys.executable, "-m", "pytest", "-rA", "-q", "--strict-markers", "--color=no", "-s", *options, str(directory)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return done.stdout + done.stderr


def test_the_marker_and_the_fixtures_do_what_they_say(tmp_path: Path) -> None:
    """On both backends, with seeds in the names of the tests, and beside the plugin of anyio."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_uses.py").write_text(USES)

    said = run_pytest(tmp_path, PLUGIN, "anyio")

    passed = set(re.findall(r"^PASSED [^:]*::(\S+)", said, re.MULTILINE))
    failed = set(re.findall(r"^FAILED [^:]*::(\S+)", said, re.MULTILINE))
    seeded = {name for name in passed | failed if name.startswith("TestSeeds")}
    told = {f"TestSeeds::test_order[asyncio-seed{seed}-{letter}]" for seed in range(3) for letter in "ab"}
    unmarked = {"test_plain_without_leak", "test_proxy", "test_of_anyio[asyncio]", "test_of_anyio[trio]"}
    assert seeded == told | {f"TestSeeds::test_plain[asyncio-seed{seed}]" for seed in range(3)}, said
    assert {name[-2] for name in failed & seeded} == {"b"}, said
    assert passed - seeded == {"test_marked[asyncio]", "test_marked[trio]"} | unmarked, said
    assert failed - seeded == {"test_leak[asyncio-seed7]", "test_plain_leak"}, said
    assert "1 permits out: <Bulkhead 'bulkhead': 1 of 1 active" in said
    assert "it ran under seed=7 on asyncio" in said


RANDOM: Final = """
import random

import pytest


def pytest_runtest_call():
    random.seed(1)
"""

DRAWS: Final = """
import random

import pytest


@pytest.mark.virtual_time(seeds=[5])
async def test_draws():
    assert random.random() == random.Random(5).random()
"""


def test_a_seed_wins_against_a_plugin_that_sets_one_of_its_own(tmp_path: Path) -> None:
    """As pytest-randomly does, just before a test begins."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(RANDOM)
    (tmp_path / "test_draws.py").write_text(DRAWS)

    assert "1 passed" in run_pytest(tmp_path, PLUGIN)


def test_two_plugins_for_one_test_are_told_at_collection(tmp_path: Path) -> None:
    """Each would run it in a loop of its own, and on another clock."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_both.py").write_text(
        "import pytest\n\n\n@pytest.mark.anyio\n@pytest.mark.virtual_time\nasync def test_both(): ...\n"
    )

    said = run_pytest(tmp_path, PLUGIN, "anyio")

    assert "keep one" in said
    assert "1 error" in said


REFUSED: Final = """
import anyio
import pytest


@pytest.mark.virtual_time(seed=5)
async def test_option(): ...


@pytest.mark.virtual_time(seeds=0)
async def test_no_seed(): ...


@pytest.mark.virtual_time("curio")
async def test_backend(): ...


@pytest.mark.{mark}
async def test_without_the_marker(virtual_time): ...
"""


def test_what_would_run_in_another_way_than_it_is_written_is_told(tmp_path: Path) -> None:
    """An option that there is not, no seed at all, and the clock in a test that runs in real time."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    *cases, last = REFUSED.split("\n\n\n")
    for number, case in enumerate(cases):
        (tmp_path / f"test_{number}.py").write_text(f"import pytest\n\n\n{case}\n")
    (tmp_path / "test_last.py").write_text(f"import pytest\n\n\n{last.format(mark='asyncio')}\n")

    told = run_pytest(tmp_path, PLUGIN, "pytest_asyncio.plugin", "--continue-on-collection-errors")

    assert "virtual_time(seed=5): the marker takes backends, 'asyncio' or 'trio', and seeds=" in told
    assert "virtual_time(seeds=0): the marker takes" in told
    assert "virtual_time('curio'): the marker takes" in told
    assert "mark the test with @pytest.mark.virtual_time, which runs it on this clock" in told
    assert "passed" not in told.splitlines()[-1]


AUTO: Final = """
import anyio
import pytest

from resilient import Bulkhead, clock


@pytest.mark.virtual_time("asyncio", "trio")
async def test_marked(no_leaks):
    await anyio.sleep(3600)
    assert clock.now() == 3600


@pytest.mark.virtual_time("asyncio", "trio")
async def test_hangs():
    bulkhead = Bulkhead(1, max_queue=1)
    await bulkhead.acquire()
    await bulkhead.acquire()


async def test_in_real_time():
    assert clock.now() > 0


@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_both(): ...
"""

FIXTURE: Final = """


@pytest.fixture
async def service():
    yield "in another loop"


@pytest.mark.virtual_time
async def test_fixture(service): ...
"""


def test_the_marker_wins_where_pytest_asyncio_takes_every_async_test(tmp_path: Path) -> None:
    """In its auto mode it marks them itself; one that its author marked for both is still an error."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    marked, _, both = AUTO.rpartition("\n\n\n")
    (tmp_path / "test_marked.py").write_text(marked + FIXTURE)
    (tmp_path / "test_both.py").write_text(f"import pytest\n\n\n{both}")

    said = run_pytest(tmp_path, PLUGIN, "pytest_asyncio.plugin", "--continue-on-collection-errors")

    assert re.findall(r"^PASSED [^:]*::(\S+)", said, re.MULTILINE) == [
        "test_marked[asyncio]",
        "test_marked[trio]",
        "test_in_real_time",
    ]
    assert re.findall(r"^FAILED [^:]*::(\S+)", said, re.MULTILINE) == [
        "test_hangs[asyncio]",
        "test_hangs[trio]",
        "test_fixture[asyncio]",
    ]
    assert "run in another event loop, on real time: service" in said
    assert said.count("- task 'test_marked.test_hangs' has waited for 0 s at ") >= 2
    assert "ERROR test_both.py" in said
    assert "keep one" in said


HANGS: Final = """
import anyio
import pytest

from resilient.testing import virtual_time


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    with virtual_time(request.param) as time:
        yield time.anyio_backend


@pytest.mark.anyio
async def test_hangs():
    await anyio.Event().wait()


@pytest.mark.anyio
async def test_group_hangs():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.Event().wait, name="waiter")
"""


def test_the_plugin_of_anyio_shows_a_deadlock_as_it_is(tmp_path: Path) -> None:
    """On trio it is no error of trio's, and no cancellation."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_hangs.py").write_text(HANGS)

    said = run_pytest(tmp_path, PLUGIN, "anyio")

    assert "4 failed" in said
    assert (
        len(re.findall(r"^E .*task .* has waited for 0 s at .*test_hangs\.py:[0-9]+, in test_hangs, within", said, re.MULTILINE))
        == 2
    )
    assert len(re.findall(r"task 'waiter' has waited for 0 s at .*, within Event.wait", said)) >= 2


def test_a_start_of_pytest_loads_nothing_but_the_plugin(tmp_path: Path) -> None:
    """Neither the library nor anyio: who does not use it does not pay."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text(MODULES)
    (tmp_path / "test_nothing.py").write_text("async def helper(): ...\n\n\ndef test_nothing(): ...\n")

    said = run_pytest(tmp_path, PLUGIN)

    loaded = set(said.partition("loaded:")[2].splitlines()[0].split())
    assert PLUGIN in loaded
    assert loaded & {"anyio", "resilient", "structlog", "trio", "asyncio"} == set()


def test_pytest_finds_the_plugin_by_its_entry_point() -> None:
    """It is declared with the distribution."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["entry-points"]["pytest11"] == {"resilient": PLUGIN}
