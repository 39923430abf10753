"""The reason codes are a contract: each one that the sources can produce is on the page that documents them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import resilient
import resilient_integrations

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "errors.md"
SOURCES: Final = [
    source for package in (resilient, resilient_integrations) for source in Path(str(package.__file__)).parent.rglob("*.py")
]

CODES: Final = [
    re.compile(r'Verdict\(\s*Kind\.\w+,\s*Health\.\w+,\s*"(\w+)"'),
    re.compile(r'reason: ClassVar\[str\] = "(\w+)"'),
    re.compile(r'Rule\("(\w+)"'),
    re.compile(r'_local\("(\w+)"'),
    re.compile(r'Evidence\(sent, "(\w+)"'),
    re.compile(r'return "(\w+)", (?:\*_AT_ONCE|delay, )'),  # why a retry stops
    re.compile(r'\.move\("\w+", now, "(\w+)"'),  # why a breaker changes its state
    re.compile(r'why="(\w+)"'),
]


def produced() -> Iterator[str]:
    for source in SOURCES:
        text = source.read_text()
        for pattern in CODES:
            yield from pattern.findall(text)


@pytest.mark.parametrize("code", sorted(set(produced())))
def test_every_code_is_documented(code: str) -> None:
    """Whoever meets a code in a log or a metric can look it up."""
    contract = PAGE.read_text().partition("### Coming from")[0]

    assert f"`{code}`" in contract


def test_the_codes_are_found_in_the_sources() -> None:
    """The patterns above still fit the sources: some of each kind."""
    expected = {"success", "circuit_open", "read_timeout", "certificate_error", "attempts_exhausted", "probe_failed", "by_hand"}

    assert expected <= set(produced())


def test_the_codes_have_a_version() -> None:
    """A reader knows which edition of the contract the page states."""
    assert "**version 1** of the codes" in PAGE.read_text()
