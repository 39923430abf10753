"""Limits that processes share, over Redis or Valkey.

    async with RedisStore("redis://localhost") as store:
        pipeline = Pipeline(Retry(), RedisTokenBucket(store, 100, name="users-api"), RedisBulkhead(store, 20, name="users-api"))

`RedisTokenBucket`, `RedisBulkhead` and `RedisCircuitBreaker` have the faces of the strategies that they extend. The store
decides, by its own clock; where it does not answer in time, each process decides alone, or lets calls pass, or refuses them. It
works on asyncio only, as redis.asyncio does.
"""

from typing import Final

try:
    import redis.asyncio  # noqa: F401  # pyright: ignore[reportUnusedImport]  it is there, or the error says what to install
except ModuleNotFoundError as error:
    _MISSING: Final = "shared limits need a Redis client: pip install 'resilient-anyio[redis]'"
    raise ModuleNotFoundError(_MISSING, name=error.name) from error

from resilient_integrations._redis.breaker import RedisCircuitBreaker
from resilient_integrations._redis.bucket import RedisTokenBucket
from resilient_integrations._redis.bulkhead import LeaseLost, RedisBulkhead, RedisBulkheadStatistics
from resilient_integrations._redis.sharing import OnStoreError, StoreUnavailable
from resilient_integrations._redis.store import RedisStore, StoreStatistics

__all__ = (
    "LeaseLost",
    "OnStoreError",
    "RedisBulkhead",
    "RedisBulkheadStatistics",
    "RedisCircuitBreaker",
    "RedisStore",
    "RedisTokenBucket",
    "StoreStatistics",
    "StoreUnavailable",
)
