"""A cache whose backend goes down and whose origin fails: every caller has an answer, and the origin is not overrun."""

import anyio

from resilient import configure_logging
from resilient_integrations.cache import MemoryBackend, ResilientCache, Stored


class Shaky(MemoryBackend):
    """A backend that can be down: think of a server."""

    down = False

    async def get(self, key: str, /) -> Stored | None:
        """Give what there is, or fail."""
        if self.down:
            raise ConnectionError
        return await super().get(key)


class Origin:
    """Where users come from. It counts how often it is asked."""

    calls = 0
    down = False

    async def fetch_user(self) -> dict[str, int]:
        """Take a while."""
        self.calls += 1
        await anyio.sleep(0.02)
        if self.down:
            raise ConnectionError
        return {"id": 42}


async def main() -> None:
    """A herd, an origin that is down, a backend that is down."""
    backend, origin = Shaky(), Origin()
    cache = ResilientCache(backend, name="users", ttl=0.1, stale_if_error=60)

    async def herd() -> None:
        async with anyio.create_task_group() as users:
            for _ in range(100):
                users.start_soon(cache.get_or_load, "42", origin.fetch_user)

    await herd()
    print(f"A hundred users at once: the origin was asked {origin.calls} time.")

    await anyio.sleep(0.2)
    origin.down = True
    old = await cache.get_or_load("42", origin.fetch_user)
    print(f"The value is too old and the origin is down: {old} all the same.")

    origin.down, origin.calls, backend.down = False, 0, True
    for _ in range(10):
        await herd()
    print(f"The backend is down, a thousand users: the origin was asked {origin.calls} times.")

    statistics = cache.statistics()
    print(f"The breaker of the backend is {statistics.breaker.state}; it refused {statistics.breaker.rejected} operations.")
    print(repr(cache))


if __name__ == "__main__":
    configure_logging(enabled=False)  # what went wrong is printed above
    anyio.run(main)
