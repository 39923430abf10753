"""A cache in memory: a value that is there, and one that must be loaded."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from benchmarks.harness import Case, Group, Run, fn, peer
from resilient_integrations.cache import MemoryBackend, ResilientCache

BACKEND: Final = "resilient MemoryBackend.get, without a cache around"
DAY: Final = 86_400.0


def own() -> Iterable[Case]:
    backend, cache = MemoryBackend(), ResilientCache(ttl=DAY)

    async def bare(n: int) -> None:
        await backend.set("42", b"42", DAY)
        for _ in range(n):
            await backend.get("42")

    async def gets(n: int) -> None:
        await cache.set("42", 42)
        for _ in range(n):
            await cache.get("42")

    yield Case(BACKEND, bare, ours=True)
    yield Case("resilient cache.get: a hit", gets, ours=True)
    yield Case("resilient cache.get_or_load: a hit", _hits(cache.get_or_load), ours=True)
    yield Case("resilient cache.get_or_load: a miss, loaded and stored", _misses(cache.get_or_load), ours=True)


def _hits(get_or_load: Callable[[str, Callable[[], Awaitable[int]]], Awaitable[object]]) -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            await get_or_load("42", lambda: fn(42))

    return run


def _misses(get_or_load: Callable[[str, Callable[[], Awaitable[int]]], Awaitable[object]]) -> Run:
    asked = 0

    async def run(n: int) -> None:
        nonlocal asked
        for _ in range(n):
            asked += 1
            await get_or_load(str(asked % 100_000), lambda: fn(42))

    return run


def aiocache() -> Iterable[Case]:
    cached = peer("aiocache").cached(ttl=DAY)(fn)
    without = "a breaker, a retry, single flight, old values, a bound on keys"
    asked = 0

    async def misses(n: int) -> None:
        nonlocal asked
        for _ in range(n):
            asked += 1
            await cached(asked)

    async def hits(n: int) -> None:
        for _ in range(n):
            await cached(42)

    yield Case("aiocache @cached: a hit", hits, without=without)
    yield Case("aiocache @cached: a miss", misses, without=without)


GROUPS = [Group("cache", "Cache: in memory", own, {"aiocache": aiocache}, base=BACKEND)]
