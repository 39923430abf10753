"""How the public interface looks to a type checker. mypy and pyright read this file; it is never run."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any, assert_type

import anyio

from resilient import (
    Attempt,
    Bulkhead,
    ByVerdict,
    CircuitBreaker,
    Exponential,
    Fallback,
    Keyed,
    Outcome,
    Pipeline,
    Policy,
    PolicyKey,
    Resilience,
    Retry,
    Strategy,
    Timeline,
    Timeout,
    TokenBucket,
    add_listener,
    call,
    deadline,
    override,
    protect,
    record_timeline,
)
from resilient.observe.events import Event
from resilient.strategies.base import Step

retry = Retry(on=(ConnectionError, TimeoutError))
pipeline = Pipeline(Timeout(10), retry, CircuitBreaker(), Bulkhead(10), TokenBucket(100), Timeout(2))


async def fetch(user_id: int, *, fresh: bool = False) -> str:
    return f"{user_id} {fresh}"


@pipeline
async def decorated(user_id: int, *, fresh: bool = False) -> str:
    return f"{user_id} {fresh}"


@retry
async def stream(prompt: str) -> AsyncIterator[bytes]:
    yield prompt.encode()


class Service:
    @retry
    async def method(self, user_id: int) -> str:
        return str(user_id)

    @staticmethod
    @retry
    async def static(user_id: int) -> str:
        return str(user_id)


class Custom(Strategy):
    async def run(self, call: Step, attempt: Attempt) -> Any:
        return await call(attempt)


def hear(event: Event) -> None:
    assert_type(event.key, str | None)


async def signatures_are_kept() -> None:
    assert_type(await decorated(1, fresh=True), str)
    assert_type(await pipeline.call(fetch, 1, fresh=True), str)
    assert_type(await retry.call(fetch, user_id=1), str)
    assert_type(await Service().method(1), str)
    assert_type(await Service.static(1), str)
    assert_type(await Custom().call(fetch, 1), str)
    assert_type(await Fallback("nobody").call(fetch, 1), str)
    assert_type(await Policy.http().pipeline().call(fetch, 1), str)
    assert_type(stream("tea"), AsyncGenerator[bytes])
    async for item in stream("tea"):
        assert_type(item, bytes)
    callable_as_before: Callable[[int], Coroutine[Any, Any, str]] = Service().method
    await callable_as_before(1)


async def wrong_calls_are_found() -> None:
    await decorated("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await decorated(1, True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # noqa: FBT003
    await pipeline.call(fetch, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await pipeline.call(fetch)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await Service().method()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    retry(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    Retry(OSError)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Pipeline(fetch)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def blocks_have_types() -> None:
    async for attempt in retry:
        with attempt:
            assert_type(attempt.number, int)
    async with Bulkhead(10):
        pass
    async with CircuitBreaker().permit():
        pass
    with await TokenBucket(1).acquire():
        pass
    with deadline(5.0), record_timeline() as timeline:
        assert_type(timeline.render(), str)
    assert_type(Keyed(Bulkhead(10))["tenant"], Bulkhead)
    add_listener(hear)


async def settings_have_types() -> None:
    Retry(on=lambda error: bool(error.args), never=(KeyError,), backoff=[0.1, 1, 5])
    Retry(on=OSError, backoff=lambda retry: 0.1 * retry, timeout=timedelta(seconds=3))
    Retry(on=OSError, backoff=ByVerdict(lambda verdict: Exponential(initial=1 if verdict.throttled else 0.1)))
    Pipeline(Timeout(lambda: None), key=str)


async def calls_start_as_tasks() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(decorated, 1)
    assert_type(await asyncio.create_task(pipeline.call(fetch, 1)), str)


resilience = Resilience(policies={"a.b": Policy.http()})


@resilience.protect("a.b")
async def protected(number: int) -> str:
    return str(number)


@protect("a.b")
async def protected_pages(count: int) -> AsyncGenerator[bytes]:
    yield b"page" * count


async def calls_by_key_have_types() -> None:
    assert_type(await resilience.call("a.b", fetch, 1), str)
    assert_type(await call(PolicyKey("a", "b"), fetch, 1), str)
    assert_type(await resilience.call_with_timeline("a.b", fetch, 1), tuple[Outcome[str], Timeline])
    assert_type(await protected(1), str)
    assert_type(protected_pages(1), AsyncGenerator[bytes])
    with override({"a.b": Policy()}):
        await resilience.call("a.b", fetch, "1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await protected("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
