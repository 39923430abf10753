"""Hedges whose first leg answers in time."""

import asyncio
from collections.abc import Iterable

import anyio

from benchmarks.harness import Case, Group, Run, Target, called, fn, peer
from resilient import Hedge

FLOOR = "anyio task group and a timer"
LOSERS = "cancelling and awaiting losers in anyio scopes, disposal of their values, trio, live latency, permits"


def _floor() -> Run:
    async def run(n: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(n):
            async with anyio.create_task_group():
                timer = loop.call_later(10, print)
                await fn(42)
                timer.cancel()

    return run


def own() -> Iterable[Case]:
    fixed, live = Hedge(10), Hedge(minimum=1)
    live.state.latency.record(10.0, 0.0)
    yield called("resilient @Hedge", fixed(fn), ours=True, targets=(Target(1.7, FLOOR),))
    yield called("resilient @Hedge, live latency", live(fn), ours=True)
    yield called("resilient @Hedge, nothing known yet", Hedge(minimum=1_000_000_000)(fn), ours=True)
    yield Case(FLOOR, _floor())


def nopanic() -> Iterable[Case]:
    yield called("nopanic @hedge", peer("nopanic").hedge(delay=10)(fn), without=LOSERS)


def grit() -> Iterable[Case]:
    yield called("grit @hedge", peer("grit").hedge(10)(fn), without=LOSERS)


GROUPS = [Group("hedge", "Hedge: the first leg answers in time", own, {"nopanic": nopanic, "grit-toolkit": grit})]
