"""How a case is measured.

All cases of a group run in one process and one event loop. In each round every case runs once, in random order, for about a
millisecond of CPU time of this thread: neighbours on the machine then disturb all alike. A figure is the median over the rounds;
what a case costs over the base is the median of the differences within each round. Each case loops in a code object of its own,
so that the interpreter can specialise it.
"""

import asyncio
import gc
import importlib
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Final

BARE: Final = "bare await fn()"
BARE_MICROSECONDS: Final = 0.07
"""What a bare await takes on an ordinary machine. Targets in µs are meant there, and are read as multiples of it elsewhere."""

BATCH: Final = 1e-3
"""Seconds of CPU time that a case runs for in each round."""

Run = Callable[[int], Awaitable[object]]
"""Does an operation so many times."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a case may cost over the base: in µs on an ordinary machine, or as a multiple of what another case costs."""

    at_most: float
    of: str = BARE

    def reached(self, over: float, bare: float, over_of: Mapping[str, float]) -> float | None:
        """The share of the target that is used: up to 1.0 is well. None where the other case was not measured."""
        if self.of == BARE:
            return over / bare / (self.at_most / BARE_MICROSECONDS)
        return over / over_of[self.of] / self.at_most if self.of in over_of else None

    def __str__(self) -> str:
        if self.of == BARE:
            return f"≤ {self.at_most / BARE_MICROSECONDS:.3g} × bare ({self.at_most:g} µs)"
        return f"≤ {self.at_most:g} × {self.of}"


@dataclass(frozen=True, slots=True)
class Case:
    """Something that is measured.

    Attributes:
        name: what is measured.
        run: does it so many times.
        targets: what it may cost; only for our own.
        ours: whether it is the library's; the others are peers and floors.
        without: what a peer leaves out that ours does.
        count: how often in each round; 0 to find out how often it takes to fill the batch.
        rounds: how many rounds at most.
        close: gives back what it holds, connections say; called at the end.

    """

    name: str
    run: Run
    targets: tuple[Target, ...] = ()
    ours: bool = False
    without: str = ""
    count: int = 0
    rounds: int = 1_000_000
    close: Callable[[], Awaitable[object]] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that are measured together.

    Attributes:
        name: what `--only` calls it.
        title: what the table says.
        own: makes our own cases, and those of the standard library and anyio.
        peers: makes the cases of a peer, by its name on PyPI. It may raise `ImportError`.
        base: the case whose time the others are compared with.
        clock: in place of the CPU time of this thread; the time that goes by where others do the work, a server say.

    """

    name: str
    title: str
    own: Callable[[], Iterable[Case]]
    peers: Mapping[str, Callable[[], Iterable[Case]]] = field(default_factory=dict[str, Callable[[], Iterable[Case]]])
    base: str = BARE
    clock: Callable[[], float] = time.thread_time


@dataclass(slots=True)
class Result:
    """The figures of a case, in µs an operation: the median, and the median of the differences to the base."""

    case: Case
    median: float
    over: float


def peer(module: str) -> Any:
    """Import a module of a peer; it need not be there."""
    return importlib.import_module(module)


async def fn(value: int) -> int:
    """The callee: as little as there can be."""
    return value


def called(name: str, call: Callable[[int], Awaitable[object]], **more: Any) -> Case:
    """`await call(42)`."""
    return Case(name, _own_code(_calls, call), **more)


def entered(name: str, block: Any, **more: Any) -> Case:
    """`async with block: await fn(42)`."""
    return Case(name, _own_code(_blocks, block), **more)


def refused(name: str, call: Callable[[int], Awaitable[object]], error: type[BaseException], **more: Any) -> Case:
    """`await call(42)`, which raises."""
    return Case(name, _own_code(_refusals, call, error), **more)


async def _calls(n: int, call: Callable[[int], Awaitable[object]]) -> None:
    for _ in range(n):
        await call(42)


async def _blocks(n: int, block: Any) -> None:
    for _ in range(n):
        async with block:
            await fn(42)


async def _refusals(n: int, call: Callable[[int], Awaitable[object]], error: type[BaseException]) -> None:
    for _ in range(n):
        try:  # noqa: SIM105  suppress() takes a microsecond, which is not what is measured
            await call(42)
        except error:
            pass


def _own_code(loop: Any, *args: Any) -> Run:
    """The loop as a function with a code object of its own."""
    own = FunctionType(loop.__code__.replace(), loop.__globals__)
    return lambda n: own(n, *args)


def cases_of(group: Group, missing: set[str], *, with_peers: bool = True) -> list[Case]:
    """All cases of a group. Peers that are not installed are noted in `missing`."""
    cases = [called(BARE, fn), *group.own()]
    for name, make in group.peers.items() if with_peers else ():
        try:
            cases += make()
        except ImportError:
            missing.add(name)
    return cases


async def measure(
    cases: list[Case], base: str, rounds: int, rng: random.Random, clock: Callable[[], float] = time.thread_time
) -> list[Result]:
    """Run the cases in rounds, see the top of this file."""
    counts = [case.count or await _how_often(case.run, clock) for case in cases]
    times: list[list[float]] = [[] for _ in cases]
    order = list(range(len(cases)))
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            rng.shuffle(order)
            for index in order:
                if number < cases[index].rounds:
                    times[index].append(await _timed(cases[index].run, counts[index], clock) / counts[index] * 1e6)
            gc.collect()
    finally:
        gc.enable()
        await close(cases)
    base_times = times[[case.name for case in cases].index(base)]
    return [
        Result(case, statistics.median(own), statistics.median(a - b for a, b in zip(own, base_times, strict=False)))
        for case, own in zip(cases, times, strict=True)
    ]


async def close(cases: Iterable[Case]) -> None:
    """Give back what cases hold, the last one first."""
    for case in reversed(list(cases)):
        if case.close is not None:
            await case.close()


async def _timed(run: Run, n: int, clock: Callable[[], float]) -> float:
    started = clock()
    await run(n)
    return clock() - started


async def _how_often(run: Run, clock: Callable[[], float]) -> int:
    await run(20)  # what happens only the first time is not measured
    n = 1
    while True:
        taken = await _timed(run, n, clock)
        if taken >= BATCH / 4:
            return max(1, round(n * BATCH / taken))
        n *= 4


async def sections(n: int, block: Any, tasks: int) -> None:
    """Many tasks pass through a block, `n` times in all; each is interrupted once inside."""

    async def work() -> None:
        for _ in range(n // tasks):
            async with block:
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(tasks):
            group.create_task(work())
