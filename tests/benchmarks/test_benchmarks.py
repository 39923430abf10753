"""The benchmarks run. Nothing here looks at how long anything takes."""

import asyncio
import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.command import GROUPS, NAMES, main
from benchmarks.harness import BARE, Case, Group, Result, Target, called, cases_of, close, fn, measure
from benchmarks.report import as_json, timing_table

OF_A_PEER = Case("peer", fn, without="something")


def absent() -> Iterable[Case]:
    raise ImportError


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_case_of_our_own_runs(group: Group) -> None:
    """Peers are not needed for it."""

    async def run() -> list[str]:
        cases = cases_of(group, set(), with_peers=False)
        for case in cases:
            await case.run(min(case.count, 100) or 3)
        await close(cases)
        return [case.name for case in cases]

    names = asyncio.run(run())

    assert group.base in names
    assert len(set(names)) == len(names)


def test_memory_is_measured() -> None:
    """Every size is above zero."""
    sizes = asyncio.run(memory.sizes(set(), instances=10, keys=10, with_peers=False))

    assert all(size.size > 0 for size in sizes)


def test_a_peer_that_is_not_installed_is_noted_and_left_out() -> None:
    """The rest is measured all the same."""
    missing: set[str] = set()
    group = Group("group", "title", list, {"here": lambda: [OF_A_PEER], "absent": absent})

    assert [case.name for case in cases_of(group, missing)] == [BARE, "peer"]
    assert missing == {"absent"}


def test_cases_are_compared_with_the_base_round_by_round() -> None:
    """The base costs nothing over itself; a case may be limited to fewer rounds."""
    cases = [called(BARE, fn), called("limited", fn, count=1, rounds=1)]

    results = asyncio.run(measure(cases, BARE, 2, random.Random(0)))

    assert results[0].over == 0.0
    assert all(result.median > 0.0 for result in results)


def test_targets_are_read_as_multiples_of_a_bare_await() -> None:
    """On a machine where a bare await takes twice as long, everything may."""
    own = Target(0.35)
    relative = Target(1.5, "other")

    assert own.reached(over=0.7, bare=0.14, over_of={}) == pytest.approx(1.0)
    assert relative.reached(over=3.0, bare=0.14, over_of={"other": 1.0}) == pytest.approx(2.0)
    assert relative.reached(over=3.0, bare=0.14, over_of={}) is None


def test_the_table_shows_the_fastest_first_and_which_targets_were_missed() -> None:
    """Ours stand out; what a peer leaves out is said."""
    ours = Case("ours", fn, ours=True, targets=(Target(0.35),))
    results = [Result(called(BARE, fn), 0.07, 0.0), Result(ours, 0.77, 0.7), Result(OF_A_PEER, 0.2, 0.13)]

    table = timing_table(Group("group", "Title", list), results)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]

    assert lines[0] == ["Title", "µs", "µs over bare await", "× bare await", "target", "leaves out"]
    assert [line[0] for line in lines[2:]] == [BARE, "peer", "**ours**"]
    assert lines[3][-1] == "something"
    assert lines[4][1:5] == ["0.77", "+0.70", "10.0", "≤ 5 × bare (0.35 µs): MISSED at 200%"]
    assert as_json(Group("group", "Title", list), results)[1]["times_bare"] == pytest.approx(10.0)


def test_the_command_prints_tables_and_writes_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--only` chooses the groups, `--quick` is quick."""
    file = tmp_path / "figures.json"

    main(["--only", "fallback", "--rounds", "1", "--quick", "--json", str(file)])

    assert "**resilient @Fallback**" in capsys.readouterr().out
    assert {figure["group"] for figure in json.loads(file.read_text())["figures"]} == {"fallback"}


def test_groups_have_names_of_their_own() -> None:
    """`--only` finds each."""
    assert len(set(NAMES)) == len(NAMES)
