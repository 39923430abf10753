"""Limits around an ASGI application: who is refused, with what, and what is given back."""

from random import Random
from typing import Any

import anyio
import pytest

from integrations.asgi_client import Request, Service, get, scope_of
from resilient import (
    AdaptiveLimit,
    AdaptiveRate,
    Bulkhead,
    CircuitOpen,
    Keyed,
    LeakyBucket,
    RateLimited,
    Rejected,
    RetryableError,
    SlidingWindow,
    TimeoutExceeded,
    TokenBucket,
    listening,
)
from resilient.observe.events import CallRejected, Event
from resilient.strategies.limiter import Tokens
from resilient_integrations.asgi import ResilientMiddleware, client_ip

pytestmark = pytest.mark.anyio

QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"
CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


async def run_many(app: Any, count: int) -> list[Request]:
    """So many requests in the same instant, in their order."""
    requests = [Request(scope_of()) for _ in range(count)]
    async with anyio.create_task_group() as tasks:
        for request in requests:
            await request.begin(tasks, app)
    return requests


# Rate limits


async def test_who_asks_for_too_much_is_answered_429_before_the_body_is_read() -> None:
    """With the time to wait, the quota, and a problem in JSON; the application never hears of it."""
    service = Service()
    app = ResilientMiddleware(service, rate_limit=TokenBucket(2, per=60, max_wait=0, name="each"), random=Random(0))
    for _ in range(2):
        assert (await get(app)).status == 200
    refused = await get(app)

    assert refused.status == 429
    assert 30 <= int(refused.fields["retry-after"]) <= 33
    assert refused.fields["ratelimit-policy"] == '"each";q=2;w=60'
    assert refused.fields["ratelimit"] == '"each";r=0;t=60'
    assert refused.fields["content-type"] == "application/problem+json"
    assert refused.fields["cache-control"] == "no-store"
    assert int(refused.fields["content-length"]) == len(refused.body)
    assert refused.json == {
        "type": QUOTA,
        "title": "Too Many Requests",
        "status": 429,
        "reason": "rate_limited",
        "retry_after": int(refused.fields["retry-after"]),
        "violated-policies": ["each"],
    }
    assert (refused.received, service.calls) == (0, 2)


@pytest.mark.parametrize(
    ("limiter", "policy", "left"),
    [
        (TokenBucket(10, burst=20, per=2, name='a "b"\\\n'), "\"a 'b'/\";q=20;w=4", "\"a 'b'/\";r=18;t=1"),
        (LeakyBucket(1, capacity=5), '"leaky_bucket";q=5;w=5', '"leaky_bucket";r=3;t=2'),
        (SlidingWindow(5, per=60), '"sliding_window";q=5;w=60', '"sliding_window";r=3;t=105'),
        (SlidingWindow(5, per=0.5, exact=True), '"sliding_window";q=5;w=1', '"sliding_window";r=3;t=1'),
        (AdaptiveRate(50, burst=100), '"adaptive_rate";q=100;w=2', '"adaptive_rate";r=98;t=1'),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_left_is_told_on_successes_too(limiter: Any, policy: str, left: str) -> None:
    """Beside the fields of the application; by every limiter."""
    app = ResilientMiddleware(Service(), rate_limit=limiter.sibling(), timeout=1)
    await get(app)
    answer = await get(app)

    assert answer.fields["x-own"] == "1"
    assert answer.fields["ratelimit-policy"] == policy
    assert answer.fields["ratelimit"] == left


async def test_a_limiter_that_cannot_ask_its_store_is_no_matter_of_quota() -> None:
    """503: the client has done nothing wrong, and may be told nothing of what is left."""

    class StoreUnavailable(Rejected):
        """What a limiter that processes share refuses with while its store does not answer."""

    class Shared(TokenBucket):
        """Such a limiter."""

        def admit(self, now: float, tokens: int = 1) -> Tokens | None:
            raise StoreUnavailable(self.name)

    answer = await get(ResilientMiddleware(Service(), rate_limit=Shared(1, max_wait=0)))

    assert answer.status == 503
    assert set(answer.fields) == {"retry-after", "content-type", "content-length", "cache-control"}


async def test_each_key_has_its_own_limit() -> None:
    """One client does not use up what another may."""
    app = ResilientMiddleware(Service(), rate_limit=Keyed(TokenBucket(1, max_wait=0)), key=client_ip())
    statuses = [(await get(app, client=(address, 1))).status for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]

    assert statuses == [200, 200, 429]


async def test_a_limiter_may_let_requests_wait() -> None:
    """Where it has time for them, within the limit of the request."""
    app = ResilientMiddleware(Service(), rate_limit=TokenBucket(1), timeout=2.5)
    answers = await run_many(app, 4)

    assert [(answer.status, answer.sent[0][0]) for answer in answers] == [(200, 0.0), (200, 1.0), (200, 2.0), (429, 0.0)]


async def test_who_is_refused_further_in_keeps_its_token() -> None:
    """A full house is no use of one's quota; an answered request is one, also where a dependency has refused."""
    bucket = TokenBucket(10, max_wait=0)
    service = Service(seconds=1)
    app = ResilientMiddleware(service, rate_limit=bucket, bulkhead=Bulkhead(1))
    answers = await run_many(app, 3)

    assert [answer.status for answer in answers] == [200, 503, 503]
    assert bucket.statistics().tokens == 10.0  # that of the first is back after a second

    service.error, service.seconds = CircuitOpen("users", 2.0), 0

    assert (await get(app)).status == 503
    assert bucket.statistics().tokens == 9.0


# Bulkheads


async def test_a_full_house_is_answered_503_before_the_body_is_read() -> None:
    """With a time to come again, which differs, as nobody knows when there will be room."""
    service = Service(seconds=1)
    app = ResilientMiddleware(service, bulkhead=Bulkhead(2))
    answers = await run_many(app, 40)
    refused = answers[2:]

    assert [answer.status for answer in answers] == [200] * 2 + [503] * 38
    assert len({answer.fields["retry-after"] for answer in refused}) > 1
    assert {int(answer.fields["retry-after"]) for answer in refused} <= {1, 2, 3, 4, 5}
    assert refused[0].json == {
        "type": CAPACITY,
        "title": "Service Unavailable",
        "status": 503,
        "reason": "bulkhead_full",
        "retry_after": int(refused[0].fields["retry-after"]),
    }
    assert {answer.received for answer in refused} == {0}
    assert (service.calls, service.most) == (2, 2)


async def test_a_queue_takes_turns_and_is_bounded() -> None:
    """Who waits too long is refused."""
    app = ResilientMiddleware(Service(seconds=1), bulkhead=Bulkhead(1, max_queue=2, queue_timeout=1.5))
    answers = await run_many(app, 4)

    assert [(answer.status, answer.sent[0][0]) for answer in answers] == [(200, 1.0), (200, 2.0), (503, 1.5), (503, 0.0)]


async def test_a_slot_is_out_until_the_body_was_sent() -> None:
    """And not for longer: what the application does after that does not count."""
    bulkhead = Bulkhead(1)
    active: list[int] = []

    async def works_on(scope: Any, receive: Any, send: Any) -> None:
        await Service(streams=5)(scope, receive, send)
        await anyio.sleep(100)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(get, ResilientMiddleware(works_on, bulkhead=bulkhead))
        for seconds in (4, 2):
            await anyio.sleep(seconds)
            active.append(bulkhead.statistics().active)

    assert active == [1, 0]


async def test_an_adaptive_limit_learns_the_time_to_the_response() -> None:
    """Not how long a slow client took to read it."""
    limit = AdaptiveLimit(10)
    app = ResilientMiddleware(Service(seconds=0.2, streams=30), bulkhead=limit)
    for _ in range(5):
        await run_many(app, 8)

    assert limit.statistics().baseline == pytest.approx(0.2)
    assert limit.statistics().active == 0


async def test_an_answer_to_head_has_no_body() -> None:
    """But says how long it would be."""
    app = ResilientMiddleware(Service(), rate_limit=TokenBucket(1, max_wait=0))
    await get(app)
    refused = await get(app, method="HEAD")

    assert (refused.status, refused.body) == (429, b"")
    assert int(refused.fields["content-length"]) > 0


# Time limits


async def test_a_response_that_does_not_begin_in_time_is_answered_504() -> None:
    """The application is cancelled."""
    service = Service(seconds=10)
    answer = await get(ResilientMiddleware(service, timeout=2))

    assert [(at, message["type"]) for at, message in answer.sent] == [
        (2.0, "http.response.start"),
        (2.0, "http.response.body"),
    ]
    assert answer.status == 504
    assert answer.json == {"type": "about:blank", "title": "Gateway Timeout", "status": 504, "reason": "timeout"}
    assert service.active == 0


async def test_a_response_that_has_begun_is_never_cut() -> None:
    """However long it takes."""
    answer = await get(ResilientMiddleware(Service(seconds=1, streams=1000), timeout=2))

    assert (answer.status, answer.body, answer.sent[-1][0]) == (200, b"ok", 1001.0)


@pytest.mark.parametrize("shield", [{}, {"shield": True}], ids=["cancelled", "shielded"])
async def test_a_response_that_comes_too_late_is_not_sent(shield: dict[str, bool]) -> None:
    """An application that answers while it is cancelled does not answer twice."""

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        try:
            await anyio.sleep(10)
        finally:
            with anyio.CancelScope(**shield):
                await Service()(scope, receive, send)

    answer = await get(ResilientMiddleware(stubborn, timeout=2))

    assert [message.get("status") for message in answer.messages] == [504, None]


async def test_the_time_in_a_queue_counts() -> None:
    """Who waits until the limit is answered then, and never runs."""
    service = Service(seconds=3)
    app = ResilientMiddleware(service, bulkhead=Bulkhead(1, max_queue=10), timeout=4)
    answers = await run_many(app, 3)

    assert [(answer.status, answer.sent[0][0]) for answer in answers] == [(200, 3.0), (504, 4.0), (504, 4.0)]
    assert service.calls == 2


@pytest.mark.parametrize("error", [TimeoutExceeded(1.0), CircuitOpen("users", 7.0), RateLimited("users")])
async def test_what_a_strategy_further_in_refused_is_answered(error: Exception) -> None:
    """503, or 504 where time was used up: it is not the caller who asks for too much."""
    answer = await get(ResilientMiddleware(Service(error=error), rate_limit=TokenBucket(9, max_wait=0)))

    assert answer.status == (504 if isinstance(error, TimeoutExceeded) else 503)
    assert answer.json["reason"] == getattr(error, "reason")  # noqa: B009  of all three
    if isinstance(error, CircuitOpen):
        assert 7 <= int(answer.fields["retry-after"]) <= 8


async def test_an_error_that_is_no_refusal_surfaces() -> None:
    """What to answer then is for the application, or the server."""
    with pytest.raises(RetryableError):
        await get(ResilientMiddleware(Service(error=RetryableError())))


async def test_what_is_sent_before_the_response_does_not_begin_it() -> None:
    """Early hints do not end the limit of time."""

    async def hints(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        await anyio.sleep(5)

    answer = await get(ResilientMiddleware(hints, timeout=1))

    assert [message.get("status") for message in answer.messages] == [None, 504, None]


async def test_an_error_after_the_response_has_begun_surfaces() -> None:
    """There can be no second response; the server drops the connection."""

    async def breaks(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise CircuitOpen

    request = Request(scope_of())
    with pytest.raises(CircuitOpen):
        await request.run(ResilientMiddleware(breaks))

    assert len(request.sent) == 1


# What is told, and what is refused at construction


async def test_refusals_are_told_like_all_others() -> None:
    """The log and the listeners hear of them, and that time was used up."""
    heard: list[Event] = []
    app = ResilientMiddleware(Service(seconds=5), bulkhead=Bulkhead(1), timeout=2)
    with listening(heard.append):
        await run_many(app, 2)

    assert [type(event).__name__ for event in heard] == ["CallRejected", "TimedOut"]
    assert isinstance(heard[0], CallRejected)
    assert heard[0].reason == "bulkhead_full"


async def _awaited(_scope: Any) -> str:
    return "nobody asks"


async def test_a_key_that_is_no_text_is_told() -> None:
    """All who have none would share a limit, and nobody would know."""
    app = ResilientMiddleware(Service(), rate_limit=Keyed(TokenBucket(1, max_wait=0)), key=lambda _: None)  # type: ignore[arg-type,return-value]

    with pytest.raises(TypeError, match="key= gave None for a request: expected a str"):
        await get(app)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bulkhead": 100}, "bulkhead=100: expected a Bulkhead or an AdaptiveLimit"),
        ({"bulkhead": TokenBucket(1)}, "calls a second goes into rate_limit="),
        ({"rate_limit": Bulkhead(1)}, r"expected a limiter, TokenBucket\(10\) say .* goes into bulkhead="),
        ({"rate_limit": Keyed(Bulkhead(1)), "key": client_ip()}, "rate_limit=<Keyed: .* or a Keyed of one"),
        ({"rate_limit": Keyed(TokenBucket(1))}, r"rate_limit= is Keyed and needs key="),
        ({"rate_limit": TokenBucket(1), "key": client_ip()}, "has no effect"),
        ({"rate_limit": TokenBucket(1)}, "wait for their turn without end: give the limiter max_wait=0"),
        ({"rate_limit": Keyed(TokenBucket(1)), "key": client_ip}, r"key=<function client_ip .* call it, e.g. key=client_ip\(\)"),
        ({"rate_limit": Keyed(TokenBucket(1)), "key": "ip"}, "key='ip': expected a function that is not async"),
        ({"rate_limit": Keyed(TokenBucket(1)), "key": _awaited}, "key=<function _awaited .* not async"),
        ({"priority": 2}, "priority=2: expected a function that is not async"),
        ({"loop_lag": 0.1}, r"loop_lag=0.1: expected a LoopLag, .* e.g. LoopLag\(0.1\)"),
        ({"timeout": 0}, "timeout=0 is out of range"),
        ({"deadline_header": "Request-Timeout"}, "needs timeout=, the longest that a caller may ask for"),
    ],
)
def test_what_cannot_be_meant_is_told_at_construction(settings: dict[str, Any], message: str) -> None:
    """With the name, the value, and what to do."""
    with pytest.raises((TypeError, ValueError), match=message):
        ResilientMiddleware(Service(), **settings)
