"""Cancellation: it always propagates, is nobody's failure, and leaves nothing behind. On every event loop, uvloop too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from integrations.families import LEFT_BELOW, POLICY, Family, assert_nothing_is_left, failures, gates
from integrations.scenes import beside_another_stream
from integrations.servers import Server, Step, answer, drip, hang_up, head, held, reset, serve, stall
from integrations.servers_h2 import respond, serve_h2
from resilient import Bulkhead, CircuitBreaker, Constant, Policy, Retry, record_timeline

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("real_backend")]

BODY_BEGAN = head(200, {"Content-Length": "9"}) + b"abc"


async def cancel_once(when: Callable[[], Awaitable[object]], work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run `work`, and cancel it once `when` has come."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        await when()
        tasks.cancel_scope.cancel()


@LEFT_BELOW
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(stall(), id="while the answer is awaited"),
        pytest.param(stall(b"HTTP/1.1 200 OK\r\n"), id="within the header"),
        pytest.param(stall(BODY_BEGAN), id="within the body"),
        pytest.param(stall(head(503, {"Transfer-Encoding": "chunked"})), id="while a response is drained"),
    ],
)
async def test_a_cancelled_request_closes_its_connection_and_tells_nothing(family: Family, step: Step) -> None:
    """The server sees the connection go; permit and slot are back; the breaker has learned of no failure but a 5xx."""
    async with serve(step, answer()) as server, family.client() as client:

        async def when() -> None:
            await server.until(requests=1)
            await at_rest()

        with record_timeline() as timeline:
            await cancel_once(when, lambda: client.get(server.url))
        await server.until(gone=1)

        assert_nothing_is_left(client._transport, client._transport.inner)
        assert len(server.requests) == 1
        assert failures(client) == sum(attempt.verdict.reason == "http_503" for attempt in timeline.attempts)
        assert (await client.get(server.url)).status_code == 200


async def at_rest() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@LEFT_BELOW
async def test_cancelling_a_stream_that_is_read_is_neutral(family: Family) -> None:
    """The user stops to read; nobody failed."""
    async with serve(stall(BODY_BEGAN)) as server, family.client() as client:
        reading = anyio.Event()

        async def read() -> None:
            async with client.stream("GET", server.url) as response:
                async for _ in response.aiter_raw():
                    reading.set()

        await cancel_once(reading.wait, read)
        await server.until(gone=1)

        assert failures(client) == 0


@LEFT_BELOW
async def test_closing_a_stream_is_not_cut_short_by_a_cancellation(family: Family) -> None:
    """Httpcore shields it; an inner transport of somebody else may not."""
    closed: list[bool] = []
    reading = anyio.Event()

    class Body(family.lib.AsyncByteStream):  # type: ignore[misc,name-defined]  # of either family
        async def __aiter__(self) -> AsyncIterator[bytes]:
            reading.set()
            await anyio.sleep_forever()
            yield b""

        async def aclose(self) -> None:
            await at_rest()
            closed.append(True)

    async def handler(_request: Any) -> Any:
        return family.lib.Response(200, stream=Body())

    async with family.client(family.lib.MockTransport(handler)) as client:
        await cancel_once(reading.wait, lambda: client.get("https://api.example.com/"))

        assert closed == [True]


async def test_cancelling_a_wait_between_attempts_gives_everything_back(family: Family) -> None:
    """No connection and no permit is held while a retry sleeps."""
    retry = Retry(backoff=Constant(delay=60.0, maximum=60.0))
    async with serve(answer(503)) as server, family.client(policy=POLICY.replace(retry=retry)) as client:

        async def when() -> None:
            await server.until(requests=1)
            await at_rest()
            assert_nothing_is_left(client._transport, client._transport.inner)

        await cancel_once(when, lambda: client.get(server.url))

        assert len(server.requests) == 1


async def test_cancelling_a_wait_for_a_permit_leaves_no_ghost(family: Family) -> None:
    """The next one in the queue is served."""
    policy = POLICY.replace(bulkhead=Bulkhead(1, max_queue=2))
    async with serve(held()) as server, family.client(policy=policy) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, server.url)
        await server.until(requests=1)

        await cancel_once(at_rest, lambda: client.get(server.url))
        tasks.start_soon(client.get, server.url)
        await at_rest()
        assert gates(client._transport)[1].statistics().queued == 1
        server.release.set()


async def test_a_cancelled_probe_frees_its_place(family: Family) -> None:
    """A half-open breaker neither closes nor hangs: the next request is the next probe."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.01)
    policy = Policy.http().replace(retry=None, circuit_breaker=breaker)
    async with serve(answer(500), stall(), answer(200)) as server, family.client(policy=policy) as client:
        await client.get(server.url)
        state = gates(client._transport)[0]
        await half_open(state)

        await cancel_once(lambda: server.until(requests=2), lambda: client.get(server.url))
        assert state.statistics().state == "half_open"
        assert state.statistics().probes_out == 0
        await client.get(server.url)

        assert state.statistics().state == "closed"


async def half_open(breaker: CircuitBreaker) -> None:
    """Wait until the breaker would let a probe through."""
    while breaker.statistics().open_remaining > 0:
        await anyio.lowlevel.checkpoint()


async def test_a_probe_whose_body_never_ends_is_decided_by_its_header(family: Family) -> None:
    """An hour of streaming must not keep a breaker half-open."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=0.01)
    policy = Policy.http().replace(retry=None, circuit_breaker=breaker)
    async with serve(answer(500), stall(BODY_BEGAN)) as server, family.client(policy=policy) as client:
        await client.get(server.url)
        state = gates(client._transport)[0]
        await half_open(state)

        async with client.stream("GET", server.url):
            assert state.statistics().state == "closed"


async def test_a_response_that_comes_in_the_tick_of_a_cancellation_is_not_leaked(family: Family) -> None:
    """Whichever of the two wins."""
    for pause in range(0, 12, 2):
        async with serve(held(200, b"x" * 100)) as server, family.client() as client:

            async def when(server: Server = server, pause: int = pause) -> None:
                await server.until(requests=1)
                server.release.set()
                for _ in range(pause):
                    await anyio.lowlevel.checkpoint()

            async def get(client: Any = client, url: str = server.url) -> None:
                await client.get(url)

            await cancel_once(when, get)


async def test_cancelling_one_stream_of_http2_leaves_its_neighbours_alone(family: Family) -> None:
    """They share the connection, and nothing else."""
    async with beside_another_stream(family) as (client, server):
        await cancel_once(lambda: server.until(requests=2), lambda: client.get(server.url))


@LEFT_BELOW
async def test_cancelling_an_upload_over_http2_does_not_break_the_connection(family: Family) -> None:
    """It stands still in the middle; the next request goes out on the same connection."""
    async with serve_h2(respond(200, b"fine")) as server, family.client(family.inner_h2()) as client:
        server.acknowledges = False

        async def when() -> None:
            while not server.requests or len(server.requests[0].received) < 65_535:
                await anyio.lowlevel.checkpoint()

        await cancel_once(when, lambda: client.put(server.url, content=b"x" * 200_000))
        response = await client.get(server.url)

        assert (response.content, server.connections) == (b"fine", 1)
        assert not server.requests[0].complete


@LEFT_BELOW
async def test_cancelling_an_upload_ends_the_users_generator(family: Family) -> None:
    """Its clean-up runs."""
    cleaned = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            cleaned.set()

    async with serve(Step(then="deaf", at="headers")) as server, family.client() as client:
        await cancel_once(lambda: server.until(requests=1), lambda: client.put(server.url, content=body()))
        server.release.set()

        assert cleaned.is_set()


async def test_cancellation_is_never_retried(family: Family) -> None:
    """Not even by a policy that has attempts without end."""
    retry = Retry(attempts=None, backoff=Constant(delay=0.0), timeout=None)
    async with serve(reset()) as server, family.client(policy=Policy(retry=retry)) as client:
        await cancel_once(lambda: server.until(requests=5), lambda: client.get(server.url))
        seen = len(server.requests)
        await at_rest()

        assert len(server.requests) <= seen + 1  # one may have been on its way; a loop that went on would have sent many


@LEFT_BELOW
async def test_a_storm_of_cancellations_leaves_nothing_behind(family: Family) -> None:
    """Forty requests meet everything that can happen to them, and are cancelled at any moment."""
    random = Random(7)
    kinds = [answer(200, b"x" * 1000), answer(503), reset(), hang_up(), stall(), stall(BODY_BEGAN), drip(b"HTTP/1.1 200 OK\r\n")]
    policy = Policy(retry=Retry(backoff=Constant(delay=0.001)), bulkhead=Bulkhead(5, max_queue=40))
    inner = family.inner(limits=family.lib.Limits(max_connections=4))
    async with serve(*random.choices(kinds, k=200)) as server, family.client(inner, policy=policy) as client:

        async def request() -> None:
            with anyio.move_on_after(random.uniform(0.0, 0.1)), suppress(family.lib.TransportError):
                async with client.stream("GET", server.url) as response:
                    await response.aread()

        async with anyio.create_task_group() as tasks:
            for _ in range(40):
                tasks.start_soon(request)

        assert_nothing_is_left(client._transport, inner)


@LEFT_BELOW
@pytest.mark.parametrize("anyio_backend", ["real-asyncio", "real-uvloop"], indirect=True)  # trio has no other way
@pytest.mark.parametrize("how", ["task.cancel()", "asyncio.timeout()"])
@pytest.mark.parametrize(
    "step", [pytest.param(stall(), id="before the header"), pytest.param(stall(BODY_BEGAN), id="in the body")]
)
async def test_native_cancellation_of_asyncio_is_the_same(family: Family, how: str, step: Step) -> None:
    """Applications that know nothing of anyio cancel in their own way."""
    async with serve(step, answer()) as server, family.client() as client:
        task = asyncio.ensure_future(natively(how, client.get(server.url), server))
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await task
        await server.until(gone=1)

        assert failures(client) == 0
        assert (await client.get(server.url)).status_code == 200


async def natively(how: str, work: Awaitable[Any], server: Server) -> None:
    """Await `work`, and cancel it when the server has seen its request."""
    task = asyncio.ensure_future(work)
    if how == "task.cancel()":
        await server.until(requests=1)
        task.cancel()
        await task
    else:
        async with asyncio.timeout(None) as limit:
            await server.until(requests=1)
            limit.reschedule(asyncio.get_running_loop().time() + 0.01)
            await task
