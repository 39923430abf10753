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

OPTIONS = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "1000")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[list[RedisServer]]:
    """Two servers, each with half of the slots. They take two seconds until they take part: that is fixed in the server."""
    servers: list[RedisServer] = []
    for name, slots in (("one", (0, 8191)), ("two", (8192, 16383))):
        directory = tmp_path / name
        directory.mkdir()
        server = RedisServer(directory, None, *OPTIONS, "--cluster-port", str(free_port()))
        servers.append(server)
        await server.start()
        await command(server, "CLUSTER", "ADDSLOTSRANGE", *slots)
        await command(server, "CLUSTER", "SET-CONFIG-EPOCH", len(servers))
    one, two = servers
    bus = two.options[two.options.index("--cluster-port") + 1]
    await command(one, "CLUSTER", "MEET", "127.0.0.1", two.port, bus)
    for server in servers:
        while not await takes_part(server):  # noqa: ASYNC110  it has no event
            await anyio.sleep(0.01)
    yield servers
    for server in servers:
        server.kill()


async def command(server: RedisServer, *words: Any) -> Any:
    client: Any = Redis
    async with client.from_url(server.url) as client:
        return await client.execute_command(*words)


async def takes_part(server: RedisServer) -> bool:
    said = await command(server, "CLUSTER", "INFO")
    return bool(said["cluster_state"] == "ok" and said["cluster_slots_assigned"] == "16384")


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
