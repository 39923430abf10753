"""The store is killed, paused, started again and hidden behind a bad network, under load: calls go on, and it is used again."""

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from integrations.redis_servers import RedisServer, until
from resilient import CircuitBreaker, Gate, Rejected, clock
from resilient.testing import BlackHole, FaultProxy
from resilient_integrations import redis as ours
from resilient_integrations.redis import RedisBulkhead, RedisCircuitBreaker, RedisStore, RedisTokenBucket


def on_asyncio(test: Any) -> Any:
    """Run a test with sockets."""
    for mark in (pytest.mark.anyio, pytest.mark.usefixtures("real_backend")):
        test = mark(test)
    return pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True)(test)


TIMEOUT = 0.2


def store_of(url: str) -> RedisStore:
    breaker = CircuitBreaker(name="store", consecutive_failures=2, open_for=0.05, open_for_max=0.05)
    return RedisStore(url, timeout=TIMEOUT, breaker=breaker)


class Load:
    """Tasks that call through all shared gates, all the time, and note how long each call took."""

    def __init__(self, store: RedisStore) -> None:
        self.gates: list[Gate] = [
            RedisTokenBucket(store, 100_000, burst=100_000, name="api"),
            RedisBulkhead(store, 50, name="api"),
            RedisCircuitBreaker(CircuitBreaker(name="api"), store, every=0.01),
        ]
        self.calls = 0
        self.slowest = 0.0

    async def run(self) -> None:
        while True:
            for gate in self.gates:
                started = clock.now()
                await gate.call(anyio.sleep, 0.001)
                self.slowest = max(self.slowest, clock.now() - started)
                self.calls += 1

    async def go_on(self) -> None:
        """Wait for some more calls."""
        enough = self.calls + 60
        await until(lambda: self.calls >= enough)


async def under_load(url: str, trouble: Callable[[RedisStore, Load], Awaitable[None]]) -> Load:
    store = store_of(url)
    load = Load(store)
    async with store, anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(load.run)
        await load.go_on()
        await trouble(store, load)
        await load.go_on()
        group.cancel_scope.cancel()
    return load


async def recovery(store: RedisStore) -> None:
    """Wait until the store is asked, and answers."""
    await until(lambda: store.breaker.state == "closed")
    before = store.statistics()

    def answers() -> bool:
        now = store.statistics()
        return now.requests - before.requests > now.errors - before.errors + 10

    await until(answers)


@on_asyncio
@pytest.mark.parametrize("trouble", ["killed", "paused"])
async def test_a_server_that_is_gone_for_a_while_stops_nobody(redis_server: RedisServer, trouble: str) -> None:
    """No call fails, none waits longer than the store's timeout; when the server is back, it decides again."""

    async def happens(store: RedisStore, load: Load) -> None:
        redis_server.kill() if trouble == "killed" else redis_server.pause()
        await until(lambda: not store.breaker.is_calm(clock.now()))
        await load.go_on()
        await redis_server.start() if trouble == "killed" else redis_server.resume()
        await recovery(store)

    load = await under_load(redis_server.url, happens)

    assert load.slowest < 2 * TIMEOUT + 0.5  # and what a busy machine takes


@on_asyncio
async def test_a_network_that_swallows_everything_stops_nobody(redis_server: RedisServer) -> None:
    """Connections stay and nothing comes back."""
    async with FaultProxy("127.0.0.1", redis_server.port) as proxy:

        async def happens(store: RedisStore, load: Load) -> None:
            proxy.fault = BlackHole()
            await until(lambda: not store.breaker.is_calm(clock.now()))
            await load.go_on()
            proxy.fault = None
            await recovery(store)

        load = await under_load(f"redis://127.0.0.1:{proxy.port}", happens)

    assert load.slowest < 2 * TIMEOUT + 0.5


@on_asyncio
async def test_a_server_that_has_forgotten_its_scripts_is_told_them(store: RedisStore) -> None:
    """And what it kept: there is one more burst, which is conservative of nothing but calls."""
    bucket = RedisTokenBucket(store, 0.001, burst=1, max_wait=0, name="api")
    await bucket.acquire()
    client: Any = store._client  # pyright: ignore[reportPrivateUsage]
    await client.script_flush()
    with pytest.raises(Rejected):
        await bucket.acquire()
    await client.flushall()
    await bucket.acquire()

    assert store.statistics().errors == 0


@on_asyncio
async def test_one_key_that_holds_something_else_is_no_illness_of_the_store(store: RedisStore) -> None:
    """Its limit is decided here; the others are asked for. Where all answers are errors, that is one."""
    client: Any = store._client  # pyright: ignore[reportPrivateUsage]
    wrong, right = (RedisTokenBucket(store, 1000, name=name) for name in ("wrong", "right"))
    await client.lpush(wrong.where.key, "x")
    async with anyio.create_task_group() as group:
        group.start_soon(wrong.acquire)
        group.start_soon(right.acquire)
    together = store.statistics()
    await wrong.acquire()

    assert (together.errors, together.breaker.total_failures) == (1, 0)
    assert store.statistics().breaker.total_failures == 1
    assert repr(store) == "<RedisStore 'resilient': 3 requests, 2 errors, breaker closed>"


def test_a_store_may_be_used_in_one_event_loop_after_another() -> None:
    """As in a script that calls `asyncio.run` twice. What was asked for when a loop was shut down has no answer."""
    store = store_of("redis://127.0.0.1:1")

    async def use() -> bool:
        bucket = RedisTokenBucket(store, 1000, name="api")
        asyncio.ensure_future(bucket.acquire()).add_done_callback(lambda _: None)
        await asyncio.sleep(0)
        return store.statistics().requests > 0

    assert [asyncio.run(use()), asyncio.run(use())] == [True, True]
    assert store.statistics().requests == 2


@pytest.mark.parametrize("limit", [RedisTokenBucket, RedisBulkhead])
def test_trio_is_told_that_there_is_no_client_for_it(limit: Any) -> None:
    """A clear error, whatever the limit."""

    async def use() -> None:
        store = store_of("redis://127.0.0.1:1")
        with pytest.raises(RuntimeError, match="where asyncio runs"):
            await limit(store, 10).acquire()
        with pytest.raises(RuntimeError, match="where asyncio runs"):
            await RedisCircuitBreaker(CircuitBreaker(), store).call(anyio.lowlevel.checkpoint)

    anyio.run(use, backend="trio")


def test_by_hand_a_breaker_is_set_where_no_event_loop_runs() -> None:
    """Nobody is told then."""
    breaker = RedisCircuitBreaker(CircuitBreaker(), store_of("redis://127.0.0.1:1"))
    breaker.isolate()

    assert breaker.state == "isolated"


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resilient-anyio\[redis\]'"):
        importlib.reload(ours)
