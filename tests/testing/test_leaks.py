"""The check for what is left behind."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from resilient import Bulkhead, CircuitBreaker, Lingering, Policy, Retry, Throttle, TokenBucket
from resilient.strategies.base import Strategy
from resilient.testing import no_leaks
from resilient_integrations.httpx import ResilientTransport
from resilient_integrations.httpx2 import ResilientTransport as ResilientTransport2

pytestmark = pytest.mark.anyio


async def nap() -> None:
    await anyio.sleep(1)


async def number() -> int:
    return 1


async def test_what_comes_back_is_no_leak() -> None:
    """Permits, waiters, tasks and timers of all kinds."""
    bulkhead, bucket = Bulkhead(1, max_queue=5), TokenBucket(1)
    with no_leaks():
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(bulkhead(nap))
                group.start_soon(bucket.call, number)
        with anyio.move_on_after(1):
            await anyio.sleep(2)


@pytest.mark.parametrize(
    ("make", "held"),
    [
        (lambda: Bulkhead(2), "1 permits out: <Bulkhead"),
        (CircuitBreaker, "1 calls in flight: <CircuitBreaker"),
        (Throttle, "1 calls in flight: <Throttle"),
    ],
)
async def test_a_permit_that_is_out_is_found(make: Callable[[], Any], held: str) -> None:
    """Wherever the strategy is."""
    strategies: list[Any] = []
    with pytest.raises(AssertionError, match=f"left behind:\n- {held}"), no_leaks():  # noqa: PT012  a block is what is tested
        strategies.append(make())
        await strategies[0].acquire()


async def test_a_waiter_that_is_left_is_found_and_so_is_its_task() -> None:
    """A task that still runs is told by its name."""
    bulkhead = Bulkhead(1, max_queue=1)
    told = r"1 waiters: <Bulkhead(.|\n)*a task that still runs: 'forgotten'"
    async with anyio.create_task_group() as group:
        lease = bulkhead.acquire_nowait()
        with pytest.raises(AssertionError, match=told), no_leaks():  # noqa: PT012  a block is what is tested
            group.start_soon(bulkhead.call, number, name="forgotten")
            await anyio.wait_all_tasks_blocked()
        lease.settle()


async def test_what_was_there_before_is_nobodys_leak() -> None:
    """Permits of others, their tasks, and values that live on; one more is."""
    bulkhead, value = Bulkhead(5), Lingering()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 1)
        with bulkhead.acquire_nowait():
            with no_leaks():
                bulkhead.acquire_nowait().settle()
            with pytest.raises(AssertionError, match="2 permits out"), no_leaks():
                bulkhead.acquire_nowait()
    value.ended()


async def test_a_value_that_lives_on_is_found_until_it_has_ended() -> None:
    """A response that nobody closed, say."""
    kept: list[Lingering] = []
    with pytest.raises(AssertionError, match="a value that was not closed: <resilient"), no_leaks():
        kept.append(Lingering())
    with no_leaks():
        kept.append(Lingering())
        await kept[-1].discard()
    kept[0].ended()


@pytest.mark.parametrize(
    ("client", "transport"), [(httpx, ResilientTransport), (httpx2, ResilientTransport2)], ids=["httpx", "httpx2"]
)
async def test_a_response_that_is_not_closed_is_found(client: Any, transport: Any) -> None:
    """That of the HTTP transport, with what it holds."""

    def answer(_: Any) -> Any:
        return client.Response(200, stream=Endless())

    answers = client.MockTransport(answer)
    responses: list[Any] = []
    async with client.AsyncClient(transport=transport(inner=answers, policy=Policy(bulkhead=Bulkhead(5)))) as session:
        request = session.build_request("GET", "https://api.example.com/")
        with (
            pytest.raises(
                AssertionError,
                match=r"1 permits out(.|\n)*a value that was not closed: <response to GET https://api\.example\.com>",
            ),
            no_leaks(),
        ):
            responses.append(await session.send(request, stream=True))
        with no_leaks():
            await responses[0].aclose()


class Endless(httpx.AsyncByteStream, httpx2.AsyncByteStream):
    """A body that goes on."""

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        while True:
            yield b"more"


async def test_a_generator_that_is_not_exhausted_is_found() -> None:
    """With its permit."""

    async def numbers() -> AsyncGenerator[int]:
        yield 1
        yield 2

    stream = Bulkhead(1)(numbers)()
    with pytest.raises(AssertionError, match=r"1 permits out(.|\n)*Stream"), no_leaks():
        await anext(stream)
    async with aclosing(stream):
        pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_timer_that_is_set_is_found() -> None:
    """On asyncio; trio has none but those of tasks and scopes."""
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    with pytest.raises(AssertionError, match="a timer that is set: <TimerHandle"), no_leaks():
        timers.append(loop.call_later(10, print))
    timers[0].cancel()
    with no_leaks():
        loop.call_later(10, print).cancel()


async def test_an_error_of_the_block_comes_first() -> None:
    """What it leaves behind is then no wonder."""
    bulkhead = Bulkhead(1)
    with pytest.raises(LookupError), no_leaks():  # noqa: PT012  it raises after it has taken
        bulkhead.acquire_nowait()
        raise LookupError


def test_a_strategy_that_was_never_finished_holds_nothing() -> None:
    """Its constructor refused an argument, and somebody keeps the error."""
    unfinished = Bulkhead.__new__(Bulkhead)
    with no_leaks():
        pass

    assert isinstance(unfinished, Bulkhead)


def test_without_an_event_loop_the_rest_is_looked_at() -> None:
    """As a decorator of a plain function, too. Strategies without statistics hold nothing."""

    class Own(Strategy):
        def run(self, call: Any, attempt: Any) -> Any:
            return call(attempt)

    bulkhead, others = Bulkhead(1), [Own(), Retry(on=OSError)]

    @no_leaks()
    def leak() -> None:
        bulkhead.acquire_nowait()

    with pytest.raises(AssertionError, match="1 permits out"):
        leak()

    assert len(others) == 2
