"""Limits over a real cluster of two servers."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.asyncio import Redis, RedisCluster

from integrations.redis_servers import RedisServer, free_port
from resilient import BulkheadFull, Keyed, RateLimited, clock
from resilient_integrations.redis import RedisBulkhead, RedisStore, RedisTokenBucket

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True)]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[RedisServer]]:
    """Two servers, each with half of the slots. They take two seconds until they take part: that is fixed in the server."""
    servers = [RedisServer(tmp_path, None, *options(name)) for name in ("one", "two")]
    try:
        for number, server in enumerate(servers):
            await server.start()
            await command(server, "CLUSTER", "ADDSLOTSRANGE", 8192 * number, 8192 * number + 8191)
            await command(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        one, two = servers
        await command(one, "CLUSTER", "MEET", "127.0.0.1", two.port, two.options[-1])
        for server in servers:
            while not await takes_part(server):  # noqa: ASYNC110  it has no event
                await anyio.sleep(0.01)
        yield servers
    finally:
        for server in servers:
            server.kill()


def options(name: str) -> tuple[str, ...]:
    kept = ("--cluster-config-file", f"{name}.conf", "--cluster-require-full-coverage", "no")
    return ("--cluster-enabled", "yes", *kept, "--cluster-port", str(free_port()))


async def command(server: RedisServer, *words: Any) -> Any:
    client: Any = Redis
    async with client.from_url(server.url) as client:
        return await client.execute_command(*words)


async def takes_part(server: RedisServer) -> bool:
    said: bytes = await command(server, "CLUSTER", "INFO")
    return {b"cluster_state:ok", b"cluster_slots_assigned:16384"} <= set(said.split())


async def test_keys_of_one_pipeline_lie_on_all_servers(cluster: list[RedisServer]) -> None:
    """Many tasks ask at once: one pipeline, which the client divides. Each key has its own limit, wherever it is."""
    factory: Any = RedisCluster
    async with RedisStore(cluster[0].url, client=factory.from_url, timeout=3) as store:
        buckets = Keyed(RedisTokenBucket(store, 0.001, burst=1, max_wait=0, name="api"))
        bulkheads = Keyed(RedisBulkhead(store, 1, name="api"))
        keys = [str(number) for number in range(20)]
        refused: list[str] = []

        async def both(key: str) -> None:
            await buckets[key].acquire()
            try:
                await buckets[key].acquire()
            except RateLimited:
                refused.append(key)
            async with bulkheads[key]:
                with pytest.raises(BulkheadFull):
                    await bulkheads[key].sibling().acquire()

        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(both, key)
        kept = [await command(server, "DBSIZE") for server in cluster]
        seen = store.statistics()

    assert sorted(refused, key=int) == keys
    assert all(kept)
    assert (seen.errors, seen.pipelines < 20) == (0, True)
    assert all(gate.is_fresh(clock.now()) for gate in (bulkheads[key] for key in keys))
