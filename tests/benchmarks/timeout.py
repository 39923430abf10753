"""Timeouts that do not expire."""

import asyncio
from collections.abc import Iterable

import anyio

from benchmarks.harness import Case, Group, Run, Target, called, fn, peer
from resilient import Timeout

SCOPE = "anyio.CancelScope(deadline=...)"
RELABELS = "telling an inner TimeoutError from its own, trio"


def _scopes() -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            with anyio.CancelScope(deadline=anyio.current_time() + 10):
                await fn(42)

    return run


def _fail_after() -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            with anyio.fail_after(10):
                await fn(42)

    return run


def _asyncio() -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            async with asyncio.timeout(10):
                await fn(42)

    return run


def own() -> Iterable[Case]:
    timeout = Timeout(10)
    yield called("resilient @Timeout", timeout(fn), ours=True, targets=(Target(1.3, SCOPE),))
    yield called("resilient Timeout.call", lambda value: timeout.call(fn, value), ours=True)
    yield Case(SCOPE, _scopes(), without="an error at its expiry")
    yield Case("anyio.fail_after", _fail_after())
    yield Case("asyncio.timeout", _asyncio(), without="scopes that nest with anyio's, level cancellation, trio")


def hyx() -> Iterable[Case]:
    yield called("hyx @timeout", peer("hyx.timeout").timeout(10)(fn), without=RELABELS)


def nopanic() -> Iterable[Case]:
    yield called("nopanic @timeout", peer("nopanic").timeout(10)(fn), without="level cancellation on asyncio (asyncio.timeout)")


def grit() -> Iterable[Case]:
    yield called("grit @timeout", peer("grit").timeout(10)(fn), without=RELABELS)


def pyresilience() -> Iterable[Case]:
    module = peer("pyresilience")
    yield called("pyresilience @resilient(timeout)", module.resilient(timeout=module.TimeoutConfig(10))(fn), without=RELABELS)


GROUPS = [
    Group(
        "timeout",
        "Timeout: not reached",
        own,
        {"hyx": hyx, "nopanic": nopanic, "grit-toolkit": grit, "pyresilience": pyresilience},
    )
]
