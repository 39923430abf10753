"""Redirects, authentication, hooks and idempotency keys: the hops of one call share what belongs to the call.

No socket is needed: the inner transport is a mock, and time is virtual.
"""

import uuid
from typing import Any

import anyio
import pytest

from integrations.families import POLICY, Family, gates
from resilient import CircuitBreaker, Policy, Retry, clock, record_timeline

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"], indirect=True)]

URL = "https://api.example.com/users"
ELSEWHERE = "https://other.example.com/users"


def keys(inner: Any) -> list[str | None]:
    """The idempotency keys that were sent."""
    return [request.headers.get("Idempotency-Key") for request in inner.requests]


# -- redirects ---------------------------------------------------------------------------------------------------------


async def test_the_hops_of_a_redirect_are_one_call_with_one_counter(family: Family) -> None:
    """302 → 307 → 200: three requests, numbered through, over all retries."""
    inner = family.mock(503, (302, {"Location": "/b"}), (307, {"Location": "/c"}), 503, 200)
    async with family.client(inner, client={"follow_redirects": True}) as client:
        response = await client.get(URL)

        assert (response.status_code, len(response.history)) == (200, 2)
        assert [request.url.path for request in inner.requests] == ["/users", "/users", "/b", "/c", "/c"]
        assert [request.extensions["resilient.resend_count"] for request in inner.requests] == [0, 1, 2, 3, 4]


async def test_attempts_do_not_multiply_with_hops(family: Family) -> None:
    """Three attempts allow two retries, wherever they are needed: here both are used up by the first hop."""
    inner = family.mock(503, 503, (302, {"Location": "/b"}), 503, 200)
    async with family.client(inner, client={"follow_redirects": True}) as client:
        response = await client.get(URL)

        assert (response.status_code, len(inner.requests)) == (503, 4)


async def test_the_window_for_retries_is_one_for_all_hops(family: Family) -> None:
    """What the first hop took is gone."""
    retry = Retry(attempts=None, backoff=[2.0], timeout=5.0)
    inner = family.mock(503, 503, (302, {"Location": "/b"}), 503, 200)
    policy = Policy.http().replace(retry=retry)
    async with family.client(inner, policy=policy, client={"follow_redirects": True}) as client:
        response = await client.get(URL)

        assert (response.status_code, clock.now()) == (503, 4.0)


async def test_a_redirect_to_another_origin_meets_the_breaker_of_that_origin(family: Family) -> None:
    """And the redirect itself is a success for the first one."""
    inner = family.mock((302, {"Location": ELSEWHERE}), 500)
    policy = Policy.http().replace(retry=None, circuit_breaker=CircuitBreaker(consecutive_failures=1, open_for=60.0))
    async with family.client(inner, policy=policy, client={"follow_redirects": True}) as client:
        await client.get(URL)
        transport = client._transport

        states = [gates(transport, f"https://{host}.example.com:443")[0].statistics().state for host in ("api", "other")]
        assert states == ["closed", "open"]


async def test_a_call_ends_with_a_response_that_nothing_follows(family: Family) -> None:
    """The same request, sent again by the user, is another call: it begins with all its attempts and time."""
    inner = family.mock(503, 503, 200, 503, 503, 200)
    async with family.client(inner) as client:
        request = client.build_request("GET", URL)

        assert [(await client.send(request)).status_code for _ in range(2)] == [200, 200]
        assert [each.extensions["resilient.resend_count"] for each in inner.requests] == [0, 1, 2, 0, 1, 2]


async def test_a_redirect_that_is_not_followed_ends_the_call_where_the_same_request_is_sent_again(family: Family) -> None:
    """A hop is another request; the same one again is the user's doing."""
    inner = family.mock((302, {"Location": "/b"}))
    async with family.client(inner) as client:
        request = client.build_request("GET", URL)
        await client.send(request)
        await client.send(request)

        assert [each.extensions["resilient.resend_count"] for each in inner.requests] == [0, 0]


async def test_a_one_shot_body_is_not_sent_again_by_a_redirect_either(family: Family) -> None:
    """307 repeats the body: one that is consumed surfaces as the family's own error, as it does without us."""

    async def body() -> Any:
        yield b"a"

    inner = family.mock((307, {"Location": "/b"}), 200)
    async with family.client(inner, client={"follow_redirects": True}) as client:
        with pytest.raises(family.lib.StreamConsumed):
            await client.put(URL, content=body())

        assert len(inner.requests) == 1


# -- authentication ----------------------------------------------------------------------------------------------------


async def test_the_two_requests_of_digest_authentication_are_one_call(family: Family) -> None:
    """The client sends the same request twice; 401 is a success for the breaker."""
    challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'}
    inner = family.mock((401, challenge), 503, 200)
    async with family.client(inner, client={"auth": family.lib.DigestAuth("user", "password")}) as client:
        with record_timeline() as timeline:
            response = await client.get(URL)

        assert response.status_code == 200
        assert [request.extensions["resilient.resend_count"] for request in inner.requests] == [0, 1, 2]
        assert [attempt.verdict.health.value for attempt in timeline.attempts] == ["healthy", "unhealthy", "healthy"]


# -- hooks -------------------------------------------------------------------------------------------------------------


async def test_hooks_of_the_client_run_once_for_each_hop(family: Family) -> None:
    """They are above us: retries are not seen by them."""
    ran: list[str] = []

    async def on_request(_request: Any) -> None:
        ran.append("request")

    async def on_response(response: Any) -> None:
        ran.append(str(response.status_code))

    hooks = {"request": [on_request], "response": [on_response]}
    async with family.client(family.mock(503, 503, 200), client={"event_hooks": hooks}) as client:
        await client.get(URL)

        assert ran == ["request", "200"]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_request_can_be_signed_anew_before_each_attempt(family: Family, kind: str) -> None:
    """Without that, retries would replay signatures, dates and tokens that have expired."""

    def sign(request: Any, number: int) -> None:
        request.headers["Authorization"] = f"signature {number}"

    async def sign_later(request: Any, number: int) -> None:
        await anyio.sleep(1.0)
        sign(request, number)

    inner = family.mock(503, 503, 200)
    async with family.client(inner, before_attempt=sign if kind == "sync" else sign_later) as client:
        response = await client.get(URL)

        assert [request.headers["Authorization"] for request in inner.requests] == ["signature 1", "signature 2", "signature 3"]
        assert "Authorization" not in response.request.headers


async def test_a_hook_that_raises_ends_the_call_with_its_own_error(family: Family) -> None:
    """It is not the server's fault, and no other attempt would help."""

    def sign(_request: Any, _number: int) -> None:
        raise KeyError("no secret")

    inner = family.mock(200)
    async with family.client(inner, before_attempt=sign) as client:
        with record_timeline() as timeline, pytest.raises(KeyError, match="no secret"):
            await client.get(URL)

        assert inner.requests == []
        assert [attempt.verdict.health.value for attempt in timeline.attempts] == ["neutral"]


# -- idempotency keys --------------------------------------------------------------------------------------------------


async def test_no_idempotency_key_is_made_unless_it_is_asked_for(family: Family) -> None:
    """Nobody can assume that a server honours it."""
    inner = family.mock(503)
    async with family.client(inner) as client:
        await client.post(URL)

        assert keys(inner) == [None]


async def test_one_idempotency_key_serves_all_attempts_of_a_call_and_no_other(family: Family) -> None:
    """A UUID; with it a POST may be sent again. What the client sees stays clean."""
    inner = family.mock(503, 500, 200, 503, 200)
    async with family.client(inner, idempotency_key="auto") as client:
        response = await client.post(URL)
        await client.post(URL)

        first, second = keys(inner)[0], keys(inner)[3]
        assert keys(inner) == [first, first, first, second, second]
        assert first != second
        assert uuid.UUID(str(first).strip('"')).version == 4
        assert "Idempotency-Key" not in response.request.headers


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_idempotent_method_needs_no_key(family: Family, method: str) -> None:
    """It can be sent again as it is."""
    inner = family.mock(503, 200)
    async with family.client(inner, idempotency_key="auto") as client:
        await client.request(method, URL)

        assert keys(inner) == [None, None]


async def test_a_key_of_the_user_is_never_replaced(family: Family) -> None:
    """Nor is a second one added."""
    inner = family.mock(503, 200)
    async with family.client(inner, idempotency_key="auto") as client:
        await client.post(URL, headers={"Idempotency-Key": "mine"})

        assert keys(inner) == ["mine", "mine"]


async def test_a_key_can_be_made_by_a_function_of_the_request(family: Family) -> None:
    """For servers that want it quoted, or derived from the content; None for none."""

    def make(request: Any) -> str | None:
        return '"order-7"' if request.url.path == "/users" else None

    inner = family.mock(503, 200, 503)
    async with family.client(inner, idempotency_key=make) as client:
        await client.post(URL)
        await client.post("https://api.example.com/other")

        assert keys(inner) == ['"order-7"', '"order-7"', None]


async def test_a_key_goes_along_with_a_redirect_within_the_origin_and_no_further(family: Family) -> None:
    """307 repeats the POST: the same operation for the same server, another one for another."""
    inner = family.mock((307, {"Location": "/b"}), (307, {"Location": ELSEWHERE}), 200)
    async with family.client(inner, idempotency_key="auto", client={"follow_redirects": True}) as client:
        await client.post(URL)

        first, second, third = keys(inner)
        assert first == second
        assert third not in {None, first}


@pytest.mark.parametrize(("status", "expected"), [(409, 200), (422, 422), (400, 400)])
async def test_a_server_that_knows_the_key_may_ask_to_come_back_or_refuse(family: Family, status: int, expected: int) -> None:
    """409: the first one still runs, so later; 422: the key was used for something else; 400: it is not welcome."""
    inner = family.mock(status, 200)
    async with family.client(inner, idempotency_key="auto") as client:
        assert (await client.post(URL)).status_code == expected


# -- options of a request ----------------------------------------------------------------------------------------------


async def test_a_request_can_be_sent_once_whatever_happens(family: Family) -> None:
    """`retry: False`."""
    inner = family.mock(503, 200)
    async with family.client(inner) as client:
        response = await client.get(URL, extensions={"resilient": {"retry": False}})

        assert (response.status_code, len(inner.requests)) == (503, 1)


async def test_a_request_can_have_attempts_of_its_own(family: Family) -> None:
    """`attempts`, in place of those of the policy."""
    inner = family.mock(503)
    async with family.client(inner) as client:
        await client.get(URL, extensions={"resilient": {"attempts": 5}})

        assert len(inner.requests) == 5


async def test_a_request_can_say_what_is_called(family: Family) -> None:
    """`key`, for a breaker and permits of its own; the transport's `key` function serves all others."""

    def host(request: Any) -> str:
        return str(request.url.host)

    async with family.client(family.mock(200), key=host) as client:
        with record_timeline() as timeline:
            await client.get(URL)
            await client.get(URL, extensions={"resilient": {"key": "users.list"}})

        assert [attempt.key for attempt in timeline.attempts] == ["api.example.com", "users.list"]


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://api.example.com/a?b=c", "http://api.example.com:80"),
        ("https://user:secret@api.example.com/", "https://api.example.com:443"),
        ("https://api.example.com:8443/", "https://api.example.com:8443"),
        ("http://[::1]/", "http://[::1]:80"),
    ],
)
async def test_the_key_is_the_origin_and_nothing_else(family: Family, url: str, key: str) -> None:
    """No credentials, no path, no query; the port that the scheme implies."""
    async with family.client(family.mock(200)) as client:
        with record_timeline() as timeline:
            await client.get(url)

        assert [attempt.key for attempt in timeline.attempts] == [key]


async def test_hostile_origins_cannot_grow_memory(family: Family) -> None:
    """Keys are bounded; those with nothing to remember are forgotten."""
    async with family.client(family.mock(200), policy=POLICY, max_keys=4) as client:
        for number in range(20):
            await client.get(f"https://host-{number}.example.com/")

        assert len(client._transport.pipeline.siblings) <= 4
