"""From text to plain data: what stands twice is found, hostile texts are bounded, and each part knows its line."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.policy.formats import Format, FormatError, Path, lines, locate, parse

SAME: dict[Format, str] = {
    "toml": 'version = 1\n[policies."a.b"]\ntimeout = "2s"\n[policies."a.b".retry]\nattempts = 3\nwaits = [1,\n 2.5]\n',
    "yaml": 'version: 1\npolicies:\n  a.b:\n    timeout: "2s"\n    retry:\n      attempts: 3\n      waits: [1, 2.5]\n',
    "json": '{"version": 1,\n "policies": {\n"a.b": {"timeout": "2s",\n"retry":\n{"attempts": 3, "waits": [1, 2.5]}}}}\n',
}


@pytest.mark.parametrize("text", SAME.items(), ids=SAME)
def test_the_formats_say_the_same(text: tuple[Format, str]) -> None:
    """One document, three spellings."""
    data = parse(text[1], text[0])

    assert data == {"version": 1, "policies": {"a.b": {"timeout": "2s", "retry": {"attempts": 3, "waits": [1, 2.5]}}}}


@pytest.mark.parametrize(
    ("format", "path", "line"),
    [
        ("toml", ("version",), 1),
        ("toml", ("policies", "a.b"), 2),
        ("toml", ("policies", "a.b", "retry", "attempts"), 5),
        ("toml", ("policies", "a.b", "retry", "waits", 1), 6),
        ("toml", ("policies", "a.b", "retry", "unheard", "of"), 4),
        ("yaml", ("policies", "a.b", "retry"), 5),
        ("yaml", ("policies", "a.b", "retry", "waits", 0), 7),
        ("yaml", ("policies", "a.b", "unheard"), 3),
        ("json", ("policies", "a.b"), 3),
        ("json", ("policies", "a.b", "retry"), 4),
        ("json", ("policies", "a.b", "retry", "waits", 1), 5),
        ("json", ("unheard",), None),
        ("json", (), None),
    ],
)
def test_each_part_knows_its_line(format: Format, path: Path, line: int | None) -> None:  # noqa: A002  as in the library
    """What is not there has the line of what is around it; the document itself has none."""
    assert locate(SAME[format], format, path) == line


BAD: list[tuple[Format, str, str, int | None, Path]] = [
    ("json", '{"a": 1,\n"a": 2}', "it is there twice", 2, ("a",)),
    ("json", '{"a": {"b": 1,\n\n"b": 2}}', "it is there twice", 3, ("a", "b")),
    ("json", '{"a": 1,\n}', "expected a name in double quotes", 2, ()),
    ("json", "{", "expected a name in double quotes", 1, ()),
    ("json", '{"a" 1}', "expected a colon", 1, ("a",)),
    ("json", "[1 2]", "expected a comma or ]", 1, ()),
    ("json", '{"a": 1\n"b": 2}', "expected a comma or }", 2, ()),
    ("json", "{}\n{}", "expected the end of the document", 2, ()),
    ("json", "", "Expecting value", 1, ()),
    ("json", '{"a', "Unterminated string", 1, ()),
    ("json", '{"a": tru}', "Expecting value", 1, ()),
    ("json", "[" * 100_000, "nested too deeply", None, ()),
    ("json", '{"a":' * 30 + "1" + "}" * 30, "nested too deeply", None, ()),
    ("json", '{"a": ' + "9" * 5000 + "}", "4300 digits", None, ()),
    ("json", "[" + "0," * 100_000 + "0]", "too large", None, ()),
    ("toml", "a = 1\na = 2", "Cannot overwrite a value", 2, ()),
    ("toml", "[a]\n[a]", "Cannot declare", 2, ()),
    ("toml", "\na = [", "Invalid value", 2, ()),
    ("toml", "x = 1\na = 2020-01-01", "got a date", 2, ("a",)),
    ("toml", "a." * 30 + "b = 1", "nested too deeply", None, ()),
    ("toml", "a." * 3000 + "b = 1", "nested too deeply", None, ()),
    ("yaml", "a: 1\na: 2", "it is there twice", 2, ("a",)),
    ("yaml", "retry:\n  on: 1", "the name 'on' is not text here: write it in quotes", 2, ("retry",)),
    ("yaml", "? [a]\n: 1", "a name is not text here", 1, ()),
    ("yaml", "a: !!python/object/apply:os.system [x]", "is not taken here", 1, ("a",)),
    ("yaml", "a: !!timestamp x", "is not taken here", 1, ("a",)),
    ("yaml", "a: !own {}", "is not taken here", 1, ("a",)),
    ("yaml", "\na: 2020-01-01", "got a date", 2, ("a",)),
    ("yaml", "a: 2020-99-99", "month must be in 1..12", None, ()),
    ("yaml", "a: {", "expected the node content", 1, ()),
    ("yaml", "a: 1\n--- \nb: 2", "expected a single document", 2, ()),
    ("yaml", "\x00", "unacceptable character", None, ()),
    ("yaml", "&a [*a]", "nested too deeply", None, ()),
    ("yaml", "a:\n  <<: 1", "expected a table, or a list of tables", 2, ("a", "<<")),
]


@pytest.mark.parametrize(("format", "text", "message", "line", "path"), BAD)
def test_what_is_not_of_its_format_is_told_with_its_place(
    format: Format,  # noqa: A002  as in the library
    text: str,
    message: str,
    line: int | None,
    path: Path,
) -> None:
    """Doublets, other types than all formats have, ends that are missing, depth without end."""
    with pytest.raises(FormatError) as caught:
        parse(text, format)

    assert message in caught.value.message
    assert (caught.value.line, caught.value.path) == (line, path)


def test_aliases_cannot_blow_a_text_up() -> None:
    """Nine lines that stand for a thousand million values, by aliases or by merging, end in an error or are small."""
    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + depth)}: &{chr(98 + depth)} [{','.join(['*' + chr(97 + depth)] * 10)}]\n" for depth in range(9)
    )
    merges = "a: &a {x: 1}\n" + "".join(
        f"{chr(98 + depth)}: &{chr(98 + depth)}\n  <<: [{','.join(['*' + chr(97 + depth)] * 10)}]\n" for depth in range(9)
    )

    with pytest.raises(FormatError, match="too large"):
        parse(laughs, "yaml")
    assert parse(merges, "yaml")["j"] == {"x": 1}


def test_yaml_merges_what_is_shared() -> None:
    """What a table says itself wins, then the first of those that it is merged with."""
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\nd: {<<: *b}\n"

    data = parse(text, "yaml")

    assert data["c"] == {"x": 3, "y": 1, "z": 2}
    assert data["d"] == {"y": 2, "z": 2}


def test_lines_of_toml_survive_texts_and_lists_over_many_lines() -> None:
    """A line that looks like a header inside of a text is none. The tables of an array share one line."""
    text = 'a = """\n[x]\n"""\n[x]\nb = 1\n[[c]]\nd = 1\n[[c]]\nd = 2\n'

    known = lines(text, "toml")

    assert (known["x",], known["x", "b"], known["c",], known["c", "d"]) == (4, 5, 6, 7)


def test_lines_of_toml_stop_at_a_statement_without_end() -> None:
    """Looking for its end would take quadratic time; what came before has its lines."""
    text = "a = 1\nb = [\n" + "1,\n" * 200 + "]\nc = 2\n"

    known = lines(text, "toml")

    assert known == {(): 1, ("a",): 1}
    assert max(len(path) for path in lines("a." * 3000 + "b = 1", "toml")) == 20


def test_without_pyyaml_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML is an extra."""
    monkeypatch.setitem(sys.modules, "yaml", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resilient-anyio\[config\]'"):
        parse("a: 1", "yaml")


@given(st.text(alphabet='{}[]":,=.\n \\ab01-e&*<#!|>\x00é', max_size=60), st.sampled_from(["toml", "yaml", "json"]))
def test_no_text_makes_a_reader_crash(text: str, format: Any) -> None:  # noqa: A002  as in the library
    """It is data of plain types, or a `FormatError`."""
    try:
        data = parse(text, format)
    except FormatError:
        return

    assert isinstance(data, (dict, list, str, int, float, type(None)))
    assert lines(text, format) is not None
