"""`resilient check`: what is wrong in documents of policies, and in source code that uses strategies."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from resilient.cli.documents import Section, Source, describe_path, read_document, read_file
from resilient.cli.screen import Paint, Unusable, screen
from resilient.lint import Severity
from resilient.lint.source import lint_source

__all__ = ("Found", "add_to", "findings_of", "lines_of")

_COLOURS: Final[dict[Severity, str]] = {"error": "red", "warning": "yellow", "note": "cyan"}
_REGISTER: Final = "Register it with the executor, unless the built-in one is meant."
_SEVERITIES: Final = tuple(_COLOURS)


@dataclass(frozen=True, slots=True)
class Found:
    """Something that was found in a file.

    Attributes:
        file: its name.
        line: from 1; None where it is about the whole file.
        severity: `"error"`, `"warning"` or `"note"`.
        code: a code of lint, or `"invalid"`, `"clamped"`.
        path: in which part; may be empty.
        message: what is wrong.
        mend: what to do; empty where the message says it.

    """

    file: str
    line: int | None
    severity: Severity
    code: str
    path: str
    message: str
    mend: str = ""


def add_to(commands: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="find what is wrong in documents of policies, and in Python code",
        description="Validates documents of policies (.toml, .yaml, .json) and lints each policy; in Python code (.py) it finds "
        "strategies with state that are made for each call.",
        epilog="exit status: 0 nothing wrong, 1 errors, 2 a file cannot be read",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a document of policies, or Python code")
    parser.add_argument("--strict", action="store_true", help="warnings fail, too")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON and nothing else")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    found: list[Found] = []
    unreadable: list[str] = []
    for name in options.files:
        try:
            found += _look_at(name)
        except Unusable as error:
            unreadable.append(str(error))
    found.sort(key=lambda one: _SEVERITIES.index(one.severity))  # else in the order of the files and their lines
    counts = {f"{severity}s": sum(one.severity == severity for one in found) for severity in _SEVERITIES}
    failed = counts["errors"] or (options.strict and counts["warnings"])
    if options.json:
        told = {"version": 1, **counts, "findings": [asdict(one) for one in found], "unreadable": unreadable}
        print(json.dumps(told, indent=2))
    else:
        for why in unreadable:
            print(f"resilient check: {why}", file=sys.stderr)
        looked_at = len(options.files) - len(unreadable)
        if looked_at:
            shown = screen()
            shown.print([*lines_of(found, shown), _summary(looked_at, counts)])
    return 2 if unreadable else int(bool(failed))


def _look_at(name: str) -> Iterable[Found]:
    """What is found in a file, in the order of its lines."""
    found = _in_code(name) if name.lower().endswith((".py", ".pyi")) else findings_of(read_document(name))
    return sorted(found, key=lambda one: one.line or 0)


def findings_of(source: Source) -> Iterator[Found]:
    """What is wrong in a document."""
    for problem in source.problems:
        yield Found(source.name, problem.line, "error", "invalid", problem.where, problem.message)
    for section in source.sections:
        yield from _in_policy(source, section)


def _in_policy(source: Source, section: Section) -> Iterator[Found]:
    for clamped in section.clamped():
        path = (*section.path, *clamped.path)
        yield Found(source.name, source.line(path), "warning", "clamped", describe_path(path), clamped.message, clamped.mend)
    for inside, message in section.look_alikes():
        path = (*section.path, *inside)
        yield Found(source.name, source.line(path), "note", "looks-built-in", describe_path(path), message, _REGISTER)
    for finding in section.findings():
        places = finding.where.split(" > ")
        line = source.line(*((*section.path, place) for place in reversed(places)))
        path_text = describe_path(section.path, places)
        yield Found(source.name, line, finding.severity, finding.code, path_text, finding.message, finding.mend)


def _in_code(name: str) -> Iterator[Found]:
    try:
        located = lint_source(read_file(name))
    except SyntaxError as error:
        yield Found(name, error.lineno, "error", "invalid", "", f"not Python: {error.msg}")
        return
    for line, finding in located:
        yield Found(name, line, finding.severity, finding.code, finding.where, finding.message, finding.mend)


def lines_of(found: Iterable[Found], paint: Paint) -> Iterator[str]:
    """A line for each, and its mend below."""
    for one in found:
        where = paint(one.file if one.line is None else f"{one.file}:{one.line}", "bold")
        path = f" {one.path}" if one.path else ""
        yield f"{where}: {paint(one.severity, _COLOURS[one.severity])} {paint(f'{one.code}{path}: {one.message}', 'default')}"
        if one.mend:
            yield paint(f"    {one.mend}", "dim")


def _summary(files: int, counts: dict[str, int]) -> str:
    told = [f"{count} {name if count > 1 else name[:-1]}" for name, count in counts.items() if count]
    return f"{files} file{'' if files == 1 else 's'} checked: {', '.join(told) or 'nothing found'}"
