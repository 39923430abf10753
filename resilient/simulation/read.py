"""Scenarios from TOML files, and those that ship with the library.

A file has the fields of `Scenario` by their names: `[[services]]`, `[[clients]]` and `[[conditions]]` are lists of tables, and
`[policies.NAME]` holds a policy in the shape that all documents of policies have. Numbers out of range are errors here: a
scenario is an experiment, and a silent change of one would be worse than none.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from resilient.errors import InvalidPolicy
from resilient.policy.fields import BOUNDS
from resilient.policy.names import nearest
from resilient.policy.normalise import policy_from_document
from resilient.policy.schema import Policy
from resilient.simulation.model import Clients, Condition, Latency, Scenario, Service

__all__ = ("gallery", "load_scenario", "read_scenario")

Part = TypeVar("Part", Latency, Service, Clients, Condition)

_LISTS: Final[Mapping[str, type[Any]]] = {"services": Service, "clients": Clients, "conditions": Condition}
_BOUNDS: Final = {"retry.attempts": (1, 1000)}  # an experiment may do what a document in production may not


def gallery() -> dict[str, Scenario]:
    """The scenarios that ship with the library, by name."""
    folder = resources.files("resilient.simulation") / "gallery"
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    found = [read_scenario(file.read_text("utf-8"), name=Path(file.name).stem) for file in files]
    return {scenario.name: scenario for scenario in sorted(found, key=lambda scenario: scenario.name)}


def load_scenario(path: str | Path) -> Scenario:
    """A scenario from a TOML file; its name is that of the file where it gives none.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no scenario; the message says what is wrong, and where.

    """
    return read_scenario(Path(path).read_text("utf-8"), name=Path(path).stem)


def read_scenario(text: str, *, name: str = "scenario") -> Scenario:
    """A scenario from the text of a TOML file.

    Args:
        text: the text.
        name: what it is called where it does not say so.

    Raises:
        ValueError: it is no scenario; the message says what is wrong, and where.

    """
    table = {"name": name, **tomllib.loads(text)}
    _known("", table, Scenario)
    for field, kind in _LISTS.items():
        if field in table:
            table[field] = tuple(_part(f"{field}[{index}]", each, kind) for index, each in enumerate(_list(field, table[field])))
    policies = _table("policies", table.get("policies", {}))
    table["policies"] = {each: _policy(f"policies.{each}", document) for each, document in policies.items()}
    table["claims"] = tuple(
        _claim(f"claims[{index}]", each) for index, each in enumerate(_list("claims", table.get("claims", [])))
    )
    scenario: Scenario = _made("", Scenario, table)
    return scenario


def _part(path: str, table: object, kind: type[Any]) -> Any:
    fields = dict(_table(path, table))
    _known(path, fields, kind)
    if kind is Service and "latency" in fields:
        fields["latency"] = _part(f"{path}.latency", fields["latency"], Latency)
    return _made(path, kind, fields)


def _made(path: str, kind: type[Any], fields: Mapping[str, Any]) -> Any:
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from error


def _claim(path: str, value: object) -> str:
    if not isinstance(value, str):
        msg = f"{path}={value!r}: expected a text"
        raise ValueError(msg)  # noqa: TRY004  what is wrong is the document
    return value


def _policy(path: str, document: object) -> Policy:
    name = path.partition(".")[2]
    try:
        policy = policy_from_document(document, bounds=_BOUNDS)
    except InvalidPolicy as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    for field in policy.normalisation.fields:
        low, high = {**BOUNDS, **_BOUNDS}[field]
        msg = f"{path}.{field} is out of range: expected from {low:g} to {high:g}"
        raise ValueError(msg)
    return policy.replace(id=name)


def _known(path: str, table: Mapping[str, Any], kind: type[Any]) -> None:
    fields = {field.name: None for field in dataclasses.fields(kind)}
    for name in table:
        if name not in fields:
            where = f"{path}.{name}" if path else name
            msg = f"{where}: unknown{nearest(name, fields)}"
            raise ValueError(msg)
    missing = [field.name for field in dataclasses.fields(kind) if _is_required(field) and field.name not in table]
    if missing:
        msg = f"{path}: {' and '.join(missing)} must be given"
        raise ValueError(msg)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _table(path: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        msg = f"{path}={value!r}: expected a table"
        raise ValueError(msg)  # noqa: TRY004  what is wrong is the document
    return cast("Mapping[str, Any]", value)


def _list(path: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        msg = f"{path}={value!r}: expected a list"
        raise ValueError(msg)  # noqa: TRY004  what is wrong is the document
    return list(cast("Iterable[Any]", value))
