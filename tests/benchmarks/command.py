"""The command line: which groups to measure, how often, and where to put the figures."""

import argparse
import asyncio
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import (
    asgi,
    breaker,
    bulkhead,
    cache,
    chaos,
    executor,
    fallback,
    grpc,
    hedge,
    http_transport,
    limiter,
    memory,
    pipelines,
    redis,
    report,
    retry,
    streams,
    telemetry,
    timeout,
)
from benchmarks.harness import Case, Group, cases_of, measure

GROUPS: Final[tuple[Group, ...]] = tuple(
    group
    for module in (
        retry,
        breaker,
        bulkhead,
        limiter,
        timeout,
        hedge,
        fallback,
        chaos,
        pipelines,
        executor,
        streams,
        http_transport,
        telemetry,
        asgi,
        grpc,
        redis,
        cache,
    )
    for group in module.GROUPS
)
MEMORY: Final = "memory"
NAMES: Final = (*(group.name for group in GROUPS), MEMORY)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write the figures to a file where asked to."""
    options = _parser().parse_args(arguments)
    logging.getLogger().addHandler(logging.NullHandler())  # log lines are made, as in production, and go nowhere
    asyncio.run(_run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks", description="Measure this library and its peers, side by side."
    )
    parser.add_argument(
        "--only", action="append", choices=NAMES, metavar="GROUP", help=f"one of {', '.join(NAMES)}; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=51, help="how often each case is measured (default 51)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file, too")
    parser.add_argument("--quick", action="store_true", help="5 rounds, and a hundredth of what is counted in thousands")
    return parser


async def _run(options: argparse.Namespace) -> None:
    rng = random.Random(0)
    missing: set[str] = set()
    figures: list[dict[str, Any]] = []
    print(" · ".join(f"{name} {value}" for name, value in report.environment().items()))
    for group in GROUPS:
        if options.only and group.name not in options.only:
            continue
        try:
            cases = cases_of(group, missing)
        except ImportError as error:
            print(f"\n{group.title}: left out, {error}")
            continue
        rounds = 5 if options.quick else options.rounds
        results = await measure(_scaled(cases, quick=options.quick), group.base, rounds, rng, group.clock)
        print(f"\n{report.timing_table(group, results)}", flush=True)
        figures += report.as_json(group, results)
    if not options.only or MEMORY in options.only:
        sizes = await memory.sizes(missing, keys=memory.KEYS // 100 if options.quick else memory.KEYS)
        print(f"\n{report.memory_table(sizes)}")
        figures += [{"group": MEMORY, "case": size.name, "ours": size.ours, "bytes": size.size} for size in sizes]
    if missing:
        print(f"\nNot installed, and so not measured: {', '.join(sorted(missing))}")
    if options.json:
        options.json.write_text(json.dumps({"environment": report.environment(), "figures": figures}, indent=1))


def _scaled(cases: list[Case], *, quick: bool) -> list[Case]:
    return [replace(case, count=max(case.count // 100, 50)) if quick and case.count else case for case in cases]
