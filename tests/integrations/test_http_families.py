"""Two families of clients, one engine: exceptions, transports and clients of each, and what is said to whoever mixes them."""

import copy
import gc
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from integrations.families import AT_ONCE, BACKENDS, POLICY, Family, assert_nothing_is_left, gates
from integrations.servers import answer, hang_up, head, held, serve
from integrations.servers_h2 import Stream, respond, serve_h2
from resilient import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Fallback,
    Policy,
    RateLimited,
    Retry,
    TimeoutExceeded,
    TokenBucket,
)

URL = "https://api.example.com/users"
OTHER = {"httpx": "httpx2", "httpx2": "httpx"}


def real(test: Any) -> Any:
    """Run a test with sockets, in real time."""
    for mark in BACKENDS:
        test = mark(test)
    return test


@pytest.fixture
def other() -> dict[str, Any]:
    """The packages by name."""
    import httpx  # noqa: PLC0415  both are needed here only
    import httpx2  # noqa: PLC0415

    return {"httpx": httpx2, "httpx2": httpx}


# -- exceptions belong to both ------------------------------------------------------------------------------------------

_OPEN = CircuitBreaker(consecutive_failures=1)

REJECTIONS = [
    pytest.param({"circuit_breaker": _OPEN}, CircuitOpen, "TransportError", id="an open circuit"),
    pytest.param({"bulkhead": Bulkhead(1)}, BulkheadFull, "PoolTimeout", id="a full bulkhead"),
    pytest.param({"rate_limit": TokenBucket(1, per=60.0, max_wait=0.0)}, RateLimited, "PoolTimeout", id="a rate limit"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("gate", "ours", "theirs"), REJECTIONS)
async def test_a_rejection_is_an_exception_of_the_family_and_of_ours(
    family: Family, gate: dict[str, Any], ours: type[Exception], theirs: str
) -> None:
    """`except httpx.PoolTimeout` goes on working, `except BulkheadFull` works too, and the request is there."""
    entered = anyio.Event()

    async def handler(_request: Any) -> Any:
        entered.set()
        if "bulkhead" in gate:
            await anyio.sleep(60.0)
        return family.lib.Response(500)

    inner = family.lib.MockTransport(handler)
    async with family.client(inner, policy=Policy(**gate)) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.get, URL)
        await entered.wait()
        await anyio.sleep(0.1)
        request = client.build_request("GET", URL)
        with pytest.raises(ours) as caught:
            await client.send(request)

        error: Any = caught.value
        assert isinstance(error, getattr(family.lib, theirs))
        assert isinstance(error, (family.lib.HTTPError, family.lib.RequestError))
        assert error.request is request
        assert error.key == "https://api.example.com:443"
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_an_exception_of_both_can_be_pickled_and_copied(family: Family) -> None:
    """As the ones it is made of."""
    async with family.client(family.mock(500), policy=Policy(circuit_breaker=_OPEN.sibling())) as client:
        await client.get(URL)
        with pytest.raises(CircuitOpen) as caught:
            await client.get(URL)

        for twin in (copy.copy(caught.value), pickle.loads(pickle.dumps(caught.value))):  # noqa: S301  our own
            assert isinstance(twin, family.lib.TransportError)
            assert (type(twin).__name__, twin.retry_after) == ("CircuitOpen", caught.value.retry_after)


@pytest.mark.anyio
async def test_a_timeout_is_an_exception_of_the_family_and_of_ours(family: Family) -> None:
    """And a `TimeoutError`."""

    async def handler(_request: Any) -> Any:
        await anyio.sleep(60.0)

    async with family.client(family.lib.MockTransport(handler), timeout=1.0) as client:
        with pytest.raises(TimeoutExceeded) as caught:
            await client.get(URL)

        assert isinstance(caught.value, family.lib.TimeoutException)
        assert isinstance(caught.value, TimeoutError)


@pytest.mark.anyio
async def test_a_fallback_gives_a_response_of_the_family(family: Family) -> None:
    """Anything else is refused with a message that says so."""
    stale = family.lib.Response(200, text="stale")
    policy = Policy(fallback=Fallback(stale, on=family.lib.ConnectError))
    async with family.client(family.mock(family.lib.ConnectError("no")), policy=policy) as client:
        assert (await client.get(URL)).text == "stale"

    policy = Policy(fallback=Fallback("stale", on=family.lib.ConnectError))
    async with family.client(family.mock(family.lib.ConnectError("no")), policy=policy) as client:
        with pytest.raises(TypeError, match="fallback must give"):
            await client.get(URL)


# -- what is said to whoever mixes things up -----------------------------------------------------------------------------


def test_it_is_a_transport_of_its_family(family: Family) -> None:
    """A real subclass."""
    assert issubclass(family.resilient.ResilientTransport, family.lib.AsyncBaseTransport)


def test_a_transport_of_the_other_family_is_refused(family: Family, other: dict[str, Any]) -> None:
    """At construction, and with the import that would be right."""
    with pytest.raises(TypeError, match=f"import from resilient_integrations.{OTHER[family.name]}"):
        family.resilient.ResilientTransport(other[family.name].AsyncHTTPTransport())


@pytest.mark.anyio
async def test_a_client_of_the_other_family_is_refused(family: Family, other: dict[str, Any]) -> None:
    """At its first request."""
    transport = family.resilient.ResilientTransport(family.mock(200))
    async with other[family.name].AsyncClient(transport=transport) as client:
        with pytest.raises(TypeError, match=f"resilient_integrations.{OTHER[family.name]}"):
            await client.get(URL)


def test_a_synchronous_client_is_refused(family: Family) -> None:
    """At its first request, or before."""
    with (
        pytest.raises(TypeError, match="AsyncClient"),
        family.lib.Client(transport=family.resilient.ResilientTransport()) as client,
    ):
        client.get(URL)


@pytest.mark.parametrize("inner", [pytest.param("HTTPTransport", id="sync transport"), pytest.param("Client", id="client")])
def test_an_inner_transport_must_be_asynchronous(family: Family, inner: str) -> None:
    """A synchronous transport, or a client, is none."""
    with pytest.raises(TypeError, match=r"inner=.*asynchronous transport"):
        family.resilient.ResilientTransport(getattr(family.lib, inner)())


def test_an_inner_transport_that_retries_by_itself_is_warned_about(family: Family) -> None:
    """Its retries multiply with ours."""
    with pytest.warns(UserWarning, match="retries="):
        family.resilient.ResilientTransport(family.inner(retries=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy": "http"}, "policy='http'"),
        ({"policy": Policy(retry=Retry(on=OSError))}, "by itself what to retry"),
        ({"idempotency_key": "uuid"}, "idempotency_key='uuid'"),
        ({"spool": -1}, "spool=-1"),
        ({"hold": "forever"}, "hold='forever'"),
        ({"max_keys": 0}, "max_keys"),
    ],
)
def test_settings_are_checked_at_construction(family: Family, settings: dict[str, Any], message: str) -> None:
    """The message names the parameter and what is expected."""
    with pytest.raises((TypeError, ValueError), match=message):
        family.resilient.ResilientTransport(family.mock(200), **settings)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": 3}, "unknown option 'retries'"),
        ("no", "expected a mapping"),
        ({"idempotent": "yes"}, "idempotent='yes'"),
        ({"attempts": 0}, "attempts"),
        ({"timeout": -1}, "timeout"),
        ({"hold": "forever"}, "hold='forever'"),
    ],
)
async def test_options_of_a_request_are_checked_before_it_is_sent(family: Family, options: Any, message: str) -> None:
    """A misspelt option is no option that is ignored."""
    inner = family.mock(200)
    async with family.client(inner) as client:
        with pytest.raises((TypeError, ValueError), match=message):
            await client.get(URL, extensions={"resilient": options})

        assert inner.requests == []


@pytest.mark.anyio
async def test_a_transport_that_only_looks_like_one_will_do(family: Family) -> None:
    """Duck typing: no base class is asked for, nor an `aclose`'s friends."""

    class Duck:
        async def handle_async_request(self, _request: Any) -> Any:
            return family.lib.Response(204)

        async def aclose(self) -> None:
            pass

    async with family.client(Duck()) as client:
        assert (await client.get(URL)).status_code == 204


# -- imports --------------------------------------------------------------------------------------------------------------


def run(code: str) -> str:
    """What a new interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def test_httpx_may_be_an_alias_of_httpx2() -> None:
    """`httpx2.alias_httpx()`: both integrations are of httpx2 then."""
    code = (
        "import httpx2; httpx2.alias_httpx(); from resilient_integrations import httpx, httpx2 as other; "
        "print(httpx.ResilientTransport.family.name, issubclass(httpx.ResilientTransport, httpx2.AsyncBaseTransport))"
    )

    assert run(code) == "httpx2 True"


# -- real connections -----------------------------------------------------------------------------------------------------


@real
async def test_a_raw_stream_that_fails_gives_its_connection_back(family: Family) -> None:
    """httpx2 keeps it where nobody closes; with us a failed stream is closed."""
    cut_short = hang_up(head(200, {"Content-Length": "9"}) + b"abc")
    async with serve(cut_short) as server, family.inner() as inner:
        transport = family.resilient.ResilientTransport(inner, policy=POLICY)
        response = await transport.handle_async_request(family.lib.Request("GET", server.url))
        with pytest.raises(family.lib.RemoteProtocolError):
            await drained(response.stream)

        assert_nothing_is_left(transport, inner)


async def drained(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([part async for part in stream])


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
@pytest.mark.parametrize("anyio_backend", ["real-trio"], indirect=True)  # 9 MB: one backend will do
async def test_the_window_of_an_http2_connection_is_not_used_up_by_what_is_discarded(family: Family) -> None:
    """Bodies that are closed unread take their share of the connection's 16 MB with them, until it stands still."""
    windows: list[int] = []

    def busy(stream: Stream) -> bytes:
        windows.append(stream.h2.outbound_flow_control_window)
        return respond(503, b"x" * 65_000)(stream)

    policy = Policy(retry=Retry(attempts=140, backoff=AT_ONCE))
    async with serve_h2(busy) as server, family.client(family.inner_h2(), policy=policy) as client:
        await client.get(server.url)

        assert server.connections == 1
        assert windows[-1] > min(windows)  # credit was given back


@real
async def test_a_bulkhead_bounds_the_connections_in_use(family: Family) -> None:
    """Twenty requests at a time, three on the wire."""
    policy = POLICY.replace(bulkhead=Bulkhead(3, max_queue=20))
    async with serve(held(200, b"x")) as server, family.client(policy=policy) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(client.get, server.url)
            await server.until(requests=3)
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert (len(server.requests), server.connections) == (3, 3)
            server.release.set()

        assert (len(server.requests), server.connections) == (20, 3)


def test_a_transport_can_serve_several_event_loops_in_turn(family: Family) -> None:
    """On any backend: nothing in it is bound to a loop, not even after a wait in a queue."""

    async def handler(_request: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return family.lib.Response(200)

    policy = POLICY.replace(bulkhead=Bulkhead(1, max_queue=5))
    transport = family.resilient.ResilientTransport(family.lib.MockTransport(handler), policy=policy)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(transport.handle_async_request, family.lib.Request("GET", URL))

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(main, backend=backend)

    assert gates(transport)[1].statistics().active == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_response_that_is_dropped_where_no_loop_runs_is_settled_by_the_next_request(family: Family) -> None:
    """The garbage collector may come at any time."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async def handler(_request: Any) -> Any:
        return family.lib.Response(200, content=body())

    policy = POLICY.replace(bulkhead=Bulkhead(1))
    transport = family.resilient.ResilientTransport(family.lib.MockTransport(handler), policy=policy)
    send = transport.handle_async_request
    for _ in range(3):
        response = anyio.run(send, family.lib.Request("GET", URL))
        assert response.status_code == 200
        del response
        gc.collect()

    assert gates(transport)[1].statistics().active == 1


@pytest.mark.anyio
async def test_a_tunnel_of_the_users_own_passes_untouched(family: Family) -> None:
    """CONNECT answered 200 is an upgrade: its stream is handed on as it is, and holds the permit until it is closed."""

    async def bytes_of_the_tunnel() -> AsyncIterator[bytes]:
        yield b"tunnel"

    async def handler(_request: Any) -> Any:
        return family.lib.Response(200, content=bytes_of_the_tunnel())

    async with (
        family.client(family.lib.MockTransport(handler)) as client,
        client.stream("CONNECT", URL) as response,
    ):
        assert gates(client._transport)[1].statistics().active == 1
        assert [part async for part in response.aiter_raw()] == [b"tunnel"]


@real
@pytest.mark.parametrize("family", ["httpx2"], indirect=True)  # httpx has no such method
async def test_server_sent_events_of_httpx2_come_through(family: Family) -> None:
    """`client.sse()` reads them as they come."""
    event = answer(200, b"data: one\n\ndata: two\n\n", {"Content-Type": "text/event-stream"})
    async with serve(answer(503), event) as server, family.client() as client, client.sse(server.url) as source:
        async with aclosing(aiter(source)) as events:
            data = [event.data async for event in events]

        assert data == ["one", "two"]
