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
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx

from resilient import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Pipeline,
    Policy,
    Resilience,
    Retry,
    TokenBucket,
    configure_logging,
)
from resilient_integrations.httpx import ResilientTransport

FEW: Final = 100
MORE: Final = 400
PLENTY: Final = 1_000_000
KEY: Final = "user-service.GetUser"

Run = Callable[[int], Awaitable[None]]


async def fn(value: int) -> int:
    return value


def repeat(call: Callable[[], Awaitable[object]]) -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            await call()

    return run


async def nothing(n: int) -> None:
    for _ in range(n):
        pass


async def bare(n: int) -> None:
    for _ in range(n):
        await fn(42)


def block(manager: Any) -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            async with manager:
                await fn(42)

    return run


def called(strategy: Any) -> Run:
    async def run(n: int) -> None:
        call = strategy.call
        for _ in range(n):
            await call(fn, 42)

    return run


def decorated(strategy: Any) -> Run:
    wrapped = strategy(fn)

    async def run(n: int) -> None:
        for _ in range(n):
            await wrapped(42)

    return run


def refused() -> Run:
    configure_logging(enabled=False)
    breaker = CircuitBreaker(initial="isolated")

    async def run(n: int) -> None:
        for _ in range(n):
            with contextlib.suppress(CircuitOpen):
                await breaker.call(fn, 42)

    return run


def pipeline() -> Any:
    return Pipeline(Retry(on=OSError), TokenBucket(PLENTY), CircuitBreaker(), Bulkhead(10))


def executor() -> Any:
    retry, rate_limit, circuit_breaker, bulkhead = pipeline().strategies
    policy = Policy().replace(retry=retry, rate_limit=rate_limit, circuit_breaker=circuit_breaker, bulkhead=bulkhead)
    return Resilience(policies={KEY: policy})


def by_key() -> Run:
    resilience = executor()

    async def run(n: int) -> None:
        for _ in range(n):
            await resilience.call(KEY, fn, 42)

    return run


def sends(*, resilient: bool) -> Run:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"ok")

    mock = httpx.MockTransport(answer)
    transport = ResilientTransport(mock) if resilient else mock
    request = httpx.Request("GET", "https://api.example.com/users/42")

    async def send() -> None:
        await (await transport.handle_async_request(request)).aread()

    return repeat(send)


CASES: Final[dict[str, Callable[[], Run]]] = {
    "nothing": lambda: nothing,
    "bare": lambda: bare,
    "Retry.call": lambda: called(Retry(on=OSError)),
    "@Retry": lambda: decorated(Retry(on=OSError)),
    "CircuitBreaker.call": lambda: called(CircuitBreaker()),
    "@CircuitBreaker": lambda: decorated(CircuitBreaker()),
    "async with bulkhead": lambda: block(Bulkhead(10)),
    "async with bucket": lambda: block(TokenBucket(PLENTY)),
    "an open breaker refuses": refused,
    "pipeline of four, .call": lambda: called(pipeline()),
    "pipeline of four, decorator": lambda: decorated(pipeline()),
    "the pipeline of a key": lambda: called(executor().pipeline(KEY)),
    "Resilience.call": by_key,
    "MockTransport": lambda: sends(resilient=False),
    "ResilientTransport": lambda: sends(resilient=True),
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
"""The targets in µs, on a machine on which a bare call takes 0.07."""
BARE_MICROSECONDS: Final = 0.07


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
