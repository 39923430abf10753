"""A service whose every fiftieth answer is slow: what hedging at the live 95th percentile makes of its tail."""

from random import Random

import anyio

from resilient import Hedge

CALLS = 2000
hedge = Hedge()
random = Random(1)  # noqa: S311  a simulation


async def fetch_user(user_id: int) -> int:
    """Answer in two milliseconds or so; one time in fifty in a tenth of a second."""
    await anyio.sleep(0.1 if random.random() < 1 / 50 else random.uniform(0.001, 0.003))
    return user_id


async def measure(name: str, *, hedged: bool) -> None:
    """Make the calls, a few at a time, and show how long they took."""
    times: list[float] = []

    async def caller(count: int) -> None:
        for number in range(count):
            started = anyio.current_time()
            await (hedge.call(fetch_user, number) if hedged else fetch_user(number))
            times.append(anyio.current_time() - started)

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(caller, CALLS // 10)
    times.sort()
    median, p99, slowest = (1000 * times[int(share * CALLS)] for share in (0.5, 0.99, 0.999))
    print(f"{name:<13} median {median:5.1f} ms   p99 {p99:6.1f} ms   p99.9 {slowest:6.1f} ms")


async def main() -> None:
    """Without, then with."""
    await measure("as it is", hedged=False)
    await measure("hedged", hedged=True)
    seen = hedge.statistics()
    print(f"{seen.hedges} of {seen.calls} calls were doubled, {seen.wins} times the second attempt came first")


if __name__ == "__main__":
    anyio.run(main)
