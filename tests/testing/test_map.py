"""The pages on testing: the tests that they name exist, and what there is for users is told."""

import re
from pathlib import Path
from typing import Final

from resilient import testing

TESTS: Final = Path(__file__).parents[1]
PAGE: Final = TESTS.parent / "docs" / "testing.md"

_DEFINED: Final = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)


def test_every_test_that_the_map_of_defects_names_exists() -> None:
    """A test that is renamed or removed is missed."""
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    defined = {name for file in TESTS.rglob("test_*.py") for name in _DEFINED.findall(file.read_text())}

    assert named
    assert named - defined == set()


def test_every_name_of_the_test_kit_is_documented() -> None:
    """In the table of all names, and on its page."""
    docs = TESTS.parent / "docs"
    table = (docs / "api.md").read_text().partition("## `resilient.testing`")[2]
    page = (docs / "testing-your-code.md").read_text()

    assert re.findall(r"^\| `(\w+)`", table.partition("\n## ")[0], re.MULTILINE) == sorted(testing.__all__)
    assert [name for name in testing.__all__ if name not in page] == []
