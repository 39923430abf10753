"""Shared limits in what has state for each key: the same key is one limit in all processes, and no two keys are."""

import re
from typing import Any

import anyio
import pytest

from integrations.redis_servers import RedisServer, until
from resilient import (
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Gate,
    Keyed,
    Pipeline,
    Policy,
    PolicyKey,
    RateLimited,
    Resilience,
    StaticProvider,
)
from resilient_integrations._redis import scripts
from resilient_integrations.redis import RedisBulkhead, RedisCircuitBreaker, RedisStore, RedisTokenBucket

on_asyncio = pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True)


async def answer(tenant: str) -> str:
    return tenant


def itself(tenant: str) -> str:
    return tenant


def bucket_of(store: RedisStore, **settings: Any) -> RedisTokenBucket:
    return RedisTokenBucket(store, 0.001, burst=1, max_wait=0, name="api", **settings)


def pipeline_of(gate: Gate, *, max_keys: int = 10) -> Pipeline:
    return Pipeline(gate, key=itself, max_keys=max_keys)


class Changing(StaticProvider):
    """The same policy for all keys, and then another one."""

    def __init__(self, limit: RedisTokenBucket) -> None:
        self.policy = Policy(rate_limit=limit)

    def current(self, key: PolicyKey) -> Policy:
        return self.policy


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
@on_asyncio
class TestOverProcesses:
    """A store of its own for each of them, as two processes have it."""

    async def test_a_key_is_one_limit_wherever_it_is_used(self, store: RedisStore, redis_server: RedisServer) -> None:
        """Its token is taken here, so it is refused there; another key is another limit, and so is none."""
        async with RedisStore(redis_server.url, timeout=3) as elsewhere:
            here, there = pipeline_of(bucket_of(store)), pipeline_of(bucket_of(elsewhere))
            await here.call(answer, "acme")
            with pytest.raises(RateLimited) as refused:
                await there.call(answer, "acme")
            await there.call(answer, "bolt")
            await bucket_of(elsewhere).acquire()

        assert (refused.value.strategy, refused.value.key) == ("api", "acme")

    async def test_a_slot_is_that_of_its_key(self, store: RedisStore, redis_server: RedisServer) -> None:
        """A bulkhead, by hand."""
        async with RedisStore(redis_server.url, timeout=3) as elsewhere:
            here, there = (Keyed(RedisBulkhead(each, 1, name="api")) for each in (store, elsewhere))
            async with here["acme"], here["bolt"]:
                with pytest.raises(BulkheadFull):
                    await there["acme"].acquire()
                (await there["other"].acquire()).settle()

    async def test_word_of_a_trip_is_for_those_of_its_key(self, store: RedisStore, redis_server: RedisServer) -> None:
        """Others of another key go on."""

        async def fail(tenant: str) -> None:
            raise ConnectionResetError(tenant)

        async with RedisStore(redis_server.url, timeout=3) as elsewhere:
            template = CircuitBreaker(name="api", consecutive_failures=1, open_for=30)
            here, there = (pipeline_of(RedisCircuitBreaker(template, each, quorum=1, every=0.001)) for each in (store, elsewhere))
            with pytest.raises(ConnectionResetError):
                await here.call(fail, "acme")
            refused = ""
            while not refused:
                await there.call(answer, "bolt")
                try:
                    await there.call(answer, "acme")
                except CircuitOpen as error:
                    refused = error.strategy
                await anyio.sleep(0.002)

        assert refused == "api"

    async def test_keys_for_which_there_is_no_room_share_the_limit_that_has_none(self, store: RedisStore) -> None:
        """Hostile keys get no limits of their own, in the store neither."""
        pipeline = pipeline_of(bucket_of(store), max_keys=1)
        await pipeline.call(answer, "acme")
        await pipeline.call(answer, "x1")
        with pytest.raises(RateLimited):
            await pipeline.call(answer, "x2")

    async def test_a_policy_has_a_limit_for_each_key_and_keeps_it(self, store: RedisStore) -> None:
        """A reload changes the settings and not the state; one with another limit begins anew."""
        provider = Changing(bucket_of(store))
        resilience = Resilience(provider=provider)
        for key in ("users.Get", "users.List"):
            await resilience.call(key, answer, "acme")
        provider.policy = Policy(rate_limit=bucket_of(store, on_store_error="deny"))
        for key in ("users.Get", "users.List"):
            with pytest.raises(RateLimited):
                await resilience.call(key, answer, "acme")
        kept: Any = resilience.pipeline("users.Get").strategies[0]
        provider.policy = Policy(rate_limit=bucket_of(store).named("other"))
        await resilience.call("users.Get", answer, "acme")

        assert kept.where.on_store_error == "deny"

    async def test_what_is_forgotten_here_is_kept_there(self, store: RedisStore) -> None:
        """An instance that is dropped and made anew finds the state of its key."""
        limits = Keyed(RedisBulkhead(store, 1, name="api"), max_keys=1)
        lease = await limits["acme"].for_key("x").acquire()
        _ = limits["bolt"]
        again = limits["acme"].for_key("x")
        with pytest.raises(BulkheadFull):
            await again.acquire()
        lease.settle()
        await until(lambda: store.statistics().requests == 3)
        (await again.acquire()).settle()


STRANGE = ("", "a", "a/b", "a%2Fb", "b", "{a}", "a}", "a:b", "#", "ä", "\ud800", "x" * 201, "x" * 202, "#" + "0" * 64, "a b")


def test_no_two_names_or_keys_have_the_same_place() -> None:
    """Whatever is in them; and none is long."""
    store = RedisStore("redis://127.0.0.1:1")
    limits: list[Any] = [bucket_of(store).named(name) for name in STRANGE]
    limits += [limit.for_key(key) for limit in limits for key in STRANGE]
    limits.append(limits[-1].for_key("a"))
    places = [limit.where.key for limit in limits]

    assert len(set(places)) == len(places)
    assert max(map(len, places)) < 650
    assert bucket_of(store).for_key("https://api.example.com:443").where.key == (
        "resilient:1:bucket:api/https:%2F%2Fapi.example.com:443"
    )


def test_a_script_works_on_one_key() -> None:
    """So a cluster runs it where that key is."""
    texts = [each.text for each in vars(scripts).values() if isinstance(each, scripts.Script)]
    used = [re.findall(r"redis\.call\('(\w+)'(?:, (\S+?))?[,)]", text) for text in texts]

    assert len(texts) == 7
    assert {key for calls in used for command, key in calls if command != "TIME"} == {"KEYS[1]"}


def test_a_gate_whose_state_is_here_gives_any_key_a_sibling() -> None:
    """An instance is a state."""
    breaker = CircuitBreaker(name="api")
    other = breaker.for_key("acme")

    assert (other.name, other is breaker, isinstance(other, CircuitBreaker)) == ("api", False, True)
