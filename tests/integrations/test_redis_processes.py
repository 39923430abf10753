"""Limits over real processes: their clocks differ, and one of them is killed. They start as fast as the machine lets them."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import Process
from redis.asyncio import Redis

from integrations.redis_servers import RedisServer
from resilient import BulkheadFull
from resilient_integrations.redis import RedisBulkhead, RedisStore

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True)]

SOURCES: Final = [str(Path(__file__).parents[2] / path) for path in (".", "integrations")]

TAKES_TOKENS: Final = """
import sys; sys.path[:0] = {sources!r}
import time, anyio
from resilient import clock, RateLimited
from resilient_integrations.redis import RedisStore, RedisTokenBucket

real = time.monotonic
clock.now = lambda: real() * (1 + {skew}) + {skew} * 1000
time.time = lambda: {skew} * 1e6

async def main():
    async with RedisStore({url!r}, timeout=5) as store:
        bucket = RedisTokenBucket(store, 200, burst=20, max_wait=0.02, name="api")
        marks = []
        async def take():
            while real() < end:
                try:
                    permit = await bucket.wait(float("inf"))
                    marks.append(permit[2])
                except RateLimited as refused:
                    await anyio.sleep(refused.retry_after)
        print(flush=True)
        sys.stdin.readline()
        end = real() + 0.4
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(take)
        print(store.statistics().errors, *marks)

anyio.run(main)
"""

HOLDS_A_SLOT: Final = """
import sys; sys.path[:0] = {sources!r}
import anyio
import anyio.lowlevel
from resilient_integrations.redis import RedisBulkhead, RedisStore

async def main():
    async with RedisStore({url!r}, timeout=5) as store, RedisBulkhead(store, 1, lease=1, name="jobs"):
        print(flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def started(program: str, redis_server: RedisServer, skew: float = 0.0) -> Process:
    code = program.format(sources=SOURCES, url=redis_server.url, skew=skew)
    return await anyio.open_process([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=None)


async def said(process: Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.receive()


async def server_time(redis_server: RedisServer) -> float:
    make: Any = Redis
    async with make.from_url(redis_server.url) as client:
        seconds, microseconds = await client.time()
    return float(seconds + microseconds / 1e6)


async def test_processes_with_clocks_that_differ_never_admit_more_than_the_limit(redis_server: RedisServer) -> None:
    """In no stretch of time more than the burst and what the rate brings, by the clock of the server."""
    processes = [await started(TAKES_TOKENS, redis_server, skew) for skew in (-0.3, 0.5)]
    marks: list[int] = []
    for process in processes:
        await said(process)
    began = await server_time(redis_server)
    for process in processes:
        assert process.stdin is not None
        await process.stdin.send(b"\n")
    for process in processes:
        assert process.stdout is not None
        errors, *taken = map(int, b"".join([chunk async for chunk in process.stdout]).split())
        await process.aclose()
        assert not errors
        marks += taken
    took = await server_time(redis_server) - began
    marks.sort()  # a mark is when all that was taken until then has drained

    assert all(later - earlier >= 5000 for earlier, later in itertools.pairwise(marks))
    assert 40 < len(marks) <= 20 + 200 * (took + 0.03)  # the last of them are reserved ahead


async def test_the_slot_of_a_killed_process_comes_back(redis_server: RedisServer) -> None:
    """When its lease has run out, and not before."""
    holder = await started(HOLDS_A_SLOT, redis_server)
    await said(holder)
    async with RedisStore(redis_server.url, timeout=3) as store:
        with pytest.raises(BulkheadFull):
            await RedisBulkhead(store, 1, name="jobs").acquire()
        holder.kill()
        await holder.aclose()
        patient = RedisBulkhead(store, 1, max_queue=1, queue_timeout=15, name="jobs")
        await patient.call(anyio.lowlevel.checkpoint)
