"""Redis as the backend: against a fake with its rules, and against a real server."""

import math
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

import resilient
import resilient_integrations
from helpers import Script
from integrations.cache_scenes import FakeRedis, cache_of
from integrations.redis_servers import RedisServer
from resilient_integrations.cache import MISSING, RedisBackend


@pytest.mark.anyio
async def test_an_entry_is_fresh_by_the_clock_of_the_server() -> None:
    """No time is written down: how long it will stay is asked for, in the same transaction as the value."""
    redis = FakeRedis()
    cache = cache_of(RedisBackend(redis), prefix="users:", ttl=10, stale_if_error=20)
    await cache.set("1", {"name": "Ada"})
    found = [await cache.get("1")]
    await anyio.sleep(10)
    found.append(await cache.get("1"))
    stale = await cache.get_or_load("1", Script(OSError()))

    assert found == [{"name": "Ada"}, MISSING]
    assert stale == {"name": "Ada"}
    assert redis.data["users:1"][0] == b'1 20.0 {"name":"Ada"}'


@pytest.mark.anyio
async def test_expired_and_deleted_entries_are_not_there() -> None:
    """The server forgets them."""
    redis = FakeRedis()
    cache = cache_of(RedisBackend(redis), ttl=0.0001)  # a server takes whole milliseconds, and at least one
    await cache.set("1", "value")
    await anyio.sleep(0.01)
    await cache.set("2", "value", ttl=60)
    await cache.delete("2")

    assert [await cache.get("1"), await cache.get("2")] == [MISSING, MISSING]


@pytest.mark.anyio
async def test_an_entry_without_expiry_stays_fresh() -> None:
    """Somebody made it so by hand."""
    redis = FakeRedis()
    redis.data["1"] = (b'1 0.0 "value"', None)
    backend = RedisBackend(redis)
    stored = await backend.get("1")

    assert stored is not None
    assert stored.expires_in == math.inf
    assert await cache_of(backend).get("1") == "value"


@pytest.mark.anyio
async def test_a_client_that_decodes_responses_will_do() -> None:
    """Its texts are the bytes of JSON."""
    cache = cache_of(RedisBackend(FakeRedis(decode_responses=True)))
    await cache.set("1", "größer")

    assert await cache.get("1") == "größer"


@pytest.mark.anyio
async def test_closing_the_backend_closes_its_client() -> None:
    """`aclosing` does it at the end of a block."""
    redis = FakeRedis()
    async with aclosing(RedisBackend(redis)) as backend:
        await cache_of(backend).set("1", "value")

    assert redis.closed


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `from_url` needs it."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resilient-anyio\[redis\]'"):
        RedisBackend.from_url("redis://localhost")


def test_the_cache_needs_no_redis() -> None:
    """Neither it nor another integration is imported with the module."""
    code = "import sys, resilient_integrations.cache; print(*sys.modules)"
    sources = [str(Path(package.__path__[0]).parent) for package in (resilient, resilient_integrations)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)  # noqa: S603  our own
    ours = {name for name in done.stdout.split() if name.startswith("resilient_integrations.")}

    assert "redis" not in done.stdout.split()
    assert all(name.removeprefix("resilient_integrations.").partition(".")[0] in {"cache", "_cache"} for name in ours)


def test_it_says_what_it_is() -> None:
    """For a repr of the whole."""
    assert repr(RedisBackend("client")) == "RedisBackend('client')"


# A real server


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
@pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True)
async def test_a_real_server_is_killed_and_comes_back(redis_server: RedisServer) -> None:
    """Every call has its value, whatever happens to the server; afterwards it is used again."""
    loader = Script(1, 2, 3, 4, 5, 6, 7, 8, 9)
    async with aclosing(RedisBackend.from_url(redis_server.url)) as backend:
        settings: dict[str, Any] = {"ttl": 60, "stale_if_error": 60, "timeout": 1}
        cache = cache_of(backend, **settings)
        stored = [await cache.get_or_load("1", loader), await cache.get_or_load("1", loader)]
        await cache.set("2", None)
        nothing = await cache.get("2")
        await cache.set("3", "short", ttl=0.001)
        await anyio.sleep(0.01)
        old = await cache.get_or_load("3", Script(OSError()))
        redis_server.kill()
        down = [await cache.get_or_load("1", loader) for _ in range(6)]
        state = cache.statistics().breaker.state
        await redis_server.start()
        cache.breaker.close()
        back = [await cache.get_or_load("1", loader) for _ in range(2)]

    assert stored == [1, 1]
    assert nothing is None
    assert old == "short"
    assert down == [2, 3, 4, 5, 6, 7]
    assert state == "open"
    assert back == [8, 8]
