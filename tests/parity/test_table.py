"""`docs/seeds.md` names the test of each feature, and each test of this directory."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
HERE: Final = Path(__file__).parent
PAGE: Final = (ROOT / "docs" / "seeds.md").read_text()

NAMED: Final = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
UNTESTED: Final = ("planned", "not software", "other means", "no feature")
"""What the last column says where it names no test."""

_DEFINED: Final = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def names_of_tests(file: Path) -> set[str]:
    return set(_DEFINED.findall(file.read_text()))


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_every_test_that_the_page_names_exists(path: str) -> None:
    """A row that points nowhere would be a promise that nobody checks."""
    named = {name for other, name in NAMED if other == path}

    assert named - names_of_tests(ROOT / path) == set()


@pytest.mark.parametrize("file", sorted(HERE.glob("test_*.py")), ids=lambda file: file.name)
def test_every_test_of_this_directory_is_named_on_the_page(file: Path) -> None:
    """What is tested here is a feature of one of the five, so it has a row."""
    named = {name for path, name in NAMED if ROOT / path == file}

    assert file == Path(__file__) or names_of_tests(file) - named == set()


def test_every_row_has_a_test_or_says_why_it_has_none() -> None:
    """No row is silent."""
    tables = re.findall(r"^\| feature \| here \| shown by \|\n\|[- |]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    last_cells = {row: row.rstrip("| ").rpartition(" | ")[2] for row in rows}

    assert len(tables) >= 5
    assert [row for row, cell in last_cells.items() if "::test_" not in cell and not cell.startswith(UNTESTED)] == []
