"""Redis, or Valkey, as the backend of a cache: a thin adapter around a client of `redis.asyncio`.

An entry and the time for which it stays are read in one transaction, so that they belong together. `redis` is imported only where
`from_url` makes a client; any object with the same methods will do. Redis clients run on asyncio only.
"""

import math
from typing import Any, Self

from resilient_integrations._cache.backends import Stored

__all__ = ("RedisBackend",)


class RedisBackend:
    """Entries in Redis or Valkey.

    Args:
        client: a `redis.asyncio.Redis`, or something with its `pipeline`, `set`, `delete` and `aclose`. One of your own should
            have no retries (`retry=Retry(NoBackoff(), 0)`): its default ones take three seconds to say that a server is down.

    Cancellation: an operation that is cut off may or may not have reached the server.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """A backend with a client of its own, without retries: those of the cache count. `aclose()` closes it.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            options: those of `redis.asyncio.from_url`.

        Raises:
            ModuleNotFoundError: the extra `redis` is not installed.

        """
        try:
            from redis.asyncio import from_url  # noqa: PLC0415  see the top of this module
            from redis.asyncio.retry import Retry  # noqa: PLC0415
            from redis.backoff import NoBackoff  # noqa: PLC0415
        except ModuleNotFoundError as error:
            msg = "RedisBackend.from_url needs a Redis client: pip install 'resilient-anyio[redis]'"
            raise ModuleNotFoundError(msg) from error
        make: Any = from_url  # untyped there
        return cls(make(url, **{"retry": Retry(NoBackoff(), 0), **options}))

    async def get(self, key: str, /) -> Stored | None:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.get(key)
            pipe.pttl(key)
            data, milliseconds = await pipe.execute()
        if data is None:
            return None
        if isinstance(data, str):  # of a client with `decode_responses=True`
            data = data.encode()
        return Stored(data, milliseconds / 1000 if milliseconds >= 0 else math.inf)

    async def set(self, key: str, data: Any, expires_in: float, /) -> None:
        await self._client.set(key, data, px=max(1, math.ceil(expires_in * 1000)))

    async def delete(self, key: str, /) -> None:
        await self._client.delete(key)

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    def __repr__(self) -> str:
        return f"RedisBackend({self._client!r})"
