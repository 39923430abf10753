"""The scenarios that ship with the library show what they say."""

import pytest

from resilient.simulation import gallery, simulate, study

GALLERY = gallery()


@pytest.mark.parametrize("name", GALLERY)
def test_a_scenario_shows_what_it_says(name: str) -> None:
    """All of its claims hold. More seeds are tried where the reports are made: `resilient simulate --gallery`."""
    scenario = GALLERY[name]
    found = study(scenario.policies, scenario, seeds=1, claims=scenario.claims)

    assert [claim.claim for claim in found.claims if not claim.holds] == []
    assert len(found.claims) >= 5
    assert scenario.about
    assert scenario.title


def test_the_same_seed_gives_the_same_run() -> None:
    """Every number and every series, with retries, hedges, a breaker and a budget in play; another seed gives others."""
    scenario = GALLERY["cascade"].replace(seconds=12.0, conditions=())
    policy = scenario.policies["guarded"].replace(hedge=GALLERY["tail-at-scale"].policies["hedge"].hedge)

    once, again, other = (simulate(policy, scenario, seed=seed) for seed in (7, 7, 8))

    assert repr((once.measures, once.series)) == repr((again.measures, again.series))  # by text: nan is not equal to itself
    assert repr(once.series) != repr(other.series)
    assert once["hedges"] > 0
