"""Claims: what they mean, and what they say of mistakes."""

import math

import pytest

from resilient.simulation import MEASURES, Claim, Run


def run(policy: str, **measures: float) -> Run:
    known = dict.fromkeys(MEASURES, math.nan) | measures
    return Run(policy=policy, scenario="test", seed=1, measures=known, series={}, step=1.0, simulated=0)


RUNS = {
    "new": [run("new", goodput=0.9, recovery=3), run("new", goodput=0.8, recovery=4)],
    "./v1/old.toml:api.*": [run("of a file", goodput=0.9), run("of a file", goodput=0.9)],
    "old": [run("old", goodput=0.5, recovery=math.inf), run("old", goodput=0.85, recovery=9)],
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("goodput>=0.8", True),
        ("goodput > 0.8", False),
        ("new.goodput < 1", True),
        ("old.goodput <= 0.5", False),
        ("recovery < old.recovery", True),
        ("recovery <= 0.4 * old.recovery", False),
        ("goodput > old.goodput", False),
        ("old.recovery >= 9", True),
        ("old.recovery < inf", False),
        ("p99 < 5", False),
        ("old.p99 > p99", False),
        ("goodput > .5", True),
        ("goodput > .5*old.goodput", True),
        ("./v1/old.toml:api.*.goodput > 0.8", True),
        ("goodput>0.5 * ./v1/old.toml:api.*.goodput", True),
    ],
)
def test_a_claim_must_hold_in_every_seed(text: str, holds: bool) -> None:  # noqa: FBT001  a row of the table
    """Policies are compared seed by seed. What is not a number bears no claim."""
    assert Claim.parse(text).about(RUNS).verify(RUNS).holds is holds


def test_a_claim_that_fails_tells_of_the_seed_where_it_does() -> None:
    """Both numbers of it; otherwise those of the first seed."""
    found = Claim.parse(" goodput > old.goodput ").about(RUNS).verify(RUNS)

    assert (found.claim, found.left, found.right) == ("goodput > old.goodput", 0.8, 0.85)
    assert Claim.parse("goodput > 0.1").about(RUNS).verify(RUNS).left == 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goodput", "is no claim: write e.g."),
        ("goodput == 1", "is no claim"),
        ("goodputt > 1", "'goodputt' is unknown; did you mean 'goodput'"),
        ("goodput > 2 * old.p98", "'p98' is unknown"),
    ],
)
def test_what_is_no_claim_is_told(text: str, message: str) -> None:
    """With what was meant, where that can be guessed."""
    with pytest.raises(ValueError, match=message):
        Claim.parse(text)


def test_a_claim_names_policies_that_are_there() -> None:
    """Or else nothing is run."""
    with pytest.raises(ValueError, match="'odl' is not simulated; did you mean 'old'"):
        Claim.parse("recovery < odl.recovery").about(RUNS)
