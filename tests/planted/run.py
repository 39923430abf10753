"""Are the classic bugs caught? Plant them one by one, and run the tests that must fail.

    python tests/planted     # a minute

Works on a copy of the package in a temporary directory, which stands before the checkout on the path of imports: the checkout is
never touched. First the tests run where nothing is broken, and must pass. Then each bug is planted in a copy of its own: a test
must fail. The exit code is 1 where one does not, or where the text that a bug replaces is not there exactly once.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from planted.bugs import BUGS, ROOT, Bug

__all__ = ("main",)

_FAILED = re.compile(r"^FAILED tests/(?:\w+/)*\w+\.py::(\S+)", re.MULTILINE)


def main() -> int:
    """Print the table. Returns the exit code."""
    moved = [bug.title for bug in BUGS if bug.times_in(ROOT) != 1]
    if moved:
        print("what they replace is not there exactly once:", *moved, sep="\n  ")
        return 1
    tests = sorted({test for bug in BUGS for test in bug.tests})
    failing, output = _try(None, tests)
    if failing is not None:
        print("nothing is broken, and yet a test fails:", output, sep="\n")
        return 1
    print(f"nothing planted: the tests pass ({len(tests)})\n\n| planted | in | caught by |\n| --- | --- | --- |", flush=True)
    caught = [_row(bug) for bug in BUGS]
    print(f"\n{sum(caught)} of {len(BUGS)} caught")
    return 0 if all(caught) else 1


def _row(bug: Bug) -> bool:
    """Plant it, and print what came of it."""
    failing, _ = _try(bug, bug.tests)
    print(f"| {bug.title} | `{bug.module}` | {f'`{failing}`' if failing else 'NOTHING'} |", flush=True)
    return bool(failing)


def _try(bug: Bug | None, tests: Sequence[str]) -> tuple[str | None, str]:
    """Run tests against a copy, with a bug in it. The first test that failed, "" where they did not even run; the output."""
    with TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "resilient", Path(folder) / "resilient", ignore=shutil.ignore_patterns("__pycache__"))
        if bug is not None:
            bug.plant(Path(folder))
        path = [folder, str(ROOT / "integrations"), str(ROOT / "tests")]
        options = ["-xq", "-n0", "-rf", "--tb=short", "-pno:cacheprovider", f"-opythonpath={' '.join(path)}"]
        ran = subprocess.run(  # noqa: S603  our own tests
            [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    output = ran.stdout + ran.stderr
    failed = _FAILED.search(output)
    return (None if not ran.returncode else failed[1] if failed else ""), output
