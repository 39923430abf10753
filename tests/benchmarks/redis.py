"""A permit that processes share: a real server of Redis, asked by one task after the other, and by 50 at a time.

The server is another process, so what counts is the time that goes by, and not only that of this thread.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.harness import Case, Group, peer
from integrations.redis_servers import RedisServer
from resilient import CircuitBreaker
from resilient_integrations.redis import RedisBulkhead, RedisCircuitBreaker, RedisStore, RedisTokenBucket

PLENTY: Final = 1_000_000
BARE: Final = "redis.asyncio: one GET"
TASKS: Final = 50
_Client: Final[Any] = Redis  # its types are not known to strict checkers

Once = Callable[[], Awaitable[object]]
Opened = tuple[Once, Once]
"""What does it once, and what closes what it needs."""


class _Server:
    """One for all cases of a group, started when it is first needed."""

    def __init__(self) -> None:
        self._server: RedisServer | None = None

    async def url(self) -> str:
        if self._server is None:
            self._server = RedisServer(Path(tempfile.gettempdir()))
            await self._server.start()
        return self._server.url

    async def stop(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server = None


_SERVER: Final = _Server()


class _Subject:
    """What asks the server; connected when it is first used."""

    def __init__(self, open_: Callable[[str], Awaitable[Opened]], tasks: int) -> None:
        self._open = open_
        self._tasks = tasks
        self._opened: Opened | None = None

    async def run(self, n: int) -> None:
        if self._opened is None:
            self._opened = await self._open(await _SERVER.url())
            await self._opened[0]()  # what happens only the first time is not measured
        once = self._opened[0]
        if self._tasks == 1:
            for _ in range(n):
                await once()
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(self._tasks):
                group.create_task(self._some(n // self._tasks))

    async def _some(self, n: int) -> None:
        assert self._opened is not None
        once = self._opened[0]
        for _ in range(n):
            await once()

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened[1]()


async def bare(url: str) -> Opened:
    client = _Client.from_url(url)

    async def close() -> None:
        await client.aclose()
        await _SERVER.stop()  # it is the first case, and closed last

    return partial(client.get, "bare"), close


async def bucket(url: str) -> Opened:
    store = RedisStore(url, timeout=5)
    return RedisTokenBucket(store, PLENTY, name="bucket").acquire, store.aclose


async def bulkhead(url: str) -> Opened:
    store = RedisStore(url, timeout=5)
    gate = RedisBulkhead(store, PLENTY, name="bulkhead")

    async def once() -> None:
        async with gate:
            pass

    return once, store.aclose


async def breaker(url: str) -> Opened:
    store = RedisStore(url, timeout=5)
    gate = RedisCircuitBreaker(CircuitBreaker(), store)
    return partial(gate.call, asyncio.sleep, 0), store.aclose


async def throttled(url: str) -> Opened:
    module = peer("throttled.asyncio")
    store = module.RedisStore(server=url)
    limit = module.Throttled("throttled", using="gcra", quota=module.per_sec(PLENTY), store=store)
    return limit.limit, _closing(store._backend.get_client())


async def limits(strategy: str, url: str) -> Opened:
    module = peer("limits")
    storage = peer("limits.aio.storage").RedisStorage(f"async+{url}", implementation="redispy")
    limiter = getattr(peer("limits.aio.strategies"), strategy)(storage)
    return partial(limiter.hit, module.RateLimitItemPerSecond(PLENTY), "limits"), _closing(storage.bridge.storage)


async def pyrate(url: str) -> Opened:
    module = peer("pyrate_limiter")
    client = _Client.from_url(url)
    redis_bucket = await module.RedisBucket.init([module.Rate(PLENTY, module.Duration.SECOND)], client, "pyrate")
    limiter = module.Limiter(redis_bucket)

    async def close() -> None:
        limiter.close()
        await client.aclose()

    return limiter.try_acquire_async, close


def _closing(client: Any) -> Once:
    async def close() -> None:
        await client.aclose()

    return close


def _case(tasks: int, name: str, open_: Callable[[str], Awaitable[Opened]], **more: Any) -> Case:
    subject = _Subject(open_, tasks)
    return Case(name, subject.run, count=4 * TASKS, close=subject.close, **more)


def own(tasks: int) -> Iterable[Case]:
    yield _case(tasks, BARE, bare)
    yield _case(tasks, "resilient RedisTokenBucket.acquire", bucket, ours=True)
    yield _case(tasks, "resilient async with RedisBulkhead", bulkhead, ours=True)
    yield _case(tasks, "resilient RedisCircuitBreaker.call", breaker, ours=True)


def of_throttled(tasks: int) -> Iterable[Case]:
    peer("throttled.asyncio")
    yield _case(tasks, "throttled-py GCRA", throttled, without="a store that is down or slow, cancellation, reserved waits")


def of_limits(tasks: int) -> Iterable[Case]:
    peer("limits.aio.strategies")
    window = "a window whose edges let twice as much through, a store that is down or slow, waits"
    yield _case(tasks, "limits FixedWindow", partial(limits, "FixedWindowRateLimiter"), without=window)
    sliding = "exact limits (it weighs two windows), a store that is down or slow, waits"
    yield _case(tasks, "limits SlidingWindowCounter", partial(limits, "SlidingWindowCounterRateLimiter"), without=sliding)


def of_pyrate(tasks: int) -> Iterable[Case]:
    peer("pyrate_limiter")
    yield _case(tasks, "pyrate-limiter RedisBucket", pyrate, without="the server's clock, a store that is down or slow")


def _group(name: str, title: str, tasks: int) -> Group:
    peers = {"throttled-py": of_throttled, "limits": of_limits, "pyrate-limiter": of_pyrate}
    return Group(
        name,
        title,
        partial(own, tasks),
        {peer_name: partial(make, tasks) for peer_name, make in peers.items()},
        base=BARE,
        clock=time.perf_counter,
    )


GROUPS = [
    _group("redis", "Redis: a permit, one task after the other (time that goes by)", 1),
    _group("redis-tasks", f"Redis: a permit, {TASKS} tasks at a time (time that goes by)", TASKS),
]
