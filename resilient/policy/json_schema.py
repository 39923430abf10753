"""The table of fields as JSON Schema (draft 2020-12), for editors and for checks outside of Python.

Bounds are told as `minimum` and `maximum`: a reader of documents clamps what is out of them, an editor underlines it.
"""

import math
from typing import Any

from resilient.policy.durations import PATTERN
from resilient.policy.fields import ENABLED, FIELDS, KIND, SECTIONS, Field

__all__ = ("policy_json_schema",)

Schema = dict[str, Any]


def policy_json_schema() -> Schema:
    """What a single policy may be."""
    names = dict.fromkeys(path.partition(".")[0] for path in (*FIELDS, *SECTIONS))
    return _table({name: _at(name) for name in names})


def _at(path: str) -> Schema:
    return _section(path) if path in SECTIONS else _field(FIELDS[path])


def _section(path: str) -> Schema:
    """A table for each kind. A budget tells its kind by its fields, or is only a name."""
    kinds = SECTIONS[path]
    is_budget = path.rpartition(".")[2] == "budget"
    tables = [
        _table(
            {
                ENABLED: {"type": "boolean", "default": path != "chaos", "description": "false: off, and its settings are kept"},
                KIND: {"const": kind},
                **{name: _at(f"{path}.{name}") for name in names},
            },
            required=[KIND] if number and not is_budget else [],
        )
        for number, (kind, names) in enumerate(kinds.items())
    ]
    if is_budget:
        tables.append({"type": "string", "description": FIELDS[f"{path}.name"].about})
    return tables[0] if len(tables) == 1 else {"anyOf": tables}


def _table(properties: Schema, required: list[str] | None = None) -> Schema:
    table: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**table, "required": required} if required else table


def _field(field: Field) -> Schema:
    about: Schema = {"description": field.about} if field.about else {}
    return {**_type(field), **about}


def _type(field: Field) -> Schema:
    low, high = field.bounds
    number: Schema = {"type": "integer" if field.type == "integer" else "number"}
    if high < math.inf:
        number |= {"minimum": 0 if field.zero_is_off else low, "maximum": high}
    if field.type == "seconds":
        return {"anyOf": [number, {"type": "string", "pattern": PATTERN}]}
    if field.type in {"integer", "number"}:
        return number
    if field.type == "flag":
        return {"type": "boolean"}
    if field.type == "any":
        return {}
    return {"type": "string", "enum": list(field.choices)} if field.choices else {"type": "string"}
