"""Pitfalls of a transport between a client and its connections: leaks, streams, upgrades, and what the client sees."""

import gc
import logging
from contextlib import aclosing
from typing import Any, Self

import anyio
import anyio.lowlevel
import pytest

from integrations.families import BACKENDS, LEFT_BELOW, POLICY, Family, assert_nothing_is_left, gates
from integrations.servers import Step, answer, hang_up, head, held, serve, stall
from integrations.servers_h2 import respond, serve_h2
from resilient import Bulkhead, BulkheadFull, record_timeline

pytestmark = BACKENDS

ONE_AT_A_TIME = POLICY.replace(bulkhead=Bulkhead(1))


# -- responses that are not handed out ---------------------------------------------------------------------------------


async def test_a_short_body_is_drained_so_that_its_connection_is_used_again(family: Family) -> None:
    """Three attempts need one TCP connection, and no slot of the pool is lost."""
    inner = family.inner(limits=family.lib.Limits(max_connections=1))
    async with serve(answer(503, b"x" * 60_000), answer(502), answer(200)) as server, family.client(inner) as client:
        response = await client.get(server.url)

        assert (response.status_code, server.connections) == (200, 1)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(answer(503, b"x" * 70_000), id="a long body"),
        pytest.param(answer(503, b"busy", {"Connection": "close"}), id="Connection: close"),
        pytest.param(
            Step((head(503, {"Transfer-Encoding": "chunked"}), b"11170\r\n" + b"x" * 70_000)), id="a long body in chunks"
        ),
        pytest.param(hang_up(head(503, {"Content-Length": "9"}) + b"x"), id="a body that is cut short"),
        pytest.param(answer(421, b"not here"), id="421"),
        pytest.param(stall(head(503, {"Content-Length": "70000"}) + b"x"), id="a long body that stalls"),
    ],
)
@LEFT_BELOW
async def test_what_is_not_worth_reading_is_closed(family: Family, step: Step) -> None:
    """The next attempt goes out on another connection; no slot of the pool is lost."""
    inner = family.inner(limits=family.lib.Limits(max_connections=1))
    async with serve(step, answer(200)) as server, family.client(inner) as client:
        response = await client.get(server.url)

        assert (response.status_code, server.connections) == (200, 2)


@LEFT_BELOW
async def test_draining_is_bounded_in_time(family: Family) -> None:
    """A body of unknown length that never ends holds up the next attempt for a quarter of a second, no longer."""
    endless = stall(head(503, {"Transfer-Encoding": "chunked"}) + b"1\r\nx\r\n")
    async with serve(endless, answer(200)) as server, family.client() as client:
        with anyio.fail_after(2.0):
            response = await client.get(server.url)

        assert (response.status_code, server.connections) == (200, 2)


async def test_a_misdirected_request_is_sent_again_once_on_another_connection(family: Family) -> None:
    """421, whatever the method; twice is an answer."""
    async with serve(answer(421), answer(421), answer(200)) as server, family.client() as client:
        response = await client.post(server.url)

        assert (response.status_code, len(server.requests), server.connections) == (421, 2, 2)


async def test_discarded_responses_leave_no_debt_in_http2(family: Family) -> None:
    """Their bodies are read, so that neither stream nor flow-control window is lost to the connection."""
    busy = [respond(503, b"x" * 60_000)] * 2
    async with serve_h2(*busy * 3, respond(200, b"fine")) as server, family.client(family.inner_h2()) as client:
        for _ in range(2):
            assert (await client.get(server.url)).status_code == 503
        response = await client.get(server.url)

        assert (response.status_code, server.connections, server.resets) == (200, 1, [])


# -- permits and connections -------------------------------------------------------------------------------------------


@LEFT_BELOW
async def test_the_permit_is_held_until_the_body_has_ended(family: Family) -> None:
    """As long as its connection is in use: else a bulkhead would bound nothing."""
    begun = stall(head(200, {"Content-Length": "9"}))
    async with serve(begun, answer()) as server, family.client(policy=ONE_AT_A_TIME) as client:
        async with client.stream("GET", server.url):
            with pytest.raises(BulkheadFull) as caught:
                await client.get(server.url)

        assert (await client.get(server.url)).status_code == 200
        assert isinstance(caught.value, family.lib.PoolTimeout)


@LEFT_BELOW
async def test_the_permit_of_a_stream_without_end_can_be_given_back_with_the_header(family: Family) -> None:
    """`hold="headers"`, for server-sent events and long polls."""
    endless = stall(head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}))
    async with (
        serve(endless, answer()) as server,
        family.client(policy=ONE_AT_A_TIME, hold="headers") as client,
        client.stream("GET", server.url),
    ):
        assert (await client.get(server.url)).status_code == 200


async def test_a_request_inside_of_a_response_at_capacity_one_does_not_wait_for_itself_forever(family: Family) -> None:
    """The wait in the queue is bounded by the limit of the request."""
    queue = POLICY.replace(bulkhead=Bulkhead(1, max_queue=1), retry=None)
    async with serve(answer(200, b"abc")) as server, family.client(policy=queue, timeout=0.4) as client:
        async with client.stream("GET", server.url):
            with pytest.raises(family.lib.PoolTimeout) as caught:
                await client.get(server.url)

        assert isinstance(caught.value, BulkheadFull)


@LEFT_BELOW
@pytest.mark.parametrize(
    "how", ["read to its end", "closed early", "closed twice", "read in part", "with a raw iterator", "failed"]
)
async def test_every_end_of_a_body_gives_the_permit_back(family: Family, how: str) -> None:
    """What is left is checked when the client is done."""
    step = hang_up(head(200, {"Content-Length": "9"}) + b"abc") if how == "failed" else answer(200, b"x" * 200_000)
    async with serve(step) as server, family.client(policy=ONE_AT_A_TIME) as client:
        async with client.stream("GET", server.url) as response:
            if how == "read to its end":
                await response.aread()
            elif how == "closed twice":
                await response.aclose()
                await response.aclose()
            elif how == "read in part":
                async for _ in response.aiter_bytes():
                    break
            elif how == "with a raw iterator":
                async for _ in response.aiter_raw(1024):
                    pass
            elif how == "failed":
                with pytest.raises(family.lib.RemoteProtocolError):
                    await response.aread()

        assert_nothing_is_left(client._transport, client._transport.inner)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_response_that_was_dropped_gives_back_its_permit_not_its_connection(family: Family) -> None:
    """The garbage collector cannot close a connection: a warning says so, and who is to blame."""
    inner = family.inner()
    async with serve(stall(head(200, {"Content-Length": "9"}))) as server, inner:
        transport = family.resilient.ResilientTransport(inner, policy=ONE_AT_A_TIME)
        response = await transport.handle_async_request(family.lib.Request("GET", server.url))
        bulkhead = gates(transport)[1]
        assert bulkhead.statistics().active == 1

        with pytest.warns(ResourceWarning, match="was dropped and not closed"):  # noqa: PT031  whichever comes first
            del response
            gc.collect()
        for _ in range(3):
            await anyio.lowlevel.checkpoint()

        assert bulkhead.statistics().active == 0
        assert "1 active" in repr(inner._pool)


# -- what passes untouched ---------------------------------------------------------------------------------------------


async def test_an_upgrade_passes_untouched_and_holds_its_permit_until_it_is_closed(family: Family) -> None:
    """101: the user speaks to the network stream; nothing of ours stands between, but the permit is out."""
    switching = Step((head(101, {"Upgrade": "echo", "Connection": "Upgrade"}), b"hello"), "stall")
    async with serve(switching) as server, family.client(policy=ONE_AT_A_TIME) as client:
        async with client.stream("GET", server.url, headers={"Upgrade": "echo", "Connection": "Upgrade"}) as response:
            stream = response.extensions["network_stream"]
            await stream.write(b"from the client")
            said = b""
            while len(said) < 5:
                said += await stream.read(100)

            assert (response.status_code, said) == (101, b"hello")
            assert gates(client._transport)[1].statistics().active == 1
        await server.until(gone=1)

        assert server.bodies == [b"from the client"]


async def test_interim_responses_are_not_seen_and_do_not_end_an_attempt(family: Family) -> None:
    """100, 102 and 103 come before the response; each is news for the read timeout below, none for an attempt."""
    interim = tuple(b"HTTP/1.1 %d Interim\r\n\r\n" % status for status in (100, 102, 103))
    async with serve(Step((*interim, *answer(200, b"x").parts), every=0.01)) as server, family.client() as client:
        with record_timeline() as timeline:
            response = await client.get(server.url)

        assert (response.status_code, len(timeline.attempts)) == (200, 1)


async def test_neither_expect_nor_prefer_is_ever_added(family: Family) -> None:
    """Nothing but what the user sent. The clients send the body at once all the same; and a 417 is an answer like any other."""
    async with serve(answer(417)) as server, family.client() as client:
        response = await client.put(server.url, content=b"x")

        assert (response.status_code, len(server.requests)) == (417, 1)
        assert (server.requests[0].header("expect"), server.requests[0].header("prefer")) == (None, None)


@LEFT_BELOW
async def test_a_drip_is_handed_on_as_it_comes(family: Family) -> None:
    """Server-sent events are not collected on the way."""
    parts = (head(200, {"Transfer-Encoding": "chunked"}), b"5\r\nfirst\r\n")
    async with serve(Step(parts, "stall")) as server, family.client() as client:
        async with client.stream("GET", server.url) as response, aclosing(response.aiter_raw()) as raw:
            first = await anext(raw)

        assert first == b"first"


# -- what the client sees ----------------------------------------------------------------------------------------------


async def test_a_response_after_retries_is_that_of_the_clients_own_request(family: Family) -> None:
    """`request`, `elapsed`, `history` and the raw iterator work as they do without us."""
    async with serve(answer(503), answer(200, b"abc")) as server, family.client() as client:
        request = client.build_request("GET", server.url)
        response = await client.send(request, stream=True)
        raw = b"".join([part async for part in response.aiter_raw()])
        await response.aclose()

        assert response.request is request
        assert (raw, response.history) == (b"abc", [])
        assert response.elapsed.total_seconds() > 0
        assert response.extensions["resilient.attempts"] == 2
        assert response.http_version == "HTTP/1.1"


async def test_what_is_changed_below_in_one_attempt_does_not_reach_the_next(family: Family) -> None:
    """Instrumentations put `traceparent` into the request they see: each attempt is a copy, the user's request stays clean."""
    inner = family.inner()
    handle, seen = inner.handle_async_request, list[Any]()

    async def instrumented(request: Any) -> Any:
        assert "traceparent" not in request.headers
        request.headers["traceparent"] = str(len(seen))
        seen.append(request.extensions["resilient.resend_count"])
        return await handle(request)

    inner.handle_async_request = instrumented
    async with serve(answer(503), answer(503), answer(200)) as server, family.client(inner) as client:
        request = client.build_request("GET", server.url)
        await client.send(request)

        assert [each.header("traceparent") for each in server.requests] == ["0", "1", "2"]
        assert "traceparent" not in request.headers
        assert seen == [0, 1, 2]


async def test_a_users_own_trace_callback_hears_every_attempt(family: Family) -> None:
    """Ours is chained in front of it."""
    heard: list[str] = []

    async def trace(name: str, _info: Any) -> None:
        heard.append(name)

    async with serve(answer(503), answer(200)) as server, family.client() as client:
        await client.get(server.url, extensions={"trace": trace})

        assert heard.count("http11.send_request_headers.started") == 2


async def test_a_trace_callback_that_raises_does_not_end_the_request(family: Family, caplog: pytest.LogCaptureFixture) -> None:
    """It would abort it; with us it is reported once, and hears no more."""

    async def trace(_name: str, _info: Any) -> None:
        raise KeyError("bug")

    async with serve() as server, family.client() as client:
        with caplog.at_level(logging.ERROR, logger="resilient"):
            response = await client.get(server.url, extensions={"trace": trace})

        assert response.status_code == 200
        assert len(caplog.records) == 1


async def test_cookies_of_discarded_responses_are_lost(family: Family) -> None:
    """Cookies are extracted above us, from what is handed out."""
    cookie = {"Set-Cookie": "session=1"}
    async with serve(answer(503, headers=cookie), answer(200)) as server, family.client() as client:
        await client.get(server.url)

        assert dict(client.cookies) == {}


# -- closing -----------------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_again_after_the_transport_was_closed(family: Family) -> None:
    """The call that is in flight ends with what it meets; a later one is told why."""
    async with serve(held(503), answer(200)) as server:
        inner = family.inner()
        transport = family.resilient.ResilientTransport(inner, policy=POLICY)
        outcomes: list[Any] = []

        async def call() -> None:
            try:
                outcomes.append(await transport.handle_async_request(family.lib.Request("GET", server.url)))
            except family.lib.TransportError as error:
                outcomes.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await server.until(requests=1)
            await transport.aclose()
            server.release.set()

        assert (len(outcomes), len(server.requests)) == (1, 1)
        with pytest.raises(RuntimeError, match="is closed"):
            await transport.handle_async_request(family.lib.Request("GET", server.url))


async def test_the_inner_transport_is_entered_and_left_with_ours(family: Family) -> None:
    """The client does that to the outermost transport only."""
    calls: list[str] = []

    class Inner(family.lib.AsyncBaseTransport):  # type: ignore[misc,name-defined]  # of either family
        async def __aenter__(self) -> Self:
            calls.append("enter")
            return self

        async def __aexit__(self, *_: object) -> None:
            calls.append("exit")

        async def handle_async_request(self, request: Any) -> Any:
            return family.lib.Response(200)

    async with family.client(Inner()) as client:
        await client.get("https://api.example.com/")

    assert calls == ["enter", "exit"]
