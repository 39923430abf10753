"""`resilient check`, `resilient schema`, and what all commands share."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from resilient.cli import documents, main
from resilient.errors import InvalidPolicy, Problem
from resilient.policy.schema import Policy

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "docs" / "example-policies.toml")
MISTAKES = Path(__file__).parent / "ten-mistakes.toml"

GOOD = '[policies."user-service.GetUser"]\npreset = "http"\n'
WARNS = '[policies."user-service.GetUser"]\nretry = { attempts = 100, timeout = 10, budget = {} }\n'
WRONG = '[policies."user-service.GetUser"]\ntimeout = "soon"\n'


def write(folder: Path, text: str | bytes, name: str = "policies.toml") -> str:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


# Documents


def test_the_example_of_the_docs_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to say but that it was looked at."""
    assert main(["check", "--strict", EXAMPLE]) == 0
    assert capsys.readouterr() == ("1 file checked: nothing found\n", "")


def test_ten_mistakes_are_told_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    """What is invalid, what is clamped, and what lint finds in the policies that are valid by themselves; with their lines."""
    assert main(["check", str(MISTAKES)]) == 1

    told = capsys.readouterr().out.replace(f"{MISTAKES}:", "").splitlines()
    findings = [line.split(": ", 2)[:2] for line in told[:-1] if not line.startswith("    ")]
    assert findings == [
        ["4", "error invalid version"],
        ["16", 'error invalid policies."user-service.GetUser".timeout'],
        ["20", 'error invalid policies."user-service.GetUser".retry.atempts'],
        ["23", 'error invalid policies."user-service.GetUser".retry.backoff.jitter'],
        ["33", 'error invalid policies."user-service.GetUser".rate_limit.kind'],
        ["42", 'error invalid policies."user-service.GetUser".circuit_breaker.minimum_calls'],
        ["61", 'error invalid policies."orders-db.FindOrder".throttling'],
        ["68", 'error hedge-beyond-timeout policies."recommendations.ForUser".hedge'],
        ["9", "warning clamped default.timeout"],
        ["84", 'warning no-time-to-retry policies."mail.Send".timeout > retry'],
        ["84", 'note attempts-beyond-timeout policies."mail.Send".timeout > retry'],  # follows from the one before
    ]
    assert MISTAKES.read_text().count("# mistake") == 10
    assert told[-1] == "1 file checked: 8 errors, 2 warnings, 1 note"


def codes(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is found, without messages and without what is invalid."""
    name = write(tmp_path, text)
    main(["check", name])
    told = capsys.readouterr().out.removeprefix(name).split(f"\n{name}")
    return [one.split(": ")[1] for one in told if one.startswith(":") and " error invalid " not in one]


def test_a_policy_with_mistakes_is_looked_at_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is told of the rest is true whatever takes their place."""
    text = """
[default]
attempt_timeout = "500ms"
bulkhead = {}
circuit_breaker = { slow_call = "2s" }
hedge = { delay = "1s" }
throttel = {}

[default.retry]
attempts = 100
jitter = "full"
backoff = { initial = "x" }
"""

    hedge = "error hedge-beyond-timeout default.hedge"
    slow = "warning slow-call-unreachable default.circuit_breaker"
    clamped = "warning clamped default.retry.attempts"
    assert codes(text, tmp_path, capsys) == [hedge, slow, clamped]
    assert codes(text.replace("500ms", "500 mm"), tmp_path, capsys) == [clamped]
    assert codes(text.replace("hedge = {", "timeout = 'x'\nhedge = {"), tmp_path, capsys) == [hedge, clamped]
    assert codes(text.replace('"1s"', '"1s", max_hedges = "two"'), tmp_path, capsys) == [slow, clamped]


def test_a_name_that_is_nearly_that_of_a_built_in_thing_is_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The executor may know it all the same; of other names nothing can be said, and built-in ones are good."""
    text = """
[default]
classifier = "htpp"
retry = { budget = "unlimitd" }
hedge = { trigger = "p999", budget = { name = "unlimitd" } }

[policies."a.b"]
classifier = "mine"
retry = { budget = "shared" }
hedge = { trigger = "p99", budget = "unlimited" }
"""

    assert codes(text, tmp_path, capsys) == [
        "note looks-built-in default.classifier",
        "note looks-built-in default.retry.budget",
        "note looks-built-in default.hedge.trigger",
        "note looks-built-in default.hedge.budget",
    ]
    main(["check", str(tmp_path / "policies.toml")])
    assert (
        "note looks-built-in default.classifier: no classifier 'htpp' is built in; did you mean 'http'?\n"
        "    Register it with the executor, unless the built-in one is meant.\n"
    ) in capsys.readouterr().out


def test_mistakes_that_cannot_be_left_out_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a path leads nowhere there is no way but to leave out everything."""

    def judge(table: object, **_: object) -> Policy:
        if table:
            raise InvalidPolicy((Problem(path, "wrong"),))
        return Policy()

    monkeypatch.setattr(documents, "policy_from_document", judge)
    for path in ((), ("somewhere", "else")):
        assert documents.without_mistakes({"timeout": 1}) == (Policy(), frozenset({path}))


def test_a_finding_has_its_place_and_its_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is wrong, the line below what to do."""
    name = write(tmp_path, WARNS)

    assert main(["check", name]) == 0
    assert capsys.readouterr().out == (
        f'{name}:2: warning clamped policies."user-service.GetUser".retry.attempts: 100 is out of bounds and is brought into '
        "them when the document is read.\n"
        "    Give 1 to 10 (how many in total).\n"
        "1 file checked: 1 warning\n"
    )


def test_warnings_fail_where_that_is_asked_for(tmp_path: Path) -> None:
    """Notes never do."""
    note = '[default.retry]\nattempts = 4\n[default.circuit_breaker]\n[policies."a.b"]\npreset = "http"\n'

    assert main(["check", "--strict", write(tmp_path, WARNS)]) == 1
    assert main(["check", "--strict", write(tmp_path, note)]) == 0


def test_a_pair_of_values_that_the_preset_brings_into_bounds_has_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the document does not say itself is told on the line of what is around."""
    main(["check", write(tmp_path, '[default]\npreset = "http"\n[default.retry.backoff]\ninitial = 20\n')])

    told = capsys.readouterr().out
    assert ":3: warning clamped default.retry.backoff.maximum: it is out of bounds" in told
    assert "Give 0.001 to 30 s (the longest wait; not below `initial` or `delay`)." in told


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.toml", "", ": error invalid: the file is empty: expected policies by key, or a default"),
        ("a.json", " \n", ": error invalid: the file is empty: expected policies by key, or a default"),
        ("a.toml", "version = 1", ": error invalid: it holds no policy: expected policies by key, or a default"),
        ("a.toml", "x = [1,\n\ny", ":3: error invalid: not TOML: "),
        ("a.json", '{"policies": {},\n}', ":2: error invalid: not JSON: expected a name in double quotes"),
        ("a.yml", "policies:\n  a: &x [*x", ":2: error invalid: not YAML: "),
        ("a.toml", b"\n\xff", ":2: error invalid: the text is not UTF-8"),
        ("a.JSON", "[1]", ": error invalid: expected a table, got a list"),
        ("a.json", '{"policies": [1], "default": null}', "error invalid policies: expected a table, got a list"),
        ("a.toml", "#" * 1_000_001, ": error invalid: too large: more than 1000000 bytes"),
        ("a.py", "def f(:\n", ":1: error invalid: not Python: "),
    ],
)
def test_what_is_no_document_is_told_in_one_line(
    name: str, text: str | bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is: empty, of another format, too large, not text. It is an error with status 1, and no traceback."""
    assert main(["check", write(tmp_path, text, name)]) == 1
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.toml", "missing.toml: cannot be read: No such file or directory\n"),
        ("missing.py", "missing.py: cannot be read: No such file or directory\n"),
        ("null\0.toml", "cannot be read: embedded null byte\n"),
        ("folder", "folder: this is a directory; name the files in it\n"),
        ("notes.txt", "notes.txt: the name does not tell what it is; a document ends in .toml, .yaml, .yml, .json\n"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(
    name: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, with status 2. The other files are looked at all the same."""
    (tmp_path / "folder").mkdir()
    write(tmp_path, "hello", "notes.txt")
    wrong = write(tmp_path, WRONG)

    assert main(["check", str(tmp_path / name), wrong]) == 2

    captured = capsys.readouterr()
    assert captured.err.startswith("resilient check: ")
    assert captured.err.endswith(told)
    assert captured.out.endswith("1 file checked: 1 error\n")
    assert main(["check", str(tmp_path / name)]) == 2
    assert capsys.readouterr().out == ""


def test_errors_of_all_files_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then in the order of the files and of their lines; source code is looked at as well."""
    code = "from resilient import Bulkhead\nasync def fetch():\n    async with Bulkhead(10): ...\n"
    names = [write(tmp_path, WARNS, "a.toml"), write(tmp_path, code, "b.py"), write(tmp_path, WRONG, "c.toml")]

    assert main(["check", *names]) == 1

    told = capsys.readouterr().out.replace(f"{tmp_path}/", "")
    starts = [line.partition(":")[0] for line in told.splitlines() if not line.startswith("    ")]
    assert starts == ["c.toml", "a.toml", "b.py", "3 files checked"]
    assert "b.py:3: warning constructed-per-call fetch: This Bulkhead is made anew for each call of fetch()" in told


def test_findings_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For other programs: the same, and nothing else."""
    name, missing = write(tmp_path, WRONG), str(tmp_path / "missing.toml")

    assert main(["check", "--json", name, missing]) == 2

    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "version": 1,
        "errors": 1,
        "warnings": 0,
        "notes": 0,
        "findings": [
            {
                "file": name,
                "line": 2,
                "severity": "error",
                "code": "invalid",
                "path": 'policies."user-service.GetUser".timeout',
                "message": "'soon': expected seconds as a number, or a text like '250ms', '1.5s', '2m', '1h'",
                "mend": "",
            }
        ],
        "unreadable": [f"{missing}: cannot be read: No such file or directory"],
    }


@pytest.mark.parametrize(
    "command", [["check", "a.toml"], ["explain", "a.toml"], ["get", "http://a", "--policy", "a.toml"], ["schema"]]
)
def test_without_pydantic_the_command_to_install_it_is_shown(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Source code can be checked all the same."""
    forget_documents(monkeypatch)
    monkeypatch.setitem(sys.modules, "pydantic", None)

    assert main(command) == 2
    assert "documents of policies need pydantic: pip install 'resilient-anyio[config]'\n" in capsys.readouterr().err
    assert main(["check", __file__]) == 0


def test_without_pyyaml_the_command_to_install_it_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other formats need nothing more."""
    monkeypatch.setitem(sys.modules, "yaml", None)

    assert main(["check", write(tmp_path, "default: {}", "a.yaml"), write(tmp_path, GOOD)]) == 2
    assert capsys.readouterr() == (
        "1 file checked: nothing found\n",
        "resilient check: YAML documents need PyYAML: pip install 'resilient-anyio[config]'\n",
    )


def forget_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the modules that need pydantic be imported anew."""
    for name in [name for name in sys.modules if name.startswith("resilient.policy.")]:
        if name.endswith(".document") or ".providers.file" in name or ".providers.snapshot" in name:
            monkeypatch.delitem(sys.modules, name)


# Schema


def test_the_schema_is_that_of_documents(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, and nothing else."""
    from resilient.policy.document import document_schema  # noqa: PLC0415  it needs an extra

    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == document_schema()


# What all commands share


@pytest.mark.parametrize("command", ["check", "explain", "schema", "get"])
def test_every_command_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In less than a screen."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert told.startswith(f"usage: resilient {command}")
    assert len(told.splitlines()) < 25


@pytest.mark.parametrize("tells", ["status", "nothing"])
def test_a_reader_that_has_seen_enough_ends_it_quietly(
    tells: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `| head` does: no traceback, neither at once nor when the rest is flushed at exit."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        if tells == "nothing":
            monkeypatch.setattr(sys, "stdout", Bare(pipe.fileno()))

        status = main(["schema"])

    assert status == 141
    assert capsys.readouterr().err == ""


class Bare:
    """A stream that somebody put in the place of standard output: it can write, and not much else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        return os.write(self._descriptor, text.encode())

    def flush(self) -> None: ...

    def fileno(self) -> int:
        return self._descriptor


def test_it_ends_quietly_as_a_process_too() -> None:
    """The only test with a shell of its own."""
    command = f"{shlex.quote(sys.executable)} -m resilient schema | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: S602  our own words

    assert (done.stdout, done.stderr) == ("{\n", "")


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_terminal_gets_colours(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Square brackets in a document are no markup."""
    on_a_terminal(monkeypatch)

    main(["check", write(tmp_path, '[policies."[red]"]\ntimeout = "[b]"\n')])

    told = capsys.readouterr().out
    assert "\x1b[31merror\x1b[0m" in told
    assert "[red]" in told
    assert "'[b]'" in told


@pytest.mark.parametrize("plain", ["NO_COLOR", "no rich"])
def test_colours_can_be_had_without(
    plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`NO_COLOR` is respected, and without rich there is plain text."""
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    if plain == "no rich":
        monkeypatch.setitem(sys.modules, "rich.console", None)

    assert main(["check", write(tmp_path, WRONG)]) == 1

    told = capsys.readouterr().out
    assert "\x1b[3" not in told
    assert "error" in told
