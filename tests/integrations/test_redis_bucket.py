"""The token bucket that processes share, against a real server."""

import asyncio
import math
from typing import Any
from unittest.mock import Mock

import anyio
import pytest

from integrations.redis_servers import RedisServer, until
from resilient import (
    CircuitBreaker,
    CircuitOpen,
    Event,
    Gate,
    Pipeline,
    Policy,
    RateLimited,
    Rejected,
    Retry,
    clock,
    deadline,
    listening,
)
from resilient.observe.events import Waited
from resilient_integrations.redis import RedisStore, RedisTokenBucket, StoreUnavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("real_backend"),
    pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True),
]


async def nothing() -> None:
    pass


async def test_a_burst_passes_and_what_comes_after_it_is_told_when_to_come_again(store: RedisStore) -> None:
    """Two buckets of one name are one."""
    here, there = (RedisTokenBucket(store, 1, burst=3, max_wait=0, name="api") for _ in range(2))
    await here.acquire(tokens=2)
    await there.call(nothing)
    with pytest.raises(RateLimited) as refused:
        await here.call(nothing)

    assert refused.value.retry_after == pytest.approx(1.0, abs=0.2)
    assert here.statistics().tokens == pytest.approx(0.0, abs=0.2)


async def test_names_and_prefixes_divide(redis_server: RedisServer, store: RedisStore) -> None:
    """Each has a bucket of its own, and its own rate counts."""
    async with RedisStore(redis_server.url, prefix="other", timeout=2) as other:
        bucket = RedisTokenBucket(store, 1, max_wait=0, name="api")
        for each in (bucket, bucket.named("tenant"), RedisTokenBucket(other, 1, max_wait=0, name="api")):
            await each.acquire()
        with pytest.raises(RateLimited):
            await bucket.sibling().acquire()


async def test_who_waits_has_a_token_reserved_in_order(store: RedisStore) -> None:
    """A caller asks once and sleeps until its time, whichever process it is in."""
    buckets = [RedisTokenBucket(store, 100, burst=1, name="api") for _ in range(2)]
    order: list[int] = []

    async def one(number: int) -> None:
        async with buckets[number % 2]:
            order.append(number)

    started = clock.now()
    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number)
    took = clock.now() - started

    assert order == list(range(10))
    assert took >= 0.09
    assert store.statistics().pipelines <= 2
    assert not buckets[0].queued


async def test_a_wait_for_a_reserved_token_is_told(store: RedisStore) -> None:
    """As that for a token of a local bucket."""
    bucket = RedisTokenBucket(store, 5, burst=1, name="told")
    heard: list[Event] = []
    with listening(heard.append):
        for _ in range(2):
            await bucket.acquire()

    (waited,) = (event for event in heard if isinstance(event, Waited))
    assert 0 < waited.seconds < 1


async def test_a_cancelled_waiter_gives_back_what_was_reserved(store: RedisStore) -> None:
    """It was the last one: the next caller has its token."""
    bucket = RedisTokenBucket(store, 1, burst=1, max_wait=5, name="api")
    await bucket.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(bucket.acquire)
        await until(lambda: bucket.queued)
        group.cancel_scope.cancel()
    with pytest.raises(RateLimited) as refused:
        await RedisTokenBucket(store, 1, burst=1, max_wait=0, name="api").acquire()

    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= 1.0


@pytest.mark.parametrize("rounds", range(4))
async def test_a_caller_that_is_cancelled_while_it_asks_spends_nothing(store: RedisStore, rounds: int) -> None:
    """The answer that comes for nobody is undone; one that is there already, too."""
    bucket = RedisTokenBucket(store, 0.001, burst=1, max_wait=0, name="api")
    task = asyncio.ensure_future(bucket.acquire())
    for _ in range(rounds):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    await store.aclose()  # what is under way is sent first
    await bucket.acquire()


async def test_a_refusal_for_one_who_is_gone_needs_no_undoing(store: RedisStore) -> None:
    """Nothing was taken."""
    bucket = RedisTokenBucket(store, 0.001, burst=1, max_wait=0, name="api")
    await bucket.acquire()
    task = asyncio.ensure_future(bucket.acquire())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    await store.aclose()

    assert store.statistics().requests == 2


async def test_an_answer_that_lies_ready_for_one_who_is_cancelled_is_undone(store: RedisStore) -> None:
    """It is cancelled in the very round in which the answer came."""
    bucket = RedisTokenBucket(store, 0.001, burst=1, max_wait=0, name="api")
    task = asyncio.ensure_future(bucket.acquire())
    await asyncio.sleep(0)
    answers = store._queue  # pyright: ignore[reportPrivateUsage]
    (script, key, arguments, heard) = answers[0]

    def and_cancel(reply: Any) -> None:
        heard(reply)
        task.cancel()

    answers[0] = (script, key, arguments, and_cancel)
    await asyncio.wait((task,))

    assert task.cancelled()
    await store.aclose()  # what is under way is sent first
    await bucket.acquire()


async def test_the_token_of_a_call_that_was_refused_further_in_comes_back(store: RedisStore) -> None:
    """It was not sent. What others have taken since keeps it spent."""

    async def refused() -> None:
        raise Rejected("inner")

    bucket = RedisTokenBucket(store, 0.001, burst=1, max_wait=0, name="api")
    for _ in range(3):
        with pytest.raises(Rejected, match="inner"):
            await bucket.call(refused)
    lease = await bucket.acquire()
    bucket.give_back(1, 12345)
    lease.settle()

    with pytest.raises(RateLimited):
        await bucket.acquire()


async def test_a_refund_in_time_leaves_the_rest(store: RedisStore) -> None:
    """Of two takes the last one is undone, and the first one stays."""
    bucket = RedisTokenBucket(store, 0.001, burst=2, max_wait=0, name="api")
    await bucket.acquire()
    with pytest.raises(Rejected), await bucket.acquire():
        raise Rejected("inner")
    await bucket.acquire()

    with pytest.raises(RateLimited):
        await bucket.acquire()


async def test_a_deadline_refuses_at_once(store: RedisStore) -> None:
    """What would come too late is not waited for, and nothing is reserved."""
    bucket = RedisTokenBucket(store, 1, burst=1, max_wait=60, name="api")
    await bucket.acquire()
    started = clock.now()
    with deadline(0.5), pytest.raises(RateLimited):
        await bucket.acquire()
    with pytest.raises(RateLimited):
        await bucket.wait(clock.now() - 1)

    assert clock.now() - started < 0.5


async def test_an_answer_that_took_all_the_time_there_was_is_given_back(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait that was possible when the question was asked is too long now."""
    bucket = RedisTokenBucket(store, 5, burst=1, name="api")
    await bucket.acquire()
    left = Mock(side_effect=(math.inf, 0.0001))
    monkeypatch.setattr("resilient_integrations._redis.bucket.time_left", left)
    with pytest.raises(RateLimited):
        await bucket.acquire()
    monkeypatch.undo()
    with pytest.raises(RateLimited) as refused:
        await RedisTokenBucket(store, 5, burst=1, max_wait=0, name="api").acquire()

    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= 0.2


async def test_it_stands_in_pipelines_and_policies_like_any_other(store: RedisStore) -> None:
    """A pipeline does not know."""
    bucket = RedisTokenBucket(store, 1000, name="api")
    gate: Gate = bucket
    await Pipeline(Retry(on=OSError, attempts=2), gate).call(nothing)
    await Policy(rate_limit=bucket).pipeline().call(nothing)

    assert store.statistics().requests == 2


async def test_nobody_can_know_at_once_what_the_store_says(store: RedisStore) -> None:
    """`acquire_nowait` says so."""
    bucket = RedisTokenBucket(store, 10, name="api")
    with pytest.raises(RuntimeError, match="await acquire"):
        bucket.acquire_nowait()

    assert bucket.ready_in(clock.now()) == 0.0


async def test_a_reload_keeps_what_is_the_same_limit(store: RedisStore) -> None:
    """Another name, or another store, is another limit."""
    bucket = RedisTokenBucket(store, 10, name="api")

    assert bucket.retune(RedisTokenBucket(store, 20, name="api", on_store_error="deny"))
    assert (bucket.rate, bucket.where.on_store_error) == (20, "deny")
    assert not bucket.retune(RedisTokenBucket(store, 20, name="other"))
    assert bucket.is_fresh(clock.now())


async def test_without_a_store_each_process_decides_by_itself() -> None:
    """`local`: with the same settings. `allow`: all pass. `deny`: none does, and the refusal says when to ask again."""
    async with RedisStore("redis://127.0.0.1:1") as store:
        local = RedisTokenBucket(store, 0.001, burst=2, max_wait=0, name="api")
        allow = RedisTokenBucket(store, 0.001, burst=2, max_wait=0, name="api", on_store_error="allow")
        deny = RedisTokenBucket(store, 0.001, burst=2, max_wait=0, name="api", on_store_error="deny")
        passed = [await passes(local) for _ in range(4)]
        allowed = [await passes(allow) for _ in range(4)]
        await allow.call(nothing)
        with pytest.raises(StoreUnavailable, match="does not answer") as denied:
            await deny.acquire()
        with pytest.raises(StoreUnavailable):
            deny.acquire_nowait()
        now = clock.now()
        known = [allow.ready_in(now), deny.ready_in(now) > 0, local.ready_in(now) > 0]

    assert passed == [True, True, False, False]
    assert allowed == [True] * 4
    assert denied.value.retry_after is not None
    assert known == [0.0, True, True]


async def test_a_token_that_was_taken_without_the_store_comes_back_too() -> None:
    """Also that of a call which asked the store first, and so has waited."""
    async with RedisStore("redis://127.0.0.1:1") as store:
        bucket = RedisTokenBucket(store, 0.001, burst=2, max_wait=0, name="api")
        for _ in range(3):
            with pytest.raises(CircuitOpen):
                await Pipeline(bucket, CircuitBreaker(initial="isolated")).call(nothing)

    assert round(bucket.statistics().tokens) == 2


async def passes(gate: Gate) -> bool:
    try:
        await gate.acquire()
    except Rejected:
        return False
    return True


async def test_no_time_for_an_answer_is_a_refusal(black_hole: str) -> None:
    """A caller that is in too much of a hurry to hear the store is not let through by it."""
    async with RedisStore(black_hole, timeout=0.3) as store:
        bucket = RedisTokenBucket(store, 10, name="api")
        with pytest.raises(RateLimited):
            await bucket.wait(clock.now() + 0.01)


async def test_without_a_store_who_must_wait_waits_here() -> None:
    """In the line of this process."""
    async with RedisStore("redis://127.0.0.1:1") as store:
        bucket = RedisTokenBucket(store, 100, burst=1, name="api")
        started = clock.now()
        for _ in range(5):
            await bucket.acquire()

    assert clock.now() - started >= 0.039


async def test_it_shows_itself(store: RedisStore) -> None:
    """As a token bucket does, by its own name."""
    assert repr(RedisTokenBucket(store, 10, name="api")).startswith("<RedisTokenBucket 'api'")


async def test_a_rate_that_microseconds_cannot_hold_is_refused(store: RedisStore) -> None:
    """So is a store that is none, and a mode that is none."""
    wrong: Any = "redis://localhost"
    with pytest.raises(ValueError, match="a million"):
        RedisTokenBucket(store, 2e6)
    with pytest.raises(TypeError, match="expected a RedisStore"):
        RedisTokenBucket(wrong, 2)
    with pytest.raises(ValueError, match="'local', 'allow' or 'deny'"):
        RedisTokenBucket(store, 2, on_store_error=wrong)
