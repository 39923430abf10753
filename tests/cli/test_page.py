"""The page of the command line shows what it really prints."""

import re
import shutil
from pathlib import Path

import pytest

from resilient.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text()

_RUNS = re.findall(r"^```text\n\$ resilient ((?:check|explain) .*)\n((?:.*\n)*?)```$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("command", "shown"), _RUNS, ids=[command for command, _ in _RUNS])
def test_the_output_on_the_page_is_what_the_command_prints(
    command: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files that stand on the page; `...` stands for the rest."""
    (tmp_path / "policies.toml").write_text(PAGE.split("```toml\n")[1].split("```")[0])
    (tmp_path / "service.py").write_text("import httpx" + PAGE.split("import httpx")[1].split("```")[0])
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "example-policies.toml", tmp_path / "docs")
    monkeypatch.chdir(tmp_path)

    main(command.split())

    whole, _, _ = shown.partition("...\n")
    assert capsys.readouterr().out[: len(whole)] == whole


def test_the_page_shows_both_commands() -> None:
    """The pattern above has found them."""
    assert {command.split()[0] for command, _ in _RUNS} == {"check", "explain"}
