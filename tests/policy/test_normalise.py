"""From plain data to a policy: everything that is wrong at once, and what is out of bounds brought into them."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient import (
    AdaptiveLimit,
    AdaptiveRate,
    BudgetRef,
    Bulkhead,
    CircuitBreaker,
    Constant,
    CountWindow,
    Exponential,
    Fallback,
    Fibonacci,
    Hedge,
    InvalidPolicy,
    LeakyBucket,
    Linear,
    Retry,
    RetryBudget,
    SlidingWindow,
    Throttle,
    Timeout,
    TokenBucket,
    TokenBudget,
    policy_from_document,
)
from resilient.policy.fields import BOUNDS, FAULTS, FIELDS, SECTIONS
from resilient.policy.presets import PRESETS

FULL: dict[str, Any] = {
    "id": "v1",
    "classifier": "http",
    "timeout": "10s",
    "attempt_timeout": timedelta(seconds=2),
    "fallback": {"value": []},
    "retry": {
        "attempts": 4,
        "timeout": 30,
        "max_retry_after": "1m",
        "backoff": {"kind": "exponential", "initial": "50ms", "factor": 3, "maximum": "1.5s", "jitter": "equal"},
        "budget": {"name": "shared", "cost": 2},
    },
    "hedge": {"delay": "100ms", "max_hedges": 2, "budget": "shared", "trigger": "fixed_delay"},
    "throttle": {"multiplier": 3},
    "rate_limit": {"rate": 100, "per": "1m", "burst": 5, "max_wait": 0},
    "circuit_breaker": {
        "consecutive_failures": 5,
        "open_for": "10s",
        "window_calls": 50,
        "minimum_calls": 10,
        "initial": "closed",
    },
    "bulkhead": {"max_concurrent": 10, "max_queue": 5, "queue_timeout": "1s", "name": "mine"},
    "chaos": {"enabled": True, "fault": "ConnectionError", "fault_rate": 0.1, "latency": "1s", "latency_rate": 0.5},
}


def problems(document: object, **more: Any) -> dict[str, str]:
    """What is wrong with it, by path."""
    with pytest.raises(InvalidPolicy) as found:
        policy_from_document(document, **more)
    return {".".join(map(str, problem.path)): problem.message for problem in found.value.problems}


def test_every_section_makes_its_part() -> None:
    """Durations are seconds, texts or time deltas; names go to the fields that look them up."""
    policy = policy_from_document(FULL, source="file")
    breaker, bulkhead, bucket = policy.circuit_breaker, policy.bulkhead, policy.rate_limit

    assert (policy.id, policy.classifier, policy.source, policy.normalisation.changed) == ("v1", "http", "file", False)
    assert isinstance(policy.timeout, Timeout)
    assert isinstance(policy.attempt_timeout, Timeout)
    assert (policy.timeout.seconds, policy.attempt_timeout.seconds) == (10.0, 2.0)
    assert policy.retry == Retry(
        attempts=4,
        timeout=30,
        max_retry_after=60,
        backoff=Exponential(initial=0.05, factor=3, maximum=1.5, jitter="equal"),
    )
    assert (policy.retry_budget, policy.hedge_budget) == (BudgetRef("shared", 2), BudgetRef("shared"))
    assert isinstance(policy.hedge, Hedge)
    assert (policy.hedge.delay, policy.hedge.max_hedges, policy.hedge_trigger) == (0.1, 2, "fixed_delay")
    assert isinstance(policy.fallback, Fallback)
    assert isinstance(policy.throttle, Throttle)
    assert isinstance(bucket, TokenBucket)
    assert (bucket.rate, bucket.per, bucket.burst, bucket.max_wait) == (100, 60, 5, 0)
    assert isinstance(breaker, CircuitBreaker)
    assert breaker.settings.window == CountWindow(50)
    assert isinstance(bulkhead, Bulkhead)
    assert (bulkhead.max_concurrent, bulkhead.max_queue, bulkhead.queue_timeout, bulkhead.name) == (10, 5, 1.0, "mine")
    assert policy.chaos is not None


@pytest.mark.parametrize(
    ("section", "table", "kind"),
    [
        ("rate_limit", {"kind": "sliding_window", "limit": 5, "exact": True}, SlidingWindow),
        ("rate_limit", {"kind": "leaky_bucket", "rate": 5, "capacity": 3, "shape": True}, LeakyBucket),
        ("rate_limit", {"kind": "adaptive_rate", "rate": 5, "floor": 1, "ceiling": 10}, AdaptiveRate),
        ("bulkhead", {"kind": "adaptive_limit", "minimum": 2, "maximum": 10}, AdaptiveLimit),
    ],
)
def test_a_section_comes_in_several_kinds(section: str, table: dict[str, Any], kind: type) -> None:
    """`kind` says which."""
    assert isinstance(getattr(policy_from_document({section: table}), section), kind)


@pytest.mark.parametrize(
    ("table", "backoff"),
    [
        ({}, Exponential(maximum=5)),
        ({"kind": "constant", "delay": 1, "jitter": "none"}, Constant(delay=1, jitter="none")),
        ({"kind": "linear", "initial": 1, "increment": "500ms"}, Linear(initial=1, increment=0.5)),
        ({"kind": "fibonacci", "initial": 1}, Fibonacci(initial=1)),
    ],
)
def test_backoffs_come_in_several_kinds(table: dict[str, Any], backoff: object) -> None:
    """What is not given is as in code."""
    policy = policy_from_document({"retry": {"backoff": table}})

    assert policy.retry is not None
    assert policy.retry.backoff == backoff


@pytest.mark.parametrize(
    ("table", "kind"), [({}, RetryBudget), ({"ratio": 0.1}, RetryBudget), ({"capacity": 5, "refill": 1}, TokenBudget)]
)
def test_a_budget_of_its_own_is_known_by_its_fields(table: dict[str, Any], kind: type) -> None:
    """A share, or tokens."""
    policy = policy_from_document({"retry": {"budget": table}})

    assert policy.retry is not None
    assert isinstance(policy.retry.budget, kind)


def test_a_section_can_be_switched_off_and_keeps_its_settings() -> None:
    """They are judged all the same; chaos is off unless it is switched on."""
    policy = policy_from_document({"bulkhead": {"enabled": False, "max_concurrent": 0}, "chaos": {"fault": "OSError"}})

    assert (policy.bulkhead, policy.chaos) == (None, None)
    assert policy.normalisation.fields == ("bulkhead.max_concurrent",)


# Bounds


@pytest.mark.parametrize(
    ("path", "value"),
    [(path, 10**9) for path in BOUNDS] + [(path, -5) for path in BOUNDS],
)
def test_every_number_has_bounds(path: str, value: float) -> None:
    """What is above or below is brought to the nearest end, and noted."""
    policy = policy_from_document(document_with(path, value))

    assert path in policy.normalisation.fields


def document_with(path: str, value: Any) -> dict[str, Any]:
    """A document in which this field is given, in a section that takes it."""
    *sections, name = path.split(".")
    document: dict[str, Any] = {}
    table, where = document, ""
    for section in sections:
        where = f"{where}.{section}" if where else section
        kinds = SECTIONS[where]
        inner = next((each for each in kinds if name in kinds[each]), None)
        table[section] = {"enabled": False} | ({"kind": inner} if inner is not None else {})
        table = table[section]
    table[name] = value
    return document


@pytest.mark.parametrize(
    ("document", "clamped"),
    [
        ({"retry": {"attempts": 100}}, {"retry.attempts"}),
        ({"retry": {"attempts": 10**5000}}, {"retry.attempts"}),
        ({"retry": {"backoff": {"maximum": 1e300}}}, {"retry.backoff.maximum"}),
        ({"retry": {"backoff": {"initial": "60s", "maximum": "1s"}}}, {"retry.backoff.initial", "retry.backoff.maximum"}),
        ({"retry": {"backoff": {"initial": 5, "maximum": 1}}}, {"retry.backoff.maximum"}),
        ({"retry": {"backoff": {"initial": 5, "maximum": -1}}}, {"retry.backoff.maximum"}),
        ({"circuit_breaker": {"open_for": 0}}, {"circuit_breaker.open_for"}),
        ({"circuit_breaker": {"open_for": 10, "open_for_max": 5}}, {"circuit_breaker.open_for_max"}),
        ({"timeout": -1}, {"timeout"}),
        ({"timeout": 0}, set[str]()),
        ({"timeout": "0.1ms"}, {"timeout"}),
        ({"timeout": "-1h"}, {"timeout"}),
    ],
)
def test_clamped_fields_are_noted(document: dict[str, Any], clamped: set[str]) -> None:
    """Whether hedging is on or not; 0 means none where it can."""
    policy = policy_from_document(document)

    assert set(policy.normalisation.fields) == clamped
    assert policy.normalisation.changed == bool(clamped)


def test_the_bounds_of_single_fields_can_be_narrowed() -> None:
    """The code says what a document may ask for at most."""
    policy = policy_from_document({"preset": "http", "timeout": 5}, bounds={"retry.attempts": (1, 2)})

    assert policy.retry is not None
    assert (policy.retry.attempts, policy.normalisation.fields) == (2, ("retry.attempts",))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [({"retry.atempts": (1, 2)}, "did you mean 'retry.attempts'"), ({"retry.attempts": (3, 2)}, "above the greatest")],
)
def test_bounds_that_make_no_sense_are_refused(bounds: Any, message: str) -> None:
    """They are code: a mistake in them is told at once."""
    with pytest.raises(ValueError, match=message):
        policy_from_document({}, bounds=bounds)


# What is wrong


def test_all_problems_are_told_at_once() -> None:
    """Each with its path, and what to write instead."""
    found = problems(
        {
            "retry": {
                "atempts": 1,
                "backoff": {"jitter": "ful", "delay": 1},
                "budget": {"name": "x", "ratio": 1},
                "timeout": "5",
            },
            "rate_limit": {},
            "throttle": {"kind": "x"},
            "hedge": [5],
            "bulkhead": {"limit": 1, "max_concurrent": math.nan, "enabled": "no"},
            "circuit_breaker": {"minimum_calls": 50, "window_calls": 10, "failure_rate": "half"},
            "attempt_timeout": True,
            "id": 5,
            "preset": "htp",
            "bogus": 1,
            5: 6,
        }
    )

    assert found == {
        "": "5: the name of a field is a text",
        "preset": f"'htp': expected one of {', '.join(map(repr, PRESETS))}; did you mean 'http'?",
        "retry.atempts": "unknown; did you mean 'attempts'?",
        "retry.backoff.delay": "retry.backoff of the kind 'exponential' has none: say kind = 'constant', or leave it out",
        "retry.backoff.jitter": "'ful': expected one of 'none', 'full', 'equal', 'decorrelated'; did you mean 'full'?",
        "retry.budget.ratio": "retry.budget of the kind 'named' has none: say kind = 'ratio', or leave it out",
        "retry.timeout": "'5': expected seconds as a number, or a text like '250ms', '1.5s', '2m', '1h'",
        "rate_limit.rate": "it must be given",
        "throttle.kind": "'x': expected one of 'throttle'",
        "hedge": "a list: expected a table",
        "bulkhead.limit": "unknown; there are 'max_concurrent', 'max_queue', 'queue_timeout', 'name'",
        "bulkhead.max_concurrent": "nan: expected a whole number",
        "bulkhead.enabled": "'no': expected true or false",
        "circuit_breaker.failure_rate": "'half': expected a number",
        "attempt_timeout": "True: expected seconds as a number, or a text like '250ms', '1.5s', '2m', '1h'",
        "id": "5: expected a text",
        "bogus": found["bogus"],
    }


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        (5, "", "5: expected a table"),
        ({"circuit_breaker": {"window": 1, "window_calls": 5}}, "circuit_breaker", "give one of them"),
        ({"circuit_breaker": {"minimum_calls": 50, "window_calls": 10}}, "circuit_breaker", "can never be reached"),
        ({"bulkhead": {"max_concurrent": 5, "queue_timeout": 1}}, "bulkhead", "has no effect without a queue"),
        ({"rate_limit": {"kind": "sliding_window", "limit": 1, "exact": "yes"}}, "rate_limit.exact", "expected true or false"),
        ({"id": {}}, "id", "a table: expected a text"),
        ({"id": 10**5000}, "id", "a very large number"),
        ({"timeout": "x" * 1000}, "timeout", "…: expected seconds"),
        ({"timeout": math.nan}, "timeout", "nan: expected seconds"),
        ({"timeout": math.inf}, "timeout", "inf: expected seconds"),
        ({"retry": {"attempts": 2.5}}, "retry.attempts", "2.5: expected a whole number"),
        ({"retry": {"attempts": None}}, "retry.attempts", "None: expected a whole number"),
        ({"chaos": {"enabled": True}}, "chaos", "nothing to inject"),
    ],
)
def test_what_is_wrong_is_told_with_its_path(document: object, path: str, message: str) -> None:
    """Of bounded length, whatever the value."""
    found = problems(document)

    assert message in found[path]
    assert len(found[path]) < 300


def test_the_message_lists_the_problems() -> None:
    """One line each; a single one stands alone."""
    with pytest.raises(InvalidPolicy, match=r"^bogus: unknown"):
        policy_from_document({"bogus": 1})
    with pytest.raises(InvalidPolicy, match=r"^2 problems:\n  bogus: unknown.*\n  timeout: "):
        policy_from_document({"bogus": 1, "timeout": "never"})


NAMES = [*{part for path in FIELDS for part in path.split(".")}, "kind", "enabled"]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["5s", "-1ms", "http"])
DATA = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*{path.partition(".")[0] for path in FIELDS}, "x"]), DATA, max_size=4) | DATA)
def test_random_documents_never_crash(document: object) -> None:
    """There is a policy, or a list of problems; nothing else is raised."""
    try:
        made: object = policy_from_document(document)
    except InvalidPolicy as error:
        made = error.problems

    assert made


# The table


def test_the_table_of_fields_is_whole() -> None:
    """Every field belongs to a kind of its section, and every field of a kind is in the table."""
    in_sections = {f"{path}.{name}" for path, kinds in SECTIONS.items() for names in kinds.values() for name in names}

    assert in_sections - set(SECTIONS) == {path for path in FIELDS if "." in path}
    assert all(one.about for one in FIELDS.values())
    assert set(FAULTS) == {kind.__name__ for kind in (ConnectionError, ConnectionResetError, OSError, RuntimeError, TimeoutError)}


def test_the_page_lists_every_field() -> None:
    """With its bounds."""
    page = (Path(__file__).parent.parent.parent / "docs" / "configuration.md").read_text()

    assert [path for path in FIELDS if f"| `{path}` |" not in page] == []
