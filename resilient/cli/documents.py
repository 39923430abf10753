"""Documents of policies as the commands look at them: what is valid, what is wrong, and on which line it stands.

A provider takes a document as a whole or not at all. Here each policy is looked at by itself, and one with mistakes is looked at
without them, so that one run tells as much as can be known.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final, cast

from resilient.cli.screen import Unusable
from resilient.errors import InvalidPolicy, Problem
from resilient.lint import Finding
from resilient.policy.fields import FIELDS
from resilient.policy.formats import FormatError, Lines, Path, lines, parse
from resilient.policy.key import PolicyKey
from resilient.policy.names import Names, Registry
from resilient.policy.normalise import policy_from_document, shown
from resilient.policy.schema import Policy

__all__ = ("Clamped", "Section", "Source", "describe_path", "read_document", "read_file", "without_mistakes")

DEFAULT: Final = "default"
"""What the policy of all other keys is called."""


@dataclass(frozen=True, slots=True)
class Clamped:
    """A value that is brought into its bounds.

    Attributes:
        path: which one, in its policy.
        message: what it is, and what it may be.
        mend: what to write.

    """

    path: tuple[str, ...]
    message: str
    mend: str


@dataclass(frozen=True, slots=True)
class Section:
    """A policy in a document.

    Attributes:
        path: where: `("default",)` or `("policies", "user-service.GetUser")`.
        policy: what it says.
        table: the same as plain data.
        broken: the paths of what was left out of it, because it is wrong.

    """

    path: tuple[str, ...]
    policy: Policy
    table: Any = None
    broken: frozenset[Path] = frozenset()

    @property
    def name(self) -> str:
        """Its key, or what it is called where it has none."""
        return str(PolicyKey.parse(self.path[-1]))

    @property
    def is_default(self) -> bool:
        """Whether all keys get it that have no policy of their own."""
        return self.path == (DEFAULT,)

    def findings(self) -> Iterator[Finding]:
        """What lint finds; of a policy that is not whole only what stays true when it is."""
        parts = {str(path[0]) for path in self.broken}
        severities = {"error"} if any(str(path[-1]).endswith("timeout") for path in self.broken) else {"error", "warning"}
        for finding in self.policy.lint():
            if not self.broken or (finding.severity in severities and parts.isdisjoint(finding.where.split(" > "))):
                yield finding

    def look_alikes(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Names that are nearly those of built-in things, by path, with what is to be said of them."""
        policy, known = self.policy, Names()
        named: tuple[tuple[tuple[str, ...], object, Registry[Any]], ...] = (
            (("classifier",), policy.classifier, known.classifiers),
            (("hedge", "trigger"), policy.hedge_trigger, known.triggers),
            (("retry", "budget"), getattr(policy.retry_budget, "name", None), known.budgets),
            (("hedge", "budget"), getattr(policy.hedge_budget, "name", None), known.budgets),
        )
        for path, name, registry in named:
            if isinstance(name, str) and registry.get(name) is None and "did you mean" in registry.missing(name):
                yield path, registry.missing(name).replace("is registered", "is built in")

    def clamped(self) -> Iterator[Clamped]:
        """What was brought into bounds."""
        for name in self.policy.normalisation.fields:
            about = FIELDS[name]
            path, given = tuple(name.split(".")), self.table
            for part in path:
                given = cast("Any", given).get(part) if isinstance(given, dict) else None
            what = "it" if given is None else shown(given)
            low, high = about.bounds
            unit = " s" if about.type == "seconds" else ""
            bounds = f"{low:g} to {high:g}{unit} ({about.about})"
            yield Clamped(path, f"{what} is out of bounds and is brought into them when the document is read.", f"Give {bounds}.")


@dataclass(frozen=True, slots=True)
class Source:
    """A document that was read.

    Attributes:
        name: of the file.
        version: that of the document, or None.
        problems: all that is wrong; empty where it is valid.
        sections: the policies, as far as they can be understood: the default first, then in the order of the text.

    """

    name: str
    version: int | None = None
    problems: tuple[Problem, ...] = ()
    sections: tuple[Section, ...] = ()
    _lines: Lines = field(default_factory=Lines)

    def line(self, *paths: Path) -> int | None:
        """The line of the first of these that stands in the text; else of what is around the first one."""
        for path in paths:
            if path in self._lines:
                return self._lines[path]
        around = (paths[0][:end] for end in range(len(paths[0]), 0, -1))
        return next((self._lines[path] for path in around if path in self._lines), None)


def read_file(name: str, limit: int = -1) -> bytes:
    """What a file holds, at most `limit` bytes of it.

    Raises:
        Unusable: it cannot be read.

    """
    path = FilePath(name)
    if path.is_dir():
        msg = f"{name}: this is a directory; name the files in it"
        raise Unusable(msg)
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except (OSError, ValueError) as error:  # a name with a null character in it is a ValueError
        msg = f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}"
        raise Unusable(msg) from error


def read_document(name: str) -> Source:
    """A document of policies, as far as it can be understood.

    Raises:
        Unusable: it cannot be read, its name tells no format, or an extra is missing.

    """
    try:
        from resilient.policy.document import load_document  # noqa: PLC0415  it needs an extra
        from resilient.policy.providers.file import FORMATS  # noqa: PLC0415  as above
        from resilient.policy.providers.snapshot import LARGEST  # noqa: PLC0415  as above
    except ModuleNotFoundError as error:
        raise Unusable(str(error)) from error
    text = read_file(name, LARGEST + 1)
    format = FORMATS.get(FilePath(name).suffix.lower())  # noqa: A001  the word that users know
    if format is None:
        msg = f"{name}: the name does not tell what it is; a document ends in {', '.join(FORMATS)}"
        raise Unusable(msg)
    if len(text) > LARGEST:
        return Source(name, problems=(Problem((), f"too large: more than {LARGEST} bytes"),))
    if not text.strip():
        return Source(name, problems=(Problem((), "the file is empty: expected policies by key, or a default"),))
    problems: tuple[Problem, ...] = ()
    version = None
    try:
        version = load_document(text, format).version
    except InvalidPolicy as error:
        problems = error.problems
    except ModuleNotFoundError as error:
        raise Unusable(str(error)) from error
    return _understood(name, text, format, version, problems)


def _understood(name: str, text: bytes, format: Any, version: int | None, problems: tuple[Problem, ...]) -> Source:  # noqa: A002  see above
    """What can be known of a text, whose problems are known."""
    try:
        decoded = text.decode("utf-8-sig")
        data = parse(decoded, format)
    except (FormatError, UnicodeDecodeError):
        return Source(name, problems=problems)
    return Source(name, version, problems, tuple(_sections(data)), lines(decoded, format))


def _sections(data: Any) -> Iterator[Section]:
    document = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    policies = document.get("policies")
    tables: dict[tuple[str, ...], Any] = {(DEFAULT,): document[DEFAULT]} if DEFAULT in document else {}
    if isinstance(policies, dict):
        tables |= {("policies", key): table for key, table in cast("dict[str, Any]", policies).items()}
    for path, table in tables.items():
        if isinstance(table, dict):
            policy, broken = without_mistakes(cast("dict[str, Any]", table))
            yield Section(path, policy, table, broken)


def without_mistakes(table: dict[str, Any]) -> tuple[Policy, frozenset[Path]]:
    """The policy that a table describes where all is left out that is wrong, and the paths of that."""
    rest, broken = deepcopy(table), set[Path]()
    while True:
        try:
            return policy_from_document(rest, source="file"), frozenset(broken)
        except InvalidPolicy as error:
            for problem in error.problems:
                broken.add(problem.path)
                _leave_out(rest, problem.path)


def _leave_out(table: dict[str, Any], path: Path) -> None:
    """Take away what stands at a path; where nothing does, what is around."""
    name = str(path[0]) if path else ""
    inside = table.get(name)
    if isinstance(inside, dict) and path[1:] and path[1] in inside:
        _leave_out(cast("dict[str, Any]", inside), path[1:])
    elif name in table:
        del table[name]
    else:
        table.clear()


def describe_path(path: Path, places: Sequence[str] = ()) -> str:
    """A path as text: `policies."user-service.GetUser".timeout > retry`."""
    return " > ".join((Problem((*path, *places[:1]), "").where, *places[1:]))
