"""How good are the tests? Break the state machines in every small way, and see whether a test notices.

    pip install mutmut==3.8.1
    python tests/mutation/run.py                 # all modules: some hours on two cores
    python tests/mutation/run.py windows slots   # these
    python tests/mutation/run.py windows --list  # what would be tried

The operators are those of mutmut: a number that is one higher, `<` in place of `<=`, `and` in place of `or`, an argument that is
None or missing, a string that is another one, an assignment of None. This file applies them to one module at a time, each alone,
and runs the tests that are about that module in a fork, in which that module, and nothing else, is the broken one. A mutant is
*killed* where a test fails or takes far too long; those that *survive* are printed. docs/testing.md explains them.

What is not state machine is left alone: annotations, docstrings, imports, decorators, `__slots__`, `__repr__`, `__all__`, and
the words of messages.
"""

import argparse
import ast
import contextlib
import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

try:
    cst: Any = import_module("libcst")
    metadata: Any = import_module("libcst.metadata")
    mutators: Any = import_module("mutmut.mutation.mutators")
except ImportError:
    sys.exit("the operators are those of mutmut: pip install mutmut==3.8.1")

for name in ("anyio.pytest_plugin", "hypothesis.stateful", "structlog", "trio"):
    import_module(name)  # once, before the forks

ROOT = Path(__file__).resolve().parents[2]
BASELINES = 8
"""A mutant may take so many times as long as the tests do, and some seconds."""

TESTS: dict[str, str] = {
    "breaker_states": "models/test_gates strategies/test_breaker_states strategies/test_breaker_trips"
    " strategies/test_breaker_probes strategies/test_breaker_failures strategies/test_breaker_seen strategies/test_retuning"
    " models/test_breaker",
    "windows": "strategies/test_windows models/test_windows",
    "slots": "models/test_gates strategies/test_bulkhead strategies/test_bulkhead_waits strategies/test_bulkhead_cancellation"
    " strategies/test_rejections"
    " strategies/test_adaptive_limit models/test_slots",
    "flow": "strategies/test_rate_limit strategies/test_rate_limit_exactness strategies/test_leaky_bucket"
    " strategies/test_retuning strategies/test_adaptive_rate models/test_gates models/test_buckets",
    "limiter": "models/test_gates strategies/test_rate_limit strategies/test_rate_limit_waits strategies/test_rate_limit_returns"
    " strategies/test_sliding_window models/test_queues models/test_buckets",
    "sliding_window": "models/test_gates strategies/test_sliding_window models/test_sliding_windows",
    "budget": "strategies/test_budget strategies/test_budgets models/test_budgets",
    "backoff": "strategies/test_backoff models/test_calls",
    "retry_loop": "strategies/test_retry strategies/test_retry_stops strategies/test_retry_tells"
    " strategies/test_retry_loop_form strategies/test_budget strategies/test_rejections"
    " models/test_calls",
    "throttle": "models/test_gates strategies/test_throttle models/test_throttle",
    "latency": "strategies/test_latency models/test_latency",
    "concurrency": "strategies/test_concurrency strategies/test_adaptive_limit models/test_adaptive_limit",
}
"""The tests of each module. Histories at random come last: they take longest to find what is simple."""


@dataclass(frozen=True)
class Mutant:
    """One way to break a module."""

    module: str
    number: int
    line: int
    source: str
    change: str

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line} [{self.number}]\n{self.change}"


def _changes(node: Any) -> Iterator[tuple[Any, Any]]:
    """Each node that can be changed, and into what."""
    if _is_left_alone(node):
        return
    for kind, operator in mutators.mutation_operators:
        if isinstance(node, kind):
            yield from ((node, changed) for changed in operator(node))
    for child in node.children:
        yield from _changes(child)


def _is_left_alone(node: Any) -> bool:
    if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom | cst.FormattedString):
        return True
    if isinstance(node, cst.FunctionDef):
        return bool(node.name.value == "__repr__")
    if isinstance(node, cst.Expr):
        return isinstance(node.value, cst.SimpleString | cst.ConcatenatedString | cst.Ellipsis)
    if isinstance(node, cst.Assign):
        name = node.targets[0].target
        return isinstance(name, cst.Name) and name.value in {"__slots__", "__all__", "msg", "_how_to_hold_more", "T", "P"}
    return isinstance(node, cst.If) and isinstance(node.test, cst.Name) and node.test.value == "TYPE_CHECKING"


def mutants(module: str) -> list[Mutant]:
    """Every way to break a module that changes what it compiles to, each once."""
    source = _path(module).read_text()
    wrapper = metadata.MetadataWrapper(cst.parse_module(source))
    positions = wrapper.resolve(metadata.PositionProvider)
    made, seen = list[Mutant](), {ast.dump(ast.parse(source))}
    for node, changed in _changes(wrapper.module):
        code: str = wrapper.module.deep_replace(node, changed).code
        try:
            meaning = ast.dump(ast.parse(code))
            compile(code, module, "exec")
        except SyntaxError:
            continue
        if meaning not in seen:
            seen.add(meaning)
            line = positions[node].start.line if node in positions else 0
            made.append(Mutant(module, len(made), line, code, _change(source, code)))
    return made


def _change(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "\n".join(f"    {line}" for line in lines if line[:1] in "+-" and line[:3] not in {"+++", "---"})


def _path(module: str) -> Path:
    return ROOT / "resilient" / "strategies" / f"{module}.py"


class _Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from another source."""

    def __init__(self, name: str, source: str, path: Path) -> None:
        self._name, self._source, self._path = name, source, path

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, str(self._path), "exec"), module.__dict__)  # noqa: S102  that is what it is for


def _run_tests(module: str, source: str) -> int:
    """In a fork: the exit code of pytest, 0 where all tests pass."""
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(ROOT / "integrations"), str(ROOT / "tests")]
    sys.meta_path.insert(0, _Broken(f"resilient.strategies.{module}", source, _path(module)))
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # to make a failure small would take most of the time
    hypothesis.settings.register_profile("mutation", phases=phases, report_multiple_bugs=False)
    hypothesis.settings.load_profile("mutation")
    sys.dont_write_bytecode = True
    tests = [f"tests/{name}.py" for name in TESTS[module].split()]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = ["anyio.pytest_plugin", "pytest_asyncio.plugin", "_hypothesis_pytestplugin", "pytest_timeout", "xdist.plugin"]
    options = ["-x", "-q", "-n=0", "-pno:cacheprovider", "-Wignore::pytest.PytestAssertRewriteWarning", "--tb=short"]
    return int(pytest.main([*options, *(f"-p{plugin}" for plugin in plugins), "-k=not trio and not eager", *tests]))


def _fork(module: str, source: str) -> int:
    child = os.fork()
    if child:
        return child
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    code = 1
    with contextlib.suppress(BaseException):
        code = _run_tests(module, source)
    os._exit(code)


def judge(made: list[Mutant], jobs: int, limit: float) -> Iterator[tuple[Mutant, str]]:
    """What becomes of each mutant: killed, slow or survived."""
    waiting, running = made[::-1], dict[int, tuple[Mutant, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[_fork(mutant.module, mutant.source)] = mutant, time.monotonic() + limit
        time.sleep(0.01)
        for child, (mutant, until) in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del running[child]
                yield mutant, "killed" if os.waitstatus_to_exitcode(status) else "survived"
            elif time.monotonic() > until:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                del running[child]
                yield mutant, "slow"


def _baseline(module: str) -> float:
    """Seconds that the tests take where nothing is broken."""
    started = time.monotonic()
    _, status = os.waitpid(_fork(module, _path(module).read_text()), 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"the tests of {module} fail where nothing is broken: {TESTS[module]}")
    return time.monotonic() - started


def measure(module: str, jobs: int, only: Sequence[int]) -> tuple[int, int]:
    """Try all mutants of a module. Returns how many there are, and how many of them were killed."""
    made = [mutant for mutant in mutants(module) if not only or mutant.number in only]
    began, baseline = time.monotonic(), _baseline(module)
    fates = {"killed": 0, "slow": 0, "survived": 0}
    for mutant, fate in judge(made, jobs, BASELINES * baseline + 5):
        fates[fate] += 1
        if fate == "survived":
            print(mutant, flush=True)
    killed = len(made) - fates["survived"]
    took = time.monotonic() - began
    print(
        f"{module}: {killed} of {len(made)} killed, {killed / max(1, len(made)):.1%} ({fates['slow']} by time), {took:.0f} s, "
        f"tests {baseline:.1f} s\n",
        flush=True,
    )
    return len(made), killed


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("modules", nargs="*", choices=[*TESTS, []], metavar="MODULE", help=f"of {', '.join(TESTS)}; default: all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int, nargs="*", default=[], metavar="NUMBER", help="these mutants")
    parser.add_argument("--list", action="store_true", help="show the mutants, and try none")
    options = parser.parse_args()
    modules: list[str] = options.modules or list(TESTS)
    if options.list:
        for module in modules:
            print(*mutants(module), sep="\n")
        return
    results = [measure(module, options.jobs, options.only) for module in modules]
    total, killed = (sum(numbers) for numbers in zip(*results, strict=True))
    print(f"in all: {killed} of {total} killed, {killed / max(1, total):.1%}")


if __name__ == "__main__":
    main()
