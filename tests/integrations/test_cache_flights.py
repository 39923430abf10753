"""Single flight: of all who ask for a key at a time one asks, and the others get what it gets."""

import traceback
from typing import Any

import anyio
import pytest

from helpers import Failure, Script, cancelled_after
from integrations.cache_scenes import Remote, cache_of, counted
from resilient import BulkheadFull, DeadlineExceeded, deadline
from resilient_integrations.cache import MISSING, ResilientCache

pytestmark = pytest.mark.anyio


class Crowd:
    """Tasks that ask for one key: what each of them got, in the order in which they got it."""

    def __init__(self, cache: ResilientCache, loader: Any) -> None:
        self.cache = cache
        self.loader = loader
        self.got: list[Any] = []

    async def ask(self, key: str = "1") -> None:
        try:
            self.got.append(await self.cache.get_or_load(key, self.loader))
        except Exception as error:  # noqa: BLE001  that is what it got
            self.got.append(error)


async def test_many_who_ask_at_once_make_one_lookup_and_one_load() -> None:
    """All get the value that was loaded; they wait neither for a lookup of their own, nor for the write."""
    backend = Remote(seconds=0.01)
    crowd = Crowd(cache_of(backend), Script("value", seconds=1))
    with anyio.move_on_after(1.015):
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(crowd.ask)
            await anyio.sleep(0.5)
            group.start_soon(crowd.ask)

    assert crowd.got == ["value"] * 50  # the leader still writes
    assert (backend.count("get"), crowd.loader.calls) == (1, 1)
    assert crowd.cache.statistics().coalesced == 50


async def test_different_keys_are_loaded_at_the_same_time() -> None:
    """A flight is that of one key."""
    crowd = Crowd(cache_of(), Script("value", seconds=1))
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        for key in "abc":
            group.start_soon(crowd.ask, key)

    assert anyio.current_time() - start == pytest.approx(1)
    assert crowd.loader.calls == 3


async def test_the_error_of_a_load_reaches_all_who_wait() -> None:
    """The same object, as everywhere; and it is not stored."""
    error = Failure("no answer")
    crowd = Crowd(cache_of(), Script(error, "value", seconds=1))
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(crowd.ask)
    raised_by = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    await crowd.ask()

    assert all(got is error for got in crowd.got[:20])
    assert crowd.got[20] == "value"
    assert "__call__" in raised_by  # it still shows where it comes from
    assert len(traceback.extract_tb(error.__traceback__)) < 20  # and does not grow with those who wait
    assert counted(crowd.cache).items() >= {"misses": 2, "coalesced": 19, "loads": 2, "load_errors": 1}.items()


async def test_a_cancelled_leader_fails_nobody_who_waits() -> None:
    """The first of those who wait takes its place; the others wait for that one."""
    crowd = Crowd(cache_of(), Script("value", seconds=1))
    async with anyio.create_task_group() as group, cancelled_after(0.9):
        group.start_soon(_later, crowd, 0.1)
        group.start_soon(_later, crowd, 0.2)
        await crowd.cache.get_or_load("1", crowd.loader)

    assert crowd.got == ["value", "value"]
    assert crowd.loader.at == pytest.approx([0, 0.9])
    assert crowd.cache.statistics().in_flight == 0


async def _later(crowd: Crowd, seconds: float) -> None:
    await anyio.sleep(seconds)
    await crowd.ask()


async def test_the_deadline_of_the_leader_is_not_that_of_those_who_wait() -> None:
    """It ends for the leader; who has more time goes on."""
    crowd = Crowd(cache_of(), Script("value", seconds=1))
    async with anyio.create_task_group() as group:
        group.start_soon(_later, crowd, 0.1)
        with pytest.raises(DeadlineExceeded), deadline(0.5):
            await crowd.cache.get_or_load("1", crowd.loader)

    assert crowd.got == ["value"]


async def test_a_cancelled_waiter_leaves_the_load_alone() -> None:
    """It is the leader's."""
    crowd = Crowd(cache_of(), Script("value", seconds=1))
    async with anyio.create_task_group() as group:
        group.start_soon(crowd.ask)
        async with cancelled_after(0.5):
            await anyio.sleep(0.1)
            await crowd.cache.get_or_load("1", crowd.loader)

    assert crowd.got == ["value"]
    assert crowd.loader.calls == 1


@pytest.mark.parametrize("seconds", [0.005, 0.5, 1.015])
async def test_a_leader_can_be_cancelled_anywhere(seconds: float) -> None:
    """In the lookup, in the load, in the write: the key is free again, and the breaker has heard nothing."""
    cache, loader = cache_of(Remote(seconds=0.01)), Script("value", seconds=1)
    async with cancelled_after(seconds):
        await cache.get_or_load("1", loader)
    after = cache.statistics()

    assert await cache.get_or_load("1", loader) == "value"
    assert (after.in_flight, after.breaker.total_failures) == (0, 0)


async def test_what_is_deleted_while_it_is_loaded_is_not_stored() -> None:
    """The load may have seen what was there before; who asks after the deletion gets a load of its own."""
    crowd = Crowd(cache_of(Remote()), Script("old", "new", seconds=1))
    async with anyio.create_task_group() as group:
        group.start_soon(crowd.ask)
        await anyio.sleep(0.5)
        await crowd.cache.delete("1")
        group.start_soon(crowd.ask)

    assert crowd.got == ["old", "new"]
    assert await crowd.cache.get("1") == "new"


async def test_what_is_set_while_it_is_loaded_stays() -> None:
    """What is set by hand is newer than what a load will bring."""
    crowd = Crowd(cache_of(Remote()), Script("loaded", seconds=1))
    async with anyio.create_task_group() as group:
        group.start_soon(crowd.ask)
        await anyio.sleep(0.5)
        await crowd.cache.set("1", "by hand")

    assert await crowd.cache.get("1") == "by hand"


async def test_what_is_deleted_while_it_is_written_does_not_come_back() -> None:
    """The order of a write and a deletion that are under way together is not known: the loser is deleted again."""
    backend = Remote(seconds=0.05)
    crowd = Crowd(cache_of(backend), Script("old"))
    async with anyio.create_task_group() as group:
        group.start_soon(crowd.ask)
        await anyio.sleep(0.07)
        await crowd.cache.delete("1")

    assert backend.asked[-1] == ("delete", "1")
    assert await crowd.cache.get("1") is MISSING


async def test_nobody_joins_a_lookup_that_began_before_a_deletion_ended() -> None:
    """It may have seen what is gone now."""
    backend = Remote()
    cache = cache_of(backend)
    await cache.set("1", "old")
    backend.seconds = 0.05
    crowd = Crowd(cache, Script("new"))
    async with anyio.create_task_group() as group:
        group.start_soon(cache.delete, "1")
        await anyio.sleep(0.01)
        group.start_soon(crowd.ask)  # its lookup ends after the deletion
        await anyio.sleep(0.045)
        group.start_soon(crowd.ask)

    assert crowd.loader.calls == 2


async def test_the_origin_is_bounded() -> None:
    """However many keys are asked for, so many loads run at a time; the others wait in line, or are refused."""
    cache = cache_of()
    busy = most = 0

    async def load() -> str:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await anyio.sleep(1)
        busy -= 1
        return "value"

    crowd = Crowd(cache, load)
    async with anyio.create_task_group() as group:
        for number in range(400):
            group.start_soon(crowd.ask, str(number))

    assert most == 64
    assert sum(isinstance(got, BulkheadFull) for got in crowd.got) == 400 - 64 - 256
    assert crowd.got.count("value") == 64 + 256
