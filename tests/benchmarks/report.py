"""What is printed: Markdown tables, which are also what a terminal can show."""

import platform
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.harness import BARE, Group, Result
from benchmarks.memory import Size

PEERS = (
    "aiobreaker",
    "aiocache",
    "aiolimiter",
    "backoff",
    "circuitbreaker",
    "clientwright",
    "grit-toolkit",
    "httpx-retries",
    "hyx",
    "limits",
    "nopanic",
    "opnieuw",
    "purgatory",
    "pyfailsafe",
    "pyrate-limiter",
    "pyresilience",
    "stamina",
    "tenacity",
    "throttled-py",
)


def environment() -> dict[str, str]:
    """What the figures depend on."""
    return {"python": platform.python_version(), "machine": f"{sys.platform} {platform.machine()}", **_versions()}


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("anyio", "httpx", "httpx2", *PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def timing_table(group: Group, results: Sequence[Result]) -> str:
    """The cases of a group, the fastest first; ours in bold."""
    bare = next(result.median for result in results if result.case.name == BARE)
    over_of = {result.case.name: result.over for result in results}
    rows = [
        (
            f"**{result.case.name}**" if result.case.ours else result.case.name,
            f"{result.median:.2f}",
            f"{result.over:+.2f}",
            f"{result.over / bare:.1f}",
            "; ".join(_judged(str(target), target.reached(result.over, bare, over_of)) for target in result.case.targets),
            result.case.without,
        )
        for result in sorted(results, key=lambda result: result.median)
        if result.case.name != BARE or group.base == BARE
    ]
    base = "bare await" if group.base == BARE else group.base
    head = (group.title, "µs", f"µs over {base}", "× bare await", "target", "leaves out")
    return markdown(head, rows, right=(1, 2, 3))


def _judged(target: str, used: float | None) -> str:
    if used is None:
        return target
    return f"{target}: {'met' if used <= 1 else 'MISSED'} at {used:.0%}"


def memory_table(sizes: Sequence[Size]) -> str:
    """The sizes, in bytes or MB."""
    rows = [
        (
            f"**{size.name}**" if size.ours else size.name,
            _bytes(size.size),
            "" if size.at_most is None else _judged(f"≤ {_bytes(size.at_most)}", size.size / size.at_most),
        )
        for size in sizes
    ]
    return markdown(("Memory", "size", "target"), rows, right=(1,))


def _bytes(size: float) -> str:
    return f"{size:.0f} B" if size < 100_000 else f"{size / 1e6:.1f} MB"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int]) -> str:
    """A Markdown table whose columns are aligned for the eye too. Columns without any content are left out."""
    table = [head, *rows]
    kept = [index for index in range(len(head)) if any(row[index] for row in table[1:])]
    widths = {index: max(len(row[index]) for row in table) for index in kept}
    lines = [
        [row[index].rjust(widths[index]) if index in right else row[index].ljust(widths[index]) for index in kept]
        for row in table
    ]
    rule = ["-" * (widths[index] - 1) + ":" if index in right else "-" * widths[index] for index in kept]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:]))


def as_json(group: Group, results: Sequence[Result]) -> list[dict[str, Any]]:
    """The figures of a group as plain data."""
    bare = next(result.median for result in results if result.case.name == BARE)
    over_of = {result.case.name: result.over for result in results}
    return [
        {
            "group": group.name,
            "case": result.case.name,
            "ours": result.case.ours,
            "microseconds": result.median,
            "over": result.over,
            "times_bare": result.over / bare,
            "targets": {str(target): target.reached(result.over, bare, over_of) for target in result.case.targets},
        }
        for result in results
    ]
