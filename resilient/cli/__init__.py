"""The command line: `python -m resilient`, or `resilient`.

It needs nothing but the core; a command that needs an extra says which. Colours and bars come with rich, on a terminal.
"""

import argparse
import os
import random
import sys
from collections.abc import Sequence
from importlib import metadata

from resilient.cli import check, explain, get, proxy, schema, simulate
from resilient.cli.screen import Unusable

__all__ = ("main",)

_DISTRIBUTION = "resilient-anyio"
_NEEDS = """the demo needs {module}, which is not installed:
  python -m pip install "{distribution}[httpx,cli]"      (in a clone: python -m pip install ".[httpx,cli]")"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = _parser().parse_args(arguments)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # a text stream, unless somebody replaced it
        reconfigure(errors="replace")  # an encoding without bars shows question marks
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except Unusable as error:
        print(f"resilient {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read has seen enough; what is still to be flushed at exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="resilient", description="Resilience for asyncio and trio.")
    parser.add_argument("--version", action="version", version=f"resilient {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="a plain and a resilient HTTP client against a flaky server, side by side",
        description="Starts a flaky HTTP server on the loopback interface, drives a plain and a resilient httpx client through "
        "the same faults, and shows what both got. It ends by itself in under 20 seconds.",
    )
    demo.add_argument("--seed", type=int, help="fixes the schedule of faults (default: another one each time)")
    demo.add_argument("--quick", action="store_true", help="a shorter run, at a higher pace")
    demo.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
    demo.set_defaults(run=_demo)
    for command in (check, explain, schema, get, proxy, simulate):
        command.add_to(commands)
    return parser


def _version() -> str:
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed, running from its sources)"


def _demo(options: argparse.Namespace) -> int:
    try:
        from resilient.cli import demo, show  # noqa: PLC0415  it needs httpx, the other commands do not
    except ModuleNotFoundError as error:
        if str(error.name).startswith("resilient"):
            raise
        print(_NEEDS.format(module=error.name, distribution=_DISTRIBUTION), file=sys.stderr)
        return 2
    seed: int = random.randrange(10_000) if options.seed is None else options.seed  # noqa: S311  a schedule, no secret
    show.present(seed, demo.QUICK if options.quick else demo.FULL, as_json=options.json)
    return 0
