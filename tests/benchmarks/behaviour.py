"""How policies behave in an outage: ours and those of peers, in the same scenarios, under the same arrivals.

    python tests/benchmarks/behaviour.py [--scenario NAME] [--seeds 3] [--pictures docs/pictures]

A table for each scenario, as it stands in docs/benchmarks.md, and with `--pictures` the pictures beside it. Figures are medians
over the seeds. `--speed` tells how fast the simulator itself is.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # this folder is a package: its files are not top-level modules

from benchmarks.behaviour_subjects import COMPARED, subjects
from resilient import clock
from resilient.simulation import Run, Scenario, gallery, simulate
from resilient.simulation.study import Study
from resilient.simulation.text import value

_OUTAGE: Final = {
    "goodput": "goodput",
    "goodput_after": "after the trouble",
    "recovery": "recovery",
    "amplification_during": "requests per call, during it",
    "amplification_after": "and after it",
    "wasted": "wasted work",
    "wait": "wait of a call",
}
SHOWN: Final = {
    "retry-storm": _OUTAGE,
    "flapping": {name: title for name, title in _OUTAGE.items() if name != "wasted"},  # a black hole works on nothing
    "tail-at-scale": {"p50": "p50", "p95": "p95", "p99": "p99", "p999": "p99.9", "amplification": "requests per request"},
    "thundering-herd": {"amplification": "requests per call", "wait": "wait of a call", "finished": "all done after"},
}
"""The columns of each table."""
UNITS: Final = {
    **dict.fromkeys(("recovery", "wait", "p50", "p95", "p99", "p999", "finished"), "s"),
    **dict.fromkeys(("goodput", "goodput_after", "wasted"), "share"),
}


def scenario_of(name: str) -> Scenario:
    """The scenario of the gallery; that of the tail for long enough that one call in a thousand is more than one."""
    scenario = gallery()[name]
    return scenario.replace(seconds=105.0) if name == "tail-at-scale" else scenario


def compare(scenario: Scenario, seeds: int) -> Study:
    """All that is compared in a scenario, with each seed."""
    runs: dict[str, list[Run]] = {}
    for name, subject in subjects(scenario.name).items():
        runs[name] = []
        for seed in range(1, seeds + 1):
            random.seed(seed)  # peers draw from the common one
            runs[name].append(simulate(subject, scenario, seed=seed, name=name))
    return Study(scenario=scenario, runs=runs)


def table(found: Study) -> str:
    """The table of a scenario, in Markdown."""
    shown = SHOWN[found.scenario.name]
    lines = ["| | " + " | ".join(shown.values()) + " |", "| --- |" + " ---: |" * len(shown)]
    for name in found.runs:
        cells = [value(found.band(name, measure).median, UNITS.get(measure, "")) for measure in shown]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed(rounds: int) -> str:
    """Simulated requests a second of each scenario of the gallery with its own policies, in Markdown; the best of all rounds."""
    lines = ["| scenario | requests | a second |", "| --- | ---: | ---: |"]
    for name, scenario in gallery().items():
        simulated, seconds = 0, 0.0
        for policy in scenario.policies.values():
            spent: list[float] = []
            made = 0
            for _ in range(rounds):
                began = time.thread_time()
                made = simulate(policy, scenario).simulated
                spent.append(time.thread_time() - began)
            simulated, seconds = simulated + made, seconds + min(spent)
        lines.append(f"| `{name}` | {simulated:,} | {simulated / seconds:,.0f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=tuple(COMPARED), help="only this one; may be repeated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write the pictures, too")
    parser.add_argument("--speed", type=int, metavar="ROUNDS", help="only how fast the simulator is: the best of so many rounds")
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    time.monotonic = lambda: clock.now()  # noqa: PLW0108  it changes; before peers are imported: their clocks are virtual, too
    if options.speed:
        print(speed(options.speed))
        return
    for name in options.scenario or COMPARED:
        found = compare(scenario_of(name), options.seeds)
        print(f"{found.scenario.title}\n\n{table(found)}\n", flush=True)
        if options.pictures is not None:
            from benchmarks.behaviour_pictures import picture  # noqa: PLC0415  it needs matplotlib

            options.pictures.mkdir(parents=True, exist_ok=True)
            (options.pictures / f"{name}.svg").write_text(picture(found), "utf-8")


if __name__ == "__main__":
    main()
