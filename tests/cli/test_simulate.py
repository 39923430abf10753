"""`resilient simulate`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from resilient.cli import main
from resilient.cli import simulate as command
from resilient.simulation import load_scenario
from resilient.simulation.report import report

SCENARIO = """
title = "Small"
seconds = 8
warm_up = 0
claims = ["shy.amplification <= bold.amplification"]
services = [{ workers = 2 }]
clients = [{ rate = 5, patience = 0.5 }]
conditions = [{ on = "service", begin = 2, end = 4, hangs = 1 }]

[policies.bold.retry]
attempts = 3

[policies.shy]
"""


def _counted(_: object, sweeps: Sequence[object]) -> str:
    """In place of a report, which takes a while."""
    return f"{len(sweeps)} sweep"


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text(SCENARIO, "utf-8")
    return str(file)


@pytest.fixture
def document(tmp_path: Path) -> str:
    file = tmp_path / "policies.toml"
    file.write_text('[default]\npreset = "http"\n[policies."api.Get"]\nattempt_timeout = 1\n', "utf-8")
    return str(file)


def test_a_scenario_compares_its_own_policies(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its claims are verified."""
    assert main(["simulate", "--scenario", scenario, "--seeds", "1"]) == 0

    out = capsys.readouterr().out
    assert out.startswith("Small\n8 s of virtual time\n")
    assert "goodput_during" in out
    assert "holds  shy.amplification <= bold.amplification" in out


def test_a_policy_is_compared_with_others(scenario: str, document: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Presets, policies of the scenario, of files, and none at all; those of a file by their keys."""
    names = [
        "http",
        "--against",
        "bold",
        "--against",
        "none",
        "--against",
        f"{document}:api.Get",
        "--against",
        f"{document}:default",
    ]

    assert main(["simulate", *names, "--scenario", scenario, "--seeds", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[3].split() == ["http", "bold", "none", "api.Get", "default"]


def test_two_policies_of_the_same_key_are_told_apart(
    scenario: str, document: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a comparison of the old file with the new one: each has the name by which it was asked for, in claims, too."""
    other = tmp_path / "new.toml"
    other.write_text(Path(document).read_text("utf-8").replace("attempt_timeout = 1", "timeout = 0.001"), "utf-8")
    names = [f"{document}:api.Get", f"{other}:api.Get"]
    arguments = ["simulate", names[0], "--against", names[1], "--scenario", scenario, "--seeds", "1"]

    assert main([*arguments, "--assert", f"goodput > 2 * {names[1]}.goodput", "--assert", f"{names[1]}.goodput < .1"]) == 0
    assert capsys.readouterr().out.splitlines()[3].split() == names


def test_another_policy_may_stand_beside_those_of_the_scenario(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its claims are verified all the same."""
    assert main(["simulate", "--against", "http", "--scenario", scenario, "--seeds", "1"]) == 0

    out = capsys.readouterr().out
    assert out.splitlines()[3].split() == ["bold", "shy", "http"]
    assert "holds  shy.amplification" in out


def test_assertions_give_the_exit_status(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For a gate in CI."""
    arguments = ["simulate", "bold", "--scenario", scenario, "--seeds", "2", "--assert", "goodput_before >= 0.9", "--assert"]

    assert main([*arguments, "recovery <= 5"]) == 0
    assert main([*arguments, "goodput >= 1"]) == 1
    assert "(least – greatest)" in capsys.readouterr().out


def test_a_result_can_be_had_as_json(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else."""
    assert main(["simulate", "bold", "--scenario", scenario, "--seeds", "1", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["policies"]) == ["bold"]


def test_a_report_is_written(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sweep, where that is asked for."""
    monkeypatch.setattr(command, "_plots", lambda: _counted)
    page = tmp_path / "reports" / "out.html"

    assert main(["simulate", "shy", "--scenario", scenario, "--seeds", "1", "--sweep", "--report", str(page)]) == 0
    assert page.read_text("utf-8") == "1 sweep"
    assert "shy: collapses at" in (out := capsys.readouterr().out)
    assert f"the report is in {page}" in out


def test_the_gallery_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """With what each scenario shows, and what claims can name."""
    assert main(["simulate", "--list"]) == 0

    out = capsys.readouterr().out
    assert "retry-storm  Retry storm: a metastable failure" in out
    assert "policies: none, naive, budget, breaker, both" in out
    assert "p999" in out


def test_all_reports_of_the_gallery_are_written(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By one command; its exit status tells whether all claims hold."""
    small = load_scenario(scenario)
    monkeypatch.setattr(command, "_plots", lambda: _counted)
    monkeypatch.setattr(command, "gallery", lambda: {"a": small, "b": small.replace(name="b", claims=("shy.goodput > 1",))})

    assert main(["simulate", "--gallery", str(tmp_path / "g"), "--seeds", "1"]) == 1
    assert sorted(file.name for file in (tmp_path / "g").iterdir()) == ["b.html", "small.html"]
    out = capsys.readouterr().out
    assert "small.html: 1 of 1 claims hold" in out
    assert "b.html: 0 of 1 claims hold\n  FAILS  shy.goodput > 1   (found:" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--scenario is missing: name one, e.g. --scenario retry-storm"),
        (["naive", "--scenario", "retry-storm", "--assert", "?"], "'?' is no claim"),
        (["--scenario", "retry-strom"], "there is no such scenario; did you mean 'retry-storm'?"),
        (["--scenario", "{tmp}/absent.toml"], "No such file"),
        (["--scenario", "{tmp}/bad.toml"], "secconds: unknown"),
        (["htpp", "--scenario", "{tmp}/small.toml"], "'htpp' is no policy"),
        (["{tmp}/policies.toml", "--scenario", "{tmp}/small.toml"], "which policy? Say"),
        (["{tmp}/bad.toml", "--scenario", "{tmp}/small.toml"], "`resilient check"),
        (["bold", "--scenario", "{tmp}/small.toml", "--assert", "nonsense"], "'nonsense' is no claim"),
        (["bold", "--scenario", "{tmp}/small.toml", "--seeds", "0"], "--seeds 0 is out of range: expected a whole number of at"),
        (["bold", "--scenario", "{tmp}/small.toml", "--report", "{tmp}"], "it is a folder; name a file in it, e.g."),
        (["bold", "--scenario", "{tmp}/small.toml", "--report", "{tmp}/small.toml/x.html"], "small.toml is no folder"),
        (["bold", "--scenario", "{tmp}/small.toml", "--seeds", "1", "--report", "/dev/full"], "/dev/full: cannot be written: "),
        (["bold", "--against", "bold", "--scenario", "{tmp}/small.toml"], "'bold' is named twice"),
        (["", "--scenario", "{tmp}/small.toml"], "'' is no policy"),
        (["--scenario", "{tmp}/empty.toml"], "scenario 'empty' has no policies of its own: name one"),
        (["http", "--gallery", "{tmp}/g"], "leave out POLICY and --scenario"),
    ],
)
@pytest.mark.usefixtures("scenario", "document")
def test_a_mistake_is_told_in_a_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 2."""
    monkeypatch.setattr(command, "_plots", lambda: _counted)
    (tmp_path / "bad.toml").write_text("secconds = 3", "utf-8")
    (tmp_path / "empty.toml").touch()

    assert main(["simulate", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err


def test_a_single_policy_of_a_file_needs_no_key(scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no other one."""
    file = tmp_path / "one.toml"
    file.write_text("[default]\nattempt_timeout = 1\n", "utf-8")

    assert main(["simulate", str(file), "--scenario", scenario, "--seeds", "1"]) == 0
    assert "default" in capsys.readouterr().out


def test_a_missing_extra_is_named(scenario: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any work is done."""
    for module in [
        name
        for name in sys.modules
        if name.startswith(("matplotlib", "resilient.simulation.report", "resilient.simulation.plots"))
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    assert main(["simulate", "--scenario", scenario, "--report", "out.html"]) == 2
    assert 'pip install "resilient-anyio[simulate]"' in capsys.readouterr().err


class Tty:
    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def test_reports_are_drawn_by_the_simulator() -> None:
    """The other tests of the command count them instead: drawing takes long."""
    made: Any = vars(command)["_plots"]()  # what the others replace

    assert made is report


@pytest.mark.parametrize("with_rich", [True, False])
def test_a_terminal_shows_progress(with_rich: bool, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001  a row of the table
    """Where rich is installed."""
    shares: list[float | None] = []

    class Progress:
        def __init__(self, **_: Any) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def add_task(self, what: str, total: float) -> int:
            return 0

        def update(self, task: int, completed: float) -> None:
            shares.append(completed)

    monkeypatch.setattr(sys, "stderr", Tty())
    if with_rich:
        monkeypatch.setattr("rich.progress.Progress", Progress)
    else:
        monkeypatch.setitem(sys.modules, "rich.progress", None)

    assert main(["simulate", "bold", "--scenario", scenario, "--seeds", "1", "--json"]) == 0
    assert bool(shares) is with_rich
