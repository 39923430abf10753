"""Hedging over HTTP: which requests may be out twice, and that nothing is left of the leg that lost."""

import io
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from integrations.families import BACKENDS, LEFT_BELOW, POLICY, Family, failures, gates
from integrations.servers import Server, answer, hang_up, held, serve, stall
from integrations.servers_h2 import respond, say_nothing, serve_h2
from resilient import Bulkhead, CircuitBreaker, Hedge, Percentile, Retry, RetryBudget, current_attempt, record_timeline
from resilient.observe.events import HedgeFinished

pytestmark = BACKENDS

HEDGED = POLICY.replace(hedge=Hedge(0.02))
AT_ONCE = POLICY.replace(hedge=Hedge(0))


async def lines(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def release(server: Server, requests: int, seconds: float = 0.0) -> None:
    """Let the held answer go, so long after so many requests have arrived: long enough for a hedge, where there is one."""
    await server.until(requests=requests)
    await anyio.sleep(seconds)
    server.release.set()


class Again:
    """A body that can be read again and again, one after the other."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"again"


async def test_a_slow_response_is_doubled_and_the_loser_is_closed(family: Family) -> None:
    """The second request is answered, and the connection of the first one ends with it: nothing is left in the pool."""
    async with serve(stall(), answer(200, b"second")) as server, family.client(policy=HEDGED) as client:
        response = await client.get(server.url)
        await server.until(gone=1)

        assert (response.text, response.extensions["resilient.attempts"]) == ("second", 2)
        assert len(server.requests) == 2
        assert failures(client) == 0


async def test_a_fast_response_is_alone(family: Family) -> None:
    """One request, one connection, which is kept."""
    async with serve(answer(200)) as server, family.client(policy=POLICY.replace(hedge=Hedge(1))) as client:
        for _ in range(3):
            await client.get(server.url)

        assert (len(server.requests), server.connections) == (3, 1)


async def test_the_original_may_win(family: Family) -> None:
    """The hedge is closed then."""
    async with (
        serve(held(200, b"first"), stall()) as server,
        family.client(policy=HEDGED) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(release, server, 2)
        response = await client.get(server.url)
        await server.until(gone=1)

        assert response.text == "first"


@pytest.mark.parametrize("status", [503, 429])
async def test_a_failure_does_not_win_while_the_other_leg_lives(family: Family, status: int) -> None:
    """A 503 that comes first is thrown away."""
    async with (
        serve(held(200, b"first"), answer(status)) as server,
        family.client(policy=HEDGED) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(release, server, 2, 0.05)
        response = await client.get(server.url)

        assert (response.status_code, response.text) == (200, "first")


async def test_a_lost_connection_is_hedged_at_once(family: Family) -> None:
    """Without any wait, and with nothing of the retries used up."""
    policy = POLICY.replace(hedge=Hedge(60), retry=Retry(attempts=1))
    async with serve(hang_up(), answer(200, b"second")) as server, family.client(policy=policy) as client:
        response = await client.get(server.url)

        assert response.text == "second"


@pytest.mark.parametrize(
    ("method", "options", "sent"),
    [
        ("GET", {}, 2),
        ("HEAD", {}, 2),
        ("OPTIONS", {}, 2),
        ("PUT", {}, 1),
        ("DELETE", {}, 1),
        ("POST", {}, 1),
        ("POST", {"hedge": True}, 2),
        ("POST", {"idempotent": True}, 1),
        ("GET", {"hedge": False}, 1),
        ("GET", {"retry": False}, 1),
        ("GET", {"attempts": 1}, 1),
        ("GET", {"retry": False, "hedge": True}, 1),
    ],
)
async def test_only_safe_methods_are_hedged_or_what_the_request_says(
    family: Family, method: str, options: dict[str, Any], sent: int
) -> None:
    """To be idempotent is not enough: two that run at the same time are another matter than one after the other."""
    script = (stall(), answer(200)) if sent > 1 else (held(200), answer(200))
    async with serve(*script) as server, family.client(policy=HEDGED) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(release, server, 1, 0.05)
            await client.request(method, server.url, extensions={"resilient": options} if options else {})

        assert len(server.requests) == sent


BODIES: dict[str, tuple[Any, int]] = {
    "bytes": (lambda: {"content": b"body"}, 2),
    "json": (lambda: {"json": {"a": 1}}, 2),
    "form": (lambda: {"data": {"a": "1"}}, 2),
    "multipart of bytes": (lambda: {"files": {"file": ("name", b"content")}, "data": {"a": "1"}}, 2),
    "multipart of a file": (lambda: {"files": {"file": io.BytesIO(b"content")}}, 1),
    "iterator": (lambda: {"content": lines(b"one")}, 1),
    "async iterable": (lambda: {"content": Again()}, 1),
}


@pytest.mark.parametrize(("make", "sent"), BODIES.values(), ids=BODIES)
async def test_each_leg_has_a_body_of_its_own(family: Family, make: Any, sent: int) -> None:
    """A file has one place at which it is read: two legs would each send a part of it."""
    script = (stall(), answer(200)) if sent > 1 else (held(200), answer(200))
    async with serve(*script) as server, family.client(policy=HEDGED) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(release, server, 1, 0.05)
            await client.post(server.url, extensions={"resilient": {"hedge": True}}, **make())

        assert len(server.requests) == sent
        assert len(set(server.bodies)) == 1


async def test_a_body_that_was_spooled_can_be_hedged(family: Family) -> None:
    """It is bytes then."""
    async with serve(stall(), answer(200)) as server, family.client(policy=HEDGED, spool=100) as client:
        await client.post(server.url, content=lines(b"one", b"two"), extensions={"resilient": {"hedge": True}})

        assert server.bodies == [b"onetwo", b"onetwo"]


async def test_a_hedge_does_not_wait_for_a_permit(family: Family) -> None:
    """The bulkhead has one: the hedge is not sent, nobody is told of a rejection, and the call goes on."""
    policy = HEDGED.replace(bulkhead=Bulkhead(1, max_queue=5))
    async with serve(held(200)) as server, family.client(policy=policy) as client:
        with record_timeline() as timeline:
            async with anyio.create_task_group() as group:
                group.start_soon(release, server, 1, 0.05)
                await client.get(server.url)
        told = [(event.result, event.why) for event in timeline.events if isinstance(event, HedgeFinished)]

        assert told == [("suppressed", "bulkhead_full")]
        assert len(server.requests) == 1


async def test_a_hedge_has_a_request_of_its_own(family: Family) -> None:
    """A hook sees each leg; what it changes does not reach the other one."""
    seen: list[tuple[int, str, int]] = []

    def sign(request: Any, number: int) -> None:
        attempt = current_attempt()
        seen.append((number, attempt.kind, attempt.hedge))
        request.headers["x-leg"] = str(attempt.hedge)

    async with serve(stall(), answer(200)) as server, family.client(policy=HEDGED, before_attempt=sign) as client:
        await client.get(server.url)

        assert seen == [(1, "original", 0), (1, "hedge", 1)]
        assert [request.header("x-leg") for request in server.requests] == ["0", "1"]


def only_slow(request: Any) -> bool:
    return str(request.url.path) == "/slow"


async def test_a_predicate_of_the_hedge_is_told_the_request(family: Family) -> None:
    """It narrows down what may be hedged; it cannot widen it."""
    policy = POLICY.replace(hedge=Hedge(0.02, when=only_slow))
    async with serve(held(200)) as server, family.client(policy=policy) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(release, server, 2, 0.05)
            group.start_soon(client.get, server.url + "/other")
            group.start_soon(client.post, server.url + "/slow")

        assert len(server.requests) == 2


async def test_nothing_is_hedged_while_the_circuit_is_not_closed(family: Family) -> None:
    """A probe is one request."""
    policy = AT_ONCE.replace(circuit_breaker=CircuitBreaker(consecutive_failures=1, open_for=0.02), retry=None)
    async with serve(answer(503), answer(503), answer(200)) as server, family.client(policy=policy) as client:
        await client.get(server.url)
        sent = len(server.requests)
        await anyio.sleep(0.05)
        await client.get(server.url)

        assert len(server.requests) == sent + 1


@LEFT_BELOW
async def test_a_cancelled_request_ends_both_legs(family: Family) -> None:
    """Both connections are closed."""
    async with serve(stall()) as server, family.client(policy=HEDGED) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, server.url)
            await server.until(requests=2)
            group.cancel_scope.cancel()
        await server.until(gone=2)

        assert len(server.requests) == 2


async def test_both_answers_in_one_instant_leave_nothing_behind(family: Family) -> None:
    """Whoever comes second is read to its end, or closed. The client's check of the pool is the test."""
    async with serve(answer(200, b"x" * 1000)) as server, family.client(policy=AT_ONCE) as client:
        for _ in range(30):
            assert (await client.get(server.url)).text == "x" * 1000


async def test_a_streamed_response_keeps_its_permit_and_the_loser_does_not(family: Family) -> None:
    """The winner is in use until its body has ended."""
    policy = HEDGED.replace(bulkhead=Bulkhead(2))
    async with serve(stall(), answer(200, b"second")) as server, family.client(policy=policy) as client:
        async with client.stream("GET", server.url) as response:
            (bulkhead,) = [gate for gate in gates(client._transport) if isinstance(gate, Bulkhead)]
            active = bulkhead.statistics().active
            await response.aread()

        assert (active, bulkhead.statistics().active) == (1, 0)


async def test_a_hedge_and_a_retry_share_their_budget(family: Family) -> None:
    """One for each origin: what the hedge has used up, the retry does not get."""
    budget = RetryBudget(ratio=0, floor=1)
    policy = HEDGED.replace(retry=Retry(attempts=3, backoff=[0.0], budget=budget), hedge=Hedge(60, budget=budget))
    async with serve(answer(503)) as server, family.client(policy=policy) as client:
        response = await client.get(server.url)

        assert (response.status_code, len(server.requests)) == (503, 2)


async def test_live_latency_is_that_of_each_origin(family: Family) -> None:
    """Nothing is hedged before it is known."""
    policy = POLICY.replace(hedge=Hedge(percentile=Percentile(0.5), minimum=3))
    async with (
        serve(answer(), answer(), answer(), stall(), answer()) as known,
        serve(held()) as unknown,
        family.client(policy=policy) as client,
    ):
        for _ in range(4):
            await client.get(known.url)
        async with anyio.create_task_group() as group:
            group.start_soon(release, unknown, 1, 0.05)
            await client.get(unknown.url)

        assert len(known.requests) == 5
        assert len(unknown.requests) == 1


async def test_over_http2_both_legs_are_streams_of_one_connection(family: Family) -> None:
    """That helps against a slow answer, and not against a connection that hangs."""
    async with (
        serve_h2(say_nothing, respond(200, b"second")) as server,
        family.client(family.inner_h2(), policy=HEDGED) as client,
    ):
        response = await client.get(server.url)

        assert response.text == "second"
        assert server.connections == 1


async def test_a_hedge_that_says_what_a_failure_is_is_refused(family: Family) -> None:
    """Over HTTP that depends on what was sent."""
    with pytest.raises(TypeError, match="says by itself what a failure is"):
        family.resilient.ResilientTransport(family.inner(), policy=POLICY.replace(hedge=Hedge(1, on=OSError)))
