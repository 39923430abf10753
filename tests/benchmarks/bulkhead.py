"""Bulkheads: free, contended, and with waiters that are cancelled."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio

from benchmarks.harness import Case, Group, Target, called, entered, fn, peer, sections
from resilient import AdaptiveLimit, Bulkhead, Pipeline

TASKS = 50
WAITERS = 50_000
FEW_WAITERS = 5_000


def own_free() -> Iterable[Case]:
    bulkhead = Bulkhead(10)
    targets = (Target(0.4), Target(0.6, "asyncio.Semaphore"))
    yield entered("resilient async with bulkhead", bulkhead, ours=True, targets=targets)
    yield called("resilient @Bulkhead", bulkhead(fn), ours=True)
    yield called("resilient @Pipeline(Bulkhead)", Pipeline(bulkhead)(fn), ours=True)
    yield called("resilient @AdaptiveLimit", AdaptiveLimit()(fn), ours=True)
    yield entered("resilient async with adaptive limit", AdaptiveLimit(), ours=True)
    yield entered("asyncio.Semaphore", asyncio.Semaphore(10), without="a bound on the queue and on waits, statistics")
    yield entered("anyio.Semaphore(fast_acquire=True)", anyio.Semaphore(10, fast_acquire=True), without="the same")
    yield entered("anyio.CapacityLimiter", anyio.CapacityLimiter(10), without="a bound on the queue and on waits")


def hyx_free() -> Iterable[Case]:
    wrap = peer("hyx.bulkhead").bulkhead(10, 20)
    yield called("hyx @bulkhead", wrap(fn), without="a bound on waits, trio")


def nopanic_free() -> Iterable[Case]:
    yield called("nopanic @bulkhead", peer("nopanic").bulkhead(10)(fn), without="one limit for all event loops")


def grit_free() -> Iterable[Case]:
    yield called("grit @bulkhead", peer("grit").bulkhead(10)(fn), without="a bound on the queue, trio")


def pyresilience_free() -> Iterable[Case]:
    pyresilience = peer("pyresilience")
    wrap = pyresilience.resilient(bulkhead=pyresilience.BulkheadConfig(10))
    yield called("pyresilience @resilient(bulkhead)", wrap(fn), without="a queue, trio")


def contended(name: str, block: Any, **more: Any) -> Case:
    return Case(name, lambda n: sections(n, block, TASKS), count=TASKS * 20, **more)


def own_contended() -> Iterable[Case]:
    yield contended("no limit", contextlib.nullcontext())
    yield contended(
        "resilient Bulkhead",
        Bulkhead(10, max_queue=TASKS),
        ours=True,
        targets=(Target(2.0, "anyio.Semaphore(fast_acquire=True)"),),
    )
    yield contended("asyncio.Semaphore", asyncio.Semaphore(10))
    yield contended("anyio.Semaphore(fast_acquire=True)", anyio.Semaphore(10, fast_acquire=True))
    yield contended("anyio.CapacityLimiter", anyio.CapacityLimiter(10))


def contended_calls(name: str, wrap: Callable[[Any], Callable[[], Awaitable[None]]], **more: Any) -> Case:
    """The same, for peers whose bulkhead is only a decorator."""
    section = wrap(_section)

    async def run(n: int) -> None:
        async def work() -> None:
            for _ in range(n // TASKS):
                await section()

        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(work())

    return Case(name, run, count=TASKS * 20, **more)


async def _section() -> None:
    await asyncio.sleep(0)


def hyx_contended() -> Iterable[Case]:
    yield contended_calls("hyx @bulkhead", peer("hyx.bulkhead").bulkhead(10, TASKS), without="a bound on waits, trio")


def nopanic_contended() -> Iterable[Case]:
    nopanic = peer("nopanic")
    yield contended_calls("nopanic @bulkhead", nopanic.bulkhead(10), without="a bound on the queue")
    yield contended_calls("nopanic @bulkhead(max_wait)", nopanic.bulkhead(10, max_wait=60.0), without="a bound on the queue")


def grit_contended() -> Iterable[Case]:
    yield contended_calls("grit @bulkhead", peer("grit").bulkhead(10, timeout=60.0), without="a bound on the queue, trio")


def pyresilience_contended() -> Iterable[Case]:
    pyresilience = peer("pyresilience")
    wrap = pyresilience.resilient(bulkhead=pyresilience.BulkheadConfig(10, max_wait=60.0))
    yield contended_calls("pyresilience @resilient(bulkhead)", wrap, without="a bound on the queue, trio")


def cancelled(name: str, make: Callable[[], Any], waiters: int, **more: Any) -> Case:
    """Many tasks wait for a block that is taken, and are cancelled. One operation is one waiter."""

    async def run(n: int) -> None:
        block = make()

        async def wait() -> None:
            async with block:
                raise AssertionError

        async with block:
            tasks = [asyncio.ensure_future(wait()) for _ in range(n)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    return Case(f"{name}, {waiters}", run, count=waiters, rounds=3, **more)


def own_cancelled() -> Iterable[Case]:
    def make() -> Bulkhead:
        return Bulkhead(1, max_queue=WAITERS)

    few = cancelled("resilient Bulkhead", make, FEW_WAITERS, ours=True)
    yield few
    yield cancelled("resilient Bulkhead", make, WAITERS, ours=True, targets=(Target(1.5, few.name),))
    for waiters in (FEW_WAITERS, WAITERS):
        yield cancelled("asyncio.Semaphore", lambda: asyncio.Semaphore(1), waiters)
    yield cancelled("anyio.Semaphore(fast_acquire=True)", lambda: anyio.Semaphore(1, fast_acquire=True), FEW_WAITERS)


GROUPS = [
    Group(
        "bulkhead",
        "Bulkhead: a slot is free",
        own_free,
        {"hyx": hyx_free, "nopanic": nopanic_free, "grit-toolkit": grit_free, "pyresilience": pyresilience_free},
    ),
    Group(
        "contended",
        f"Bulkhead: {TASKS} tasks share 10 slots, each is interrupted once while it holds one",
        own_contended,
        {
            "hyx": hyx_contended,
            "nopanic": nopanic_contended,
            "grit-toolkit": grit_contended,
            "pyresilience": pyresilience_contended,
        },
        base="no limit",
    ),
    Group("cancelled", "Bulkhead: waiters that are all cancelled, for each of them", own_cancelled),
]
