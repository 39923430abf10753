"""The cache while all is well: what is stored, for how long, under which key, and what is counted."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import anyio
import pytest

from helpers import Script
from integrations.cache_scenes import FakeRedis, Remote, cache_of, counted
from resilient import CircuitBreaker, Retry, listening
from resilient.observe.events import Event
from resilient_integrations.cache import JSON, MISSING, CacheLookup, MemoryBackend, ResilientCache

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[MemoryBackend, Remote], ids=["objects", "bytes"])
def backend(request: pytest.FixtureRequest) -> Any:
    """One that keeps objects, and one that keeps bytes."""
    make: Callable[[], Any] = request.param
    return make()


async def test_what_was_loaded_is_not_loaded_again_while_it_is_fresh(backend: Any) -> None:
    """And it is, once it is not."""
    cache, loader = cache_of(backend, ttl=60), Script({"id": 1}, {"id": 2})
    values: list[Any] = []
    for seconds in (0, 59, 2):
        await anyio.sleep(seconds)
        values.append(await cache.get_or_load("1", loader))

    assert values == [{"id": 1}, {"id": 1}, {"id": 2}]
    assert counted(cache).items() >= {"hits": 1, "misses": 2, "loads": 2}.items()


@pytest.mark.parametrize("nothing", [None, 0, "", [], False])
async def test_a_value_that_is_nothing_is_no_miss(backend: Any, nothing: Any) -> None:
    """`None` can be stored, and so can all that is false; `MISSING` is what is not there."""
    cache, loader = cache_of(backend), Script(nothing)
    before = await cache.get("1")
    for _ in range(2):
        await cache.get_or_load("1", loader)

    assert before is MISSING
    assert not MISSING
    assert await cache.get("1") == nothing
    assert loader.calls == 1


async def test_a_missing_value_can_have_a_default(backend: Any) -> None:
    """That of the caller, which is not stored."""
    cache = cache_of(backend)

    assert await cache.get("1", "nobody") == "nobody"
    assert await cache.get("1") is MISSING


async def test_values_are_set_and_deleted_by_hand(backend: Any) -> None:
    """`set` takes the place of what there is; to delete what is not there is no error."""
    cache = cache_of(backend, ttl=60)
    await cache.set("1", "old")
    await cache.set("1", "new", ttl=timedelta(seconds=5))
    found = [await cache.get("1")]
    await anyio.sleep(5)
    found.append(await cache.get("1"))
    await cache.set("1", "newest")
    await cache.delete("1")
    await cache.delete("1")
    found.append(await cache.get("1"))

    assert found == ["new", MISSING, MISSING]


async def test_a_call_may_have_a_time_to_live_of_its_own(backend: Any) -> None:
    """Seconds, in place of those of the cache."""
    cache, loader = cache_of(backend, ttl=60), Script("value")
    await cache.get_or_load("1", loader, ttl=5)
    await anyio.sleep(6)
    await cache.get_or_load("1", loader)

    assert loader.calls == 2


@pytest.mark.parametrize(("negative_ttl", "loads"), [(None, 1), (10, 2), (0, 3)])
async def test_nothing_is_remembered_for_a_time_of_its_own(backend: Any, negative_ttl: float | None, loads: int) -> None:
    """A loader that gives `None` says that there is nothing; at 0 seconds that is not stored at all."""
    cache, loader = cache_of(backend, ttl=60, negative_ttl=negative_ttl), Script(None)
    for seconds in (0, 5, 6):
        await anyio.sleep(seconds)
        await cache.get_or_load("1", loader)

    assert loader.calls == loads


async def test_what_was_stored_together_does_not_expire_together() -> None:
    """Up to a tenth of the time to live is taken off at random."""
    cache = ResilientCache(ttl=100, random=Random(1))
    for number in range(200):
        await cache.set(str(number), number)
    left: list[int] = []
    for seconds in (89, 6, 6):
        await anyio.sleep(seconds)
        left.append([await cache.get(str(number)) for number in range(200)].count(MISSING))

    assert left[0] == 0
    assert 60 < left[1] < 140
    assert left[2] == 200


async def test_caches_with_different_prefixes_share_a_backend() -> None:
    """A key is the prefix and what is asked for."""
    backend = Remote()
    users, orders = cache_of(backend, prefix="users:"), cache_of(backend, prefix="orders:")
    await users.set("1", "Ada")
    await orders.set("1", "a book")

    assert [await users.get("1"), await orders.get("1")] == ["Ada", "a book"]
    assert [key for _, key in backend.asked] == ["users:1", "orders:1", "users:1", "orders:1"]


async def test_the_memory_forgets_what_was_used_least_recently() -> None:
    """So many entries, and no more."""
    backend = MemoryBackend(2)
    cache = cache_of(backend)
    for key in ("a", "b"):
        await cache.set(key, key)
    await cache.get("a")
    await cache.set("c", "c")

    assert [await cache.get(key) for key in "abc"] == ["a", MISSING, "c"]
    assert repr(backend) == "<MemoryBackend: 2 of 2 entries>"


async def test_the_memory_keeps_objects_and_bytes_are_json() -> None:
    """An object comes back as it is; a tuple through JSON as a list."""
    value = (1, "zwei")
    memory, remote = cache_of(), cache_of(Remote())
    for cache in (memory, remote):
        await cache.set("1", value)

    assert await memory.get("1") is value
    assert await remote.get("1") == [1, "zwei"]


async def test_a_serializer_is_any_pair_of_functions() -> None:
    """To bytes, whatever they are, and back; also for a backend that keeps objects."""

    def to_bytes(value: str) -> bytes:
        return value.encode("utf-16")

    def from_bytes(data: bytes) -> str:
        return data.decode("utf-16")

    backend = MemoryBackend()
    cache = cache_of(backend, serializer=(to_bytes, from_bytes))
    await cache.set("1", "ein Wert")
    stored = await backend.get("1")

    assert await cache.get("1") == "ein Wert"
    assert stored is not None
    assert stored.data == b"1 0.0 " + to_bytes("ein Wert")


async def test_a_function_is_cached_by_its_arguments() -> None:
    """The decorator keeps its name and signature, for methods too."""
    cache = cache_of()

    def key_of(_: object, user_id: int, *, verbose: bool = False) -> str:  # noqa: ARG001  it is not part of the key
        return f"user:{user_id}"

    class Users:
        calls = 0

        @cache.cached(key=key_of, ttl=5)
        async def fetch(self, user_id: int, *, verbose: bool = False) -> str:
            """Fetch a user."""
            self.calls += 1
            return f"user {user_id}, {verbose}"

    users = Users()
    found = [await users.fetch(1), await users.fetch(1, verbose=True), await users.fetch(2, verbose=True)]
    await anyio.sleep(6)
    await users.fetch(1)

    assert found == ["user 1, False", "user 1, False", "user 2, True"]
    assert users.calls == 3
    assert Users.fetch.__doc__ == "Fetch a user."


async def test_statistics_and_control_are_those_of_the_cache_and_its_breaker() -> None:
    """Rates, health, state; the state can be forced; `reset` counts from zero and keeps the entries."""
    cache = cache_of(name="users")
    await cache.get_or_load("1", Script("value"))
    await cache.get_or_load("1", Script("value"))
    before = cache.statistics()
    cache.breaker.isolate()
    isolated = cache.statistics()
    shown = repr(cache)
    cache.reset()
    after = cache.statistics()

    assert (before.hits, before.misses, before.loads, before.operations, before.errors) == (1, 1, 1, 3, 0)
    assert (before.hit_rate, before.success_rate, before.is_healthy) == (0.5, 1.0, True)
    assert (isolated.breaker.state, isolated.is_healthy) == ("isolated", False)
    assert shown == "<ResilientCache 'users': 1 hits, 0 stale, 1 misses, breaker isolated>"
    assert (after.hits, after.hit_rate, after.success_rate, after.breaker.state) == (0, 0.0, 1.0, "closed")
    assert await cache.get("1") == "value"


async def test_a_lookup_is_an_event_while_somebody_listens() -> None:
    """It says which cache and what came of it, and not the key, which may be somebody's name."""
    cache, heard = cache_of(name="users"), list[Event]()
    with listening(heard.append):
        await cache.get_or_load("ada@example.com", Script("value"))
        await cache.get("ada@example.com")
        await cache.get("nobody")
    await cache.get("1")

    lookups = [event for event in heard if isinstance(event, CacheLookup)]

    assert [(event.cache, event.key, event.result) for event in lookups] == [
        ("users", "users", "miss"),
        ("users", "users", "hit"),
        ("users", "users", "miss"),
    ]
    assert "ada@" not in repr(heard)
    assert {event.key for event in heard} == {"users"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ttl": 0}, r"ttl=0 is out of range: expected a finite number greater than 0 seconds"),
        ({"ttl": "60"}, r"ttl='60': expected seconds as a number or a timedelta, got str"),
        ({"negative_ttl": -1}, r"negative_ttl=-1 is out of range: expected a finite number at least 0 seconds"),
        ({"stale_if_error": float("inf")}, r"stale_if_error=inf is out of range"),
        ({"timeout": True}, r"timeout=True: expected seconds"),
        ({"jitter": 1.5}, r"jitter=1.5 is out of range: expected a finite number at least 0 and at most 1"),
        ({"jitter": "a bit"}, r"jitter='a bit': expected a number, got str"),
        ({"on_open": "ignore"}, r"on_open='ignore': expected 'bypass' or 'shed'"),
        ({"stale_on": 404}, r"stale_on=404"),
        ({"serializer": len}, r"serializer=<built-in function len>: expected a pair of functions"),
        ({"backend": {}}, r"backend=\{\}: expected a backend with get, set and delete"),
        ({"backend": FakeRedis()}, r"goes into RedisBackend\(client\)"),
        ({"serializer": (len,)}, r"expected a pair of functions, to bytes and back"),
    ],
)
def test_arguments_are_checked_at_construction(settings: dict[str, Any], expected: str) -> None:
    """With their name, the value, and what to write instead."""
    with pytest.raises((TypeError, ValueError), match=expected):
        ResilientCache(**settings)


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), ("many", TypeError), (True, TypeError)])
def test_the_size_of_the_memory_is_checked(size: Any, error: type[Exception]) -> None:
    """At least one entry."""
    with pytest.raises(error, match="max_entries="):
        MemoryBackend(size)


async def test_a_key_is_a_text() -> None:
    """A number would be another key than its text, depending on the backend."""
    with pytest.raises(TypeError, match="key=42: expected a text, got int"):
        await cache_of().get(42)  # type: ignore[arg-type]  # that is what is tested


def test_only_async_functions_can_be_cached() -> None:
    """What the decorator cannot await is refused where it stands."""
    cache = cache_of()
    with pytest.raises(TypeError, match=r"put @cache\.cached"):
        cache.cached(key=str)(len)  # type: ignore[arg-type]  # that is what is tested


async def test_strategies_of_ones_own_take_the_place_of_the_default_ones() -> None:
    """Caches on one server can share a breaker."""
    breaker = CircuitBreaker(name="redis", consecutive_failures=2)
    backend = Remote(error=ConnectionError())
    users = cache_of(backend, breaker=breaker, retry=Retry(on=OSError, attempts=1))
    orders = cache_of(backend, breaker=breaker, serializer=JSON)
    await users.get_or_load("1", Script("value"))  # two operations: it is read, and written

    assert orders.statistics().breaker.state == "open"


def test_a_cache_works_in_several_loops_in_turn() -> None:
    """It belongs to none."""
    cache, loader = cache_of(), Script("value")

    async def ask() -> None:
        async with cache:
            await cache.get_or_load("1", loader)

    asyncio.run(ask())
    asyncio.run(ask())

    assert loader.calls == 1
