"""The deadline of a caller: taken from its request, and handed down to what the application calls."""

from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from integrations.asgi_client import Request, Service, get, scope_of
from integrations.servers import answer, serve, stall
from resilient import Bulkhead, CircuitBreaker, clock, listening
from resilient.observe.events import Event, RetryStopped
from resilient_integrations.asgi import ResilientMiddleware
from resilient_integrations.httpx import ResilientTransport

App = Callable[..., Any]

HEADER = "Request-Timeout"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("values", "status", "at", "reason"),
    [
        (["2.5"], 504, 2.5, "deadline"),
        (["2"], 504, 2.0, "deadline"),
        (["9", "3"], 504, 3.0, "deadline"),
        (["0"], 504, 0.0, "deadline"),
        (["0.000"], 504, 0.0, "deadline"),
        ([], 504, 5.0, "timeout"),
        (["3600"], 504, 5.0, "timeout"),
        (["5"], 504, 5.0, "timeout"),
        *[([wrong], 504, 5.0, "timeout") for wrong in ("", "-1", "1s", "1e-3", "inf", "nan", "+1", "1_0", "١", "1" * 10)],
    ],
)
async def test_a_caller_may_ask_for_less_time_and_never_for_more(values: list[str], status: int, at: float, reason: str) -> None:
    """What is malformed is not heard."""
    service = Service(seconds=10)
    app = ResilientMiddleware(service, timeout=5, deadline_header=HEADER)
    scope = scope_of()
    scope["headers"] = [(HEADER.lower().encode(), value.encode("utf-8")) for value in values]
    reply = await Request(scope).run(app)

    assert (reply.status, reply.sent[0][0], reply.json["reason"]) == (status, at, reason)
    assert service.calls == (1 if at else 0)


@pytest.mark.anyio
async def test_who_has_no_time_left_takes_no_token_and_no_slot() -> None:
    """Nobody waits for the answer."""
    bulkhead = Bulkhead(1)
    bulkhead.acquire_nowait()
    app = ResilientMiddleware(Service(), bulkhead=bulkhead, timeout=5, deadline_header=HEADER)

    assert (await get(app, headers=[(HEADER, "0")])).status == 504


@pytest.mark.anyio
async def test_a_short_deadline_is_no_failure_of_the_application() -> None:
    """Or impatient callers would open its breaker."""
    breaker = CircuitBreaker(consecutive_failures=1)
    app = ResilientMiddleware(Service(seconds=3), circuit_breaker=breaker, timeout=5, deadline_header=HEADER)
    reply = await get(app, headers=[(HEADER, "1")])

    assert reply.status == 504
    assert breaker.state == "closed"


def calls(client: httpx.AsyncClient, url: str) -> App:
    """An application that asks another one and passes its status on."""

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        response = await client.get(url)
        await send({"type": "http.response.start", "status": response.status_code, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return application


@pytest.mark.anyio
async def test_what_the_application_calls_knows_of_the_deadline() -> None:
    """A retry that could not be made in time is not waited for: the last response is there at once."""

    def busy(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503, headers={"Retry-After": "3"})

    heard: list[Event] = []
    async with httpx.AsyncClient(transport=ResilientTransport(httpx.MockTransport(busy))) as client:
        app = ResilientMiddleware(calls(client, "http://users.test/"), timeout=30, deadline_header=HEADER)
        with listening(heard.append):
            hurried = await get(app, headers=[(HEADER, "2")])
        took = clock.now()
        patient = await get(app)

    assert (hurried.status, took) == (503, 0.0)
    assert [event.reason for event in heard if isinstance(event, RetryStopped)] == ["deadline"]
    assert patient.sent[0][0] >= 6.0


@pytest.mark.anyio
async def test_the_deadline_ends_when_the_response_begins() -> None:
    """What a stream still calls is not cut: it has the time of the transport."""

    async def slow(_: httpx.Request) -> httpx.Response:
        await anyio.sleep(20)
        return httpx.Response(200, text="late")

    async with httpx.AsyncClient(transport=ResilientTransport(httpx.MockTransport(slow))) as client:

        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": (await client.get("http://users.test/")).content})

        reply = await get(ResilientMiddleware(application, timeout=5))

    assert reply.body == b"late"


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
async def test_a_call_over_the_network_gives_up_in_time() -> None:
    """Real servers: one that asks for a pause is not waited for, one that never answers is left when the caller is gone."""
    async with (
        serve(answer(503, headers={"Retry-After": "4"})) as busy,
        serve(stall()) as silent,
        httpx.AsyncClient(transport=ResilientTransport(), trust_env=False) as client,
    ):
        asks_busy, asks_silent = (
            ResilientMiddleware(calls(client, server.url), timeout=30, deadline_header=HEADER) for server in (busy, silent)
        )
        began = clock.now()
        hurried = await get(asks_busy, headers=[(HEADER, "3")])
        took = clock.now() - began
        cut = await get(asks_silent, headers=[(HEADER, "0.2")])
        await silent.until(gone=1)

    assert (hurried.status, len(busy.requests)) == (503, 1)
    assert took < 1
    assert (cut.status, cut.json["reason"]) == (504, "deadline")
