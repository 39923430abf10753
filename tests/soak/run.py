"""Does it hold? Many clients, real sockets, faults that change all the time; nothing may be wrong, and nothing left behind.

    python tests/soak                # ten minutes
    python tests/soak --minutes 3 --seed 7

A *life* is one event loop, one server, one `FaultProxy` before it and one resilient client, over rounds of some hundred calls:
asyncio and uvloop, httpx and httpx2, HTTP/1.1 and HTTP/2, in turn, twice. After each round, in fair weather: no permit out, no
connection in use, as many tasks and file descriptors as before it, no exception that only the event loop has heard of, and one
more call gets its answer; over the rounds of a life, no growth of the memory that Python has given out. What is called, and the
faults, follow from the seed; which call meets which fault also depends on timing.

What is found is ours, with one exception, which is counted apart: places in the pool of httpx over HTTP/2. A control follows: two
lives more over HTTP/2, in the same weather, of the plain client. It shows what is found without us.

All mutable state: the `Report`.
"""

import argparse
import asyncio
import gc
import logging
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import httpx
import httpx2

import resilient_integrations.httpx
import resilient_integrations.httpx2
from integrations.families import Family, gates
from resilient import Bulkhead, CircuitBreaker, CircuitOpen, Constant, Hedge, Policy, Retry
from resilient.testing import BlackHole, Drip, Fault, FaultProxy, Latency, Refuse, Reset, Sometimes, Truncate, no_leaks
from soak.clients import Call, Tally, judge, make_calls
from soak.origin import Ledger, Protocol, serve

FAMILIES: Final = (Family(httpx, resilient_integrations.httpx), Family(httpx2, resilient_integrations.httpx2))
POLICY: Final = Policy.http().replace(
    retry=Retry(attempts=3, backoff=Constant(delay=0.01)),
    hedge=Hedge(0.1),
    circuit_breaker=CircuitBreaker(failure_rate=0.9, open_for=0.05, open_for_factor=1.0),
    bulkhead=Bulkhead(12, max_queue=100),
    attempt_timeout=0.5,
    timeout=2.0,
)
WORKERS: Final = 12
PATIENCE: Final = 0.4
"""Seconds of the client's own timeouts: less than an attempt may take, for over HTTP/2 only they end a dead connection."""
LAPS: Final = 2
GROWTH: Final = 1.0
"""Blocks of memory by which a life may grow with each call: a thirtieth of a response and its request."""
ENOUGH: Final = 10
"""Rounds without which nothing can be said about that: in the first ones most caches fill."""
STAYING: Final = 0.5
"""Blocks by which the process may grow with each call of the second lap: one object that stays, in half of the calls."""
RESIDENT: Final = 32.0
"""MiB by which the process may grow in the second lap."""
SETTLED: Final = 3.0
"""Seconds in which connections that were closed must be gone, on a busy machine."""
PROBES: Final = 50
"""How often a breaker may refuse a call in fair weather, each time for as long as it says."""


@dataclass(frozen=True)
class Cell:
    """One of the eight combinations, or a control: the plain client."""

    loop: Literal["asyncio", "uvloop"]
    family: Family
    protocol: Protocol
    is_plain: bool = False

    def inner(self) -> Any:
        """A real transport of that family and protocol."""
        return self.family.inner() if self.protocol == "h1" else self.family.inner_h2()

    def __str__(self) -> str:
        return f"{self.loop} {self.family.name} {self.protocol}{' plain' if self.is_plain else ''}"


CELLS: Final = [
    Cell(loop, family, protocol) for loop in ("asyncio", "uvloop") for family in FAMILIES for protocol in ("h1", "h2")
]
CONTROLS: Final = [Cell("asyncio", family, "h2", is_plain=True) for family in FAMILIES]


@dataclass
class Report:
    """What came of a life, or of all.

    Attributes:
        tally: of its calls.
        rounds: how many there were.
        requests: that arrived at the server.
        faults: how often the weather changed.
        connections: through the proxy.
        below: rounds in which the pool of httpx lost places over HTTP/2. Where the first request of a connection is cancelled
            while it counts streams, httpcore 1.0 releases its semaphore too often, and each response of that connection fails
            in its closing. httpcore2 does not.
        seconds: how long it took.
        memory: blocks of memory that Python has given out after each round, with the calls up to then.

    """

    tally: Tally = field(default_factory=Tally)
    rounds: int = 0
    requests: int = 0
    faults: int = 0
    connections: int = 0
    below: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    memory: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    @property
    def growth(self) -> float:
        """Blocks for each call, in the later two thirds of the rounds: the slope of the straight line through them."""
        points = self.memory[len(self.memory) // 3 :]
        if len(points) < ENOUGH:
            return 0.0
        middle, level = (sum(values) / len(points) for values in zip(*points, strict=True))
        slope: float = sum((x - middle) * (y - level) for x, y in points) / sum((x - middle) ** 2 for x, _ in points)
        return slope


def weathers(random: Random) -> list[tuple[Fault, ...]]:
    """All kinds of weather once, fair weather a few times, in some order, with some numbers."""
    ends = [Sometimes(0.5, kind(random.randrange(20_000))) for kind in (Reset, Truncate, BlackHole)]
    kinds: list[tuple[Fault, ...]] = [
        *[()] * 4,
        (Latency(0.0, 0.06),),
        (Drip(random.randrange(200, 4_000), 0.001),),
        (Latency(0.005, 0.02), Sometimes(0.3, Reset(random.randrange(3_000)))),
        (Refuse(),),
        *((end,) for end in ends),
    ]
    random.shuffle(kinds)
    return kinds


@asynccontextmanager
async def bad_weather(proxy: FaultProxy, random: Random, report: Report) -> AsyncGenerator[None]:
    """It changes all the time in the block; at its end it is fair."""

    async def change() -> None:
        while True:
            for fault in weathers(random):
                proxy.fault = fault
                report.faults += 1
                await anyio.sleep(random.uniform(0.02, 0.1))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(change)
        yield
        tasks.cancel_scope.cancel()
    proxy.fault = None


def held_now() -> tuple[int, int]:
    """How many tasks and file descriptors there are."""
    return len(anyio.get_running_tasks()), len(list(Path("/proc/self/fd").iterdir()))


async def settled(before: tuple[int, int]) -> tuple[int, int]:
    """Wait until no more tasks and descriptors are there than before. Returns how many there are."""
    with anyio.move_on_after(SETTLED):
        while any(now > then for now, then in zip(held_now(), before, strict=True)):
            gc.collect()  # httpcore leaves a connection whose connecting was cancelled to the collector, also without us
            await anyio.sleep(0.02)
    return held_now()


@dataclass
class Life:
    """One life, as its rounds need it; `places` and `permits` are those that were lost up to now."""

    cell: Cell
    random: Random
    inner: Any
    client: Any
    proxy: FaultProxy
    ledger: Ledger
    report: Report
    places: int = 0
    permits: int = 0

    async def round(self, calls: list[Call]) -> None:
        """Calls in bad weather, then a look at what is left, and a last call in fair weather."""
        before, report, transport = held_now(), self.report, self.client._transport
        self.ledger.begin(calls[0].number)
        family = self.cell.family
        around = self.cell.inner()  # what drops responses keeps connections: in a pool of its own, which goes with the round
        if not self.cell.is_plain:
            around = family.resilient.ResilientTransport.around(transport.engine, around)
        dropper = family.lib.AsyncClient(transport=around, timeout=PATIENCE)
        url = f"http://127.0.0.1:{self.proxy.port}"
        async with bad_weather(self.proxy, self.random, report):
            tally = await make_calls(self.client, dropper, url, calls, WORKERS, family.lib.HTTPError)
        for _ in range(3):
            gc.collect()  # what was dropped in a cycle is noted,
            await anyio.lowlevel.checkpoint()  # and ended
        judge(tally, calls, self.ledger)
        report.tally.add(tally)
        report.rounds += 1
        report.requests += self.ledger.arrived.total()
        self.look_what_is_out()
        await dropper.aclose()
        await self.inner.aclose()  # its idle connections: it can be used on
        await self.call_in_fair_weather(calls[-1].number + 1, url)
        await self.inner.aclose()
        now = await settled(before)
        if now[0] > before[0] or now[1] > before[1]:
            report.tally.wrong.append(f"tasks or descriptors that stay: {now}, {before} before round {report.rounds}")
        del dropper, around, tally
        gc.collect()
        report.memory.append((report.tally.calls, sys.getallocatedblocks()))

    def look_what_is_out(self) -> None:
        """Note what was lost in this round. A place in the pool may be httpcore's own to lose: see `Report.below`."""
        report, strategies = self.report, [] if self.cell.is_plain else gates(self.client._transport)
        names = "active", "queued", "in_flight", "probes_out"
        permits = sum(getattr(gate.statistics(), name, 0) for gate in strategies for name in names)
        places = len(self.inner._pool._requests)
        if permits > self.permits:
            report.tally.wrong.append(f"permits that stay: {strategies} after round {report.rounds}")
        if places > self.places:
            lost = f"places in the pool that stay: {places}, {self.places} before round {report.rounds}"
            of_httpcore = self.cell.protocol == "h2" and self.cell.family.lib is httpx
            (report.below if of_httpcore else report.tally.wrong).append(lost)
        self.permits, self.places = permits, places

    async def call_in_fair_weather(self, number: int, url: str) -> None:
        """A call gets an answer as soon as the breaker lets it through."""
        call = Call(number, "GET", key=False, is_read=False, size=100, reading="whole", patience=0.0)
        error: Exception | None = None
        for _ in range(PROBES):
            try:
                await call.make(self.client, None, url)
            except CircuitOpen as refusal:
                error = refusal
                await anyio.sleep(refusal.retry_after or 0.0)
            except self.cell.family.lib.HTTPError as failure:
                error = failure
                break
            else:
                return
        self.report.tally.wrong.append(f"no answer in fair weather: {error!r} after round {self.report.rounds}")


async def live(cell: Cell, seed: int, calls: int, rounds: int, seconds: float) -> Report:
    """One life: so many rounds of so many calls, or as many as begin within these seconds."""
    began, family, report = time.monotonic(), cell.family, Report()

    def unheard(_: object, context: dict[str, Any]) -> None:
        report.tally.wrong.append(f"what nobody heard of: {context['message']}: {context.get('exception')!r}")

    asyncio.get_running_loop().set_exception_handler(unheard)
    try:
        with no_leaks():
            inner = cell.inner()
            transport = inner if cell.is_plain else family.resilient.ResilientTransport(inner, policy=POLICY)
            async with (
                serve(cell.protocol) as (port, ledger),
                FaultProxy("127.0.0.1", port, seed=seed) as proxy,
                family.lib.AsyncClient(transport=transport, timeout=PATIENCE) as client,
            ):
                await client.get(f"http://127.0.0.1:{proxy.port}/0?size=1")  # uvloop opens a descriptor for the first connection
                await inner.aclose()
                life = Life(cell, Random(f"{seed}/{cell}"), inner, client, proxy, ledger, report)
                for number in range(rounds):
                    if number and time.monotonic() - began > seconds:
                        break
                    first = 1 + number * (calls + 1)  # one more is made in fair weather
                    await life.round([Call.drawn(seed, each) for each in range(first, first + calls)])
                report.connections = proxy.connections
    except AssertionError as left:
        report.tally.wrong.append(str(left))
    report.seconds = time.monotonic() - began
    return report


def run(cell: Cell, *, seed: int, calls: int, rounds: int, seconds: float) -> Report:
    """One life, in an event loop of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* was dropped and not closed", ResourceWarning)  # they are dropped on purpose
        if cell.protocol == "h2":  # connections are left to the collector; a plain client under a cancel scope does that too
            warnings.filterwarnings("ignore", "unclosed (<socket|transport)", ResourceWarning)
        report = anyio.run(live, cell, seed, calls, rounds, seconds, backend_options={"use_uvloop": cell.loop == "uvloop"})
        gc.collect()  # while such warnings are ignored
        return report


def resident() -> float:
    """MiB of memory that the process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def shown(cell: Cell, report: Report) -> Tally:
    """Print a life's line. Returns its tally."""
    tally, outcomes = report.tally, report.tally.outcomes
    failed = sum(count for name, count in outcomes.items() if not name[0].isdigit() and name != "cancelled")
    print(
        f"{cell!s:23} {report.rounds:6} {tally.calls:6} {report.requests:6} {report.connections:6} {report.faults:6}"
        f" {outcomes['200']:6} {outcomes['cancelled']:7} {failed:6} {tally.again:5} {report.growth:+7.2f}"
        f" {resident():6.1f} {report.seconds:5.1f}",
        flush=True,
    )
    return tally


def soak(minutes: float, seed: int, calls: int) -> list[str]:
    """All lives, in laps, then the controls. Prints a line for each, and returns what was wrong."""
    print(
        f"{'life':23} {'rounds':>6} {'calls':>6} {'sent':>6} {'conn.':>6} {'faults':>6} {'200':>6} {'cancel.':>7} {'failed':>6}"
        f" {'again':>5} {'blocks':>7} {'MiB':>6} {'s':>5}"
    )
    whole, wrong, below = Tally(), list[str](), list[str]()
    sizes, held, done = list[float](), list[int](), list[int]()
    seconds = 60 * minutes / (LAPS * len(CELLS) + len(CONTROLS))
    for lap in range(LAPS):
        for cell in CELLS:
            report = run(cell, seed=seed + lap, calls=calls, rounds=10_000, seconds=seconds)
            tally = shown(cell, report)
            if report.growth > GROWTH:
                tally.wrong.append(f"memory that grows: by {report.growth:.2f} blocks with each call")
            wrong += [f"{cell}: {each}" for each in tally.wrong]
            below += [f"{cell}: {each}" for each in report.below]
            whole.add(tally)
        sizes.append(resident())
        held.append(sys.getallocatedblocks())
        done.append(whole.calls)
    staying = (held[-1] - held[0]) / (done[-1] - done[0])
    if staying > STAYING:
        wrong.append(f"memory that grows: by {staying:.2f} blocks with each call of the second lap")
    if sizes[-1] - sizes[0] > RESIDENT:
        wrong.append(f"memory that grows: by {sizes[-1] - sizes[0]:.1f} MiB in the second lap")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    print("after each lap:", *held, "blocks of memory,", *(f"{size:.1f}" for size in sizes), "MiB resident")
    print(f"descriptors at the end: {descriptors}")
    print(f"{whole.calls} calls, {whole.again} requests that came again and might: ", end="")
    print(*(f"{count} {name}" for name, count in whole.outcomes.most_common()), sep=", ")
    print(f"{len(below)} rounds in which the pool of httpcore lost places over HTTP/2", *below, sep="\n- ")
    for cell in CONTROLS:
        report = run(cell, seed=seed, calls=calls, rounds=10_000, seconds=seconds)
        kinds = Counter(each.partition(":")[0] for each in (*shown(cell, report).wrong, *report.below))
        print("control:", *(f"{count} {kind}" for kind, count in kinds.most_common()), sep="\n- ")
    return wrong


def main() -> int:
    """The command: 0 where nothing was wrong."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="in all (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of calls and faults (default 0)")
    parser.add_argument("--calls", type=int, default=200, help="in a round (default 200)")
    options = parser.parse_args()
    logging.disable()  # a line for each retry would be thousands
    wrong = soak(options.minutes, options.seed, options.calls)
    print(f"\n{len(wrong)} things were wrong" if wrong else "nothing was wrong", *wrong, sep="\n- ")
    return 1 if wrong else 0
