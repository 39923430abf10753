"""The command line, and the figures that the demo promises."""

import contextlib
import json
import logging
import math
import random
import sys
from collections.abc import Awaitable, Callable

import anyio
import pytest

from resilient import clock
from resilient.cli import demo, main, show
from resilient.cli.demo import Pace
from resilient.cli.figures import Call, Figures, Phase, Result, State
from resilient.cli.flaky_server import deck
from resilient.cli.report import report
from resilient.cli.screen import PlainText, Terminal, kept

# The demo as it is


def test_the_demo_shows_what_it_promises(capsys: pytest.CaptureFixture[str]) -> None:
    """On real sockets, in the shorter form: the machine-readable result has the figures, and each is in its range."""
    began = clock.now()

    status = main(["demo", "--quick", "--json", "--seed", "1"])

    result = json.loads(capsys.readouterr().out)
    calm, flaky, outage, recovery = result["phases"]
    assert status == 0
    assert clock.now() - began < 20
    assert (result["version"], result["seed"]) == (1, 1)
    assert calm["plain"]["success_rate"] > 0.5
    assert calm["resilient"]["success_rate"] > 0.5
    assert 0.75 <= flaky["plain"]["success_rate"] <= 0.85
    assert flaky["resilient"]["success_rate"] >= 0.97
    assert flaky["resilient"]["attempts_per_call"] <= 1.5
    assert outage["resilient"]["sends"] <= 0.2 * outage["plain"]["sends"]
    assert outage["plain"]["success_rate"] < 0.1
    assert recovery["plain"]["success_rate"] > 0.5
    assert result["recovered_after"] <= result["open_for"] + 2
    assert [promise["kept"] for promise in result["promises"]] == [True] * 5
    assert result["breaker"][0]["state"] == result["breaker"][-1]["state"] == "closed"
    assert {"open", "half_open"} <= {state["state"] for state in result["breaker"]}
    assert 0 < result["log_lines"] < sum(phase["resilient"]["sends"] for phase in result["phases"])


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"]])
def test_help_says_what_there_is(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And ends well."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_without_a_command_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """As command lines do: on standard error, with status 2."""
    with pytest.raises(SystemExit) as ended:
        main([])

    assert ended.value.code == 2
    assert "usage: resilient" in capsys.readouterr().err


def test_where_httpx_is_missing_the_command_to_install_it_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback: what is missing, and what to do."""
    _forget(monkeypatch, "resilient.cli.demo", "resilient.cli.show")
    monkeypatch.setitem(sys.modules, "httpx", None)

    assert main(["demo"]) == 2

    told = capsys.readouterr().err
    assert "the demo needs httpx, which is not installed" in told
    assert 'python -m pip install "resilient-anyio[httpx,cli]"' in told


def test_a_module_of_our_own_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not explained away as an extra that is not installed."""
    _forget(monkeypatch, "resilient.cli.show")
    monkeypatch.setitem(sys.modules, "resilient.cli.show", None)

    with pytest.raises(ImportError):
        main(["demo"])


def test_an_installed_distribution_tells_its_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the package metadata; code that runs from its sources has none."""

    def version(_: str) -> str:
        return "1.2.3"

    monkeypatch.setattr("importlib.metadata.version", version)
    with contextlib.suppress(SystemExit):
        main(["--version"])
    monkeypatch.undo()
    monkeypatch.setattr("resilient.cli._DISTRIBUTION", "resilient-that-nobody-installed")
    with contextlib.suppress(SystemExit):
        main(["--version"])

    assert capsys.readouterr().out == "resilient 1.2.3\nresilient (not installed, running from its sources)\n"


def test_an_interrupt_ends_it_quietly(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C is no error to be traced."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "present", interrupted)

    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def _forget(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let modules be imported anew, also where they are attributes of their package."""
    import resilient.cli as package  # noqa: PLC0415  `main` is used by its name elsewhere

    for module in modules:
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr(package, module.rpartition(".")[2])


# The server's faults


def test_the_seed_fixes_the_faults() -> None:
    """The same seed gives the same cards in the same order, another seed another order."""
    first, again, other = (_cards(seed, 100) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_a_client_without_retries_would_succeed_with_82_percent_of_its_calls() -> None:
    """Whatever the seed, in every round of the deck: with 23 of 28."""
    assert {_cards(seed, 28).count("ok") for seed in range(50)} == {23}


def _cards(seed: int, count: int) -> list[str]:
    cards = deck("flaky", random.Random(seed))
    return [next(cards)[0] for _ in range(count)]


# Figures


def test_figures_of_no_calls_are_harmless() -> None:
    """Nothing is divided by zero."""
    figures = Figures.of([])

    assert (figures.success_rate, figures.attempts_per_call, figures.percentile(0.5)) == (1.0, 0.0, 0.0)


def test_percentiles_are_nearest_ranks_and_calls_that_run_do_not_count() -> None:
    """A figure is one that was measured."""
    calls = [Call("plain", "calm", 0.0, end=seconds, ok=True, sends=1) for seconds in (4.0, 1.0, 3.0, 2.0)]
    figures = Figures.of([*calls, Call("plain", "calm", 0.0)])

    assert figures.calls == 4
    assert [figures.percentile(share) for share in (0.25, 0.5, 0.51, 0.99)] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("outcomes", "after"),
    [
        ("1111111111", 0.0),
        ("0011111111", 2.0),
        ("1011111111", 2.0),
        ("0000000000", math.inf),
    ],
)
def test_a_client_has_recovered_when_its_calls_succeed_and_go_on_to(outcomes: str, after: float) -> None:
    """The time is counted from the moment at which the server is well again."""
    result = Result(seed=0, open_for=1.0, planned=10.0, phases=[Phase("recovery", "", 100.0, 10.0)])
    result.calls = [
        Call("resilient", "recovery", 100.0 + at, end=101.0 + at, ok=outcome == "1") for at, outcome in enumerate(outcomes)
    ]

    assert result.recovered_after == after


def test_a_client_that_never_recovers_breaks_its_promise() -> None:
    """And the machine-readable result is valid JSON all the same."""
    result = _result()
    result.calls = [call for call in result.calls if call.phase != "recovery"]

    told = json.loads(json.dumps(result.as_json(), allow_nan=False))

    assert told["recovered_after"] is None
    assert told["promises"][-1] == {
        "what": "recovery: seconds until it is back",
        "value": None,
        "at_least": 0.0,
        "at_most": 3.0,
        "kept": False,
    }
    assert "NO   recovery: seconds until it is back: inf (0.0 to 3.0)" in report(result, PlainText())


# What is shown


def _result() -> Result:
    """A run as it could have been, in whole seconds."""
    result = Result(seed=7, open_for=1.0, planned=16.0)
    for at, name in enumerate(("calm", "flaky", "outage", "recovery")):
        result.phases.append(Phase(name, f"about {name}", 4.0 * at, 4.0))
        for client in ("plain", "resilient"):
            for second in range(4):
                begin = 4.0 * at + second
                ok = name in {"calm", "recovery"} or (name == "flaky" and (client == "resilient" or second > 0))
                sends = 0 if name == "outage" and client == "resilient" else 1
                result.calls.append(Call(client, name, begin, begin + 0.02, ok=ok, sends=sends))
    result.states += [State(8.5, "open", "consecutive_failures"), State(11.5, "half_open", ""), State(11.6, "closed", "")]
    result.log_lines += ["resilient.retry_scheduled key=[x] attempt=1", "resilient.retry_scheduled key=[x] attempt=2"]
    result.waterfall = "call: success, 1 attempt, 1.0 ms"
    return result


def test_the_plain_report_has_neither_colours_nor_bars() -> None:
    """It can be piped, logged and read aloud."""
    text = "\n".join(report(_result(), PlainText()))

    assert "flaky     plain          4     75.0%           1.00    20.0 ms    20.0 ms    20.0 ms" in text
    assert "breaker: 0.0 s closed, 8.5 s open, 11.5 s half-open, 11.6 s closed" in text
    assert "call: success, 1 attempt, 1.0 ms" in text
    assert "2 lines of the logger 'resilient'" in text
    assert text.count("resilient.retry_scheduled") == 1
    assert "yes  flaky: successes of the resilient one: 100.0% (97.0% to 100.0%)" in text
    assert not any(char in text for char in "█░▁━\x1b")


def test_the_report_on_a_terminal_has_bars_ribbons_and_colours() -> None:
    """The breaker's states are aligned with the successes over time; square brackets of others are no markup."""
    lines = report(_result(), Terminal())
    text = "\n".join(lines)

    assert "[green]██████████[/]" in text
    assert "[yellow]████████[/][dim]░░[/]" in text
    ribbons = [_unmarked(line) for line in lines if line.startswith(("plain     ", "resilient ", "breaker ")) and "│" in line]
    assert [len(ribbon) for ribbon in ribbons] == [11 + 64 + 3] * 3
    assert ribbons[2].split("│")[2] == "━████████████▒━━"
    assert r"\[x]" in text


def _unmarked(line: str) -> str:
    from rich.text import Text  # noqa: PLC0415  an extra

    return Text.from_markup(line).plain


async def _fake_run(seed: int, _pace: Pace, watch: Callable[[Result], Awaitable[None]]) -> Result:
    """A run that takes half a second."""
    whole = _result()
    growing = Result(seed, whole.open_for, whole.planned)
    with anyio.move_on_after(0.5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, growing)  # type: ignore[arg-type]  # a coroutine function
            for phase in whole.phases:
                growing.phases.append(phase)
                growing.calls += [call for call in whole.calls if call.phase == phase.name]
                await anyio.sleep(0.15)
            await anyio.sleep_forever()
    return whole


def test_without_a_terminal_the_progress_is_told_in_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines a phase, then the report."""
    monkeypatch.setattr(show, "run", _fake_run)

    show.present(7, demo.QUICK, as_json=False)

    told = capsys.readouterr().out
    assert told.startswith("calm, 4 s: about calm ...\n  success: plain 100.0%, resilient 100.0%\nflaky, 4 s: about flaky ...\n")
    assert "what this run shows" in told


def test_on_a_terminal_the_figures_grow_in_place(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor goes back over what was drawn; at the end the report stands alone."""
    monkeypatch.setattr(show, "run", _fake_run)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    show.present(7, demo.QUICK, as_json=False)

    told = capsys.readouterr().out
    assert "\x1b[1A" in told
    assert "\x1b[32m" in told
    assert "▒" in told


def test_without_rich_a_terminal_gets_plain_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is a comfort, not a need."""
    monkeypatch.setattr(show, "run", _fake_run)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "rich.console", None)

    show.present(7, demo.QUICK, as_json=False)

    assert "\x1b" not in capsys.readouterr().out


def test_the_log_goes_on_as_before_after_the_demo(caplog: pytest.LogCaptureFixture) -> None:
    """While it runs the lines are kept; nothing of that stays."""
    lines: list[str] = []
    logger = logging.getLogger("resilient")

    with kept(lines):
        logger.warning("inside")
    logger.warning("outside")

    assert lines == ["inside"]
    assert [record.getMessage() for record in caplog.records] == ["outside"]
