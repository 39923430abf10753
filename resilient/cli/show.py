"""Where the demo's lines go: a terminal with colours, bars and live progress, plain text, or JSON."""

import contextlib
import json
import sys
from typing import Any, Final

import anyio

from resilient.cli.demo import Pace, run
from resilient.cli.figures import CLIENTS, Result
from resilient.cli.report import progress, report

__all__ = ("PlainText", "Terminal", "present")

_REFRESH: Final = 0.1


def present(seed: int, pace: Pace, *, as_json: bool) -> None:
    """Run the demo and print what came of it."""
    if as_json:
        print(json.dumps(anyio.run(run, seed, pace, _silence).as_json(), indent=2))
        return
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a text stream, unless somebody replaced it
    screen = _screen()
    result = anyio.run(run, seed, pace, screen.watch)
    screen.print(["", *report(result, screen)])


def _screen() -> "PlainText | Terminal":
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            return Terminal()
    return PlainText()


async def _silence(_: Result) -> None:
    return


class PlainText:
    """Text without colours and bars."""

    bars = False

    def __call__(self, text: str, style: str) -> str:
        return text

    def print(self, lines: list[str]) -> None:
        print("\n".join(lines), flush=True)

    async def watch(self, result: Result) -> None:
        """Two lines a phase."""
        begun = 0
        while True:
            if len(result.phases) > begun:
                if begun:
                    over = result.phases[begun - 1]
                    rates = (f"{client} {result.figures(client, over.name).success_rate:.1%}" for client in CLIENTS)
                    self.print([f"  success: {', '.join(rates)}"])
                phase = result.phases[begun]
                self.print([f"{phase.name}, {phase.seconds:g} s: {phase.about} ..."])
                begun += 1
            await anyio.sleep(_REFRESH)


class Terminal:
    """Colours, bars and figures that grow in place, by `rich`."""

    bars = True

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  an extra

        self._console: Any = Console(highlight=False)

    def __call__(self, text: str, style: str) -> str:
        from rich.markup import escape  # noqa: PLC0415  an extra

        return f"[{style}]{escape(text)}[/]"

    def print(self, lines: list[str]) -> None:
        self._console.print("\n".join(lines), soft_wrap=True)

    async def watch(self, result: Result) -> None:
        """All figures, ten times a second, in place."""
        from rich.live import Live  # noqa: PLC0415  an extra
        from rich.text import Text  # noqa: PLC0415  an extra

        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(Text.from_markup("\n".join(progress(result, self))), refresh=True)
                await anyio.sleep(_REFRESH)
