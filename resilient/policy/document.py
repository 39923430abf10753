"""Documents: many policies by key, as text in TOML, YAML or JSON. What providers read, and what `check` looks at.

A document is a pydantic model, so it can be part of an application's own settings, and has a JSON Schema. What a single
policy may be stands in one place, the table of fields, and is judged in one place, `policy_from_document`; both are plugged
into the model here. A document is good as a whole, or refused as a whole, with everything that is wrong, by path and line.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final, cast

try:
    from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, ValidationInfo, WithJsonSchema
    from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError
except ModuleNotFoundError as error:
    _MISSING = "documents of policies need pydantic: pip install 'resilient-anyio[config]'"
    raise ModuleNotFoundError(_MISSING, name=error.name) from error

from resilient.errors import InvalidPolicy, Problem
from resilient.policy.fields import Bounds
from resilient.policy.formats import Format, FormatError, lines, nearest, parse
from resilient.policy.json_schema import policy_json_schema
from resilient.policy.key import PolicyKey
from resilient.policy.names import nearest as nearest_name
from resilient.policy.normalise import checked_bounds, policy_from_document
from resilient.policy.schema import Policy

__all__ = ("PolicyDocument", "PolicyField", "document_schema", "load_document")

_MOST_TOLD: Final = 100  # problems of one document


def _policy(table: object, info: ValidationInfo) -> Policy:
    if isinstance(table, Policy):
        return table
    context: Mapping[str, Any] = info.context or {}
    try:
        return policy_from_document(table, bounds=context.get("bounds"), source=context.get("source", "code"))
    except InvalidPolicy as error:
        raise _as_pydantic(error) from None


def _as_pydantic(error: InvalidPolicy) -> ValidationError:
    details = [
        InitErrorDetails(
            type=PydanticCustomError("policy", "{message}", {"message": problem.message}), loc=problem.path, input=None
        )
        for problem in error.problems
    ]
    return ValidationError.from_exception_data("Policy", details)


def _key(text: object) -> PolicyKey:
    if not isinstance(text, str) or not text.strip():
        raise PydanticCustomError("policy", "expected a key like 'user-service.GetUser'")
    return PolicyKey.parse(text)


PolicyField = Annotated[Policy, PlainValidator(_policy), WithJsonSchema(policy_json_schema())]
"""The type of a policy in a pydantic model, e.g. an application's settings: it takes a table, or a `Policy`."""


class PolicyDocument(BaseModel):
    """Many policies by key.

    Attributes:
        version: the number of this document, which rises with each change. A remote source that has told a number is not
            believed when it comes with a lower one, or with none.
        default: the policy of each key that has none of its own.
        policies: by key, e.g. `"user-service.GetUser"`.

    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, title="PolicyDocument")

    version: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    default: PolicyField | None = None
    policies: dict[Annotated[str, PlainValidator(_key), WithJsonSchema({"type": "string"})], PolicyField] = {}


def load_document(
    text: str | bytes,
    format: Format,  # noqa: A002  the word that users know
    *,
    bounds: Mapping[str, Bounds] | None = None,
    source: str = "file",
) -> PolicyDocument:
    """A document from text.

    Args:
        text: the text; bytes are UTF-8.
        format: `"toml"`, `"yaml"` or `"json"`.
        bounds: narrower bounds than those of the table of fields, by path, e.g. `{"retry.attempts": (1, 5)}`.
        source: where its policies say that they come from.

    Raises:
        InvalidPolicy: it is bad; it lists everything that is wrong, with paths and lines.
        ValueError: `bounds` names a field that has none.
        ModuleNotFoundError: YAML, and PyYAML is not installed.

    """
    checked_bounds(bounds or {})
    text = _decoded(text) if isinstance(text, bytes) else text
    try:
        data = parse(text, format)
    except FormatError as error:
        raise InvalidPolicy((Problem(error.path, f"not {format.upper()}: {error.message}", error.line),)) from error
    problems = _doublets(data)
    try:
        document = PolicyDocument.model_validate(data, context={"bounds": bounds, "source": source})
    except ValidationError as error:
        raise InvalidPolicy(_with_lines(_problems(error) + problems, text, format)) from None
    if not document.policies and document.default is None:
        problems = [Problem((), "it holds no policy: expected policies by key, or a default")]
    if problems:
        raise InvalidPolicy(_with_lines(problems, text, format))
    return document


def document_schema() -> dict[str, Any]:
    """The JSON Schema of a document (draft 2020-12), for editors and for checks outside of Python."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **PolicyDocument.model_json_schema()}


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidPolicy((Problem((), "the text is not UTF-8", text.count(b"\n", 0, error.start) + 1),)) from error


def _doublets(data: Any) -> list[Problem]:
    """Two texts can name the same key, `"a.b"` and `"a. b"`; one would win without a word."""
    tables = cast("dict[str, Any]", data).get("policies") if isinstance(data, dict) else None
    seen: dict[str, str] = {}
    found: list[Problem] = []
    for text in cast("dict[str, Any]", tables) if isinstance(tables, dict) else ():
        key = PolicyKey.parse(text)
        if key in seen:
            found.append(Problem(("policies", text), f"it names the same key as {seen[key]!r}: keep one of them"))
        seen[key] = text
    return found


def _problems(error: ValidationError) -> list[Problem]:
    details = error.errors(include_url=False)
    told = [_problem(detail) for detail in details[:_MOST_TOLD]]
    return [*told, Problem((), f"and {len(details) - _MOST_TOLD} more problems")] if details[_MOST_TOLD:] else told


def _problem(detail: ErrorDetails) -> Problem:
    path = tuple(part for part in detail["loc"] if part != "[key]")
    given: object = detail["input"]
    shown = "a table" if isinstance(given, dict) else "a list" if isinstance(given, list) else reprlib.repr(given)
    match detail["type"]:
        case "policy":
            message = detail["msg"]
        case "extra_forbidden":
            message = f"unknown name{nearest_name(str(path[-1]), PolicyDocument.model_fields)}"
        case "dict_type" | "model_type":
            message = f"expected a table, got {shown}"
        case _:
            message = f"{detail['msg'].replace('Input should be', 'expected')}, got {shown}"
    return Problem(path, message)


def _with_lines(problems: list[Problem], text: str, format: Format) -> tuple[Problem, ...]:  # noqa: A002  see load_document
    """The problems in the order of the text; those of the whole come last."""
    known = lines(text, format)
    told = [replace(problem, line=nearest(known, problem.path)) for problem in problems]
    return tuple(sorted(told, key=lambda one: one.line or math.inf))
