"""Calls with one message each way: what is tried again, when, and what surfaces."""

import asyncio
import time
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest

from integrations.grpc_scenes import (
    AT_ONCE,
    GRPC,
    POLICY,
    UNARY,
    UNAVAILABLE,
    Play,
    fail,
    hang,
    playing,
    pushback,
    serving,
    started,
)
from resilient import (
    Bulkhead,
    Chaos,
    CircuitBreaker,
    Classifier,
    CountWindow,
    DeadlineExceeded,
    Fallback,
    Health,
    Hedge,
    Kind,
    Policy,
    Retry,
    Timeout,
    TimeoutExceeded,
    Verdict,
    deadline,
    listening,
    record_timeline,
    timeline_of,
)
from resilient.observe.events import RetryScheduled, TimedOut
from resilient_integrations.grpc import interceptors, resilient_channel

pytestmark = GRPC

Code = grpc.StatusCode


def is_unary(path: str) -> bool:
    return path == UNARY


def by_length(path: str) -> str:
    return f"{len(path)} characters"


async def test_a_call_is_answered() -> None:
    """A call that succeeds is made once, and has the metadata and the status of grpc."""
    play = Play()
    async with playing(play) as channel:
        call = channel.unary_unary(UNARY)(b"question", metadata=(("who", "me"),))

        assert await call == b"answer"
        assert await call.code() is Code.OK
        assert play.calls == [(UNARY, b"question")]
        assert ("who", "me") in play.metadata[0]


async def test_a_failure_that_may_pass_is_tried_again() -> None:
    """The caller gets the answer of the attempt that succeeds; the timeline has all three."""
    play = Play()
    play.script = [UNAVAILABLE, UNAVAILABLE, b"answer"]
    async with playing(play) as channel:
        with record_timeline() as timeline:
            call = channel.unary_unary(UNARY)(b"question")

            assert await call == b"answer"
        assert await call.code() is Code.OK
        assert [event.verdict.reason for event in timeline.attempts] == ["grpc_unavailable"] * 2 + ["success"]


async def test_the_error_of_grpc_surfaces_with_a_note() -> None:
    """After the last attempt it is the error of that attempt, with its details, and the record of all of them."""
    play = Play()
    play.script = [UNAVAILABLE, UNAVAILABLE, fail(Code.UNAVAILABLE, (("last", "yes"),))]
    async with playing(play) as channel:
        call = channel.unary_unary(UNARY)(b"question")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call

        assert type(caught.value) is grpc.aio.AioRpcError
        assert ("last", "yes") in list(caught.value.trailing_metadata())
        assert "3 attempts" in caught.value.__notes__[0]
        assert len(timeline_of(caught.value).attempts) == 3  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
        assert await call.code() is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("script", "settings", "calls"),
    [
        ([fail(Code.INVALID_ARGUMENT)], {}, 1),
        ([fail(Code.INTERNAL)], {}, 1),
        ([fail(Code.ABORTED)], {}, 1),
        ([fail(Code.ABORTED)], {"retry_codes": [Code.ABORTED]}, 3),
        ([fail(Code.RESOURCE_EXHAUSTED)], {}, 1),
        ([pushback(0, Code.RESOURCE_EXHAUSTED)], {}, 3),
        ([pushback(-1)], {}, 1),
        ([pushback("soon")], {}, 1),
        ([UNAVAILABLE], {"idempotent": {UNARY}}, 3),
        ([UNAVAILABLE], {"idempotent": ()}, 1),
        ([pushback(0)], {"idempotent": ()}, 3),
    ],
    ids=[
        "invalid",
        "internal",
        "aborted",
        "aborted-wanted",
        "exhausted",
        "exhausted-pushback",
        "forbidden",
        "unreadable",
        "idempotent",
        "not-idempotent",
        "not-idempotent-asked-for",
    ],
)
async def test_the_status_says_what_is_tried_again(script: list[object], settings: dict[str, Any], calls: int) -> None:
    """By the code, what the server asks for, and whether the method may be run twice."""
    play = Play()
    play.script = script
    async with playing(play, **settings) as channel:
        with pytest.raises(grpc.RpcError):
            await channel.unary_unary(UNARY)(b"question")

        assert len(play.calls) == calls


async def test_the_pushback_of_the_server_is_waited_for() -> None:
    """The wait is the server's, and not shorter."""
    play = Play()
    play.script = [pushback(20), b"answer"]
    heard: list[object] = []
    async with playing(play) as channel:
        began = time.monotonic()
        with listening(heard.append):
            await channel.unary_unary(UNARY)(b"question")

        assert time.monotonic() - began >= 0.02
        assert [event.delay_source for event in heard if isinstance(event, RetryScheduled)] == ["server"]


class Below(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor below the resilient ones, which signs each attempt, and notes the time that each was given."""

    def __init__(self) -> None:
        self.timeouts: list[float] = []

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.timeouts.append(client_call_details.timeout)
        client_call_details.metadata.add("signature", "x")
        return await continuation(client_call_details, request)


async def test_an_attempt_gets_the_time_that_is_left() -> None:
    """The deadline does not begin anew with each attempt."""
    play, below = Play(), Below()
    play.script = [pushback(30), b"answer"]
    async with playing(play, interceptors=[below]) as channel:
        await channel.unary_unary(UNARY)(b"question", timeout=3.0)

        first, second = below.timeouts
        assert 2.0 < second <= first - 0.03 < 3.0
        assert all(0.0 < (left or 0.0) <= 3.0 for left in play.left)


async def test_a_wait_that_does_not_fit_into_the_timeout_is_not_begun() -> None:
    """The error at hand surfaces at once."""
    play = Play()
    play.script = [pushback(60_000)]
    async with playing(play) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY)(b"question", timeout=4.0)

        assert caught.value.code() is Code.UNAVAILABLE


async def test_the_deadline_of_a_block_goes_to_the_server() -> None:
    """A channel asks where the call is made how much time is left: grpc would not know."""
    play, below = Play(), Below()
    async with playing(play, interceptors=[below]) as channel:
        with deadline(2.0):
            for timeout in (None, 1.0, 60.0):
                await channel.unary_unary(UNARY)(b"question", timeout=timeout)

        assert [1.5 < timeout < 2.0 for timeout in below.timeouts] == [True, False, True]


async def test_a_call_without_time_is_not_sent() -> None:
    """It is refused as what it is, for grpc and for us."""
    play = Play()
    async with playing(play) as channel:
        with pytest.raises(DeadlineExceeded) as caught:
            await channel.unary_unary(UNARY)(b"question", timeout=0.0)

        assert isinstance(caught.value, grpc.aio.AioRpcError)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        assert play.calls == []


async def test_an_attempt_that_takes_too_long_is_tried_again_where_that_does_no_harm() -> None:
    """The limit of an attempt is a deadline that the server hears; `on_timeout` and listeners hear of it, too."""
    play, heard = Play(), list[object]()
    play.script = [hang, b"answer"]
    policy = POLICY.replace(attempt_timeout=0.2)
    async with playing(play, policy, idempotent=is_unary) as channel:
        await channel.channel_ready()  # to connect is not what takes too long
        with listening(heard.append):
            assert await channel.unary_unary(UNARY)(b"question") == b"answer"

        assert (play.left[0] or 1.0) <= 0.202  # grpc rounds up to milliseconds, twice
        assert [event.seconds for event in heard if isinstance(event, TimedOut)] == [0.2]


async def test_the_limit_of_a_policy_for_the_whole_call_is_told() -> None:
    """It ends in the status of grpc, and `on_timeout` is called."""
    play, told = Play(), list[str]()
    play.script = [hang]
    async with playing(play, POLICY.replace(timeout=Timeout(lambda: 0.05, on_timeout=lambda: told.append("cut")))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY)(b"question", timeout=10)

        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        assert told == ["cut"]
        assert len(play.calls) == 1


async def test_a_scope_of_anyio_ends_a_call_as_it_ends_any_other() -> None:
    """`fail_after` raises its TimeoutError: grpc.aio by itself would let a CancelledError escape."""
    play = Play()
    play.script = [hang]
    async with playing(play) as channel:
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            await channel.unary_unary(UNARY)(b"question")


async def test_a_scope_ends_a_call_of_bare_interceptors_as_well() -> None:
    """Where the deadline goes unseen, the cancellation is still that of the scope."""
    play = Play()
    play.script = [hang]
    async with (
        serving(play.handlers) as target,
        grpc.aio.insecure_channel(target, interceptors=[*interceptors(policy=POLICY)]) as plain,
    ):
        channel: Any = plain
        with pytest.raises(DeadlineExceeded), deadline(0.05):
            await channel.unary_unary(UNARY)(b"question")

        assert play.left == [None]


async def test_a_cancelled_call_is_neither_tried_again_nor_counted() -> None:
    """The server hears of it, the permit is back, the breaker has learned nothing."""
    play = Play()
    play.script = [hang]
    policy = POLICY.replace(circuit_breaker=CircuitBreaker(window=CountWindow(10), minimum_calls=1))
    async with playing(play, policy) as channel:
        call = channel.unary_unary(UNARY)(b"question")
        task = asyncio.ensure_future(call)
        await play.started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await play.cancelled.wait()

        assert call.cancelled()
        assert len(play.calls) == 1
        breaker = next(gate for gate in channel.pipeline.siblings["test.Service.Unary"] if isinstance(gate, CircuitBreaker))  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
        assert breaker.statistics().total_failures == 0


async def test_a_refusal_is_an_error_of_grpc_and_of_ours() -> None:
    """A full bulkhead: `except grpc.RpcError` and `call.code()` go on working, and the timeline is there."""
    play = Play()
    play.script = [hang]
    async with playing(play, POLICY.replace(bulkhead=Bulkhead(1))) as channel:
        method = channel.unary_unary(UNARY)
        first = asyncio.ensure_future(method(b"first"))
        await play.started.wait()
        second = method(b"second")
        with pytest.raises(grpc.RpcError) as caught:
            await second
        first.cancel()

        assert await second.code() is Code.RESOURCE_EXHAUSTED
        assert await second.details() == str(caught.value)
        assert "test.Service.Unary" in str(caught.value)
        assert timeline_of(caught.value) is not None


async def test_an_open_breaker_stops_one_method_or_the_service() -> None:
    """The key says what has a breaker of its own."""
    other = "/test.Service/Other"
    breaker = CircuitBreaker(consecutive_failures=1)
    for key, expected in (("method", Code.UNIMPLEMENTED), ("service", Code.UNAVAILABLE), (len, Code.UNAVAILABLE)):
        play = Play()
        play.script = [UNAVAILABLE]
        policy = Policy(circuit_breaker=breaker)
        choose = by_length if key is len else key
        async with playing(play, policy, key=choose) as channel:
            with pytest.raises(grpc.RpcError):
                await channel.unary_unary(UNARY)(b"question")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(other)(b"question")

            assert caught.value.code() is expected


async def test_a_slow_call_is_hedged_where_its_method_may_run_twice() -> None:
    """The answer of the hedge wins, the other attempt is cancelled."""
    play = Play()
    play.script = [hang, b"answer"]
    policy = POLICY.replace(hedge=Hedge(0.02, when=is_unary))
    async with playing(play, policy, idempotent=[UNARY]) as channel:
        assert await channel.unary_unary(UNARY)(b"question") == b"answer"

        await play.cancelled.wait()
        assert len(play.calls) == 2


async def test_a_slow_call_is_not_hedged_where_nobody_said_so() -> None:
    """Two at the same time need your word."""
    play, go = Play(), asyncio.Event()

    async def slow(_request: object, _context: object) -> bytes:
        await go.wait()
        return b"slow"

    play.script = [slow]
    async with playing(play, POLICY.replace(hedge=Hedge(0.0))) as channel:
        call = asyncio.ensure_future(channel.unary_unary(UNARY)(b"question"))
        await play.started.wait()
        go.set()

        assert await call == b"slow"
        assert len(play.calls) == 1


async def test_a_word_of_ones_own_goes_before_the_table() -> None:
    """A classifier of exceptions may know better."""
    play = Play()
    play.script = [fail(Code.NOT_FOUND), b"answer"]
    own = Classifier(lambda _: Verdict(Kind.RETRYABLE, Health.HEALTHY, "not_there_yet"))
    async with playing(play, classifier=own) as channel:
        assert await channel.unary_unary(UNARY)(b"question") == b"answer"


async def test_a_fallback_takes_the_place_of_the_answer() -> None:
    """Its value is the response; the status of the call is OK."""
    play = Play()
    play.script = [UNAVAILABLE]
    async with playing(play, POLICY.replace(fallback=Fallback(b"instead"))) as channel:
        call = channel.unary_unary(UNARY)(b"question")

        assert await call == b"instead"
        assert await call.code() is Code.OK


async def test_chaos_is_judged_as_if_it_were_real() -> None:
    """Faults of grpc are retried by their status, and latency is cut by the limit of an attempt."""
    play = Play()
    unavailable = grpc.aio.AioRpcError(Code.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
    faults = Policy(
        retry=Retry(attempts=2, backoff=AT_ONCE), chaos=Chaos(fault=lambda _: unavailable, fault_rate=1.0, enabled=True)
    )
    async with playing(play, faults) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(UNARY)(b"question")

        assert caught.value is unavailable
    latency = Policy(attempt_timeout=0.02, chaos=Chaos(latency=30.0, latency_rate=1.0, enabled=True))
    async with playing(play, latency) as channel:
        with pytest.raises(TimeoutExceeded) as late:
            await channel.unary_unary(UNARY)(b"question")

        assert isinstance(late.value, grpc.RpcError)
    assert play.calls == []


async def test_an_interceptor_below_sees_each_attempt_with_metadata_of_its_own() -> None:
    """What it adds is not there twice in the second attempt."""
    play = Play()
    play.script = [UNAVAILABLE, b"answer"]
    async with playing(play, interceptors=[Below()]) as channel:
        await channel.unary_unary(UNARY)(b"question", metadata=(("a", "b"),), timeout=3.0)

    assert [sum(name == "signature" for name, _ in metadata) for metadata in play.metadata] == [1, 1]


async def test_a_server_that_is_killed_is_called_again_when_it_is_back() -> None:
    """A call in flight is lost with its server, and answered by the next one on the same port."""
    first, second = Play(), Play()
    first.script = [hang]
    fast = [
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.min_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 20),
    ]
    server, target = await started(first.handlers)
    channel = resilient_channel(target, options=fast, policy=POLICY)
    call = channel.unary_unary(UNARY)(b"question", wait_for_ready=True, timeout=4.0)
    await first.started.wait()
    await server.stop(None)
    async with serving(second.handlers, address=target), channel:
        assert await call == b"answer"
        assert (len(first.calls), len(second.calls)) == (1, 1)
