"""Scenarios: what they take, and what they say of mistakes."""

from pathlib import Path
from random import Random

import pytest

from resilient.simulation import Clients, Condition, Latency, Scenario, Service, load_scenario, read_scenario, study

SCENARIO = """
title = "A test"
seconds = 30
claims = ["goodput > 0.5"]

[[services]]
name = "api"
workers = 3
latency = { mean = 0.1, shape = "lognormal", sigma = 0.2 }

[[clients]]
rate = 5

[[conditions]]
on = "api"
begin = 10
end = 20
slow = 3

[policies.bold]
preset = "http"

[policies.bold.retry]
attempts = 500
"""


def test_a_scenario_is_read_from_a_file(tmp_path: Path) -> None:
    """Its name is that of the file; an experiment may retry more often than a document in production."""
    file = tmp_path / "test-one.toml"
    file.write_text(SCENARIO, "utf-8")
    scenario = load_scenario(file)

    assert (scenario.name, scenario.title, scenario.claims) == ("test-one", "A test", ("goodput > 0.5",))
    assert scenario.services == (Service(name="api", workers=3, latency=Latency(mean=0.1, shape="lognormal", sigma=0.2)),)
    assert scenario.conditions == (Condition(on="api", begin=10, end=20, slow=3),)
    assert scenario.policies["bold"].retry is not None
    assert scenario.policies["bold"].retry.attempts == 500
    assert scenario.disturbance == (10, 20)


def test_the_scenario_of_the_docs_shows_what_it_claims() -> None:
    """Its service is well before the disturbance."""
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text("utf-8")
    scenario = read_scenario(page.partition("```toml\n")[2].partition("```")[0])
    found = study(scenario.policies, scenario, seeds=1, claims=scenario.claims)

    assert [claim.claim for claim in found.claims if not claim.holds] == []
    assert len(found.claims) == 3
    assert found.band("naive", "goodput_before").low > 0.99


def test_what_is_left_out_has_its_default() -> None:
    """An empty file is a scenario, of a service and its clients."""
    scenario = read_scenario("")

    assert scenario == Scenario()
    assert scenario.disturbance is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("secconds = 1", "secconds: unknown; did you mean 'seconds'?"),
        ("seconds = 0", "seconds=0 is out of range"),
        ("services = 3", "services=3: expected a list"),
        ("services = [3]", r"services\[0\]=3: expected a table"),
        ("policies = 3", "policies=3: expected a table"),
        ("clients = [{ rate = 1 }, { rate = 1, users = 3 }]", r"clients\[1\]: clients 'clients': just one of rate"),
        ("clients = [{ rate = 1, counted = false }]", "at least one group whose calls are counted"),
        ("clients = [{ rate = 1, calls = 'db' }]", "calls='db': there is no such name; there are 'service'"),
        ("clients = [{ rate = 1, policy = 'bold' }]", "policy='bold': there is no such name; there are none"),
        ("clients = [{ rate = 1, arrivals = 'odd' }]", "arrivals='odd': expected one of 'poisson', 'constant'"),
        (
            "clients = [{ rate = 1e300 }]",
            "rate=1e[+]300 is out of range: expected a finite number at least 0 and at most 1e[+]06",
        ),
        ("clients = [{ rate = 1, good_within = 0 }]", "good_within=0 is out of range"),
        ("services = [{ latency = { mean = 0 } }]", r"services\[0\].latency: mean=0 is out of range"),
        ("services = [{ latency = { main = 0 } }]", r"services\[0\].latency.main: unknown; did you mean 'mean'"),
        ("services = [{ calls = 'service' }]", "'service' calls 'service': a service can call only one that stands below it"),
        ("conditions = [{ on = 'servic', begin = 0, end = 1 }]", "on='servic': there is no such name"),
        ("conditions = [{ on = 'service', begin = 1, end = 1 }]", "end=1 is out of range"),
        ("conditions = [{ on = 'service', begin = 0, end = 1, errors = 2 }]", "errors=2 is out of range"),
        ("policies.bold.retry.attempts = 'many'", "policies.bold: .*attempts"),
        ("policies.bold.retry.attempts = 0", "policies.bold.retry.attempts is out of range: expected from 1 to 1000"),
        ("policies.bold.circuit_breaker.open_for = -1", "policies.bold.circuit_breaker.open_for is out of range"),
        ("claims = [3]", r"claims\[0\]=3: expected a text"),
        ("title = 3", "title=3: expected a text, got int"),
        ("clients = [{ rate = 1, counted = 'no' }]", r"clients\[0\]: counted='no': expected true or false, got str"),
        ("clients = [{ rate = 1 }, { rate = 1 }]", "name='clients': 2 services or groups of clients are called so"),
        ("services = []", "services: at least one is needed"),
        ("seconds = 1e9", "step=1 is out of range: expected at least 1000, for seconds=1e[+]09"),
        ("conditions = [{ begin = 1 }]", r"conditions\[0\]: on and end must be given"),
        ("conditions = [{ on = 'clients', begin = 0, end = 1, slow = 3 }]", "slow=3 does nothing to 'clients': expected rate"),
        ("conditions = [{ on = 'service', begin = 0, end = 1, rate = 3 }]", "rate=3 does nothing to 'service': expected slow or"),
        (
            "clients = [{ users = 1 }]\nconditions = [{ on = 'clients', begin = 0, end = 1, rate = 3 }]",
            "rate=3 does nothing to 'clients': expected clients with a rate",
        ),
        ("=", "Invalid statement"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, message: str) -> None:
    """Nothing is clamped: an experiment that is not the one that was asked for is worth nothing."""
    with pytest.raises(ValueError, match=message):
        read_scenario(text)


def test_latencies_have_the_shape_that_is_asked_for() -> None:
    """Their mean is the one that is given, in each shape; a tail takes longer."""
    random = Random(1)
    shapes = [Latency(mean=0.2, shape=shape) for shape in ("exponential", "constant", "lognormal")]
    means = [sum(latency.draw(random) for _ in range(4000)) / 4000 for latency in shapes]
    tailed = Latency(mean=0.2, shape="constant", tail=0.5, tail_factor=10)

    assert means == pytest.approx([0.2] * 3, rel=0.05)
    assert {round(tailed.draw(random), 6) for _ in range(50)} == {0.2, 2.0}
    assert tailed.average == pytest.approx(1.1)


def test_a_service_knows_its_capacity() -> None:
    """Workers by the time that work takes."""
    assert Service(workers=4, latency=Latency(mean=0.1, tail=0.1, tail_factor=11)).capacity == pytest.approx(20)


def test_groups_of_clients_say_when_they_call() -> None:
    """In just one way."""
    with pytest.raises(ValueError, match="just one of rate, users and together"):
        Clients()
