"""A session of pytest that tries mutants: it imports and collects once, and forks for each of them.

First the survey: all tests run once, and what is kept of each is how long it took and which lines of the modules it came by
(`sys.monitoring` tells a line once, which costs next to nothing). Then, for each mutant, a fork plants it and runs the tests that
come by its statement, those that killed a neighbour first, then the quickest on asyncio, then those on trio, up to the first
that fails. All other tests would run as if nothing were broken.

What was done at import or when tests were collected was done by what is not broken. A mutant that survives and has a part in
that is therefore *doubtful*: who hears of it tries it again, from the start, on asyncio.
"""

import gc
import mmap
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import pytest

from mutation.mutants import ROOT, Mutant, path
from mutation.planting import PACKAGE, plant

_MONITORING: Final[Any] = vars(sys).get("monitoring") or sys.exit("this needs Python 3.12")
_TOOL: Final = 1  # of sys.monitoring: that of coverage, which would slow everything down
_TIMES: Final = 8
_SECONDS: Final = 1.0
"""A test of a mutant may work so many times as long as it does where nothing is broken, and so many seconds more."""
_GUARD: Final = 120.0
"""Seconds after which a test is ended that does nothing. Work is measured apart, for others may be using the processors."""
_BOX: Final = 1 << 16  # bytes
_MEMORY: Final = 2 << 30
"""Bytes. What a broken loop fills must not be all there is."""


@dataclass(frozen=True)
class Fate:
    """What became of a mutant.

    Attributes:
        kind: "killed" by a test, "slow" where one took far too long, or "survived".
        tests: those that come by it, or the one that killed it; all that are about the module where it is doubtful.
        doubtful: whether it survived only because what it breaks was made before.
        why: what the test says that killed it.

    """

    mutant: Mutant
    kind: str
    tests: Sequence[str]
    doubtful: bool = False
    why: str = ""


class Session:
    """A plugin of pytest. `tests` says which files are about a module; `heard` is told what becomes of the mutants."""

    def __init__(
        self, made: Sequence[Mutant], tests: Mapping[str, Sequence[str]], jobs: int, heard: Callable[[Fate], None]
    ) -> None:
        self._made = made
        self._about = {name: {ROOT / file for file in tests[name]} for name in {mutant.module: None for mutant in made}}
        self._jobs = jobs
        self._heard = heard
        self._seconds = dict[pytest.Item, float]()
        self._by_line: dict[str, dict[int, set[pytest.Item]]] = {name: defaultdict(set) for name in self._about}
        self._kills: dict[tuple[str, int], Counter[pytest.Item]] = defaultdict(Counter)
        self._running = dict[int, tuple[Mutant, list[pytest.Item], mmap.mmap]]()
        self._early = dict[str, set[int]]()
        self._lines: _Lines
        self._failure = ""

    def pytest_sessionstart(self) -> None:
        """Before tests are collected: what that does to the modules is noted."""
        self._lines = _Lines([code for name in self._about for code in _codes(import_module(f"{PACKAGE}.{name}"))])

    def pytest_collection_finish(self) -> None:
        """What was made until now is made by what is not broken."""
        self._early = {name: set(self._lines.passed[str(path(name))]) for name in self._about}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """How a part of a test ended."""
        if report.failed:
            self._failure += f"{report.nodeid}, {report.when}\n{report.longrepr}\n"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """In place of running the tests."""
        self._survey(session.items)
        gc.collect()
        gc.freeze()  # what a fork need not look at it need not copy
        # In another order, and in a fork: what is not broken must not make a test fail.
        for fate in self._judge([Mutant(name, -1, 0, None, "", path(name).read_text(), (), exact=True) for name in self._about]):
            if fate.kind != "survived":
                sys.exit(f"nothing is broken in {fate.mutant.module}, and yet it is {fate.kind} by {fate.tests}\n{fate.why}")
        for fate in self._judge(self._made):
            self._heard(fate)
        return True

    def _survey(self, items: Sequence[pytest.Item]) -> None:
        """Run the tests, on asyncio and on trio, and note what they come by."""
        items = [item for item in items if _backend(item) in {"", "asyncio", "trio"}]
        for item, following in zip(items, [*items[1:], None], strict=True):
            self._lines.begin()
            began = time.process_time()
            self._run(item, following)
            took = time.process_time() - began
            if self._failure:
                sys.exit(f"where nothing is broken:\n{self._failure}")
            self._seconds[item] = took
            for name, files in self._about.items():
                for line in self._lines.passed[str(path(name))] if item.path in files else ():
                    self._by_line[name][line].add(item)
        self._lines.close()

    def _run(self, item: pytest.Item, following: pytest.Item | None) -> None:
        item.ihook.pytest_runtest_protocol(item=item, nextitem=following)

    def _judge(self, made: Sequence[Mutant]) -> Iterator[Fate]:
        for mutant in made:
            if len(self._running) == self._jobs:
                yield self._wait()
            self._fork(mutant)
        while self._running:
            yield self._wait()

    def _tests_of(self, mutant: Mutant) -> list[pytest.Item]:
        by_line = self._by_line[mutant.module]
        return self._sorted(mutant, set[pytest.Item]().union(*(by_line[line] for line in mutant.lines or list(by_line))))

    def _sorted(self, mutant: Mutant, tests: set[pytest.Item]) -> list[pytest.Item]:
        kills = self._kills[mutant.module, mutant.line]
        return sorted(tests, key=lambda test: (-kills[test], _backend(test) == "trio", self._seconds[test]))

    def _fork(self, mutant: Mutant) -> None:
        tests, box = self._tests_of(mutant), mmap.mmap(-1, _BOX)
        child = os.fork()
        if child:
            self._running[child] = mutant, tests, box
            return
        try:
            self._try(mutant, tests, box)
        except BaseException:  # noqa: BLE001  nothing may go on in a fork
            self._failure = traceback.format_exc()
        words = self._failure.encode()[: _BOX - 8]
        box[8 : 8 + len(words)] = words
        os._exit(1 if words else 0)

    def _try(self, mutant: Mutant, tests: Sequence[pytest.Item], box: mmap.mmap) -> None:
        """In a fork: run the tests up to the first that fails."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        plant(mutant.module, mutant.source, path(mutant.module), mutant.place)
        for index, (test, following) in enumerate(zip(tests, [*tests[1:], None], strict=True)):
            box[:8] = index.to_bytes(8)
            signal.setitimer(signal.ITIMER_PROF, _TIMES * self._seconds[test] + _SECONDS)
            signal.setitimer(signal.ITIMER_REAL, _GUARD)
            self._run(test, following)
            if self._failure:
                return

    def _wait(self) -> Fate:
        child, status = os.wait()
        mutant, tests, box = self._running.pop(child)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return self._survived(mutant, tests)
        last = tests[int.from_bytes(box[:8])] if tests else None
        if last is not None:
            self._kills[mutant.module, mutant.line][last] += 1
        why = box[8:].rstrip(b"\0").decode(errors="replace")
        return Fate(mutant, "killed" if code == 1 else "slow", [last.nodeid] if last else [], why=why)

    def _survived(self, mutant: Mutant, tests: Sequence[pytest.Item]) -> Fate:
        doubtful = not mutant.exact or not self._early[mutant.module].isdisjoint(mutant.lines or ())
        if doubtful:
            about = self._about[mutant.module]
            tests = self._sorted(mutant, {item for item in self._seconds if item.path in about and _backend(item) != "trio"})
        return Fate(mutant, "survived", [test.nodeid for test in tests], doubtful)


class _Lines:
    """Which lines of some functions are passed, from `begin` on."""

    def __init__(self, codes: Sequence[CodeType]) -> None:
        self._codes = codes
        self.passed: dict[str, set[int]] = defaultdict(set)
        _MONITORING.use_tool_id(_TOOL, "mutation")
        _MONITORING.register_callback(_TOOL, _MONITORING.events.LINE, self._hear)
        for code in codes:
            _MONITORING.set_local_events(_TOOL, code, _MONITORING.events.LINE)

    def begin(self) -> None:
        self.passed.clear()
        _MONITORING.restart_events()

    def close(self) -> None:
        for code in self._codes:
            _MONITORING.set_local_events(_TOOL, code, 0)
        _MONITORING.free_tool_id(_TOOL)

    def _hear(self, code: CodeType, line: int) -> Any:
        self.passed[code.co_filename].add(line)
        return _MONITORING.DISABLE


def _codes(module: ModuleType) -> Iterator[CodeType]:
    """The code of all functions of a module, as they are."""
    for value in list(vars(module).values()):
        members = vars(value).values() if isinstance(value, type) and value.__module__ == module.__name__ else [value]
        for member in members:
            for function in _functions(member):
                if function.__code__.co_filename == module.__file__:
                    yield from _nested(function.__code__)


def _functions(member: Any) -> Iterator[FunctionType]:
    if isinstance(member, FunctionType):
        yield member
    for name in ("__wrapped__", "__func__", "fget", "fset", "func"):
        inner = getattr(member, name, None)
        if isinstance(inner, FunctionType):
            yield from _functions(inner)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _backend(item: pytest.Item) -> str:
    """The backend of anyio that a test runs on, or ""."""
    choice = getattr(item, "callspec", None)
    return str(choice.params.get("anyio_backend", "")) if choice else ""
