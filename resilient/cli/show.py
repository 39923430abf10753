"""Where the demo's lines go: a terminal with colours, bars and live progress, plain text, or JSON."""

import json
from functools import partial
from typing import Final

import anyio

from resilient.cli.demo import Pace, run
from resilient.cli.figures import CLIENTS, Result
from resilient.cli.report import progress, report
from resilient.cli.screen import PlainText, Terminal, screen

__all__ = ("present",)

_MOMENT: Final = 0.1


def present(seed: int, pace: Pace, *, as_json: bool) -> None:
    """Run the demo and print what came of it."""
    if as_json:
        print(json.dumps(anyio.run(run, seed, pace, _silence).as_json(), indent=2))
        return
    shown = screen()
    result = anyio.run(run, seed, pace, partial(_in_place if shown.bars else _in_words, shown))
    shown.print(["", *report(result, shown)])


async def _silence(_: Result) -> None:
    return


async def _in_place(shown: PlainText | Terminal, result: Result) -> None:
    """All figures, as they grow."""
    await shown.live(lambda: progress(result, shown))


async def _in_words(shown: PlainText | Terminal, result: Result) -> None:
    """Two lines a phase."""
    begun = 0
    while True:
        if len(result.phases) > begun:
            if begun:
                over = result.phases[begun - 1]
                rates = (f"{client} {result.figures(client, over.name).success_rate:.1%}" for client in CLIENTS)
                shown.print([f"  success: {', '.join(rates)}"])
            phase = result.phases[begun]
            shown.print([f"{phase.name}, {phase.seconds:g} s: {phase.about} ..."])
            begun += 1
        await anyio.sleep(_MOMENT)
