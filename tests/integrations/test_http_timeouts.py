"""Limits of time: what is cut, as which exception, and who never suffers from it."""

import gc
from typing import Any

import anyio
import pytest

from integrations.families import AT_ONCE, BACKENDS, POLICY, Family, failures
from integrations.scenes import beside_another_stream
from integrations.servers import Step, answer, drip, head, held, serve, stall
from resilient import DeadlineExceeded, Policy, Retry, Timeout, TimeoutExceeded, clock, deadline, record_timeline

URL = "https://api.example.com/"
BODY_BEGAN = head(200, {"Content-Length": "10"}) + b"abc"


def real(test: Any) -> Any:
    """Run a test with sockets, in real time."""
    for mark in BACKENDS:
        test = mark(test)
    return test


# -- nothing is cut that nobody asked to cut ---------------------------------------------------------------------------


@real
async def test_the_clients_own_timeouts_stay_what_they_are_one_for_each_operation(family: Family) -> None:
    """A header and a body that drip take longer than any read may, and arrive all the same."""
    response = answer(200, b"0123456789").parts[0]
    assert isinstance(response, bytes)
    async with serve(drip(response, every=0.006)) as server, family.client(client={"timeout": 0.25}) as client:
        reply = await client.get(server.url)

        assert reply.content == b"0123456789"
        assert reply.elapsed.total_seconds() > 0.25


@pytest.mark.anyio
async def test_an_answer_that_takes_a_minute_survives_the_defaults(family: Family) -> None:
    """The default window bounds waits and new attempts; an attempt that runs is never cut."""
    inner = slow(family, 60.0)
    async with family.client(inner, policy=Policy.http()) as client:
        response = await client.get(URL)

        assert (response.status_code, clock.now()) == (200, 60.0)


@pytest.mark.anyio
async def test_no_new_attempt_begins_after_the_window(family: Family) -> None:
    """The first attempt may take as long as it likes; the second one is not made then."""
    inner = slow(family, 31.0, 503)
    async with family.client(inner, policy=Policy.http()) as client:
        response = await client.get(URL)

        assert (response.status_code, clock.now()) == (503, 31.0)


def slow(family: Family, seconds: float, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    """A transport without sockets whose every answer takes so long."""

    async def handler(request: Any) -> Any:
        transport.sent.append(dict(request.extensions["timeout"]))
        await anyio.sleep(seconds)
        return family.lib.Response(status, headers=headers)

    transport = family.lib.MockTransport(handler)
    transport.sent = []
    return transport


# -- attempts that are cut ---------------------------------------------------------------------------------------------


@real
@pytest.mark.parametrize(
    "step", [pytest.param(stall(), id="silence"), pytest.param(drip(b"HTTP/1.1 200 OK\r\n" * 99), id="drip")]
)
async def test_an_attempt_that_was_sent_and_is_cut_ends_as_a_read_timeout(family: Family, step: Step) -> None:
    """It may have been processed: a GET is sent again, a POST is not. The breaker counts it."""
    async with serve(answer(200), step, answer(200), step) as server, family.client() as client:
        await client.get(server.url)  # there is a connection now
        limits = {"resilient": {"attempt_timeout": 0.15}}
        assert (await client.get(server.url, extensions=limits)).status_code == 200
        with record_timeline() as timeline, pytest.raises(family.lib.ReadTimeout) as caught:
            await client.post(server.url, extensions=limits)

        error: Any = caught.value
        assert isinstance(error, TimeoutExceeded)
        assert (error.seconds, caught.value.request.method) == (0.15, "POST")
        assert (len(timeline.attempts), failures(client)) == (1, 2)


@real
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # see below
async def test_an_attempt_that_is_cut_while_it_connects_ends_as_a_connect_timeout(family: Family) -> None:
    """Its header was never written: even a POST is sent again."""
    async with serve(stall(at="connection")) as server, family.client(attempt_timeout=0.1) as client:
        with record_timeline() as timeline, pytest.raises(family.lib.ConnectTimeout):
            await client.post(server.url.replace("http:", "https:"), extensions={"resilient": {"attempts": 2}})

        assert len(timeline.attempts) == 2
    gc.collect()  # on a slow machine the scope is faster than the timeout of the handshake, and httpcore leaves the socket open


@real
async def test_an_attempt_that_gets_no_connection_in_time_ends_as_a_pool_timeout(family: Family) -> None:
    """The wait for a connection counts towards the attempt, and is told from a server that is slow."""
    inner = family.inner(limits=family.lib.Limits(max_connections=1))
    async with serve(held()) as server, family.client(inner) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.get, server.url)
            await server.until(requests=1)
            with pytest.raises(family.lib.PoolTimeout):
                await client.get(server.url, extensions={"resilient": {"attempt_timeout": 0.1}})
            server.release.set()

        assert len(server.requests) == 1


@real
async def test_the_limit_of_an_attempt_does_not_cut_the_body(family: Family) -> None:
    """It ends with the header."""
    body = Step((head(200, {"Content-Length": "15"}), *(b"x" for _ in range(15))), every=0.02)
    async with serve(answer(200), body) as server, family.client() as client:
        await client.get(server.url)  # there is a connection now
        response = await client.get(server.url, extensions={"resilient": {"attempt_timeout": 0.2}})

        assert response.content == b"x" * 15


# -- the limit for everything ------------------------------------------------------------------------------------------


@real
async def test_the_limit_for_everything_cuts_the_body(family: Family) -> None:
    """What is read then fails as a timeout of the family; the permit and the connection are back."""
    async with serve(answer(200), stall(BODY_BEGAN)) as server, family.client() as client:
        await client.get(server.url)  # there is a connection now
        with pytest.raises(family.lib.ReadTimeout) as caught:
            await client.get(server.url, extensions={"resilient": {"timeout": 0.15}})

        assert isinstance(caught.value, TimeoutExceeded)
        assert caught.value.seconds == 0.15
        assert failures(client) == 0  # the caller's own limit tells nothing about the server


@pytest.mark.anyio
async def test_the_limit_for_everything_is_one_for_all_attempts_and_waits(family: Family) -> None:
    """Two attempts of 2 s and a part of the third."""
    inner = slow(family, 2.0, 503)
    async with family.client(inner, timeout=5.0) as client:
        with pytest.raises(family.lib.ReadTimeout):
            await client.get(URL)

        assert (len(inner.sent), clock.now()) == (3, 5.0)


@pytest.mark.anyio
async def test_the_limit_for_everything_is_one_for_all_hops(family: Family) -> None:
    """A redirect goes on with what its call has left."""
    inner = slow(family, 2.0, 302, {"Location": "/again"})
    async with family.client(inner, timeout=5.0, client={"follow_redirects": True}) as client:
        with pytest.raises(family.lib.ReadTimeout):
            await client.get(URL)

        assert (len(inner.sent), clock.now()) == (3, 5.0)


@pytest.mark.anyio
async def test_nothing_is_sent_when_nothing_is_left(family: Family) -> None:
    """A hook that takes its time uses it up: the request is refused before it is sent."""

    async def ponder(_request: Any, _number: int) -> None:
        await anyio.sleep(3.0)

    inner = family.mock(200)
    async with family.client(inner, timeout=2.0, before_attempt=ponder) as client:
        with pytest.raises(family.lib.TimeoutException) as caught:
            await client.get(URL)

        assert isinstance(caught.value, DeadlineExceeded)
        assert inner.requests == []


@pytest.mark.anyio
async def test_a_block_with_a_deadline_bounds_the_waits_of_its_requests(family: Family) -> None:
    """No wait is begun that could not end in time: the response is handed out at once."""
    retry = Retry(attempts=5, backoff=[2.0])
    async with family.client(family.mock(503), policy=Policy.http().replace(retry=retry)) as client:
        with deadline(5.0):
            response = await client.get(URL)

        assert (response.status_code, clock.now()) == (503, 4.0)


@pytest.mark.anyio
async def test_limits_of_a_policy_are_those_of_the_transport(family: Family) -> None:
    """`Policy(timeout=, attempt_timeout=)` say the same thing."""
    inner = slow(family, 9.0)
    policy = Policy(retry=Retry(attempts=9, backoff=AT_ONCE), timeout=5.0, attempt_timeout=2.0)
    async with family.client(inner, policy=policy) as client:
        with pytest.raises(family.lib.ReadTimeout):
            await client.get(URL)

        assert (len(inner.sent), clock.now()) == (3, 5.0)


@pytest.mark.anyio
async def test_a_timeout_strategy_in_a_policy_is_heard_and_may_be_dynamic(family: Family) -> None:
    """`on_timeout` is called, and a function is asked for the limit at each call; None is none."""
    cut: list[float] = []
    limits: list[float | None] = [2.0, None]
    policy = Policy(timeout=Timeout(lambda: limits.pop(0), on_timeout=lambda: cut.append(clock.now())))
    async with family.client(slow(family, 9.0), policy=policy) as client:
        with pytest.raises(family.lib.ReadTimeout):
            await client.get(URL)
        assert (await client.get(URL)).status_code == 200

        assert (cut, clock.now()) == ([2.0], 11.0)


# -- what an attempt is given ------------------------------------------------------------------------------------------

ASKED = {"connect": 5.0, "read": 5.0, "write": 5.0, "pool": 5.0}


@pytest.mark.anyio
async def test_only_the_time_to_get_a_connection_is_shortened(family: Family) -> None:
    """A smaller read or write timeout would end every other request on an HTTP/2 connection, and the later body."""
    inner = slow(family, 0.5)
    async with family.client(inner, attempt_timeout=2.0) as client:
        request = client.build_request("GET", URL)
        await client.send(request)

        sent = inner.sent[0]
        assert (sent["read"], sent["write"]) == (5.0, 5.0)
        assert 1.9 <= sent["connect"] == sent["pool"] <= 2.0
        assert request.extensions["timeout"] == ASKED


@pytest.mark.anyio
async def test_timeouts_that_are_shorter_already_stay(family: Family) -> None:
    """Ours only bound them."""
    inner = slow(family, 0.5)
    async with family.client(inner, attempt_timeout=10.0) as client:
        await client.get(URL)

        assert inner.sent == [ASKED]


@pytest.mark.anyio
async def test_a_client_without_timeouts_is_bounded_by_ours(family: Family) -> None:
    """`timeout=None`, and a bare request that has none at all."""
    inner = slow(family, 9.0)
    async with family.client(inner, attempt_timeout=2.0, policy=POLICY.replace(retry=None)) as client:
        with pytest.raises(family.lib.ReadTimeout):
            await client.get(URL, timeout=None)
        with pytest.raises(family.lib.ReadTimeout):
            await client._transport.handle_async_request(family.lib.Request("GET", URL))

        assert [(1.9 < sent["connect"] < 2.0, sent.get("read")) for sent in inner.sent] == [(True, None), (True, None)]


@real
async def test_neighbours_on_the_same_http2_connection_never_suffer(family: Family) -> None:
    """One stream is cut off; the other one, on the same connection, goes on and gets its answer."""
    async with beside_another_stream(family) as (client, server):
        with pytest.raises(family.lib.ReadTimeout):
            await client.get(server.url, extensions={"resilient": {"attempt_timeout": 0.05, "retry": False}})


@pytest.mark.parametrize("limit", [-1, float("nan"), "5"])
@pytest.mark.parametrize("name", ["timeout", "attempt_timeout"])
def test_a_limit_must_be_a_duration(family: Family, name: str, limit: Any) -> None:
    """The message names the parameter."""
    with pytest.raises((TypeError, ValueError), match=name):
        family.resilient.ResilientTransport(family.mock(200), **{name: limit})
