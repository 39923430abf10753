"""The page on testing names tests: they exist."""

import ast
import re
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
PAGE: Final = TESTS.parent / "docs" / "testing.md"


def test_every_test_that_the_map_of_defects_names_exists() -> None:
    """A test that is renamed or removed is missed."""
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    defined = {
        node.name
        for file in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }

    assert named
    assert named - defined == set()
