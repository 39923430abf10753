"""`/livez` and `/readyz`."""

from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from integrations.asgi_client import Service, get
from resilient import (
    AdaptiveLimit,
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Keyed,
    Pipeline,
    Policy,
    Resilience,
    Retry,
    Throttle,
    TokenBucket,
    UnlimitedBudget,
)
from resilient_integrations.asgi import HealthEndpoints, LoopLag, ResilientMiddleware
from resilient_integrations.cache import ResilientCache
from resilient_integrations.httpx import ResilientTransport

pytestmark = pytest.mark.anyio


async def test_an_open_breaker_is_degraded_and_not_unready() -> None:
    """A process that is taken out of service for its dependency helps nobody."""
    users, payments = CircuitBreaker(), CircuitBreaker(initial="isolated")
    app = HealthEndpoints(Service(), parts={"users": users, "payments": payments})
    live, ready = await get(app, "/livez"), await get(app, "/readyz")

    assert (live.status, live.json) == (200, {"status": "ok"})
    assert (ready.status, ready.json["status"], ready.json["ready"]) == (200, "degraded", True)
    assert ready.json["parts"]["users"]["status"] == "ok"
    assert ready.json["parts"]["payments"]["status"] == "degraded"
    assert ready.json["parts"]["payments"]["state"] == "isolated"
    assert ready.json["parts"]["payments"]["open_remaining"] is None  # JSON has no infinity
    assert ready.fields["cache-control"] == "no-store"

    payments.close()

    assert (await get(app, "/readyz")).json["status"] == "ok"


def _open_breaker() -> CircuitBreaker:
    breaker = CircuitBreaker(consecutive_failures=1, open_for=1)
    breaker.acquire_nowait().settle(ValueError())
    return breaker


def _empty_bucket() -> TokenBucket:
    bucket = TokenBucket(1, max_wait=0)
    bucket.acquire_nowait()
    return bucket


def _full_bulkhead() -> Bulkhead:
    bulkhead = Bulkhead(1)
    bulkhead.acquire_nowait()
    return bulkhead


def _busy_bulkhead() -> Bulkhead:
    bulkhead = Bulkhead(1, max_queue=1)
    bulkhead.acquire_nowait()
    return bulkhead


def _full_limit() -> AdaptiveLimit:
    limit = AdaptiveLimit(1)
    limit.acquire_nowait()
    return limit


def _refusing_throttle() -> Throttle:
    throttle = Throttle(minimum_calls=1)
    throttle.acquire_nowait().settle(ValueError())
    return throttle


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (CircuitBreaker, "ok"),
        (_open_breaker, "degraded"),
        (_empty_bucket, "degraded"),
        (lambda: TokenBucket(1), "ok"),
        (lambda: Bulkhead(1), "ok"),
        (_busy_bulkhead, "ok"),
        (_full_bulkhead, "full"),
        (_full_limit, "full"),
        (Throttle, "ok"),
        (_refusing_throttle, "degraded"),
        (LoopLag, "ok"),
        (UnlimitedBudget, "ok"),
    ],
)
async def test_each_part_says_how_it_is(make: Callable[[], Any], status: str) -> None:
    """And what it is. As a part it never makes the process unready; what the process has no room in does."""
    part = make()
    as_part = await get(HealthEndpoints(Service(), parts={"it": part}), "/readyz")
    as_capacity = await get(HealthEndpoints(Service(), capacity={"it": part}), "/readyz")

    assert as_part.status == 200
    assert as_part.json["parts"]["it"]["status"] == status
    assert as_part.json["parts"]["it"]["kind"] == type(part).__name__
    assert as_part.json["status"] == ("ok" if status == "ok" else "degraded")
    assert as_capacity.status == (503 if status == "full" else 200)


async def test_a_breaker_that_is_half_open_is_degraded() -> None:
    """It is not known yet whether all is well."""
    breaker = _open_breaker()
    await anyio.sleep(1)
    breaker.acquire_nowait()
    answer = await get(HealthEndpoints(Service(), parts={"it": breaker}), "/readyz")

    assert (answer.json["status"], answer.json["parts"]["it"]["state"]) == ("degraded", "half_open")


async def test_a_busy_event_loop_is_no_room() -> None:
    """The process is not ready until it has caught up."""
    lag = LoopLag(0.1)
    app = HealthEndpoints(Service(), capacity={"loop": lag})
    await lag.measure()
    lag.hear(2.0, 1.0)

    assert (await get(app, "/readyz")).status == 503

    await anyio.sleep(5)

    assert (await get(app, "/readyz")).status == 200


async def test_keys_are_counted_and_not_named() -> None:
    """They may be addresses of clients."""
    limits = Keyed(TokenBucket(1, max_wait=0))
    limits["192.0.2.7"].acquire_nowait()
    limits["192.0.2.8"].statistics()
    answer = await get(HealthEndpoints(Service(), parts={"clients": limits}), "/readyz")

    assert answer.json["parts"] == {"clients": {"status": "degraded", "keys": 2, "degraded": 1, "full": 0}}
    assert b"192" not in answer.body


async def test_who_starts_or_stops_is_not_ready_but_lives() -> None:
    """The function is asked each time."""
    ready = False
    app = HealthEndpoints(Service(), ready=lambda: ready)
    before = await get(app, "/readyz")
    live = await get(app, "/livez")
    ready = True

    assert (before.status, before.json["status"], before.json["ready"]) == (503, "unready", False)
    assert live.status == 200
    assert (await get(app, "/readyz")).status == 200


async def test_health_is_told_when_the_house_is_full() -> None:
    """It stands outside of the limits; and everything else goes to the application."""
    bulkhead = Bulkhead(1)
    service = Service()
    app = HealthEndpoints(ResilientMiddleware(service, bulkhead=bulkhead), capacity={"requests": bulkhead}, live_path="/up")
    with bulkhead.acquire_nowait():
        up, ready, other = await get(app, "/up"), await get(app, "/readyz"), await get(app, "/users")

    assert (up.status, ready.status, other.status) == (200, 503, 503)
    assert service.calls == 0

    assert (await get(app, "/livez")).body == b"ok"
    assert (await get(app, "/up", method="POST")).body == b"ok"
    assert service.calls == 2


async def test_a_question_by_head_is_answered_without_a_body() -> None:
    """As some who ask do it."""
    answer = await get(HealthEndpoints(Service()), "/livez", method="HEAD")

    assert (answer.status, answer.body) == (200, b"")


def _called_often() -> Pipeline:
    """Of 30 services, of which the last one is down."""
    pipeline = Pipeline(Retry(on=OSError), CircuitBreaker(), Bulkhead(2), key=str)
    assert pipeline.siblings is not None
    breakers = [pipeline.siblings[f"service-{number:02}"][0] for number in range(30)]
    assert isinstance(breakers[-1], CircuitBreaker)
    breakers[-1].isolate()
    return pipeline


async def test_of_many_parts_the_first_ones_are_told_and_first_of_all_those_that_are_not_well() -> None:
    """However many services are called, the answer stays short, and who asks sees what is wrong."""
    answer = await get(HealthEndpoints(Service(), parts={"services": _called_often()}), "/readyz")
    told = answer.json["parts"]["services"]

    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert {name: told[name] for name in ("status", "keys", "degraded", "full")} == {
        "status": "degraded",
        "keys": 30,
        "degraded": 1,
        "full": 0,
    }
    assert [(part["key"], part["name"], part["status"]) for part in told["parts"][:3]] == [
        ("service-29", "circuit_breaker", "degraded"),
        ("service-00", "circuit_breaker", "ok"),
        ("service-00", "bulkhead", "ok"),
    ]
    assert (told["parts"][0]["kind"], told["parts"][0]["state"]) == ("CircuitBreaker", "isolated")
    assert len(told["parts"]) == 20


@pytest.mark.parametrize("kind", ["transport", "executor", "pipeline", "cache"])
async def test_what_calls_go_through_is_given_as_it_is(kind: str) -> None:
    """A transport, an executor, a pipeline, a cache: all that is inside is told."""
    policy = Policy(circuit_breaker=CircuitBreaker(initial="isolated"), bulkhead=Bulkhead(1))
    resilience = Resilience(policies={"users": policy})
    transport = ResilientTransport(httpx.MockTransport(lambda _: httpx.Response(200)), policy=policy)
    things = {
        "transport": transport,
        "executor": resilience,
        "pipeline": policy.pipeline(),
        "cache": ResilientCache(breaker=CircuitBreaker(initial="isolated"), origin=Bulkhead(1)),
    }
    keys = {"transport": "https://users:443", "executor": "users"}
    with pytest.raises(CircuitOpen):
        await resilience.call("users", anyio.sleep, 0)
    async with httpx.AsyncClient(transport=transport) as client:
        with pytest.raises(CircuitOpen):
            await client.get("https://users/")
        answer = await get(HealthEndpoints(Service(), parts={"it": things[kind]}), "/readyz")
    told = answer.json["parts"]["it"]

    assert (answer.status, told["status"], told["degraded"]) == (200, "degraded", 1)
    assert [(part.get("key"), part["kind"], part["status"]) for part in told["parts"]] == [
        (keys.get(kind), "CircuitBreaker", "degraded"),
        (keys.get(kind), "Bulkhead", "ok"),
    ]


async def test_a_part_that_cannot_be_read_does_not_make_the_process_unready() -> None:
    """It is shown as such, and hides no other."""

    class Broken:
        def statistics(self) -> None:
            raise ZeroDivisionError

    answer = await get(HealthEndpoints(Service(), parts={"broken": Broken(), "users": Bulkhead(1)}), "/readyz")

    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert answer.json["parts"]["broken"] == {"status": "unknown", "error": "ZeroDivisionError"}
    assert answer.json["parts"]["users"]["status"] == "ok"


def test_what_has_no_state_to_show_is_refused() -> None:
    """At construction, by its name."""

    async def ready() -> bool:
        return True

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"parts": {"users": "breaker"}}, r"parts\['users'\]: 'breaker' has no statistics: pass a strategy, a Keyed, a Pipeline"),
        ({"parts": {"users": CircuitBreaker}}, r"parts\['users'\]: .* is a class and has no state: pass an instance"),
        ({"capacity": [Bulkhead(1)]}, r"capacity=\[.*\]: expected a mapping from names"),
        ({"ready": True}, "ready=True: expected a function that is not async"),
        ({"ready": ready}, "ready=<function .*: expected a function that is not async"),
    ]
    for settings, message in wrong:
        with pytest.raises(TypeError, match=message):
            HealthEndpoints(Service(), **settings)
