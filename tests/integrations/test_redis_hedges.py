"""Hedges through shared limits: they ask the store, and stand in no line."""

from collections.abc import Callable

import anyio
import pytest

from resilient import BulkheadFull, Event, Gate, Hedge, Pipeline, RateLimited, Rejected, clock, listening
from resilient.observe.events import HedgeFinished
from resilient_integrations.redis import RedisBulkhead, RedisStore, RedisTokenBucket, StoreUnavailable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("real_backend"),
    pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True),
]

NOWHERE = "redis://127.0.0.1:1"


class Service:
    """Its first answer takes until the second one was given, or until `finish` is called."""

    def __init__(self) -> None:
        self.calls = 0
        self.finish = anyio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        mine = self.calls
        if mine == 1:
            await self.finish.wait()
        return mine


async def test_a_hedge_has_a_permit_of_the_store(store: RedisStore) -> None:
    """It takes a token and a slot of its own, as any other attempt, and wins; what the loser held comes back."""
    bucket = RedisTokenBucket(store, 0.001, burst=2, max_wait=0, name="api")
    bulkhead = RedisBulkhead(store, 2, name="api")
    value = await Pipeline(Hedge(0.01), bucket, bulkhead).call(Service())
    with pytest.raises(RateLimited):
        await bucket.acquire()

    assert value == 2
    assert bulkhead.statistics().active == 0
    assert store.statistics().errors == 0


def bucket_of_one(store: RedisStore) -> Gate:
    return RedisTokenBucket(store, 0.1, burst=1, max_wait=60, name="api")


def bulkhead_of_one(store: RedisStore) -> Gate:
    return RedisBulkhead(store, 1, max_queue=10, name="api")


@pytest.mark.parametrize("gate", [bucket_of_one, bulkhead_of_one])
async def test_a_hedge_stands_in_no_line(store: RedisStore, gate: Callable[[RedisStore], Gate]) -> None:
    """Where it would have to wait for a permit it is not sent; the first attempt goes on, and nothing stays reserved."""
    service, limit, ended = Service(), gate(store), list[str]()

    def hear(event: Event) -> None:
        if isinstance(event, HedgeFinished):
            ended.append(event.result)
            service.finish.set()

    with listening(hear):
        value = await Pipeline(Hedge(0.01), limit).call(service)

    assert (value, service.calls, ended) == (1, 1, ["suppressed"])
    assert limit.is_fresh(clock.now() + 15)  # with a second token it would be 20


async def test_a_hedge_hears_that_others_have_all_slots(store: RedisStore) -> None:
    """There is a slot of this process, and none in the store: it does not ask again."""
    here, there = (RedisBulkhead(store, 1, max_queue=10, name="api") for _ in range(2))
    async with there:
        with pytest.raises(BulkheadFull):
            await here.at_once(clock.now() + 5)

    assert here.is_fresh(clock.now())


async def test_without_a_store_a_hedge_is_a_matter_of_this_process() -> None:
    """A permit that is here, or none."""
    async with RedisStore(NOWHERE) as store:
        store.breaker.isolate()
        limits = [
            RedisTokenBucket(store, 0.001, burst=1, name="api"),
            RedisBulkhead(store, 1, max_queue=1, name="api"),
        ]
        for limit in limits:
            await limit.at_once(clock.now() + 5)
            with pytest.raises(Rejected):
                await limit.at_once(clock.now() + 5)
        denied = RedisBulkhead(store, 1, name="api", on_store_error="deny")
        with pytest.raises(StoreUnavailable):
            await denied.at_once(clock.now() + 5)
