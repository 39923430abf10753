"""The comparison of behaviour: its pictures, and those that stand in the docs."""

from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from benchmarks.behaviour import SHOWN, scenario_of, table
from benchmarks.behaviour_pictures import picture
from benchmarks.behaviour_subjects import COMPARED
from resilient.policy.schema import Policy
from resilient.simulation import gallery, study

DOCS: Final = Path(__file__).parents[2] / "docs"
PICTURES: Final = sorted((DOCS / "pictures").glob("*.svg"))


@pytest.mark.parametrize(("name", "seconds"), [("flapping", 12), ("tail-at-scale", 6), ("thundering-herd", 2)])
def test_a_picture_is_the_same_text_for_the_same_runs(name: str, seconds: float) -> None:
    """It is one SVG, in the colours of light and dark pages; the table beside it has a row for each that is compared."""
    ours = [policy for policy in COMPARED[name].values() if isinstance(policy, Policy)][-1:]
    scenario = gallery()[name].replace(seconds=seconds)
    found = study({"no retries": None, "**resilient**": ours[0]}, scenario, seeds=1)

    text = picture(found)

    assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314  it is ours
    assert "prefers-color-scheme: dark" in text
    assert text == picture(found)
    assert [line.split("|")[1].strip() for line in table(found).splitlines()] == ["", "---", "no retries", "**resilient**"]


def test_the_pictures_of_the_docs_are_small_and_shown() -> None:
    """One for each comparison, without a date, of less than 60 kB, with words for those who cannot see it."""
    page = (DOCS / "benchmarks.md").read_text("utf-8")

    assert {file.stem for file in PICTURES} == set(SHOWN)
    for file in PICTURES:
        text = file.read_text("utf-8")
        assert len(text) < 60_000
        assert "<dc:date>" not in text
        assert f"](pictures/{file.name})" in page
        assert f"![](pictures/{file.name})" not in page


@pytest.mark.parametrize(
    ("scenario", "policy"), [("thundering-herd", "**resilient, full jitter**"), ("flapping", "**resilient, `Policy.http()`**")]
)
def test_the_tables_of_the_docs_are_what_runs_give(scenario: str, policy: str) -> None:
    """Those of ours that take no time stand for all: a change of the simulator asks for new tables, and new pictures."""
    subject = COMPARED[scenario][policy]
    assert isinstance(subject, Policy)
    found = study({policy: subject}, scenario_of(scenario), seeds=3)

    assert table(found).splitlines()[-1] in (DOCS / "benchmarks.md").read_text("utf-8").splitlines()
