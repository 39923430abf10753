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
    options = [option for plugin in plugins for option in ("-p", plugin)]
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


def test_two_plugins_for_one_test_are_told_at_collection(tmp_path: Path) -> None:
    """Each would run it in a loop of its own, and on another clock."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_both.py").write_text(
        "import pytest\n\n\n@pytest.mark.anyio\n@pytest.mark.virtual_time\nasync def test_both(): ...\n"
    )

    said = run_pytest(tmp_path, PLUGIN, "anyio")

    assert "keep one" in said
    assert "1 error" in said


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
