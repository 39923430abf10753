"""How good are the tests? Break the state machines in every small way, and see whether a test notices.

    pip install mutmut==3.8.1
    python tests/mutation                 # all modules: half an hour on two processors. Needs Python 3.12
    python tests/mutation windows slots   # these
    python tests/mutation windows --list  # what would be tried

A mutant is *killed* where a test fails, works far too long or asks for far too much memory; those that *survive* are printed.
docs/testing.md explains them. `mutants` says what is tried, `session` how.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest

from mutation.mutants import ROOT, mutants, path
from mutation.planting import from_the_start
from mutation.session import Fate, Session

TESTS: dict[str, str] = {
    "breaker_states": "models/test_gates strategies/test_breaker_states strategies/test_breaker_trips"
    " strategies/test_breaker_probes strategies/test_breaker_failures strategies/test_breaker_seen"
    " strategies/test_breaker_streams strategies/test_retuning models/test_breaker",
    "windows": "strategies/test_windows models/test_windows",
    "slots": "models/test_gates strategies/test_bulkhead strategies/test_bulkhead_waits strategies/test_bulkhead_cancellation"
    " strategies/test_rejections strategies/test_waited strategies/test_retuning strategies/test_adaptive_limit"
    " models/test_slots",
    "flow": "strategies/test_rate_limit strategies/test_rate_limit_exactness strategies/test_leaky_bucket"
    " strategies/test_retuning strategies/test_adaptive_rate strategies/test_quota models/test_gates models/test_buckets",
    "limiter": "models/test_gates strategies/test_rate_limit strategies/test_rate_limit_waits strategies/test_rate_limit_returns"
    " strategies/test_rejections strategies/test_waited strategies/test_quota strategies/test_sliding_window"
    " models/test_queues models/test_buckets",
    "sliding_window": "models/test_gates strategies/test_sliding_window strategies/test_quota models/test_sliding_windows",
    "budget": "strategies/test_budget strategies/test_budgets strategies/test_hedge_tells models/test_budgets",
    "backoff": "strategies/test_backoff models/test_calls",
    "retry_loop": "strategies/test_retry strategies/test_retry_stops strategies/test_retry_tells"
    " strategies/test_retry_loop_form strategies/test_budget strategies/test_budgets strategies/test_rejections"
    " observe/test_timeline observe/test_live_listeners"
    " models/test_calls",
    "throttle": "models/test_gates strategies/test_throttle models/test_throttle",
    "latency": "strategies/test_latency models/test_latency",
    "concurrency": "strategies/test_concurrency strategies/test_adaptive_limit models/test_adaptive_limit",
    "hedge_race": "strategies/test_hedge strategies/test_hedge_endings strategies/test_hedge_pipelines"
    " strategies/test_hedge_tells models/test_calls models/test_interleavings",
    "guard": "strategies/test_guard strategies/test_gate strategies/test_rejections strategies/test_rate_limit_returns"
    " strategies/test_stream_permits strategies/test_breaker_streams strategies/test_breaker_failures"
    " strategies/test_breaker_seen strategies/test_bulkhead_ways_out strategies/test_hedge_tells"
    " strategies/test_hedge_pipelines test_context test_pipeline test_keyed",
    "outbox": "strategies/test_rejections strategies/test_gate strategies/test_waited strategies/test_breaker_seen"
    " strategies/test_hedge_tells strategies/test_adaptive_limit observe/test_timeline",
    "adaptive_limit": "strategies/test_adaptive_limit strategies/test_retuning models/test_adaptive_limit models/test_gates",
    "adaptive_rate": "strategies/test_adaptive_rate strategies/test_adaptive_rate_decisions strategies/test_quota"
    " strategies/test_retuning models/test_gates models/test_adaptive_rate",
    "leaky_bucket": "strategies/test_leaky_bucket strategies/test_quota models/test_gates models/test_buckets",
    "waiting": "strategies/test_waited strategies/test_bulkhead_waits strategies/test_bulkhead_cancellation"
    " strategies/test_rate_limit_waits strategies/test_rate_limit_returns models/test_slots models/test_queues",
}
"""The tests of each module."""

SOUND = -1
"""The number of a mutant that is none."""
PLUGINS = ["anyio.pytest_plugin", "pytest_asyncio.plugin", "_hypothesis_pytestplugin", "pytest_timeout", "xdist.plugin"]


class Quick:
    """A plugin of pytest: to make a failure of hypothesis small would take most of the time."""

    def pytest_sessionstart(self) -> None:
        """After conftest has chosen its profile."""
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        suite = hypothesis.settings.get_profile("suite")
        hypothesis.settings.register_profile("mutation", parent=suite, phases=phases, report_multiple_bugs=False)
        hypothesis.settings.load_profile("mutation")


def run_tests(tests: Sequence[str], *plugins: object) -> int:
    """Of this checkout, in this process. The exit code of pytest."""
    os.chdir(ROOT)
    sys.dont_write_bytecode = True
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-oaddopts=--import-mode=importlib", "-s", "-x", "-n=0", "--timeout=0", "-pno:cacheprovider", "-pno:terminal"]
    quiet = "-Wignore::pytest.PytestAssertRewriteWarning"
    return int(pytest.main([*options, quiet, *(f"-p{plugin}" for plugin in PLUGINS), *tests], plugins=[Quick(), *plugins]))


def again(fate: Fate) -> Fate:
    """In a process of its own, with the mutant from the start."""
    mutant = fate.mutant
    here = str(Path(__file__).parent)
    command = [sys.executable, here, mutant.module, f"--only={mutant.number}", "--from-the-start", *fate.tests]
    code = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode  # noqa: S603
    return replace(fate, kind="killed" if code else "survived")


class Report:
    """What became of the mutants: the survivors as they are found, the rest at the end."""

    def __init__(self) -> None:
        self.fates: dict[str, Counter[str]] = defaultdict(Counter)
        self.doubtful = list[Fate]()

    def heard(self, fate: Fate) -> None:
        """One more."""
        if fate.doubtful:
            self.doubtful.append(fate)
            return
        self.fates[fate.mutant.module][fate.kind] += 1
        if fate.kind == "survived":
            print(fate.mutant, "" if fate.tests else "    no test comes by\n", sep="\n", flush=True)

    def try_again(self, jobs: int) -> None:
        """What is doubtful, each module first where nothing is broken."""
        sound = [replace(fate, mutant=replace(fate.mutant, number=SOUND)) for fate in self.doubtful]
        controls = {fate.mutant.module: fate for fate in sound}
        with ThreadPoolExecutor(jobs) as pool:
            for fate in pool.map(again, [*controls.values(), *self.doubtful]):
                if fate.mutant.number != SOUND:
                    self.heard(replace(fate, doubtful=False))
                elif fate.kind != "survived":
                    sys.exit(f"nothing is broken in {fate.mutant.module}, and yet a test fails from the start")

    def __str__(self) -> str:
        total = sum(self.fates.values(), Counter[str]())
        return "\n".join(_row(name, fates) for name, fates in [*self.fates.items(), ("in all", total)])


def _row(name: str, fates: Counter[str]) -> str:
    total = fates.total()
    killed = total - fates["survived"]
    return f"| {name} | {total} | {killed} | {killed / total:.1%} | {fates['slow']} of them by time |"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=list(TESTS), metavar="MODULE", help=f"default: {', '.join(TESTS)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, nargs="+", default=[], metavar="NUMBER", help="these mutants")
    parser.add_argument("--list", action="store_true", help="show the mutants, and try none")
    parser.add_argument("--from-the-start", nargs="+", default=[], metavar="TEST", help=argparse.SUPPRESS)
    options = parser.parse_args()
    began = time.monotonic()
    made = [mutant for module in options.modules for mutant in mutants(module)]
    made = [mutant for mutant in made if not options.only or mutant.number in options.only]
    if options.list:
        print(*made, sep="\n")
        return
    if options.from_the_start:
        for mutant in made:  # one, or none at all
            from_the_start(mutant.module, mutant.source, path(mutant.module))
        sys.exit(run_tests(options.from_the_start))
    report = Report()
    files = {module: [f"tests/{name}.py" for name in TESTS[module].split()] for module in options.modules}
    every = list(dict.fromkeys(file for each in files.values() for file in each))
    if run_tests(every, Session(made, files, options.jobs, report.heard)):
        sys.exit("the tests could not be run")
    report.try_again(options.jobs)
    work = sum(os.times()[:4])
    print(report, f"{time.monotonic() - began:.0f} s; {work:.0f} s of work, all processors together", sep="\n")


if __name__ == "__main__":
    main()
