"""Async generators, for each item."""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from benchmarks.harness import Case, Group, peer
from resilient import Bulkhead, Pipeline, Retry, Timeout

PLAIN = "plain generator"


async def items(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


def consumed(name: str, wrap: Callable[[Any], Any], **more: Any) -> Case:
    stream = wrap(items)

    async def run(n: int) -> None:
        async for _ in stream(n):
            pass

    return Case(name, run, **more)


def own() -> Iterable[Case]:
    yield consumed(PLAIN, lambda fn: fn)
    yield consumed("resilient @Pipeline(Retry, Bulkhead)", Pipeline(Retry(on=OSError), Bulkhead(10)), ours=True)
    yield consumed("resilient @Timeout, for each item", Timeout(10), ours=True)


def nopanic() -> Iterable[Case]:
    module = peer("nopanic")
    yield consumed("nopanic compose: retry, bulkhead", module.compose(module.retry(on=OSError), module.bulkhead(10)))
    yield consumed("nopanic @timeout", module.timeout(10), without="anyio's scopes (asyncio.timeout)")


GROUPS = [Group("streams", "Async generators: for each item", own, {"nopanic": nopanic}, base=PLAIN)]
