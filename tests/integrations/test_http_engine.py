"""The engine itself: what its parts do at their edges, and what it asks of the core. No sockets, virtual time."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from integrations.families import AT_ONCE, POLICY, Family, failures, gates
from resilient import (
    Classifier,
    Fallback,
    Health,
    Kind,
    Policy,
    Retry,
    Timeout,
    TimeoutExceeded,
    Verdict,
    clock,
    record_timeline,
)
from resilient.observe.events import RetryScheduled
from resilient_integrations._http.call import origin_of

pytestmark = pytest.mark.anyio

URL = "https://api.example.com/users"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def answering(family: Family, *responses: Any) -> Any:
    """A transport that answers with these responses, one after the other."""
    left = iter(responses)

    def answer(_request: Any) -> Any:
        return next(left)

    return family.lib.MockTransport(answer)


async def test_the_timeline_of_a_success_that_came_after_failures_is_on_its_response(family: Family) -> None:
    """What led to a response is found there, as it is on an exception."""
    async with family.client(family.mock(503, family.lib.ReadError("lost"), 200)) as client:
        response = await client.get(URL)

    reasons = [attempt.verdict.reason for attempt in response.extensions["resilient.timeline"].attempts]
    assert response.extensions["resilient.attempts"] == 3
    assert reasons == ["http_503", "read_error", "success"]


async def test_a_success_at_once_has_no_timeline(family: Family) -> None:
    """Nothing is recorded where nothing is to be told."""
    async with family.client(family.mock(200)) as client:
        response = await client.get(URL)

    assert response.extensions["resilient.attempts"] == 1
    assert "resilient.timeline" not in response.extensions


async def test_a_classifier_sees_the_request_of_responses_and_exceptions(family: Family) -> None:
    """It can decide by method and address; the client sets them later only."""
    seen: list[str] = []

    def see(outcome: Any) -> Verdict | None:
        seen.append(f"{outcome.request.method} {outcome.request.url.path}")
        return None

    inner = family.mock(503, family.lib.ReadError("lost"), 200)
    async with family.client(inner, classifier=Classifier(see, see)) as client:
        await client.get(URL)

    assert seen == ["GET /users"] * 3


async def test_a_success_can_be_judged_worth_another_attempt(family: Family) -> None:
    """A 200 that hides an error in its headers is thrown away like any other failure."""
    again = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "soft_error")
    own = Classifier(lambda _error: None, lambda response: again if "x-error" in response.headers else None)
    async with family.client(family.mock((200, {"x-error": "1"}), 200), classifier=own) as client:
        response = await client.get(URL)

        assert response.extensions["resilient.attempts"] == 2
        assert failures(client) == 1


async def test_a_hop_may_send_a_one_shot_body_that_the_hop_before_never_began(family: Family) -> None:
    """Digest authentication whose first request was refused unread: the body is still there."""
    bodies: list[bytes] = []

    class Unread(family.lib.AsyncBaseTransport):  # type: ignore[misc, name-defined]  # of the family at hand
        async def handle_async_request(self, request: Any) -> Any:
            if "authorization" not in request.headers:
                challenge = 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'
                return family.lib.Response(401, headers={"www-authenticate": challenge})
            bodies.append(b"".join([part async for part in request.stream]))
            return family.lib.Response(200)

    async with family.client(Unread()) as client:
        response = await client.post(URL, content=chunks(b"a", b"b"), auth=family.lib.DigestAuth("user", "secret"))

    assert response.status_code == 200
    assert bodies == [b"ab"]


async def test_a_discarded_response_that_breaks_while_it_is_drained_is_forgotten(family: Family) -> None:
    """Its failure is nobody's concern: the next attempt counts."""

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        msg = "cut"
        raise family.lib.ReadError(msg)

    async with family.client(answering(family, family.lib.Response(503, content=breaks()), family.lib.Response(200))) as client:
        response = await client.get(URL)

        assert response.status_code == 200
        assert failures(client) == 1  # the 503, once


async def test_draining_stops_at_64_kib(family: Family) -> None:
    """A body of unknown length is read no further."""
    read: list[int] = []

    class Endless(family.lib.AsyncByteStream):  # type: ignore[misc, name-defined]  # of the family at hand
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            read.append(1024)
            return b"x" * 1024

    async with family.client(answering(family, family.lib.Response(503, stream=Endless()), family.lib.Response(200))) as client:
        response = await client.get(URL)

    assert response.status_code == 200
    assert sum(read) == 65 * 1024


async def test_the_stream_of_an_upgrade_is_that_of_the_transport(family: Family) -> None:
    """Nothing stands between the user and the connection; only its close is heard."""

    class Raw(family.lib.AsyncByteStream):  # type: ignore[misc, name-defined]  # of the family at hand
        def __aiter__(self) -> AsyncIterator[bytes]:
            return chunks(b"raw")

        async def aclose(self) -> None:
            pass

    inner = answering(family, family.lib.Response(101, stream=Raw()))
    async with family.client(inner) as client, client.stream("GET", URL) as response:
        assert [part async for part in response.stream] == [b"raw"]
        assert [gate.statistics().active for gate in gates(client._transport) if hasattr(gate.statistics(), "active")] == [1]


async def test_a_limit_can_be_asked_for_each_time_and_tells_when_it_is_reached(family: Family) -> None:
    """A `Timeout` in place of a number keeps its function and its hook."""
    told: list[float] = []
    limits = iter([1.0, 2.0])
    limit = Timeout(lambda: next(limits), on_timeout=lambda: told.append(clock.now()))

    async def hangs(_request: Any) -> Any:
        await anyio.sleep(60)

    async with family.client(family.lib.MockTransport(hangs), timeout=limit) as client:
        for expected in (1.0, 3.0):
            with pytest.raises(TimeoutExceeded):
                await client.get(URL)
            assert told[-1] == pytest.approx(expected)


async def test_a_fallback_is_seen_by_listeners(family: Family) -> None:
    """What stands in for a response is handed out as it is, and told as a success."""
    policy = Policy(fallback=Fallback(function=lambda _outcome: family.lib.Response(203)))
    async with family.client(family.mock(503), policy=policy) as client:
        with record_timeline() as timeline:
            response = await client.get(URL)

    assert response.status_code == 203
    assert [(call.reason, call.degraded) for call in timeline.calls] == [("success", True)]


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://api.example.com/a?secret=1", "https://api.example.com:443"),
        ("http://user:secret@api.example.com", "http://api.example.com:80"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("ws://example.com/", "ws://example.com:80"),
    ],
)
def test_an_origin_is_scheme_host_and_port(family: Family, address: str, origin: str) -> None:
    """And nothing of what must not be in a log."""
    assert origin_of(family.lib.URL(address)) == origin


def test_a_transport_shows_what_it_wraps(family: Family) -> None:
    """Its repr names the inner transport."""
    transport = family.resilient.ResilientTransport(family.mock(200))

    assert "MockTransport" in repr(transport)


def test_a_response_that_is_lost_in_another_thread_is_ended_before_the_next_request(family: Family) -> None:
    """Where no event loop runs nothing is scheduled: a permit is never given back in the middle of something else."""

    def answer(_request: Any) -> Any:
        return family.lib.Response(200, content=chunks(b"x"))

    inner = family.lib.MockTransport(answer)
    transport = family.resilient.ResilientTransport(inner, policy=POLICY)
    responses: list[Any] = []

    async def ask() -> None:
        responses.append(await transport.handle_async_request(family.lib.Request("GET", URL)))

    def drop() -> None:
        responses.clear()
        gc.collect()

    def drop_in_a_thread() -> None:
        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()

    asyncio.run(ask())
    _breaker, bulkhead = gates(transport)
    with pytest.warns(ResourceWarning, match=r"GET https://api\.example\.com:443 was dropped"):
        drop_in_a_thread()
    assert bulkhead.statistics().active == 1

    asyncio.run(ask())

    assert bulkhead.statistics().active == 1  # that of the second one

    with pytest.warns(ResourceWarning):
        drop()


async def test_a_call_can_bring_its_own_number_of_attempts(family: Family) -> None:
    """It takes the place of that of the policy, in log lines and events as well."""
    policy = POLICY.replace(retry=Retry(attempts=2, backoff=AT_ONCE))
    async with family.client(family.mock(503), policy=policy) as client:
        with record_timeline() as timeline:
            await client.get(URL, extensions={"resilient": {"attempts": 4}})

    assert [attempt.number for attempt in timeline.attempts] == [1, 2, 3, 4]
    assert {event.attempts for event in timeline.events if isinstance(event, RetryScheduled)} == {4}


async def test_an_attempt_that_is_cut_before_a_real_transport_told_anything_had_no_connection(family: Family) -> None:
    """A transport with a pool tells what it does as soon as it has a connection; a mock tells nothing at all."""

    async def hangs(_request: Any) -> Any:
        await anyio.sleep(60)

    inner = family.lib.MockTransport(hangs)
    async with family.client(inner, attempt_timeout=1.0) as client:
        with pytest.raises(family.lib.ReadTimeout):
            await client.post(URL)
        inner._pool = "<0 active, 0 queued>"
        with pytest.raises(family.lib.PoolTimeout):
            await client.post(URL)


async def test_what_follows_the_beginning_of_a_long_body_is_sent_as_it_comes(family: Family) -> None:
    """Only its beginning was read into memory."""
    inner = family.mock(200)
    async with family.client(inner, spool=3) as client:
        await client.post(URL, content=chunks(b"ab", b"cd", b"ef", b"gh"))

    assert inner.requests[0].content == b"abcdefgh"
