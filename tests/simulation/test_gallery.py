"""The scenarios that ship with the library show what they say."""

from typing import Final

import pytest

from resilient.policy.schema import Policy
from resilient.simulation import Claim, Scenario, gallery, simulate
from resilient.simulation.measures import measure
from resilient.simulation.record import Record

GALLERY: Final = gallery()
LONG_ENOUGH: Final = {
    "retry-storm": 42.0,
    "budget": 55.0,
    "cascade": 28.0,
    "flapping": 44.0,
    "noisy-neighbour": 28.0,
    "tail-at-scale": 18.0,
    "thundering-herd": 12.0,
}
"""Seconds after which a scenario, or a policy of one, has shown it all."""


@pytest.mark.parametrize("name", GALLERY)
def test_a_scenario_shows_what_it_says(name: str) -> None:
    """All of its claims hold. `resilient simulate --gallery` tries them in full, and with more seeds."""
    scenario = GALLERY[name]
    runs = {
        policy: [simulate(subject, scenario.replace(seconds=LONG_ENOUGH.get(policy, LONG_ENOUGH[name])))]
        for policy, subject in scenario.policies.items()
    }
    found = [Claim.parse(text).about(runs).verify(runs) for text in scenario.claims]

    assert [claim.claim for claim in found if not claim.holds] == []
    assert len(found) >= 5
    assert scenario.about
    assert scenario.title


@pytest.mark.parametrize(("name", "goodput", "recovery"), [("retry-storm", 0.7, 10), ("flapping", 0.45, 2)])
def test_the_policy_that_nobody_chose_does_well(name: str, goodput: float, recovery: float) -> None:
    """`Policy.http()` comes back soon from a collapse, and does not sleep through the good times of what flaps."""
    run = simulate(Policy.http(), GALLERY[name].replace(seconds=45.0))

    assert run["goodput"] >= goodput
    assert run["recovery"] <= recovery


def test_the_same_seed_gives_the_same_run() -> None:
    """Every number and every series, with retries, hedges, a breaker and a budget in play; another seed gives others."""
    scenario = GALLERY["cascade"].replace(seconds=8.0, conditions=())
    policy = scenario.policies["guarded"].replace(hedge=GALLERY["tail-at-scale"].policies["hedge"].hedge)

    once, again, other = (simulate(policy, scenario, seed=seed) for seed in (7, 7, 8))

    assert repr((once.measures, once.series)) == repr((again.measures, again.series))  # by text: nan is not equal to itself
    assert repr(once.series) != repr(other.series)
    assert once["hedges"] > 0


def test_the_same_run_gives_the_same_numbers_on_every_python() -> None:
    """Up to the last digit: from Python 3.12 on `sum` is more exact than before."""
    record = Record(1.0, 60.0, ["service"])
    tally = record.tallies["service"]
    tally.worked[0] = 1.0
    tally.wasted[:10] = [0.1] * 10
    record.breakers, record.open[:10] = 1, [0.1] * 10

    found = measure(Scenario(seconds=10), "policy", 1, record)

    assert (found["wasted"], found["open"]) == (1.0, 0.1)
