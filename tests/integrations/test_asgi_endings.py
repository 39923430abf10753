"""Circuit breakers around an ASGI application, clients that go away, and what is not HTTP."""

from http import HTTPStatus
from typing import Any

import anyio
import pytest

from helpers import cancelled_after
from integrations.asgi_client import Request, Service, get, scope_of
from resilient import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Classifier,
    Health,
    Kind,
    RateLimited,
    Verdict,
)
from resilient_integrations.asgi import ResilientMiddleware

pytestmark = pytest.mark.anyio


# Circuit breakers


async def _silent(*_: Any) -> None:
    """An application that never answers."""


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (Service(500), "http_500"),
        (Service(503), "http_503"),
        (Service(error=ValueError()), "error"),
        (Service(seconds=10), "timeout"),
        (_silent, "no_response"),
    ],
)
async def test_an_application_that_fails_opens_the_breaker(service: Any, reason: str) -> None:
    """By a status, an exception, the limit of time, or no answer at all; then nothing runs, and who asks may come later."""
    breaker = CircuitBreaker(consecutive_failures=2, open_for=30)
    app = ResilientMiddleware(service, circuit_breaker=breaker, timeout=1)
    for _ in range(2):
        request = Request(scope_of())
        try:
            await request.run(app)
        except ValueError:
            assert request.sent == []
    refused = await get(app)

    assert breaker.state == "open"
    assert breaker.statistics().last_failure == reason
    assert (refused.status, refused.json["reason"]) == (503, "circuit_open")
    assert 24 <= int(refused.fields["retry-after"]) <= 33


@pytest.mark.parametrize("service", [Service(404), Service(429), Service(error=CircuitOpen()), Service(error=RateLimited())])
async def test_what_is_no_failure_of_the_application_leaves_the_breaker_closed(service: Service) -> None:
    """A refusal of the caller, or by a strategy further in."""
    breaker = CircuitBreaker(consecutive_failures=1)
    for _ in range(3):
        await get(ResilientMiddleware(service, circuit_breaker=breaker))

    assert breaker.state == "closed"


async def test_an_isolated_breaker_says_later() -> None:
    """When, nobody knows."""
    answer = await get(ResilientMiddleware(Service(), circuit_breaker=CircuitBreaker(initial="isolated")))

    assert answer.status == 503
    assert 1 <= int(answer.fields["retry-after"]) <= 5


async def test_a_probe_is_decided_when_the_response_begins() -> None:
    """A stream of an hour does not keep the breaker half-open; one that breaks is one more failure."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=1)
    app = ResilientMiddleware(Service(), circuit_breaker=breaker)
    await get(ResilientMiddleware(Service(500), circuit_breaker=breaker))
    await anyio.sleep(1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, ResilientMiddleware(Service(streams=3600), circuit_breaker=breaker))
        await anyio.sleep(1)

        assert breaker.state == "closed"
        assert (await get(app)).status == 200

    async def breaks(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  it has no message
        await get(ResilientMiddleware(breaks, circuit_breaker=breaker))

    assert breaker.state == "open"


async def test_a_classifier_of_the_breaker_judges_the_status() -> None:
    """Where it has an opinion on values."""
    teapot = Verdict(Kind.PERMANENT, Health.UNHEALTHY, "teapot")
    breaker = CircuitBreaker(
        consecutive_failures=1, classify=Classifier(lambda _: None, lambda status: teapot if status == 418 else None)
    )
    await get(ResilientMiddleware(Service(500), circuit_breaker=breaker))
    before = breaker.state
    await get(ResilientMiddleware(Service(418), circuit_breaker=breaker))

    assert (before, breaker.state) == ("closed", "open")


# Clients that go away, and cancellation


@pytest.mark.parametrize("told", ["by receive", "by send"])
async def test_a_client_that_goes_away_is_no_failure_and_holds_nothing(told: str) -> None:
    """Whether the application hears of it or its sending fails: what it raises then tells nothing."""
    breaker, bulkhead = CircuitBreaker(consecutive_failures=1), Bulkhead(1)

    async def reads_on(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if told == "by receive" and (await receive())["type"] == "http.disconnect":
            msg = "the client is gone"
            raise RuntimeError(msg)
        await anyio.sleep(2)
        await send({"type": "http.response.body", "body": b"x"})

    request = Request(scope_of(), breaks=True)
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with pytest.raises((RuntimeError, OSError), match="gone"):
                await request.run(ResilientMiddleware(reads_on, circuit_breaker=breaker, bulkhead=bulkhead))

        tasks.start_soon(run)
        await anyio.sleep(1)
        request.leave.set()

    assert breaker.state == "closed"
    assert breaker.statistics().calls == 0
    assert bulkhead.statistics().active == 0


async def test_an_application_that_leaves_quietly_with_its_client_is_no_failure() -> None:
    """It has nobody to answer."""
    breaker = CircuitBreaker(consecutive_failures=1)

    async def leaves(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    request = Request(scope_of())
    request.leave.set()
    await request.run(ResilientMiddleware(leaves, circuit_breaker=breaker))

    assert (breaker.state, breaker.statistics().calls) == ("closed", 0)


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2.5])
async def test_cancellation_is_neutral_and_frees_what_was_held(seconds: float) -> None:
    """In the queue, before the response, and while it streams."""
    breaker, bulkhead = CircuitBreaker(consecutive_failures=1), Bulkhead(1, max_queue=1)
    app = ResilientMiddleware(Service(seconds=1, streams=1), circuit_breaker=breaker, bulkhead=bulkhead, timeout=10)
    async with anyio.create_task_group() as tasks:
        await Request(scope_of()).begin(tasks, ResilientMiddleware(Service(seconds=1), bulkhead=bulkhead))
        async with cancelled_after(seconds):
            await get(app)

    assert (bulkhead.statistics().active, bulkhead.statistics().queued) == (0, 0)
    assert (breaker.state, breaker.statistics().in_flight, breaker.statistics().calls) == ("closed", 0, 0)


# What is not HTTP


async def test_lifespan_goes_by() -> None:
    """The very same three objects."""
    seen: list[Any] = []

    async def application(*arguments: Any) -> None:
        seen.extend(arguments)

    request = Request(scope_of(kind="lifespan"))
    receive, send = request.receive, request.send
    await ResilientMiddleware(application, bulkhead=Bulkhead(1), timeout=1)(request.scope, receive, send)

    assert seen == [request.scope, receive, send]


async def test_a_websocket_holds_its_slot_until_it_is_closed() -> None:
    """Its limit of time is for the acceptance."""
    bulkhead, breaker = Bulkhead(1), CircuitBreaker()
    app = ResilientMiddleware(Service(), bulkhead=bulkhead, circuit_breaker=breaker, timeout=2)
    request = Request(scope_of(kind="websocket"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request.run, app)
        await anyio.sleep(1000)

        assert bulkhead.statistics().active == 1

        request.leave.set()

    assert bulkhead.statistics().active == 0
    assert (breaker.statistics().calls, breaker.statistics().failures) == (1, 0)


@pytest.mark.parametrize("status", [503, 504])
async def test_a_websocket_is_refused_before_it_is_accepted(status: int) -> None:
    """It is closed with 1013, "try again later"; a server that can gives the response that a request would get."""
    service = Service(seconds=10)
    settings: dict[str, Any] = {"timeout": 1} if status == 504 else {"bulkhead": _full()}
    app = ResilientMiddleware(service, **settings)
    plain = await get(app, kind="websocket")
    rich = await get(app, kind="websocket", extensions={"websocket.http.response": {}})

    title = HTTPStatus(status).phrase
    assert plain.messages == [{"type": "websocket.close", "code": 1013, "reason": title}]
    assert [message["type"] for message in rich.messages] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (rich.status, rich.json["title"]) == (status, title)


async def test_a_websocket_that_the_application_refuses_is_no_failure() -> None:
    """That is its answer."""
    breaker, bulkhead = CircuitBreaker(consecutive_failures=1), Bulkhead(1)

    async def refuses(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close"})

        assert bulkhead.statistics().active == 0

    await get(ResilientMiddleware(refuses, circuit_breaker=breaker, bulkhead=bulkhead), kind="websocket")

    assert breaker.statistics().total_successes == 1


def _full() -> Bulkhead:
    bulkhead = Bulkhead(1)
    bulkhead.acquire_nowait()
    return bulkhead
