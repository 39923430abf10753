"""Limits of a server: what is refused, what the client hears, and the deadline that a handler knows."""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import grpc
import grpc.aio
import pytest

from integrations.grpc_scenes import BIDI, CLIENT, GRPC, SERVER, UNARY, UNAVAILABLE, Play, fail, hang, serving
from resilient import (
    AdaptiveLimit,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    Classifier,
    Fallback,
    Health,
    Hedge,
    Kind,
    Policy,
    Retry,
    TokenBucket,
    Verdict,
)
from resilient.context import time_left
from resilient_integrations.grpc import ServerLimits, resilient_channel

pytestmark = GRPC

Code = grpc.StatusCode


@asynccontextmanager
async def limited(play: Play, policy: Policy | None = None, **settings: Any) -> AsyncGenerator[tuple[Any, ServerLimits]]:
    """A plain channel to a server with limits."""
    limits = ServerLimits(policy, **settings)
    async with serving(play.handlers, limits=limits) as target, grpc.aio.insecure_channel(target) as channel:
        yield channel, limits


made_of: Any = grpc.unary_unary_rpc_method_handler


async def status_of(call: Any) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """How a unary call ended: its code, and its trailers."""
    return await call.code(), dict(list(await call.trailing_metadata()))


async def test_all_four_kinds_of_calls_pass_through() -> None:
    """Within the limits a server answers as it does without."""
    play = Play()
    play.script = [[b"1", b"2"]]
    async with limited(play, Policy(bulkhead=Bulkhead(1))) as (channel, _):
        play.script = [b"1"]
        assert await channel.unary_unary(UNARY)(b"question") == b"1"
        assert await channel.stream_unary(CLIENT)(iter([b"a"])) == b"1"
        play.script = [[b"1", b"2"]]
        assert [message async for message in channel.unary_stream(SERVER)(b"question")] == [b"1", b"2"]
        assert [message async for message in channel.stream_stream(BIDI)(iter([b"a"]))] == [b"a", b"1", b"2"]


async def test_a_full_bulkhead_refuses_before_the_handler_runs() -> None:
    """RESOURCE_EXHAUSTED, without a pushback: nobody knows when a permit comes free. A stream holds its permit to its end."""
    play, go = Play(), asyncio.Event()

    async def last(_request: object, _context: object) -> bytes:
        await go.wait()
        return b"2"

    play.script = [[b"1", last], b"answer"]
    async with limited(play, Policy(bulkhead=Bulkhead(1))) as (channel, _):
        stream: Any = channel.unary_stream(SERVER)(b"question")
        await stream.read()
        refused = channel.unary_unary(UNARY)(b"question")

        assert await status_of(refused) == (Code.RESOURCE_EXHAUSTED, {})
        assert await refused.details() == "the call was refused: bulkhead_full"
        assert len(play.calls) == 1
        go.set()
        assert await stream.read() == b"2"
        assert not isinstance(await stream.read(), bytes)
        assert await channel.unary_unary(UNARY)(b"question") == b"answer"


async def test_a_rate_limit_tells_when_to_come_back() -> None:
    """The pushback is in the trailers, in whole milliseconds, rounded up; our own client waits for it."""
    play = Play()
    async with limited(play, Policy(rate_limit=TokenBucket(1, per=60, max_wait=0))) as (channel, limits):
        await channel.unary_unary(UNARY)(b"question")
        code, trailers = await status_of(channel.unary_unary(UNARY)(b"question"))

        assert code is Code.RESOURCE_EXHAUSTED
        assert 0 < int(trailers["grpc-retry-pushback-ms"]) <= 60_000
        assert limits.pipeline.key is None
    play = Play()
    limits = ServerLimits(Policy(rate_limit=TokenBucket(1, per=0.05, max_wait=0)))
    async with serving(play.handlers, limits=limits) as target, resilient_channel(target) as client:
        for _ in range(2):
            assert await client.unary_unary(UNARY)(b"question", timeout=4.0) == b"answer"


def by_caller(_method: str, context: Any) -> str:
    return str(dict(list(context.invocation_metadata()))["who"])


@pytest.mark.parametrize(
    ("key", "refused"),
    [
        ("method", [False, False, True]),
        ("service", [False, True, True]),
        (by_caller, [False, True, False]),
    ],
    ids=["method", "service", "caller"],
)
async def test_the_key_says_who_shares_a_limit(key: Any, refused: list[bool]) -> None:
    """A method, a service, or whom your function names."""
    play, heard = Play(), list[int]()
    async with limited(play, Policy(rate_limit=TokenBucket(1, per=60, max_wait=0)), key=key) as (channel, _):
        # The handlers tell: one that is refused while it still writes its stream may see another status than the server's.
        await channel.unary_unary(UNARY)(b"question", metadata=(("who", "me"),)).code()
        heard.append(len(play.calls))
        await channel.stream_unary(CLIENT)(iter([b"a"]), metadata=(("who", "me"),)).code()
        heard.append(len(play.calls))
        await channel.unary_unary(UNARY)(b"question", metadata=(("who", "you"),)).code()
        heard.append(len(play.calls))

        assert [after == before for before, after in itertools.pairwise([0, *heard])] == refused


async def test_a_breaker_learns_from_the_status_of_handlers() -> None:
    """What a handler sets, aborts with or raises; a NOT_FOUND is an answer."""
    play = Play()

    async def raising(_request: object, _context: object) -> bytes:
        raise LookupError

    async def setting(_request: object, context: Any) -> bytes:
        context.set_code(Code.INTERNAL.value[0])
        return b""

    for step, expected in (
        (fail(Code.NOT_FOUND), Code.NOT_FOUND),
        (raising, Code.UNAVAILABLE),
        (setting, Code.UNAVAILABLE),
        (UNAVAILABLE, Code.UNAVAILABLE),
    ):
        play.script = [step]
        async with limited(play, Policy(circuit_breaker=CircuitBreaker(consecutive_failures=1))) as (channel, _):
            await channel.unary_unary(UNARY)(b"question").code()
            code, trailers = await status_of(channel.unary_unary(UNARY)(b"question"))

            assert code is expected
            assert ("grpc-retry-pushback-ms" in trailers) is (expected is Code.UNAVAILABLE)


async def test_a_word_of_ones_own_goes_before_the_status() -> None:
    """A classifier may know better what an exception means."""
    play = Play()
    play.script = [UNAVAILABLE]
    own = Classifier(lambda _: Verdict(Kind.PERMANENT, Health.HEALTHY, "meant_so"))
    async with limited(play, Policy(circuit_breaker=CircuitBreaker(consecutive_failures=1)), classifier=own) as (channel, _):
        for _ in range(2):
            await channel.unary_unary(UNARY)(b"question").code()

        assert len(play.calls) == 2


async def test_a_handler_knows_the_deadline_of_the_client() -> None:
    """What waits inside gives up in time, and a resilient channel sends the rest on."""
    behind, left = Play(), list[float]()

    async with serving(behind.handlers) as target, resilient_channel(target) as channel:
        play = Play()

        async def asks(_request: object, _context: object) -> bytes:
            left.append(time_left())
            answer: bytes = await channel.unary_unary(UNARY)(b"onwards")
            return answer

        play.script = [asks]
        async with limited(play) as (client, _):
            assert await client.unary_unary(UNARY)(b"question", timeout=3.0) == b"answer"
            assert await client.unary_unary(UNARY)(b"question") == b"answer"

    assert [2.0 < seconds <= 3.1 for seconds in left] == [True, False]
    assert 2.0 < (behind.left[0] or 0.0) <= 3.1


async def test_a_handler_that_takes_too_long_is_cut_off() -> None:
    """By the server's own limit: the client hears of it, also where what the handler awaits replaces the cancellation."""
    behind = Play()
    behind.script = [hang]
    async with serving(behind.handlers) as target, grpc.aio.insecure_channel(target) as below:
        play, method = Play(), cast("Any", below).unary_unary(UNARY)

        async def asks(_request: object, _context: object) -> bytes:
            answer: bytes = await method(b"onwards")
            return answer

        for step in (hang, asks):
            play.script = [step]
            async with limited(play, Policy(timeout=0.05)) as (client, _):
                call = client.unary_unary(UNARY)(b"question", timeout=3.0)

                assert await call.code() is Code.DEADLINE_EXCEEDED
                assert await call.details() == "the deadline has passed"


async def test_a_call_that_comes_too_late_is_not_run() -> None:
    """Its client has given up already: the work would be for nothing."""

    class Late:
        def __init__(self) -> None:
            self.aborted: list[grpc.StatusCode] = []

        def time_remaining(self) -> float:
            return 0.0

        async def abort(self, code: grpc.StatusCode, _details: str) -> None:
            self.aborted.append(code)

    async def handler(_request: object, _context: object) -> None:
        raise AssertionError

    async def found(_details: object) -> object:
        return made_of(handler)

    class Details:
        method = UNARY

    context = Late()
    made = await ServerLimits().intercept_service(found, Details())
    await made.unary_unary(b"", context)

    assert context.aborted == [Code.DEADLINE_EXCEEDED]


async def test_a_client_that_goes_away_cancels_the_handler() -> None:
    """The permit is back, and the next one is served."""
    play = Play()
    play.script = [hang, b"answer"]
    async with limited(play, Policy(bulkhead=Bulkhead(1))) as (channel, _):
        call = channel.unary_unary(UNARY)(b"question")
        await play.started.wait()
        call.cancel()
        await play.cancelled.wait()
        with anyio.fail_after(2):
            while await channel.unary_unary(UNARY)(b"question").code() is not Code.OK:
                pass

        assert len(play.calls) == 2


async def test_a_refusal_of_what_a_handler_calls_is_not_that_of_the_server() -> None:
    """It surfaces from the handler as any exception does."""
    play, inner = Play(), Bulkhead(1)

    async def full(_request: object, _context: object) -> bytes:
        async with inner, inner:
            return b"never"

    play.script = [full]
    async with limited(play, Policy(bulkhead=Bulkhead(1))) as (channel, _):
        assert await channel.unary_unary(UNARY)(b"question").code() is Code.UNKNOWN


async def test_health_checks_and_unknown_methods_are_not_limited() -> None:
    """A server that is busy is not dead; what nobody serves costs nothing."""
    play = Play()
    handlers = grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(play.unary)}
    )
    limits = ServerLimits(Policy(rate_limit=TokenBucket(1, per=60, max_wait=0)))
    async with serving(play.handlers, handlers, limits=limits) as target, grpc.aio.insecure_channel(target) as plain:
        channel: Any = plain
        await channel.unary_unary(UNARY)(b"question")

        assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"answer"
        assert await channel.unary_unary("/test.Service/Nothing")(b"").code() is Code.UNIMPLEMENTED
        assert await channel.unary_unary(UNARY)(b"question").code() is Code.RESOURCE_EXHAUSTED


async def test_a_handler_that_is_not_async_is_left_alone_with_a_warning() -> None:
    """It runs in a thread. The warning comes once."""

    def sync(_request: object, _context: object) -> bytes:
        raise AssertionError

    async def found(_details: object) -> object:
        return made_of(sync)

    class Details:
        method = UNARY

    limits = ServerLimits()
    with pytest.warns(UserWarning, match="no async function"):
        handler = await limits.intercept_service(found, Details())

    assert handler.unary_unary is sync
    assert (await limits.intercept_service(found, Details())).unary_unary is sync


async def test_chaos_plays_a_server_in_trouble() -> None:
    """A fault takes the place of the handler."""
    play = Play()
    async with limited(play, Policy(chaos=Chaos(fault=LookupError, fault_rate=1.0, enabled=True), bulkhead=AdaptiveLimit())) as (
        channel,
        _,
    ):
        assert await channel.unary_unary(UNARY)(b"question").code() is Code.UNKNOWN
        assert play.calls == []


@pytest.mark.parametrize(
    "policy",
    [
        Policy(retry=Retry(on=OSError)),
        Policy(hedge=Hedge(1.0)),
        Policy(fallback=Fallback(None)),
        Policy(attempt_timeout=1.0),
    ],
    ids=["retry", "hedge", "fallback", "attempt_timeout"],
)
async def test_what_is_for_clients_is_refused(policy: Policy) -> None:
    """A server runs what it is sent once."""
    with pytest.raises(TypeError, match="is for clients"):
        ServerLimits(policy)


async def test_settings_are_checked() -> None:
    """What is no policy and no key is said at once."""
    with pytest.raises(TypeError, match="expected a Policy"):
        ServerLimits("strict")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="expected 'method', 'service'"):
        ServerLimits(key="client")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
