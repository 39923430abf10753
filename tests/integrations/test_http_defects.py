"""Defects of the libraries below a client, as a failing network and cancellation bring them out; responses that nobody gets."""

import asyncio
import gc
from collections.abc import Awaitable, Generator
from contextlib import suppress
from types import SimpleNamespace, coroutine
from typing import Any

import anyio
import anyio.lowlevel
import h2.exceptions
import pytest

from integrations.families import Family, assert_nothing_is_left, failures
from integrations.servers import answer, serve
from resilient_integrations._http.closing import to_its_end
from resilient_integrations._http.whole_writes import keep_writes_whole

URL = "https://api.example.com/"


def no_socket() -> AttributeError:
    """What anyio raises on uvloop for a socket whose peer hung up at once."""
    with pytest.raises(AttributeError) as caught:
        None.getpeername()  # type: ignore[attr-defined]
    return caught.value


DEFECTS = [no_socket(), ValueError("semaphore released too many times"), h2.exceptions.ProtocolError("SEND_SETTINGS in CLOSED")]


@pytest.mark.anyio
@pytest.mark.parametrize("defect", DEFECTS, ids=repr)
async def test_a_slip_of_the_libraries_below_is_a_failure_to_connect(family: Family, defect: Exception) -> None:
    """Nothing was sent: a POST is sent again, too. What surfaces in the end is of the client, and names its cause."""
    async with family.client(family.mock(defect, 200)) as client:
        assert (await client.post(URL)).status_code == 200
    async with family.client(family.mock(defect)) as client:
        with pytest.raises(family.lib.ConnectError) as caught:
            await client.post(URL)

        assert caught.value.__cause__ is defect
        assert caught.value.request.method == "POST"


@pytest.mark.anyio
async def test_after_the_header_was_written_nobody_knows(family: Family) -> None:
    """It may have been acted on."""

    async def handler(request: Any) -> Any:
        await request.extensions["trace"]("http2.send_request_headers.started", {"stream_id": 1})
        raise DEFECTS[1]

    async with family.client(family.lib.MockTransport(handler)) as client:
        with pytest.raises(family.lib.RemoteProtocolError):
            await client.post(URL)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [AttributeError("no such field"), ValueError("semaphore"), KeyError("h2")], ids=repr)
async def test_any_other_bug_surfaces_as_it_is(family: Family, error: Exception) -> None:
    """Ours, the user's, an inner transport's: it is not for a client to hide."""
    async with family.client(family.mock(error)) as client:
        with pytest.raises(type(error)) as caught:
            await client.get(URL)

        assert caught.value is error


@pytest.mark.anyio
@pytest.mark.parametrize("error", [DEFECTS[1], ValueError("mine")], ids=repr)
async def test_a_response_that_was_read_is_not_lost_to_a_slip_in_its_closing(family: Family, error: Exception) -> None:
    """Its body is there."""

    class Body(family.lib.AsyncByteStream):  # type: ignore[misc,name-defined]  # of either family
        async def __aiter__(self) -> Any:
            yield b"whole"

        async def aclose(self) -> None:
            raise error

    async def handler(_request: Any) -> Any:
        return family.lib.Response(200, stream=Body())

    async with family.client(family.lib.MockTransport(handler)) as client:
        if error is DEFECTS[1]:
            assert (await client.get(URL)).content == b"whole"
        else:
            with pytest.raises(ValueError, match="mine"):
                await client.get(URL)


@pytest.mark.anyio
async def test_a_slip_in_the_middle_of_a_body_is_a_failure_of_the_body(family: Family) -> None:
    """The breaker hears of it, as of any other."""

    class Body(family.lib.AsyncByteStream):  # type: ignore[misc,name-defined]  # of either family
        async def __aiter__(self) -> Any:
            yield b"a part"
            raise DEFECTS[1]

    async def handler(_request: Any) -> Any:
        return family.lib.Response(200, stream=Body())

    async with family.client(family.lib.MockTransport(handler)) as client:
        with pytest.raises(family.lib.RemoteProtocolError):
            await client.get(URL)

        assert failures(client) == 1


@coroutine
def cancelled_at(work: Awaitable[object], step: int) -> Generator[Any, Any, None]:
    """Await it; at its nth step asyncio cancels it."""
    steps: Any = work.__await__()
    with suppress(StopIteration):
        waits_for = steps.send(None)
        for _ in range(step):
            waits_for = steps.send((yield waits_for))
        waits_for = steps.throw(asyncio.CancelledError())
        while True:
            waits_for = steps.send((yield waits_for))


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
@pytest.mark.parametrize("anyio_backend", ["real-plain"], indirect=True)
async def test_a_response_whose_closing_asyncio_cancels_leaves_the_pool(family: Family) -> None:
    """At each step of it. The plain client loses a place of its pool for good."""
    cut = 0
    for step in range(8):
        async with serve(answer(200, b"abc")) as server, family.client() as client:
            response = await client.send(client.build_request("GET", server.url), stream=True)
            try:
                await cancelled_at(response.aclose(), step)
            except asyncio.CancelledError:
                cut += 1

            assert_nothing_is_left(client._transport, client._transport.inner)

    assert cut


def test_what_waits_for_another_is_told_of_its_cancellation() -> None:
    """It may clean up, and what it raises then surfaces."""
    told: list[str] = []

    @coroutine
    def waits() -> Generator[str, None, None]:
        yield "for a lock"

    async def work() -> None:
        try:
            await waits()
        except asyncio.CancelledError:
            told.append("cancelled")
            await waits()
            raise

    steps: Any = to_its_end(work())

    assert steps.send(None) == "for a lock"
    assert steps.throw(asyncio.CancelledError()) == "for a lock"
    with pytest.raises(asyncio.CancelledError):
        steps.send(None)
    assert told == ["cancelled"]


def test_a_cancellation_surfaces_though_closing_fails() -> None:
    """It always propagates."""

    @coroutine
    def lets_others_run() -> Generator[None, None, None]:
        yield

    async def work() -> None:
        await lets_others_run()
        raise OSError

    steps: Any = to_its_end(work())
    steps.send(None)

    with pytest.raises(asyncio.CancelledError):
        steps.throw(asyncio.CancelledError())


class Wire:
    """A connection that takes so many seconds for a write; `sent` is what went out."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.sent: list[bytes] = []
        self.closed = False
        self._seconds = seconds

    async def connect_tcp(self) -> "Wire":
        return self

    connect_unix_socket = start_tls = connect_tcp

    async def read(self) -> bytes:
        return b"heard"

    async def write(self, buffer: bytes, timeout: float | None) -> None:  # noqa: ASYNC109  as httpcore has it
        await anyio.lowlevel.checkpoint()
        await anyio.sleep(self._seconds)
        self.sent.append(buffer)

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed = True


def connected_to(wire: Wire) -> Any:
    """The backend of a pool that speaks HTTP/2, and ends at that wire."""
    inner = SimpleNamespace(_pool=SimpleNamespace(_http2=True, _network_backend=wire))
    keep_writes_whole(inner)
    return inner._pool._network_backend


@pytest.mark.anyio
async def test_one_who_is_cancelled_still_writes_what_was_taken_along() -> None:
    """The bytes are those of other requests, too."""
    wire = Wire()
    backend = connected_to(wire)
    stream = await (await backend.connect_tcp()).start_tls()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stream.write(b"header", None)
        await anyio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert (wire.sent, stream.closed, await stream.read()) == ([b"header"], False, b"heard")


@pytest.mark.anyio
@pytest.mark.parametrize("early", [True, False])
async def test_a_write_that_is_cancelled_ends_the_connection(*, early: bool) -> None:
    """How much went out nobody knows. A task that was cancelled before gets a quarter of a second for it."""
    wire = Wire(seconds=60.0)
    stream = await connected_to(wire).connect_unix_socket()
    began = anyio.current_time()
    with anyio.move_on_after(0.0 if early else 1.0) as scope:
        await stream.write(b"header", None)
        await anyio.lowlevel.checkpoint()

    assert scope.cancelled_caught
    assert wire.closed
    assert anyio.current_time() - began == pytest.approx(0.25 if early else 1.0)


def test_only_connections_of_http2_are_wrapped_and_only_once(family: Family) -> None:
    """A client may have many transports around one."""
    inner, other = family.inner_h2(), family.inner()
    backends: list[Any] = [other._pool._network_backend]
    for _ in range(2):
        family.resilient.ResilientTransport(inner)
        backends.append(inner._pool._network_backend)
    family.resilient.ResilientTransport(other)

    assert backends[1] is backends[2]
    assert backends[0] is other._pool._network_backend
    assert backends[1].sleep


def answers_early(family: Family) -> Any:
    """A transport that answers when a part of the request's body was sent; `closed` says how often its answer was closed."""

    class Body(family.lib.AsyncByteStream):  # type: ignore[misc,name-defined]  # of either family
        async def __aiter__(self) -> Any:
            await anyio.lowlevel.checkpoint()
            yield b"whole"

        async def aclose(self) -> None:
            await anyio.lowlevel.checkpoint()
            Early.closed += 1

    class Early(family.lib.AsyncBaseTransport):  # type: ignore[misc,name-defined]  # of either family
        closed = 0

        async def handle_async_request(self, request: Any) -> Any:
            await anext(aiter(request.stream))
            return family.lib.Response(200, stream=Body())

    return Early()


@pytest.mark.anyio
async def test_a_response_is_closed_where_the_body_of_its_request_fails_to_end(family: Family) -> None:
    """It was answered before all was sent: the generator is closed, and what it raises surfaces. Nobody gets the response."""
    inner = answers_early(family)

    async def body() -> Any:
        try:
            yield b"a part"
        finally:
            raise KeyError("mine")

    async with family.client(inner) as client:
        with pytest.raises(KeyError, match="mine"):
            await client.put(URL, content=body())

    assert inner.closed == 1


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
@pytest.mark.parametrize("anyio_backend", ["real-plain"], indirect=True)
async def test_a_response_is_closed_where_asyncio_cancels_the_end_of_its_request(family: Family) -> None:
    """It cancels in spite of shields. The response had come, and its connection would be in use for ever."""
    inner = answers_early(family)

    async def body() -> Any:
        try:
            yield b"a part"
        finally:
            asyncio.current_task().cancel()  # type: ignore[union-attr]  # there is one
            await anyio.lowlevel.checkpoint()

    async with family.client(inner) as client:
        with pytest.raises(asyncio.CancelledError):
            await client.put(URL, content=body())

    assert inner.closed == 1


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
@pytest.mark.parametrize("anyio_backend", ["real-plain"], indirect=True)
async def test_a_response_is_closed_where_asyncio_cancels_the_end_of_its_iterator(family: Family) -> None:
    """A transport around the real one may have a generator there that cleans up."""
    closed: list[str] = []

    class Body(family.lib.AsyncByteStream):  # type: ignore[misc,name-defined]  # of either family
        async def __aiter__(self) -> Any:
            try:
                yield b"a part"
            finally:
                asyncio.current_task().cancel()  # type: ignore[union-attr]  # there is one
                await anyio.lowlevel.checkpoint()

        async def aclose(self) -> None:
            closed.append("closed")

    async def handler(_request: Any) -> Any:
        return family.lib.Response(200, stream=Body())

    async with family.client(family.lib.MockTransport(handler)) as client:
        response = await client.send(client.build_request("GET", URL), stream=True)
        await anext(response.aiter_raw())
        with pytest.raises(asyncio.CancelledError):
            await response.aclose()

    assert closed == ["closed"]


@pytest.mark.anyio
@pytest.mark.filterwarnings("ignore:.* was dropped and not closed:ResourceWarning")
async def test_a_response_that_was_dropped_is_free_though_httpcore_keeps_the_error_before_it(family: Family) -> None:
    """It keeps that of an HTTP/2 connection, whose traceback leads to all frames above, and from there to the response."""
    kept: list[OSError] = []

    class Body(family.lib.AsyncByteStream):  # type: ignore[misc,name-defined]  # of either family
        async def __aiter__(self) -> Any:
            yield b"whole"

    class Keeps(family.lib.AsyncBaseTransport):  # type: ignore[misc,name-defined]  # of either family
        async def handle_async_request(self, request: Any) -> Any:
            await request.extensions["trace"]("http2.send_request_headers.started", {"stream_id": 1})
            if kept:
                return family.lib.Response(200, stream=Body())
            try:
                await self._read()
            except OSError as error:
                raise family.lib.ReadError("mapped") from error

        async def _read(self) -> None:
            kept.append(OSError("connection lost"))
            raise kept[0]

    async with family.client(Keeps()) as client:

        async def drop() -> int:
            response = await client.send(client.build_request("GET", URL), stream=True)
            return int(response.status_code)

        assert await drop() == 200

        gc.collect()
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()
        assert_nothing_is_left(client._transport, None)
