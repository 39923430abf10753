"""What a call costs in instructions of the processor: figures that do not depend on what else the machine does.

    python tests/benchmarks/instructions.py                 # all cases, some minutes
    python tests/benchmarks/instructions.py --only pipeline # those whose name has this in it

Each case runs under valgrind (callgrind) in processes of its own, once with few calls and once with more; the difference, divided
by the number of calls, is what one takes. It is given as a multiple of `await fn()`, as the targets are, and varies by a percent.
Instructions are not time: one that waits for memory takes longer. But time on a machine that is shared with others tells more of
the others.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # this folder is a package: its files are not top-level modules

from benchmarks.executor import KEY, policy_of_four
from benchmarks.harness import BARE, BARE_MICROSECONDS, Run, called, entered, fn
from benchmarks.http_transport import mock, sends
from benchmarks.limiter import PLENTY
from benchmarks.pipelines import four
from resilient import Bulkhead, CircuitBreaker, CircuitOpen, Resilience, Retry, TokenBucket, configure_logging
from resilient_integrations.httpx import ResilientTransport

FEW: Final = 100
MORE: Final = 400


async def nothing(n: int) -> None:
    for _ in range(n):
        pass


def block(manager: Any) -> Run:
    return entered("", manager).run


def decorated(strategy: Any) -> Run:
    return called("", strategy(fn)).run


def method(strategy: Any) -> Run:
    """Its `.call`, without a function of ours around it, which would count."""

    async def run(n: int) -> None:
        call = strategy.call
        for _ in range(n):
            await call(fn, 42)

    return run


def refused() -> Run:
    configure_logging(enabled=False)
    breaker = CircuitBreaker(initial="isolated")

    async def run(n: int) -> None:
        for _ in range(n):
            with contextlib.suppress(CircuitOpen):
                await breaker.call(fn, 42)

    return run


def executor() -> Resilience:
    return Resilience(policies={KEY: policy_of_four()})


def by_key() -> Run:
    resilience = executor()

    async def run(n: int) -> None:
        for _ in range(n):
            await resilience.call(KEY, fn, 42)

    return run


CASES: Final[dict[str, Callable[[], Run]]] = {
    "nothing": lambda: nothing,
    "bare": lambda: called(BARE, fn).run,
    "Retry.call": lambda: method(Retry(on=OSError)),
    "@Retry": lambda: decorated(Retry(on=OSError)),
    "CircuitBreaker.call": lambda: method(CircuitBreaker()),
    "@CircuitBreaker": lambda: decorated(CircuitBreaker()),
    "async with bulkhead": lambda: block(Bulkhead(10)),
    "async with bucket": lambda: block(TokenBucket(PLENTY)),
    "an open breaker refuses": refused,
    "pipeline of four, .call": lambda: method(four()),
    "pipeline of four, decorator": lambda: decorated(four()),
    "the pipeline of a key": lambda: method(executor().pipeline(KEY)),
    "Resilience.call": by_key,
    "MockTransport": lambda: sends(httpx, mock(httpx)),
    "ResilientTransport": lambda: sends(httpx, ResilientTransport(mock(httpx))),
}
BASE: Final = {"Resilience.call": "the pipeline of a key", "ResilientTransport": "MockTransport"}
"""What a case is compared with; every other one with a bare call."""
AT_MOST: Final = {
    "Retry.call": 0.4,
    "CircuitBreaker.call": 0.9,
    "async with bulkhead": 0.4,
    "async with bucket": 0.5,
    "an open breaker refuses": 2.0,
    "pipeline of four, .call": 1.7,
    "Resilience.call": 0.56,
    "ResilientTransport": 15.0,
}
"""The targets in µs, on the machine of `BARE_MICROSECONDS`."""


def instructions(name: str, calls: int) -> int:
    """What a process takes that makes so many calls."""
    with tempfile.TemporaryDirectory() as scratch:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={scratch}/out", sys.executable, __file__]
        counted = subprocess.run(  # noqa: S603  our own file
            [*command, "--case", name, "--calls", str(calls)],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"Collected : (\d+)", counted.stderr)
    if found is None:
        sys.exit(f"valgrind did not say how many instructions there were:\n{counted.stderr}")
    return int(found[1])


def report(wanted: list[str]) -> None:
    """Measure the cases, and those that they are compared with, and print a table."""
    chosen = [name for name in CASES if name not in {"nothing", "bare"} and any(part in name for part in wanted or [""])]
    bases = {BASE.get(name, "bare") for name in chosen}
    measured = {"nothing", "bare", *bases, *chosen}
    each = {name: (instructions(name, MORE) - instructions(name, FEW)) / (MORE - FEW) for name in measured}
    one = each["bare"] - each["nothing"]
    print(f"python {sys.version.split()[0]} · a bare await takes {one:.0f} instructions\n")
    print("| case | instructions over its base | × bare await | target |\n| --- | ---: | ---: | ---: |")
    for name in chosen:
        over = each[name] - each[BASE.get(name, "bare")]
        limit = AT_MOST.get(name)
        target = "" if limit is None else f"≤ {limit / BARE_MICROSECONDS:.3g}"
        print(f"| {name} | {over:.0f} | {over / one:.1f} | {target} |")


async def run_case(name: str, calls: int) -> None:
    run = CASES[name]()
    await run(50)  # what the interpreter specialises, it specialises now
    gc.disable()
    await run(calls)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a call costs in instructions of the processor.")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only the cases whose name has this in it")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, default=FEW, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        asyncio.run(run_case(options.case, options.calls))
    elif shutil.which("valgrind") is None:
        sys.exit("valgrind is not there: install it with the packages of your system, e.g. apt install valgrind")
    else:
        report(options.only)


if __name__ == "__main__":
    main()
