"""Every file in `examples/` runs as its reader would run it: as a program of its own.

What all of them import takes longer than most of them run. So one process imports it, and forks for each example.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import resilient
import resilient_integrations

EXAMPLES: Final = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SOURCES: Final = [str(Path(package.__path__[0]).parent) for package in (resilient, resilient_integrations)]

FORKS: Final = """
import os, runpy, sys
import resilient, resilient_integrations.httpx, resilient_integrations.httpx2

for line in sys.stdin:
    example, output, errors = line.split("|")[:3]
    if not os.fork():
        for number, path in (1, output), (2, errors):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        sys.path[0] = os.path.dirname(example)
        runpy.run_path(example, run_name="__main__")
        break
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
"""The child falls out of the loop: it ends as a script ends, with a traceback or without."""

Run = Callable[[Path, Path, Path], int]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run a script, with files for what it prints and for its errors; it gives the exit code."""
    with subprocess.Popen(  # noqa: S603  our own files
        [sys.executable, "-W", "error", "-c", FORKS],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        ask, answers = server.stdin, server.stdout

        def one(example: Path, output: Path, errors: Path) -> int:
            print(example, output, errors, "", sep="|", file=ask, flush=True)
            return int(answers.readline())

        yield one
        os.killpg(server.pid, signal.SIGKILL)  # an example that hangs too


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_shows_something(example: Path, run: Run, tmp_path: Path) -> None:
    """It ends by itself, well, within the limit of a test, and prints what it did."""
    output, errors = tmp_path / "output", tmp_path / "errors"
    status = run(example, output, errors)

    assert status == 0, errors.read_text()
    assert output.read_text().strip()
