"""What the tests of the cache share: a backend that can be down, slow and wrong, and a fake of `redis.asyncio`."""

from types import TracebackType
from typing import Any, Self

import anyio

from resilient import clock
from resilient_integrations.cache import MemoryBackend, ResilientCache, Stored


class Remote(MemoryBackend):
    """A backend of bytes, somewhere else: each operation takes `seconds`, and raises `error` where there is one.

    Attributes:
        asked: the operations in order: `get`, `set` or `delete`, and the key.
        fails: which operations raise; empty for all of them.

    """

    keeps_objects = False

    def __init__(self, *, seconds: float = 0.0, error: Exception | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.error = error
        self.fails: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    async def _answer(self, operation: str, key: str) -> None:
        self.asked.append((operation, key))
        await anyio.sleep(self.seconds)
        if self.error is not None and (not self.fails or operation in self.fails):
            raise self.error

    async def get(self, key: str, /) -> Stored | None:
        await self._answer("get", key)
        return await super().get(key)

    async def set(self, key: str, data: Any, expires_in: float, /) -> None:
        assert isinstance(data, bytes)
        await self._answer("set", key)
        await super().set(key, data, expires_in)

    async def delete(self, key: str, /) -> None:
        await self._answer("delete", key)
        await super().delete(key)

    def count(self, operation: str) -> int:
        return sum(asked == operation for asked, _ in self.asked)


def cache_of(backend: Any = None, **settings: Any) -> ResilientCache:
    """Without jitter, so that times are exact."""
    return ResilientCache(backend, **dict[str, Any](jitter=0.0) | settings)


def counted(cache: ResilientCache) -> dict[str, int]:
    """What a cache has counted, as far as it is more than nothing."""
    statistics = cache.statistics()
    names = (name for name in statistics.__slots__ if name != "breaker")
    return {name: number for name in names if (number := getattr(statistics, name))}


class FakeRedis:
    """As much of `redis.asyncio.Redis` as a cache uses: expiry in whole milliseconds, and transactions."""

    def __init__(self, *, decode_responses: bool = False) -> None:
        self.decode_responses = decode_responses
        self.data: dict[str, tuple[bytes, float | None]] = {}
        self.closed = False

    def live(self, key: str) -> tuple[bytes, float | None] | None:
        found = self.data.get(key)
        if found is not None and found[1] is not None and found[1] <= clock.now():
            del self.data[key]
            return None
        return found

    def pipeline(self, *, transaction: bool = True) -> "FakePipeline":
        assert transaction
        return FakePipeline(self)

    async def set(self, key: str, value: bytes, *, px: int) -> bool:
        assert isinstance(px, int)
        assert px > 0  # a server says "invalid expire time in 'set' command"
        await anyio.sleep(0.001)
        self.data[key] = (value, clock.now() + px / 1000)
        return True

    async def delete(self, key: str) -> int:
        await anyio.sleep(0.001)
        return int(self.data.pop(key, None) is not None)

    async def aclose(self) -> None:
        self.closed = True


class FakePipeline:
    """Commands that are sent together."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._commands: list[tuple[str, str]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._commands.clear()

    def get(self, key: str) -> Self:
        self._commands.append(("get", key))
        return self

    def pttl(self, key: str) -> Self:
        self._commands.append(("pttl", key))
        return self

    async def execute(self) -> list[Any]:
        await anyio.sleep(0.001)
        return [self._get(key) if command == "get" else self._pttl(key) for command, key in self._commands]

    def _get(self, key: str) -> bytes | str | None:
        found = self._redis.live(key)
        if found is None:
            return None
        return found[0].decode() if self._redis.decode_responses else found[0]

    def _pttl(self, key: str) -> int:
        found = self._redis.live(key)
        if found is None:
            return -2
        return -1 if found[1] is None else int((found[1] - clock.now()) * 1000)
