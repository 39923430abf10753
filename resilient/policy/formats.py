"""TOML, YAML and JSON: from text to plain data, and the line on which each part of it stands.

`parse` gives dictionaries with text keys, lists, text, numbers and truth values, and nothing else. What a format would let
pass without a word is an error here: a key that stands twice, a key that is not text, dates, tags, values without end.
`lines` says where things stand; it is asked only when something is wrong. Texts may be hostile: depth and size are bounded.
"""

import bisect
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed does not know it
from typing import Any, Final, Literal, NoReturn, cast

__all__ = ("Format", "FormatError", "Lines", "Path", "lines", "locate", "nearest", "parse")

Format = Literal["toml", "yaml", "json"]

Path = tuple[str | int, ...]
"""Where something stands in a document: names and, in lists, numbers from 0."""

Lines = dict[Path, int]

_DEEPEST: Final = 20  # levels: a policy has five
_MOST: Final = 100_000  # values, with all that aliases repeat
_TOO_DEEP: Final = f"nested too deeply: more than {_DEEPEST} levels"
_TOO_LARGE: Final = f"too large: more than {_MOST} values"
_LONGEST: Final = 100  # lines of one TOML statement whose position is looked for
_PLAIN: Final = (dict, list, str, int, float, type(None))
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_AT: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class FormatError(ValueError):
    """A text is not of its format, or holds what no document may.

    Attributes:
        message: what is wrong.
        line: where, from 1, or None where that is not known.
        path: in what, as far as that is known.

    """

    def __init__(self, message: str, line: int | None = None, path: Path = ()) -> None:
        super().__init__(message, line, path)
        self.message = message
        self.line = line
        self.path = path


def parse(text: str, format: Format) -> Any:  # noqa: A002  the word that users know
    """The data in a text.

    Raises:
        FormatError: it is not of that format, or holds what no document may.
        ModuleNotFoundError: YAML, and PyYAML is not installed.

    """
    try:
        data, _ = _READERS[format](text)
        _check(data)
    except RecursionError:
        raise FormatError(_TOO_DEEP) from None
    except FormatError as error:
        if error.path and error.line is None:
            error.line = locate(text, format, error.path)
        raise
    except ValueError as error:  # a number of thousands of digits, a date that does not exist
        raise FormatError(str(error)) from error
    return data


def locate(text: str, format: Format, path: Path) -> int | None:  # noqa: A002  see parse
    """The line, from 1, of what stands at `path` in a text that can be read, or else of what is around it."""
    return nearest(lines(text, format), path)


def lines(text: str, format: Format) -> Lines:  # noqa: A002  see parse
    """The line, from 1, on which each part of a text stands that can be read."""
    return _toml_lines(text) if format == "toml" else _READERS[format](text)[1]


def nearest(known: Lines, path: Path) -> int | None:
    """The line of what stands at `path`, or else of what is around it; None where that is not known."""
    return next((known[path[:end]] for end in range(len(path), 0, -1) if path[:end] in known), None)


def _check(data: Any) -> None:
    """Keep the bounds, and let through only what all formats have in common."""
    met = 0
    rest: list[tuple[Path, Any]] = [((), data)]
    while rest:
        path, value = rest.pop()
        met += 1
        if not isinstance(value, _PLAIN):
            msg = f"expected text, a number, true, false, a list or a table, got a {type(value).__name__}"
            raise FormatError(msg, path=path)
        if len(path) > _DEEPEST:
            raise FormatError(_TOO_DEEP)
        if met > _MOST:
            raise FormatError(_TOO_LARGE)
        rest.extend(((*path, name), part) for name, part in _parts(value))


def _parts(value: Any) -> Iterable[tuple[str | int, Any]]:
    """The members of a table or of a list, by name or number."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value).items()
    return enumerate(cast("Sequence[Any]", value)) if isinstance(value, list) else ()


# TOML


def _toml(text: str) -> tuple[Any, Lines]:
    try:
        return tomllib.loads(text), {}
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = _AT.search(message)
        line = int(at[1]) if at and at[1] else text.count("\n") + 1
        raise FormatError(_AT.sub("", message), line) from error


def _toml_lines(text: str) -> Lines:
    """The parser knows no positions, but it can tell where a statement ends: there it parses."""
    found: Lines = {}
    table: Path = ()
    statement, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        start = start if statement else number
        statement += line + "\n"
        try:
            parsed = tomllib.loads(statement)
        except ValueError:
            if number - start > _LONGEST:  # trying again with each line takes quadratic time
                break
            continue
        if statement.lstrip().startswith("["):
            table = _named(parsed)
            parsed = {}
        _note(found, table, parsed, start)
        statement = ""
    return found


def _named(header: Any) -> Path:
    """The path that a header like `[policies."a.b".retry]` names."""
    path: Path = ()
    while header:
        ((name, inside),) = _parts(header)
        path = (*path, name)
        header = cast("Any", inside)[0] if isinstance(inside, list) else inside  # the tables of an array share a path
    return path


def _note(found: Lines, path: Path, value: Any, line: int) -> None:
    """Everything in a value stands on its line."""
    found.setdefault(path, line)
    if len(path) < _DEEPEST:
        for name, part in _parts(value):
            _note(found, (*path, name), part, line)


# JSON


def _json(text: str) -> tuple[Any, Lines]:
    reader = _Json(text)
    try:
        data, end = reader.value(0, ())
        if _SPACE.match(text, end).end() < len(text):  # type: ignore[union-attr]  # it always matches
            reader.fail("expected the end of the document", end)
    except json.JSONDecodeError as error:
        raise FormatError(error.msg, error.lineno) from error
    return data, reader.lines


_read_text: Final[Callable[[str, int], tuple[str, int]]] = scanstring  # pyright: ignore[reportUnknownVariableType]


class _Json:
    """A walk over a text with the decoder of the standard library, which by itself knows neither positions nor doublets."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: Lines = {}
        self._decoder = json.JSONDecoder()
        self._breaks = [match.start() for match in re.finditer("\n", text)]

    def value(self, at: int, path: Path) -> tuple[Any, int]:
        """The value that begins at `at`, and where it ends."""
        at = self._skip(at)
        self.lines.setdefault(path, self._line(at))
        opener = self.text[at : at + 1]
        if opener == "{":
            return self._object(at, path)
        return self._array(at, path) if opener == "[" else self._decoder.raw_decode(self.text, at)

    def fail(self, message: str, at: int, path: Path = ()) -> NoReturn:
        raise FormatError(message, self._line(self._skip(at)), path)

    def _object(self, at: int, path: Path) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = self._skip(at + 1)
        while self.text[at : at + 1] != "}" or found:
            if self.text[at : at + 1] != '"':
                self.fail("expected a name in double quotes", at, path)
            name, end = _read_text(self.text, at + 1)
            if name in found:
                self.fail("it is there twice", at, (*path, name))
            self.lines[*path, name] = self._line(at)
            end = self._skip(end)
            if self.text[end : end + 1] != ":":
                self.fail("expected a colon", end, (*path, name))
            found[name], end = self.value(end + 1, (*path, name))
            at, is_last = self._next(end, "}", path)
            if is_last:
                return found, at
        return found, at + 1

    def _array(self, at: int, path: Path) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = self._skip(at + 1)
        while self.text[at : at + 1] != "]" or found:
            value, end = self.value(at, (*path, len(found)))
            found.append(value)
            at, is_last = self._next(end, "]", path)
            if is_last:
                return found, at
        return found, at + 1

    def _next(self, at: int, closer: str, path: Path) -> tuple[int, bool]:
        """Where the next member begins; or where all of them end, and True."""
        at = self._skip(at)
        char = self.text[at : at + 1]
        if char not in {",", closer}:
            self.fail(f"expected a comma or {closer}", at, path)
        return (at + 1, True) if char == closer else (self._skip(at + 1), False)

    def _skip(self, at: int) -> int:
        return _SPACE.match(self.text, at).end()  # type: ignore[union-attr]  # it always matches

    def _line(self, at: int) -> int:
        return bisect.bisect_left(self._breaks, at) + 1


# YAML


def _yaml(text: str) -> tuple[Any, Lines]:
    try:
        import yaml  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        msg = "YAML documents need PyYAML: pip install 'resilient-anyio[config]'"
        raise ModuleNotFoundError(msg, name="yaml") from error
    try:
        reader = _Yaml(text, yaml)
        return reader.read(), reader.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = ", ".join(filter(None, (error.context, error.problem)))
        raise FormatError(message, None if mark is None else mark.line + 1) from error
    except yaml.YAMLError as error:  # a character that no text may hold
        raise FormatError(" ".join(str(error).split())) from error


class _Yaml:
    """A walk over the nodes of a text. The safe loader makes the scalars; what an alias repeats is made once."""

    def __init__(self, text: str, yaml: Any) -> None:
        self.lines: Lines = {}
        self._yaml = yaml
        self._loader = yaml.SafeLoader(text)
        self._made: dict[Any, Any] = {}

    def read(self) -> Any:
        node = self._loader.get_single_node()
        return None if node is None else self._value(node, ())

    def _value(self, node: Any, path: Path) -> Any:
        self.lines.setdefault(path, _line_of(node))
        if node not in self._made:
            self._made[node] = self._make(node, path)
        return self._made[node]

    def _make(self, node: Any, path: Path) -> Any:
        if isinstance(node, self._yaml.MappingNode) and node.tag == _MAP:
            return self._mapping(node, path)
        if isinstance(node, self._yaml.SequenceNode) and node.tag == _SEQ:
            return [self._value(part, (*path, index)) for index, part in enumerate(node.value)]
        if isinstance(node, self._yaml.ScalarNode) and node.tag in {
            _STR,
            self._loader.resolve(type(node), node.value, (True, False)),
        }:
            return self._loader.construct_object(node)
        msg = f"the tag {node.tag!r} is not taken here: leave it out"
        raise FormatError(msg, _line_of(node), path)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, part in node.value:
            if key.tag == _MERGE:  # made of what is made already, so that merging merges cannot blow up
                merged = self._merged(part, path) | merged
                continue
            name = self._name(key, path)
            if name in own:
                raise FormatError("it is there twice", _line_of(key), (*path, name))
            self.lines.setdefault((*path, name), _line_of(key))
            own[name] = self._value(part, (*path, name))
        return merged | own

    def _name(self, key: Any, path: Path) -> str:
        name = self._make(key, path) if isinstance(key, self._yaml.ScalarNode) else None
        if not isinstance(name, str):
            shown = f"the name {key.value!r}" if isinstance(key.value, str) else "a name"
            msg = f"{shown} is not text here: write it in quotes"
            raise FormatError(msg, _line_of(key), path)
        return name

    def _merged(self, node: Any, path: Path) -> dict[str, Any]:
        """What `<<` brings in; of several the first one wins."""
        made = self._value(node, (*path, "<<"))
        found: dict[str, Any] = {}
        for source in cast("Any", made) if isinstance(made, list) else (made,):
            if not isinstance(source, dict):
                raise FormatError("expected a table, or a list of tables", _line_of(node), (*path, "<<"))
            found = cast("dict[str, Any]", source) | found
        return found


def _line_of(node: Any) -> int:
    line: int = node.start_mark.line
    return line + 1


_MAP: Final = "tag:yaml.org,2002:map"
_SEQ: Final = "tag:yaml.org,2002:seq"
_STR: Final = "tag:yaml.org,2002:str"
_MERGE: Final = "tag:yaml.org,2002:merge"

_READERS: Final[dict[Format, Callable[[str], tuple[Any, Lines]]]] = {"toml": _toml, "yaml": _yaml, "json": _json}
