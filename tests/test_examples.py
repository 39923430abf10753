"""Every file in `examples/` runs as its reader would run it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import resilient
import resilient_integrations

EXAMPLES: Final = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
SOURCES: Final = [str(Path(package.__path__[0]).parent) for package in (resilient, resilient_integrations)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_shows_something(example: Path) -> None:
    """It ends by itself, well, within the limit of a test, and prints what it did."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    done = subprocess.run(  # noqa: S603  our own file
        [sys.executable, "-W", "error", str(example)], env=environment, capture_output=True, text=True, check=False, timeout=30
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
