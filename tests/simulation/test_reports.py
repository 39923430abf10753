"""What is made of runs: bands, tables, data, pictures."""

import json
import math
from dataclasses import replace

import pytest

from resilient.policy.schema import Policy
from resilient.simulation import Band, Clients, Condition, Latency, Level, Scenario, Service, Study, Sweep, study, sweep
from resilient.simulation.plots import Plots
from resilient.simulation.report import report
from resilient.simulation.text import as_data, claim_line, rows, sweep_line, sweep_rows, value
from resilient.strategies.budget import RetryBudget
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.retry import Retry

SCENARIO = Scenario(
    name="small",
    title="Small & <simple>",
    about="It is short.",
    seconds=20,
    warm_up=2,
    services=(Service(workers=4, latency=Latency(mean=0.1)),),
    clients=(Clients(rate=10, patience=0.5),),
    conditions=(Condition(on="service", begin=6, end=9, hangs=1),),
)
POLICIES = {
    "none": None,
    "all": Policy(retry=Retry(budget=RetryBudget()), circuit_breaker=CircuitBreaker(consecutive_failures=5, open_for=1)),
}


@pytest.fixture(scope="module")
def found() -> Study:
    return study(POLICIES, SCENARIO, seeds=2, claims=["goodput > 0.5", "all.recovery < 0"])


@pytest.fixture(scope="module")
def swept() -> Sweep:
    return sweep(None, SCENARIO, name="none", hold=4)


def test_a_study_has_bands_over_its_seeds(found: Study) -> None:
    """Median, least and greatest of each number and of each point of a series; two policies meet the same arrivals."""
    first, second = (run["goodput"] for run in found.runs["all"])

    assert found.band("all", "goodput") == ((first + second) / 2, min(first, second), max(first, second))
    assert math.isnan(found.band("none", "open").median)
    assert len(found.series("all", "good")) == 20
    assert isinstance(found.series("all", "good")[0], Band)
    assert found.series("none", "offered") == found.series("all", "offered")
    assert not found.passed


def test_a_study_checks_what_it_is_asked_before_it_begins() -> None:
    """A claim that cannot be understood, a number of seeds below one, no policy."""
    with pytest.raises(ValueError, match="at least one of each"):
        study(POLICIES, SCENARIO, seeds=0)
    with pytest.raises(ValueError, match="at least one of each"):
        study({}, SCENARIO)
    with pytest.raises(ValueError, match="is no claim"):
        study(POLICIES, SCENARIO, claims=["?"])


def test_a_study_tells_how_far_it_has_come() -> None:
    """From 0 to 1, over all of its runs."""
    told: list[float] = []
    study(POLICIES, SCENARIO.replace(seconds=3.0, conditions=()), seeds=2, progress=told.append)

    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 1)


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0.123, "share", "12.3 %"),
        (0.12345, "s", "0.123 s"),
        (1234.5, "", "1,234"),
        (math.inf, "s", "never"),
        (math.nan, "s", "-"),
        (0, "", "0"),
    ],
)
def test_numbers_are_short(number: float, unit: str, text: str) -> None:
    """Three digits, and a unit."""
    assert value(number, unit) == text


def test_a_table_has_a_row_for_each_number_that_says_something(found: Study) -> None:
    """And a column for each policy. Numbers that make no sense here are left out."""
    table = rows(found)
    names = [row[0] for row in table]

    assert table[0] == ("", "none", "all")
    assert {"goodput_during", "recovery", "flaps", "budget_low", "rejected"} <= set(names)
    assert not {"hedges", "degraded"} & set(names)
    assert all(len(row) == 3 for row in table)
    assert any("–" in cell for row in table for cell in row)
    assert not any("–" in cell for row in rows(found, bands=False) for cell in row)


def test_claims_are_told_in_a_line(found: Study) -> None:
    """One that does not hold tells what was found."""
    good, bad = map(claim_line, found.claims)

    assert good == "holds  goodput > 0.5"
    assert bad.startswith("FAILS  all.recovery < 0   (found: ")


def test_a_sweep_goes_up_and_down(swept: Sweep) -> None:
    """A service whose clients give up keeps its collapse for a while; below a fifth of its capacity none would be seen."""
    loads = [level.load for level in swept.levels]

    assert (loads[0], max(loads), loads[-1]) == (0.2, 1.3, 0.2)
    assert [level.rising for level in swept.levels] == [True] * 12 + [False] * 11
    assert 0.8 <= swept.collapse <= 1.3
    assert swept.levels[0].goodput == pytest.approx(1, abs=0.05)


def test_a_sweep_needs_a_rate() -> None:
    """A herd has none."""
    with pytest.raises(ValueError, match="needs clients with a rate"):
        sweep(None, SCENARIO.replace(clients=(Clients(together=3),)))


def test_a_sweep_is_told_in_a_line() -> None:
    """Where it collapses, where it is well again, and what lies between."""
    levels = [Level(0.2, rising=True, goodput=1.0), Level(1.0, rising=True, goodput=0.0), Level(0.2, rising=False, goodput=1.0)]
    metastable = Sweep(policy="p", levels=levels, collapse=1.0, recovery=0.2)

    assert sweep_line(metastable) == "p: collapses at 100% of the capacity, is well again at 20%; metastable from 20% to 100%"
    assert sweep_line(replace(metastable, recovery=0.9)) == "p: collapses at 100% of the capacity, is well again at 90%"
    assert sweep_line(replace(metastable, recovery=0.0)).endswith("is never well again; metastable below 100%")
    assert sweep_line(replace(metastable, collapse=math.inf)) == "p: no collapse up to 100% of the capacity"
    assert replace(metastable, collapse=math.inf).metastable is None
    assert sweep_rows([metastable]) == [
        ("load", "p, rising", "p, falling"),
        ("20%", "100.0 %", "100.0 %"),
        ("100%", "0.0 %", "-"),
    ]


def test_all_of_it_can_be_had_as_json(found: Study, swept: Sweep) -> None:
    """Of a documented shape; what is not a number is null."""
    data = json.loads(json.dumps(as_data(found, [swept]), allow_nan=False))

    assert (data["version"], data["scenario"], data["seeds"], data["passed"]) == (1, "small", [1, 2], False)
    assert set(data["policies"]) == {"none", "all"}
    assert data["policies"]["none"]["measures"]["open"]["median"] is None
    assert len(data["policies"]["all"]["series"]["good"]) == 20
    assert [claim["holds"] for claim in data["claims"]] == [True, False]
    assert len(data["sweeps"][0]["levels"]) == 23


def test_a_report_is_one_file_with_plots(found: Study, swept: Sweep) -> None:
    """It needs nothing from elsewhere, holds what texts hold, and its plots are the same each time."""
    page = report(found, [swept])

    assert Plots(found).lines("queue", "requests") == ""
    assert Plots(found).lines("open", "share") in page
    assert "<h1>Small &amp; &lt;simple&gt;</h1>" in page
    assert page.count("<svg") == 9  # budgets and breakers among them, no queue
    assert not any(mark in page for mark in ("<script", "<link", "<img", "@import", "src="))
    assert 'class="fails"' in page
    assert "p999" in page


def test_a_report_has_only_the_plots_that_show_something() -> None:
    """Without breakers, budgets, claims and a sweep there are fewer."""
    page = report(study({"none": None}, SCENARIO.replace(conditions=()), seeds=1))

    assert page.count("<svg") == 5
    assert "What is grey" not in page
    assert "What it shows" not in page
