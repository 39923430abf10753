"""A document is good as a whole, or it is refused as a whole, with everything that is wrong, each with its path and line."""

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from resilient.errors import InvalidPolicy, Problem
from resilient.policy.document import PolicyDocument, PolicyField, document_schema, load_document
from resilient.policy.fields import FIELDS, SECTIONS
from resilient.policy.formats import Format
from resilient.policy.key import PolicyKey
from resilient.policy.schema import Policy
from resilient.strategies.circuit_breaker import CircuitBreaker

WRONG: dict[str, list[Any]] = {
    "integer": ["3", 2.5, True, None, [], {}, math.nan, math.inf, -math.inf],
    "number": ["0.5", True, None, [3], {"a": 1}, math.nan, math.inf, -math.inf],
    "seconds": ["3x", "", "1.5 parsecs", True, None, [], {}, math.nan, math.inf, -math.inf],
    "text": [3, 2.5, True, None, [], {}],
    "flag": ["yes", 1, 0, None, []],
    "choice": ["nonsense", "", 3, True, None, []],
    "any": [],
}


def around(path: str, value: Any) -> dict[str, Any]:
    """A policy that has this value at `path`, and the kinds of sections that it takes."""
    *sections, name = path.split(".")
    policy: dict[str, Any] = {}
    table, where = policy, ""
    for depth, section in enumerate(sections):
        where = f"{where}.{section}".removeprefix(".")
        following = sections[depth + 1] if depth + 1 < len(sections) else name
        kind = next(kind for kind, names in SECTIONS[where].items() if following in names)
        table[section] = {"kind": kind, **({"enabled": True} if section == "chaos" else {})}
        table = table[section]
    table[name] = value
    return policy


def problems_of(data: Any, format: Format = "json") -> tuple[Problem, ...]:  # noqa: A002  as in the library
    with pytest.raises(InvalidPolicy) as caught:
        load_document(data if isinstance(data, str) else json.dumps(data), format)
    return caught.value.problems


def load(text: str) -> tuple[PolicyDocument | None, tuple[Problem, ...]]:
    try:
        return load_document(text, "json"), ()
    except InvalidPolicy as error:
        return None, error.problems


def wrong_fields() -> Iterator[tuple[str, Any]]:
    for path, field in FIELDS.items():
        for value in WRONG[field.type]:
            if not (field.type == "text" and path.endswith(".budget")):
                yield path, value


def test_every_field_that_is_wrong_in_any_way_gives_one_message_with_its_path() -> None:
    """Of the wrong type, no number, infinite, nonsense: one problem, at the field."""
    for path, value in wrong_fields():
        (problem,) = problems_of({"policies": {"svc.Op": around(path, value)}})

        assert problem.path == ("policies", "svc.Op", *path.split(".")), (path, value)
        assert problem.where == f'policies."svc.Op".{path}'
        assert "expected" in problem.message
        assert problem.line == 1


def test_every_number_out_of_bounds_is_clamped_and_noted() -> None:
    """Negative or huge: the policy says what was changed; at most the bounds contradict what else its section says."""
    noted = contradicting = 0
    for path, field in FIELDS.items():
        section = path.rpartition(".")[0]
        for value in (-1, 10**30, -(10**400)) if field.bounds[1] < math.inf else ():
            policy = around(path, value)
            table = policy
            for part in section.split(".") if section else ():
                table = table[part]
            kinds = SECTIONS.get(section, {})
            table.update(
                {name: 5 for name in ("rate", "limit", "max_concurrent") if name in kinds.get(table.get("kind", ""), ())}
            )
            table.update({path.rpartition(".")[2]: value})
            document, problems = load(json.dumps({"default": policy}))
            contradicting += document is None

            assert all(path not in problem.where for problem in problems), (path, value, problems)
            if document is None:
                continue
            assert document.default is not None
            assert path in document.default.normalisation.fields, (path, value)
            noted += 1

    assert (noted > 150, contradicting < 40) == (True, True), (noted, contradicting)


def test_all_problems_are_told_at_once_in_the_order_of_the_text() -> None:
    """Each with its line, its path, and what may have been meant."""
    text = """\
versoin = 3
[default]
preset = "htp"
[policies."user-service.GetUser"]
timeout = "10x"
[policies."user-service.GetUser".retry]
attempts = "3"
atempts = 1
backoff = { kind = "expo" }
[policies."user-service. GetUser"]
"""

    told = [str(problem) for problem in problems_of(text, "toml")]

    starts = [
        "line 1: versoin: unknown name; did you mean 'version'?",
        "line 3: default.preset: 'htp': expected one of",
        "line 5: policies.\"user-service.GetUser\".timeout: '10x': expected seconds",
        "line 7: policies.\"user-service.GetUser\".retry.attempts: '3': expected a whole number",
        "line 8: policies.\"user-service.GetUser\".retry.atempts: unknown; did you mean 'attempts'?",
        "line 9: policies.\"user-service.GetUser\".retry.backoff.kind: 'expo': expected one of",
        "line 10: policies.\"user-service. GetUser\": it names the same key as 'user-service.GetUser'",
    ]
    assert [line.startswith(start) for line, start in zip(told, starts, strict=True)] == [True] * len(starts), told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it holds no policy: expected policies by key, or a default"),
        ("version = 1", "it holds no policy: expected policies by key, or a default"),
        ("version = true", "line 1: version: expected a valid integer, got True"),
        ("version = -1", "line 1: version: expected greater than or equal to 0, got -1"),
        ("version = 1.0", "line 1: version: expected a valid integer, got 1.0"),
        ("default = 3", "line 1: default: 3: expected a table"),
        ("policies = 3", "line 1: policies: expected a table, got 3"),
        ("policies = [1]", "line 1: policies: expected a table, got a list"),
        ("[policies]\na = 1", "line 2: policies.a: 1: expected a table"),
        ("[policies.'']", "line 1: policies.\"\": expected a key like 'user-service.GetUser'"),
        ("a = 1\na = 2", "line 2: not TOML: Cannot overwrite a value"),
        ('[default.retry]\n"a.b" = 1', 'line 2: default.retry."a.b": unknown; there are'),
        ("[policies.a]\n[policies.' a ']", "it names the same key as 'a': keep one of them"),
    ],
)
def test_the_document_itself_is_checked_too(text: str, told: str) -> None:
    """Its names, its number, its keys."""
    assert told in str(problems_of(text, "toml")[0])


def test_a_document_is_a_table() -> None:
    """In JSON and YAML it could be anything else."""
    assert str(problems_of("[]")[0]) == "expected a table, got a list"
    assert str(problems_of("", "yaml")[0]) == "expected a table, got None"


def test_what_is_no_utf_8_is_refused_with_its_line() -> None:
    """A byte order mark is taken."""
    with pytest.raises(InvalidPolicy, match="line 2: the text is not UTF-8"):
        load_document(b"version = 1\n# \xff", "toml")

    assert load_document(b"\xef\xbb\xbf[default]", "toml").default is not None


def test_of_a_thousand_problems_a_hundred_are_told() -> None:
    """And how many more there are."""
    problems = problems_of({str(number): 1 for number in range(1000)})

    assert len(problems) == 101
    assert str(problems[-1]) == "and 900 more problems"


def test_a_good_document_gives_policies_by_key() -> None:
    """They say where they come from, and what was brought into bounds; narrower bounds can be given."""
    text = '[default]\npreset = "http"\n[policies." svc.Op "]\ntimeout = "1m"\nretry.attempts = 9\n'

    document = load_document(text, "toml", source="remote", bounds={"retry.attempts": (1, 5)})

    (key,) = document.policies
    policy = document.policies[key]
    assert (key, type(key)) == ("svc.Op", PolicyKey)
    assert policy.retry is not None
    assert (policy.retry.attempts, policy.source, policy.normalisation.fields) == (5, "remote", ("retry.attempts",))
    assert document.default is not None
    assert document.default.normalisation.fields == ()


def test_policies_can_be_part_of_an_applications_own_settings() -> None:
    """`PolicyField` and `PolicyDocument` are types for pydantic models; problems have the paths of the whole."""

    class Settings(BaseModel):
        payment: PolicyField
        policies: PolicyDocument

    own = Policy(circuit_breaker=CircuitBreaker())
    settings = Settings.model_validate({"payment": own, "policies": {"default": {"timeout": "1s"}}})
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"payment": {"retry": {"attempts": "3"}}, "policies": {"policies": {"a": {"timeot": 3}, 5: {}}}})

    assert settings.payment is own
    assert [error["loc"] for error in caught.value.errors()] == [
        ("payment", "retry", "attempts"),
        ("policies", "policies", "a", "timeot"),
        ("policies", "policies", 5, "[key]"),
    ]


def test_the_schema_names_every_field() -> None:
    """Editors complete and check documents by it."""
    schema = document_schema()
    default = schema["properties"]["default"]["anyOf"][0]
    retry = default["properties"]["retry"]["properties"]
    text = json.dumps(schema)

    assert schema["additionalProperties"] is False
    assert retry["attempts"] == {"type": "integer", "minimum": 1, "maximum": 10, "description": "how many in total"}
    assert retry["timeout"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 86_400}
    assert [table["properties"]["kind"]["const"] for table in retry["backoff"]["anyOf"]] == list(SECTIONS["retry.backoff"])
    assert retry["budget"]["anyOf"][-1]["type"] == "string"
    assert all(f'"{path.rpartition(".")[2]}"' in text for path in FIELDS)


def test_the_annotated_example_is_as_good_as_it_says() -> None:
    """It has every section but chaos, nothing in it is clamped, and lint finds nothing to say."""
    text = (Path(__file__).parent.parent.parent / "docs" / "example-policies.toml").read_text()

    document = load_document(text, "toml")

    assert document.default is not None
    policies = [document.default, *document.policies.values()]
    assert [(policy.normalisation.fields, policy.lint()) for policy in policies] == [((), ())] * len(policies)
    assert [path for path in SECTIONS if path.rpartition(".")[2] not in text] == ["chaos"]


def test_without_pydantic_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are an extra."""
    monkeypatch.setitem(sys.modules, "pydantic", None)
    monkeypatch.delitem(sys.modules, "resilient.policy.document")

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resilient-anyio\[config\]'"):
        importlib.import_module("resilient.policy.document")


NAMES = sorted({part for path in (*FIELDS, *SECTIONS) for part in path.split(".")} | {"kind", "enabled", "x", "a.b"})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["10ms", "http", "full", "constant", "tokens", "p99", "named", "adaptive_rate", "sliding_window"]),
)


def tables(depth: int, path: str = "") -> st.SearchStrategy[Any]:
    """Tables that look like policies often enough."""
    if depth == 0:
        return SCALARS
    known = [name for name in NAMES if f"{path}.{name}".removeprefix(".") in {*FIELDS, *SECTIONS}] or NAMES
    return st.one_of(
        SCALARS,
        st.dictionaries(st.sampled_from([*known, "kind", "enabled"]), tables(depth - 1), max_size=4),
        st.dictionaries(st.sampled_from(NAMES), st.lists(SCALARS, max_size=2), max_size=2),
    )


POLICIES = st.fixed_dictionaries(
    {},
    optional={name: tables(2, name) for name in (*(path for path in (*FIELDS, *SECTIONS) if "." not in path), "x")},
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["version", "default", "x"]), POLICIES, max_size=2), POLICIES)
def test_random_documents_never_crash_and_are_never_half_applied(more: dict[str, Any], policy: dict[str, Any]) -> None:
    """All of it is policies that can be cooked, or all of it is refused with problems that have paths."""
    text = json.dumps({**more, "policies": {"svc.Op": policy}})
    document, problems = load(text)

    assert (document is None) == bool(problems)
    assert all(problem.path and problem.message and problem.line == 1 for problem in problems), problems
    if document is not None:
        assert document.policies["svc.Op"].fresh_strategies() is not None
