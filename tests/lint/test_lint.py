"""What lint tells of whole compositions."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from resilient.lint import RULES, Finding, lint
from resilient.pipeline import Pipeline
from resilient.policy.schema import Policy
from resilient.strategies.budget import RetryBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.hedge import Hedge
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

RETRY = Retry(on=OSError)
PRESETS = [
    name
    for name in ("http", "database", "background_job", "low_latency", "default", "aggressive", "conservative")
    if hasattr(Policy, name)
]


def codes(found: tuple[Finding, ...]) -> list[str]:
    return [finding.code for finding in found]


def test_nothing_is_found_where_all_is_well() -> None:
    """The order that is right nearly always, with time enough, and nothing at all."""
    policy = Policy(
        fallback=Fallback(None),
        timeout=10,
        retry=Retry(on=OSError, budget=RetryBudget()),
        hedge=Hedge(),
        rate_limit=TokenBucket(100),
        circuit_breaker=CircuitBreaker(),
        bulkhead=Bulkhead(10, max_queue=10),
        attempt_timeout=2,
    )

    assert policy.lint() == policy.pipeline().lint() == ()
    assert Pipeline().lint() == Policy().lint() == ()


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_is_found_fault_with(name: str) -> None:
    """Notes at most."""
    preset: Policy = getattr(Policy, name)()

    assert {finding.severity for finding in preset.lint()} <= {"note"}


def test_http_defaults_are_well() -> None:
    """With limits for the call and each attempt, too."""
    assert Policy.http().lint() == ()
    assert Policy.http().replace(timeout=30, attempt_timeout=5, bulkhead=Bulkhead(5, max_queue=100)).lint() == ()


def test_a_breaker_outside_of_retry_outside_of_timeout_is_explained() -> None:
    """The chain that is copied from one README to the next: a breaker, then a retry, then a timeout."""
    (found,) = Pipeline(CircuitBreaker(), RETRY, Timeout(2)).lint()

    assert (found.code, found.severity, found.where) == ("retry-inside-breaker", "warning", "circuit_breaker > retry")
    assert "hears of a failure after all 3 attempts" in found.message
    assert found.mend == "Put the CircuitBreaker inside of the Retry, as a Policy does. It then counts each attempt."
    assert Pipeline(RETRY, CircuitBreaker(), Timeout(2)).lint() == ()


def test_the_way_leads_through_nested_pipelines() -> None:
    """What is common to all of a finding's strategies is said once; what is not unique in its pipeline has its place."""
    outer = Pipeline(RETRY, Pipeline(CircuitBreaker(), Pipeline(RETRY)))
    inner = Pipeline(Pipeline(Timeout(1), Timeout(2)))
    named = {finding.code: finding.where for finding in outer.lint()}

    assert named["retries-multiply"] == "retry > pipeline[1] > pipeline[1] > retry"
    assert named["retry-inside-breaker"] == "pipeline[1] > circuit_breaker > pipeline[1] > retry"
    assert [finding.where for finding in inner.lint()] == ["pipeline[0] > timeout[0] > timeout[1]"]


def test_the_worst_case_of_nested_retries_is_a_number() -> None:
    """Three layers of three."""
    (found,) = Pipeline(RETRY, Pipeline(RETRY, Pipeline(RETRY))).lint()

    assert "3 x 3 x 3 = 27 attempts" in found.message


def test_a_policy_is_told_of_by_the_names_of_its_fields() -> None:
    """As they stand in code and in files."""
    (found,) = Policy(timeout=2, attempt_timeout=3).lint()

    assert (found.code, found.where) == ("timeout-never-reached", "timeout > attempt_timeout")


def test_a_budget_that_a_policy_names_pays() -> None:
    """It is somebody's, and not looked up."""
    many = Retry(on=OSError, attempts=5)

    assert codes(Policy(retry=many).lint()) == ["retry-without-budget"]
    assert Policy(retry=many, retry_budget="shared", hedge=Hedge(0), hedge_budget="shared").lint() == ()


def test_errors_come_first() -> None:
    """Then warnings, then notes."""
    severities = [
        finding.severity for finding in Pipeline(Timeout(1), CircuitBreaker(), RETRY, Fallback(None), Timeout(2)).lint()
    ]

    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert set(severities) == {"error", "warning", "note"}


def test_nothing_of_state_is_looked_at_or_changed() -> None:
    """A breaker that is open is no mistake of the composition."""
    breaker, bulkhead = CircuitBreaker(), Bulkhead(1)
    pipeline = Pipeline(breaker, bulkhead)
    breaker.isolate()
    before = breaker.statistics(), bulkhead.statistics()

    assert pipeline.lint() == ()
    assert (breaker.statistics(), bulkhead.statistics()) == before


def test_no_composition_breaks_it() -> None:
    """Every order of some strategies, three deep."""
    parts: list[Any] = [RETRY, Hedge(), Timeout(1), CircuitBreaker(), Bulkhead(1), TokenBucket(1), Fallback(0)]
    for order in itertools.product(parts, repeat=3):
        for finding in lint((order[0], Pipeline(*order[1:]))):
            assert finding.message


def test_every_rule_has_its_row_on_the_page() -> None:
    """In the table of its severity, with a mend."""
    page = (Path(__file__).parents[2] / "docs" / "lint.md").read_text()
    headings = {"error": "## Errors", "warning": "## Warnings", "note": "## Notes"}
    rows = {
        (code, severity)
        for severity, heading in headings.items()
        for code in re.findall(r"^\| `([a-z-]+)` \| .+ \| .+ \|$", page.split(heading)[1].split("\n## ")[0], re.MULTILINE)
    }

    assert rows == {(code, severity) for code, (severity, _) in RULES.items()}
