"""The bulkhead that processes share, against a real server."""

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from integrations.redis_servers import until
from resilient import BulkheadFull, DeadlineExceeded, Event, Policy, add_listener, clock, deadline, remove_listener
from resilient_integrations.redis import LeaseLost, RedisBulkhead, RedisStore, StoreUnavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("real_backend"),
    pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True),
]


async def test_slots_are_shared_and_come_back(store: RedisStore) -> None:
    """Two bulkheads of one name are one; a block gives its slot back."""
    here, there = (RedisBulkhead(store, 2, name="api") for _ in range(2))
    async with here, there:
        with pytest.raises(BulkheadFull) as refused:
            await there.acquire()
        shown = here.statistics()
    async with there, there:
        pass

    assert refused.value.active == 2
    assert (shown.active, shown.leases, shown.lost) == (1, 1, 0)
    assert here.is_fresh(clock.now())


async def test_never_more_than_its_slots_run_at_a_time(store: RedisStore) -> None:
    """Whoever waits is served in the end."""
    bulkheads = [RedisBulkhead(store, 3, max_queue=50, name="api") for _ in range(3)]
    running: list[int] = []
    most: list[int] = []

    async def work() -> None:
        running.append(1)
        most.append(len(running))
        await anyio.sleep(0.002)
        running.pop()

    async with anyio.create_task_group() as group:
        for number in range(30):
            group.start_soon(bulkheads[number % 3].call, work)

    assert max(most) == 3
    assert len(most) == 30


async def test_a_full_bulkhead_refuses_at_once_or_when_the_wait_is_over(store: RedisStore) -> None:
    """Its own slots are asked first; then those of all."""
    other = RedisBulkhead(store, 1, name="api")
    strict = RedisBulkhead(store, 1, name="api")
    patient = RedisBulkhead(store, 1, max_queue=1, queue_timeout=0.05, name="api")
    async with other:
        with pytest.raises(BulkheadFull):
            await other.acquire()
        with pytest.raises(BulkheadFull):
            await strict.acquire()
        with pytest.raises(BulkheadFull) as refused:
            await patient.acquire()
        with pytest.raises(BulkheadFull):
            await RedisBulkhead(store, 1, max_queue=1, name="api").wait(clock.now() + 0.03)

    assert refused.value.waited >= 0.05
    assert patient.statistics().active == 0


async def test_a_caller_that_is_cancelled_leaves_nothing_behind(store: RedisStore) -> None:
    """Whether it asks, waits, or works."""
    bulkhead = RedisBulkhead(store, 1, max_queue=5, name="api")
    for rounds in range(4):
        task = asyncio.ensure_future(bulkhead.call(anyio.sleep_forever))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
    task = asyncio.ensure_future(bulkhead.call(anyio.sleep_forever))
    await until(lambda: bulkhead.statistics().leases)
    task.cancel()
    await asyncio.wait((task,))
    await store.aclose()  # what is under way is sent

    await RedisBulkhead(store, 1, name="api").call(anyio.lowlevel.checkpoint)


async def test_a_lease_is_renewed_for_as_long_as_the_call_runs(store: RedisStore) -> None:
    """The call takes twice as long."""
    bulkhead = RedisBulkhead(store, 1, lease=0.3, name="api")
    async with bulkhead:
        await anyio.sleep(0.6)
        with pytest.raises(BulkheadFull):
            await RedisBulkhead(store, 1, name="api").acquire()

    assert bulkhead.statistics().lost == 0


async def test_a_lost_lease_is_told_and_taken_anew_where_there_is_room(
    store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The server has forgotten it; its holder takes its place again."""
    heard: list[Event] = []
    add_listener(heard.append)
    try:
        bulkhead = RedisBulkhead(store, 1, lease=0.15, name="api")
        async with bulkhead:
            await store.ask(_FORGET, bulkhead.where.key, within=5, undo=print)
            await until(lambda: bulkhead.statistics().lost)
            with pytest.raises(BulkheadFull):
                await RedisBulkhead(store, 1, name="api").acquire()
    finally:
        remove_listener(heard.append)

    assert [event.leases for event in heard if isinstance(event, LeaseLost)] == [1]
    assert "resilient.lease_lost strategy=api leases=1" in caplog.text


class _Forget:
    text = "return {redis.call('DEL', KEYS[1])}"
    digest = "0" * 40  # unknown to any server: the text is handed in


_FORGET: Any = _Forget()


async def test_a_lease_that_is_given_back_meanwhile_is_not_lost(store: RedisStore) -> None:
    """A renewal that was under way when its call ended tells nothing."""
    bulkhead = RedisBulkhead(store, 1, lease=30, name="api")
    async with bulkhead:
        await store.ask(_FORGET, bulkhead.where.key, within=5, undo=print)
        bulkhead._renew()  # pyright: ignore[reportPrivateUsage]
    await store.aclose()

    assert bulkhead.statistics().lost == 0


async def test_it_stands_in_a_policy_and_is_retuned(store: RedisStore) -> None:
    """As a bulkhead of one process does."""
    bulkhead = RedisBulkhead(store, 1, name="api")
    await Policy(bulkhead=bulkhead).pipeline().call(anyio.lowlevel.checkpoint)

    assert bulkhead.retune(RedisBulkhead(store, 2, lease=5, name="api"))
    assert (bulkhead.max_concurrent, bulkhead.lease) == (2, 5)
    assert not bulkhead.retune(bulkhead.named("other"))
    assert bulkhead.sibling().where == bulkhead.where
    assert repr(bulkhead).startswith("<RedisBulkhead 'api'")


async def test_nobody_can_know_at_once_what_the_store_says(store: RedisStore) -> None:
    """`acquire_nowait` says so."""
    bulkhead = RedisBulkhead(store, 1, name="api")
    with pytest.raises(RuntimeError, match="await acquire"):
        bulkhead.acquire_nowait()

    assert bulkhead.ready_in(clock.now()) == 0.0


async def test_without_a_store_each_process_has_its_own_slots() -> None:
    """`local`: as many. `allow`: all pass. `deny`: none does."""
    async with RedisStore("redis://127.0.0.1:1") as store:
        local = RedisBulkhead(store, 1, name="api")
        allow = RedisBulkhead(store, 1, name="api", on_store_error="allow")
        deny = RedisBulkhead(store, 1, name="api", on_store_error="deny")
        for _ in range(3):  # the breaker of the store opens meanwhile
            with pytest.raises(StoreUnavailable):
                await deny.acquire()
        async with local, allow, allow:
            with pytest.raises(BulkheadFull):
                local.acquire_nowait()
            shown = local.statistics()
        with local.acquire_nowait():
            pass
        with pytest.raises(StoreUnavailable):
            await deny.acquire()
        now = clock.now()

    assert (shown.active, shown.leases) == (1, 0)
    assert local.is_fresh(now)
    assert deny.ready_in(now) > 0


async def test_without_a_store_who_must_wait_waits_here() -> None:
    """In the line of this process, where the store went away between the question whether it is there and the wait, too."""
    async with RedisStore("redis://127.0.0.1:1") as store:
        bulkhead = RedisBulkhead(store, 1, max_queue=1, name="api")
        store.breaker.isolate()
        first = await bulkhead.wait(clock.now() + 5)
        async with anyio.create_task_group() as group:
            group.start_soon(bulkhead.call, anyio.lowlevel.checkpoint)
            await until(lambda: bulkhead.statistics().queued)
            bulkhead.settle(Any, 0.0, 0.0)  # type: ignore[arg-type]  # no verdict is looked at

    assert first is bulkhead
    assert bulkhead.is_fresh(clock.now())


async def test_no_time_for_an_answer_is_a_refusal(black_hole: str) -> None:
    """A caller that is in too much of a hurry to hear the store is not let through by it."""
    async with RedisStore(black_hole, timeout=0.2) as store:
        bulkhead = RedisBulkhead(store, 1, name="api")
        with pytest.raises(BulkheadFull):
            await bulkhead.wait(clock.now() + 0.01)
        with pytest.raises(DeadlineExceeded), deadline(0.01):
            await bulkhead.acquire()

    assert bulkhead.is_fresh(clock.now())
