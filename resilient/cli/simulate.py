"""`resilient simulate`: what would this policy do in that outage?"""

import argparse
import contextlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from resilient.cli.documents import read_document
from resilient.cli.explain import chosen
from resilient.cli.screen import Paint, Unusable, screen
from resilient.policy.names import nearest
from resilient.policy.normalise import policy_from_document
from resilient.policy.presets import PRESETS
from resilient.policy.schema import Policy
from resilient.simulation import MEASURES, Claim, Scenario, Study, Sweep, gallery, load_scenario, study, sweep
from resilient.simulation.text import as_data, claim_line, rows, sweep_line, sweep_rows

__all__ = ("add_to",)

_FILE: Final = re.compile(r"(.+\.(?:toml|ya?ml|json))(?::(.+))?", re.IGNORECASE)
_NONE: Final = "none"
_WITH_BANDS: Final = 2  # policies for whose bands there is room in a terminal
_NEEDS: Final = """a report needs {module}, which is not installed:
  python -m pip install "resilient-anyio[simulate]" """
_ABOUT: Final = """\
Runs policies on virtual time against modelled services, and shows what users, and the services, get. Without POLICY all
policies that the scenario compares are run, and its own claims are verified. The exit status is 1 where a claim does not hold."""


def add_to(commands: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "simulate", help="what a policy would do in an outage, on virtual time", description=_ABOUT
    )
    parser.add_argument(
        "policy", nargs="?", metavar="POLICY", help="a preset, FILE or FILE:KEY, a policy of the scenario, or none"
    )
    parser.add_argument("--scenario", metavar="NAME", help="one of --list, or a file (.toml) of the same shape")
    parser.add_argument(
        "--against", action="append", default=[], metavar="POLICY", help="another policy beside it, or them; repeatable"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each policy, by as many seeds (default 3)")
    parser.add_argument(
        "--assert", dest="claims", action="append", default=[], metavar="CLAIM", help="e.g. 'goodput>=0.95'; repeatable"
    )
    parser.add_argument("--sweep", action="store_true", help="raise the load until it collapses, lower it until it recovers")
    parser.add_argument("--report", metavar="FILE.html", help="write a report with plots, one file that needs no other")
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
    parser.add_argument(
        "--list", action="store_true", help="the scenarios that ship with it, and the numbers that claims can name"
    )
    parser.add_argument("--gallery", metavar="FOLDER", help="write the reports of all scenarios that ship with it")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if options.list:
        screen().print(list(_listed(screen())))
        return 0
    if options.seeds < 1:
        msg = f"--seeds {options.seeds} is out of range: expected a whole number of at least 1"
        raise Unusable(msg)
    if options.gallery is not None:
        if options.policy is not None or options.scenario is not None:
            raise Unusable("--gallery runs all scenarios with their own policies: leave out POLICY and --scenario")
        return _gallery(Path(options.gallery), options.seeds)
    if options.scenario is None:
        msg = f"--scenario is missing: name one, e.g. --scenario retry-storm; there are {', '.join(gallery())}"
        raise Unusable(msg)
    scenario = _scenario(options.scenario)
    own = options.policy is None
    policies = _policies([*(scenario.policies if own else [options.policy]), *options.against], scenario)
    claims = [*options.claims, *(scenario.claims if own else ())]
    if options.report is not None:  # before the work, not after it
        _plots()
        _room_for(Path(options.report))
    found, sweeps = _done(policies, scenario, options.seeds, claims, swept=options.sweep)
    if options.report is not None:
        _write(Path(options.report), _plots()(found, sweeps))
    if options.json:
        print(json.dumps(as_data(found, sweeps), indent=2))
    else:
        screen().print(list(_shown(found, sweeps, screen())))
        if options.report is not None:
            print(f"\nthe report is in {options.report}")
    return 0 if found.passed else 1


def _done(
    policies: Mapping[str, Policy], scenario: Scenario, seeds: int, claims: Sequence[str], *, swept: bool
) -> tuple[Study, list[Sweep]]:
    try:
        for claim in claims:
            Claim.parse(claim).about(policies)
        with _progress(scenario.name) as progress:
            found = study(policies, scenario, seeds=seeds, claims=claims, progress=progress)
        sweeps: list[Sweep] = []
        for name in policies if swept else ():
            with _progress(f"sweep of {name}") as progress:
                sweeps.append(sweep(policies[name], scenario, name=name, progress=progress))
    except ValueError as error:
        raise Unusable(str(error)) from error
    return found, sweeps


def _scenario(name: str) -> Scenario:
    known = gallery()
    if name in known:
        return known[name]
    if not name.endswith(".toml"):
        msg = f"--scenario {name}: there is no such scenario{nearest(name, known)}"
        raise Unusable(msg)
    try:
        return load_scenario(name)
    except (OSError, ValueError) as error:
        msg = f"--scenario {name}: {getattr(error, 'strerror', None) or error}"
        raise Unusable(msg) from error


def _policies(texts: Sequence[str], scenario: Scenario) -> dict[str, Policy]:
    """The policies by what they are called; two of the same name, of two files, as they were asked for."""
    if not texts:
        msg = f"scenario {scenario.name!r} has no policies of its own: name one, e.g. resilient simulate http --scenario ..."
        raise Unusable(msg)
    found = [(text, *_policy(text, scenario)) for text in texts]
    names = Counter(name for _, name, _ in found)
    policies = {name if names[name] == 1 else text: policy for text, name, policy in found}
    if len(policies) < len(found):
        twice = next(text for text in texts if texts.count(text) > 1)
        msg = f"{twice!r} is named twice: name two policies that differ, e.g. old.toml:KEY and new.toml:KEY"
        raise Unusable(msg)
    return policies


def _policy(text: str, scenario: Scenario) -> tuple[str, Policy]:
    """A policy and what it is called."""
    if text in scenario.policies:
        return text, scenario.policies[text]
    if text == _NONE:
        return text, Policy()
    if text in PRESETS:
        return text, policy_from_document({"preset": text})
    file = _FILE.fullmatch(text)
    if file is None:
        known = dict.fromkeys((*scenario.policies, _NONE, *PRESETS))
        msg = f"{text!r} is no policy: expected a preset, a policy of the scenario, FILE or FILE:KEY{nearest(text, known)}"
        raise Unusable(msg)
    return _policy_in(file[1], file[2])


def _policy_in(name: str, key: str | None) -> tuple[str, Policy]:
    source = read_document(name)
    if source.problems:
        msg = f"{name}: {source.problems[0]}: `resilient check {name}` tells more"
        raise Unusable(msg)
    if key is None and len(source.sections) > 1:
        msg = f"{name}: which policy? Say {name}:KEY; there are {', '.join(section.name for section in source.sections)}"
        raise Unusable(msg)
    section = chosen(source, key) if key is not None else next(iter(source.sections))
    return key or section.name, section.policy


def _listed(paint: Paint) -> Generator[str]:
    for name, scenario in gallery().items():
        yield f"{paint(name, 'bold')}  {paint(scenario.title, 'default')}"
        yield from (f"  {line}" for line in scenario.about.strip().splitlines())
        yield f"  {paint('policies: ' + ', '.join(scenario.policies), 'dim')}"
        yield ""
    yield paint("what claims can name", "bold")
    for name, measure in MEASURES.items():
        yield f"  {name:<21} {measure.about}{', ' + measure.unit if measure.unit else ''}"


def _shown(found: Study, sweeps: Sequence[Sweep], paint: Paint) -> Generator[str]:
    scenario = found.scenario
    seeds = len(next(iter(found.runs.values())))
    bands = seeds > 1 and len(found.runs) <= _WITH_BANDS
    spread = "" if seeds == 1 else f"; medians of {seeds} seeds{' (least – greatest)' if bands else ''}"
    yield paint(scenario.title or scenario.name, "bold")
    yield paint(f"{scenario.seconds:g} s of virtual time{spread}", "dim")
    yield ""
    yield from _table(rows(found, bands=bands), paint)
    for claim in found.claims:
        yield paint(claim_line(claim), "green" if claim.holds else "red")
    if sweeps:
        yield ""
        yield from _table(sweep_rows(sweeps), paint)
        yield from (paint(sweep_line(each), "default") for each in sweeps)


def _table(table: Sequence[Sequence[str]], paint: Paint) -> Generator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for index, row in enumerate(table):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield paint("  ".join(cells).rstrip(), "default" if index else "bold")
    yield ""


def _gallery(folder: Path, seeds: int) -> int:
    """Write all reports; 1 where a claim of a scenario does not hold."""
    report = _plots()
    passed = True
    files = [(scenario, folder / f"{scenario.name}.html") for scenario in gallery().values()]
    for _, file in files:  # before the work, not after it
        _room_for(file)
    for scenario, file in files:
        rated = any(group.rate and group.counted for group in scenario.clients)
        found, sweeps = _done(scenario.policies, scenario, seeds, scenario.claims, swept=rated and scenario.name == "retry-storm")
        _write(file, report(found, sweeps))
        passed = passed and found.passed
        print(f"{file}: {sum(claim.holds for claim in found.claims)} of {len(found.claims)} claims hold")
        for claim in found.claims:
            if not claim.holds:
                print(f"  {claim_line(claim)}")
    return 0 if passed else 1


def _plots() -> Callable[[Study, Sequence[Sweep]], str]:
    try:
        from resilient.simulation.report import report  # noqa: PLC0415  it needs an extra
    except ModuleNotFoundError as error:
        raise Unusable(_NEEDS.format(module=error.name)) from error
    return report


def _room_for(path: Path) -> None:
    """Make the folders that a report needs."""
    if path.is_dir():
        msg = f"{path}: cannot be written: it is a folder; name a file in it, e.g. {path / 'report.html'}"
        raise Unusable(msg)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{path}: cannot be written: {path.parent} is no folder, and cannot be made one: {error.strerror}"
        raise Unusable(msg) from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        msg = f"{path}: cannot be written: {error.strerror}"
        raise Unusable(msg) from error


@contextlib.contextmanager
def _progress(what: str) -> Generator[Callable[[float], object] | None]:
    """A bar on a terminal where rich is installed."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console  # noqa: PLC0415  an extra
        from rich.progress import Progress  # noqa: PLC0415  an extra
    except ImportError:
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=1.0)
        yield lambda share: bars.update(task, completed=share)
