"""Calls that stream: what is tried again before the first message, what is never, and when permits come back."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import grpc
import grpc.aio
import pytest

from integrations.grpc_scenes import (
    BIDI,
    CLIENT,
    GRPC,
    POLICY,
    SERVER,
    UNAVAILABLE,
    Play,
    hang,
    nothing_is_held,
    playing,
    serving,
)
from resilient import (
    Bulkhead,
    BulkheadFull,
    Chaos,
    CircuitBreaker,
    Classifier,
    DeadlineExceeded,
    Fallback,
    Health,
    Hedge,
    Kind,
    Policy,
    TimeoutExceeded,
    Verdict,
    deadline,
    record_timeline,
)
from resilient_integrations.grpc import interceptors

pytestmark = GRPC

Code = grpc.StatusCode


async def messages(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def plain_messages(*parts: bytes) -> Iterator[bytes]:
    return iter(parts)


def no_opinion(_: Exception) -> None:
    return None


def bulkhead_of(channel: Any, key: str) -> Bulkhead:
    return next(gate for gate in channel.pipeline.siblings[key] if isinstance(gate, Bulkhead))


async def test_a_stream_is_opened_again_before_its_first_message() -> None:
    """The call that the user holds speaks for the attempt that answers."""
    play = Play()
    play.script = [UNAVAILABLE, UNAVAILABLE, [b"1", b"2", b"3"]]
    async with playing(play) as channel:
        call = channel.unary_stream(SERVER)(b"question")

        assert [message async for message in call] == [b"1", b"2", b"3"]
        assert await call.code() is Code.OK
        assert await call.details() == ""
        assert list(await call.trailing_metadata()) == []
        assert await call.initial_metadata() is not None
        assert call.done()
        assert not call.cancelled()


@pytest.mark.parametrize("reads", [True, False])
async def test_a_stream_that_is_dropped_is_cancelled_and_gives_its_permit_back(*, reads: bool) -> None:
    """It has had a message, whether its user took it or not, and is neither read to its end nor cancelled."""
    play = Play()
    play.script = [[b"1", hang]]
    async with playing(play) as channel:
        call = channel.unary_stream(SERVER)(b"question")
        if reads:
            async for _ in call:
                break
        else:
            await call.initial_metadata()
        held = bulkhead_of(channel, "test.Service.Server").statistics().active
        del call
        gc.collect()
        await play.cancelled.wait()
        await nothing_is_held(channel)

        assert held == 1


async def test_a_stream_that_breaks_is_not_opened_again() -> None:
    """What the user has had would come twice: the error surfaces, and the breaker hears of it."""
    play = Play()
    play.script = [[b"1", UNAVAILABLE]]
    async with playing(play, POLICY.replace(circuit_breaker=CircuitBreaker(consecutive_failures=1))) as channel:
        received: list[bytes] = []
        call = channel.unary_stream(SERVER)(b"question")
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012  it breaks in the middle
            async for message in call:
                received.append(message)  # noqa: PERF401

        assert received == [b"1"]
        assert caught.value.code() is Code.UNAVAILABLE
        assert await call.code() is Code.UNAVAILABLE
        await nothing_is_held(channel)
        breaker = next(gate for gate in channel.pipeline.siblings["test.Service.Server"] if isinstance(gate, CircuitBreaker))  # type: ignore[index]  # pyright: ignore[reportOptionalSubscript]
        assert breaker.statistics().state == "open"


async def test_the_error_of_the_last_attempt_is_what_the_call_says() -> None:
    """Code, details and metadata are those of the error that surfaces."""
    play = Play()
    play.script = [UNAVAILABLE]
    async with playing(play) as channel:
        call: Any = channel.unary_stream(SERVER)(b"question")
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()

        assert await call.code() is Code.UNAVAILABLE
        assert await call.details() == "as the script says"
        assert await call.debug_error_string()
        assert await call.initial_metadata() is not None
        assert list(await call.trailing_metadata()) == []
        with pytest.raises(grpc.aio.AioRpcError):
            await call.wait_for_connection()
        assert len(play.calls) == 3


async def test_a_stream_can_be_read_message_by_message() -> None:
    """`read()` gives EOF at the end."""
    play = Play()
    play.script = [UNAVAILABLE, [b"1"]]
    async with playing(play) as channel:
        call: Any = channel.unary_stream(SERVER)(b"question")

        assert await call.read() == b"1"
        assert await call.read() is grpc.aio.EOF  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def test_a_stream_may_be_empty() -> None:
    """No message and OK is an answer."""
    play = Play()
    play.script = [[]]
    async with playing(play) as channel:
        call = channel.unary_stream(SERVER)(b"question")

        assert [message async for message in call] == []
        assert await call.code() is Code.OK


async def test_a_permit_is_held_until_the_stream_has_ended() -> None:
    """A stream is in use after its first message."""
    play, go = Play(), asyncio.Event()

    async def last(_request: object, _context: object) -> bytes:
        await go.wait()
        return b"2"

    play.script = [[b"1", last]]
    async with playing(play, POLICY.replace(bulkhead=Bulkhead(1))) as channel:
        method = channel.unary_stream(SERVER)
        call: Any = method(b"question")
        await call.read()
        with pytest.raises(BulkheadFull):
            await method(b"another").read()
        go.set()

        assert await call.read() == b"2"
        assert not isinstance(await call.read(), bytes)


async def test_a_stream_that_is_not_read_to_its_end_gives_its_permit_back() -> None:
    """Cancelled by its user: the server hears of it, and the permit is back."""
    play = Play()
    play.script = [[b"1", hang]]
    async with playing(play) as channel:
        call: Any = channel.unary_stream(SERVER)(b"question")
        assert await call.read() == b"1"
        assert bulkhead_of(channel, "test.Service.Server").statistics().active == 1
        assert call.cancel()
        await play.cancelled.wait()

        assert await call.code() is Code.CANCELLED
        assert call.cancelled()


async def test_all_who_asked_are_told_of_the_end_of_a_stream() -> None:
    """Once it has begun to answer, too."""
    play = Play()
    play.script = [[b"1", b"2"]]
    async with playing(play) as channel:
        call: Any = channel.unary_stream(SERVER)(b"question")
        told: list[Any] = []
        call.add_done_callback(told.append)
        assert await call.read() == b"1"
        call.add_done_callback(told.append)
        rest = [await call.read(), await call.read()]
        await call.code()
        while len(told) < 2:
            await anyio.lowlevel.checkpoint()

        assert rest == [b"2", grpc.aio.EOF]
        assert told == [call, call]


async def test_a_stream_is_cancelled_before_its_first_message() -> None:
    """Nothing is tried again, and the call says what happened."""
    play = Play()
    play.script = [hang]
    async with playing(play) as channel:
        call = channel.unary_stream(SERVER)(b"question")
        await play.started.wait()
        ended = asyncio.Event()
        call.add_done_callback(lambda _: ended.set())  # pyright: ignore[reportUnknownLambdaType]
        assert not call.done()
        assert call.cancel()
        await ended.wait()

        assert await call.code() is Code.CANCELLED
        assert call.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await anext(aiter(call))


async def expire(scope: anyio.CancelScope, when: Callable[[], bool]) -> None:
    """The time of a scope is over, and grpc does not know: the limit that it was told is a later one."""
    while not when():  # noqa: ASYNC110  nobody tells
        await anyio.sleep(0.001)
    scope.deadline = anyio.current_time()


async def test_a_reader_that_is_cancelled_cancels_the_call() -> None:
    """By a scope of anyio: its TimeoutError comes out, before and after the first message."""
    play = Play()
    play.script = [hang, [b"1", hang]]
    async with playing(play) as channel, anyio.create_task_group() as group:
        for expected in (0, 1):
            received: list[bytes] = []
            with pytest.raises(TimeoutError), anyio.fail_after(4) as scope:  # noqa: PT012  it is cut in the middle
                group.start_soon(expire, scope, lambda: len(play.calls) > expected and len(received) == expected)  # noqa: B023
                async for message in channel.unary_stream(SERVER)(b"question"):
                    received.append(message)  # noqa: PERF401

            assert len(received) == expected
            await play.cancelled.wait()
            play.cancelled.clear()


async def test_the_limit_of_an_attempt_holds_until_the_first_message() -> None:
    """The rest of a stream may take as long as it likes."""
    play, go = Play(), asyncio.Event()

    async def late(_request: object, _context: object) -> bytes:
        await go.wait()
        return b"2"

    play.script = [hang, [b"1", late]]
    async with playing(play, POLICY.replace(attempt_timeout=0.2), idempotent={SERVER}) as channel:
        call: Any = channel.unary_stream(SERVER)(b"question", timeout=4.0)
        assert await call.read() == b"1"
        await asyncio.sleep(0.25)
        go.set()

        assert await call.read() == b"2"
        assert [(left or 0.0) > 1.0 for left in play.left] == [True, True]


async def test_an_attempt_without_a_first_message_in_time_is_an_error_of_both() -> None:
    """Where it is not tried again, it surfaces as a timeout and as an error of grpc."""
    play = Play()
    play.script = [hang]
    async with playing(play, POLICY.replace(attempt_timeout=0.05)) as channel:
        call: Any = channel.unary_stream(SERVER)(b"question")
        with pytest.raises(TimeoutExceeded):
            await call.read()

        assert await call.code() is Code.DEADLINE_EXCEEDED
        assert len(play.calls) == 1


async def test_a_stream_that_loses_a_race_is_cancelled() -> None:
    """The hedge answers first; the other attempt is cancelled at the server."""
    play = Play()
    play.script = [hang, [b"1"]]
    async with playing(play, POLICY.replace(hedge=Hedge(0.01)), idempotent={SERVER}) as channel:
        assert [message async for message in channel.unary_stream(SERVER)(b"question")] == [b"1"]

        await play.cancelled.wait()


async def test_a_stream_that_is_tried_again_is_thrown_away() -> None:
    """Where a classifier of values says so, the first one is cancelled at the server."""
    play = Play()
    play.script = [[b"1", hang], [b"2"]]
    verdicts = iter([Verdict(Kind.RETRYABLE, Health.NEUTRAL, "not_this_one"), None])
    async with playing(play, classifier=Classifier(no_opinion, lambda _: next(verdicts))) as channel:
        assert [message async for message in channel.unary_stream(SERVER)(b"question")] == [b"2"]

        await play.cancelled.wait()


async def test_a_fallback_of_a_stream_is_a_list_of_messages() -> None:
    """They are handed out in place of the answer; of a client stream it is the answer."""
    play = Play()
    play.script = [UNAVAILABLE]
    async with playing(play, Policy(fallback=Fallback([b"a", b"b"]))) as channel:
        call = channel.unary_stream(SERVER)(b"question")

        assert [message async for message in call] == [b"a", b"b"]
        assert await call.code() is Code.OK
        assert call.done()
        await call.wait_for_connection()
    async with playing(play, Policy(fallback=Fallback(b"instead"))) as channel:
        assert await channel.stream_unary(CLIENT)([b"question"]) == b"instead"


async def test_an_error_that_is_not_of_grpc_surfaces_as_it_is() -> None:
    """A mistake in a program, say."""
    chaos = Chaos(fault=LookupError, fault_rate=1.0, enabled=True)
    async with playing(Play(), Policy(chaos=chaos)) as channel:
        call = channel.unary_stream(SERVER)(b"question")
        with pytest.raises(LookupError):
            await anext(aiter(call))
        with pytest.raises(LookupError):
            await call.code()

        assert not call.cancelled()


# Messages that are sent.


async def test_a_list_of_messages_can_be_sent_again() -> None:
    """Each attempt sends all of them."""
    play = Play()
    play.script = [UNAVAILABLE, b"answer"]
    async with playing(play) as channel:
        assert await channel.stream_unary(CLIENT)([b"1", b"2"]) == b"answer"
        assert [request for _, request in play.calls] == [[b"1", b"2"]] * 2


async def test_messages_that_come_one_by_one_are_sent_once() -> None:
    """An iterator cannot be read again."""
    play = Play()
    play.script = [UNAVAILABLE]
    async with playing(play) as channel:
        call = channel.stream_unary(CLIENT)(messages(b"1"))
        with pytest.raises(grpc.aio.AioRpcError):
            await call

        assert await call.code() is Code.UNAVAILABLE
        assert len(play.calls) == 1


@pytest.mark.parametrize("make", [messages, plain_messages], ids=["async", "sync"])
@pytest.mark.parametrize(("spool", "attempts"), [(3, 2), (2, 1), (1, 1)])
async def test_a_few_messages_can_be_kept_to_be_sent_again(make: Any, spool: int, attempts: int) -> None:
    """`spool` is how many; where there are more, all are sent, once."""
    play = Play()
    play.script = [UNAVAILABLE, b"answer"]
    async with playing(play, spool=spool) as channel:
        call = channel.stream_unary(CLIENT)(make(b"1", b"2", b"3"))
        if attempts == 1:
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        else:
            assert await call == b"answer"

        assert [request for _, request in play.calls] == [[b"1", b"2", b"3"]] * attempts


async def test_messages_can_be_written() -> None:
    """The call is there at once, so that its user can write; after the end that is refused, as in grpc."""
    play = Play()
    async with playing(play, spool=10) as channel:
        call = channel.stream_unary(CLIENT)()
        await call.write(b"1")
        await call.write(b"2")
        await call.done_writing()

        assert await call == b"answer"
        assert play.calls == [(CLIENT, [b"1", b"2"])]
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"3")


async def test_the_time_of_a_client_stream_is_that_of_its_call() -> None:
    """Its timeout may be given by position, as in grpc; no limit of an attempt holds: it would be the caller's own time."""
    play = Play()
    async with playing(play, POLICY.replace(attempt_timeout=0.001)) as channel:
        call = channel.stream_unary(CLIENT)(None, 3.0, (("who", "me"),))
        await call.write(b"1")
        await call.done_writing()

        assert await call == b"answer"
        assert 1.0 < (play.left[0] or 0.0) <= 3.1
        assert ("who", "me") in play.metadata[0]


async def test_two_sides_talk_to_each_other() -> None:
    """Each message is answered before the next one is written; the metadata is there before any of them."""
    play = Play()
    async with playing(play) as channel:
        call = channel.stream_stream(BIDI)()
        for message in (b"1", b"2"):
            await call.write(message)
            assert await call.read() == message
        assert not call.done()
        assert await call.initial_metadata() is not None
        await call.done_writing()

        assert await call.read() == b"answer"
        assert not isinstance(await call.read(), bytes)
        assert await call.code() is Code.OK


async def test_metadata_is_there_before_the_first_message_of_a_talk() -> None:
    """A client may wait for the metadata of the server before it writes."""
    play = Play()

    async def first_metadata(request_iterator: Any, context: Any) -> None:
        await context.send_initial_metadata((("hello", "there"),))
        async for message in request_iterator:
            await context.write(message)

    play.bidi = first_metadata  # type: ignore[method-assign,assignment]  # pyright: ignore[reportAttributeAccessIssue]
    async with playing(play) as channel:
        call: Any = channel.stream_stream(BIDI)()
        await call.wait_for_connection()

        assert ("hello", "there") in list(await call.initial_metadata())
        await call.done_writing()
        assert await call.code() is Code.OK


async def test_a_talk_is_refused_before_it_begins() -> None:
    """A full bulkhead: whoever waits for the metadata gets that of the refusal, and writing fails as after any end."""
    play = Play()
    async with playing(play, POLICY.replace(bulkhead=Bulkhead(1))) as channel:
        talk = channel.stream_stream(BIDI)()
        await talk.write(b"1")
        await talk.read()
        refused: Any = channel.stream_stream(BIDI)()

        assert list(await refused.initial_metadata()) == []
        assert await refused.code() is Code.RESOURCE_EXHAUSTED
        with pytest.raises(asyncio.InvalidStateError):
            await refused.write(b"1")
        talk.cancel()


async def test_a_list_of_messages_is_sent_again_before_the_first_answer() -> None:
    """Of a talk that is none: all that is sent is known."""
    play = Play()
    async with playing(play) as channel:
        with record_timeline() as timeline:
            call = channel.stream_stream(BIDI)([b"1"])

            assert [message async for message in call] == [b"1", b"answer"]
        assert len(timeline.attempts) == 1


async def test_a_stream_without_time_is_not_sent() -> None:
    """The deadline has passed where the call is made."""
    play = Play()
    async with playing(play) as channel:
        with pytest.raises(DeadlineExceeded) as caught, deadline(0.0):
            await channel.unary_stream(SERVER)(b"question", timeout=0.0).read()

        assert caught.value is not None
        assert play.calls == []


async def test_an_interceptor_outside_can_read_the_call() -> None:
    """Message by message."""
    received: list[Any] = []

    class Outside(grpc.aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            call = await continuation(client_call_details, request)
            received.extend([await call.read(), await call.read()])
            return call

    play = Play()
    play.script = [[b"1"]]
    async with (
        serving(play.handlers) as target,
        grpc.aio.insecure_channel(target, interceptors=[Outside(), *interceptors(policy=POLICY)]) as plain,
    ):
        channel: Any = plain
        assert await channel.unary_stream(SERVER)(b"question").code() is Code.OK

    assert received == [b"1", grpc.aio.EOF]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def test_what_grpc_iterates_is_not_written_to() -> None:
    """An interceptor outside that holds the call cannot write to it: grpc has made an iterator of what the user writes."""
    held: list[Any] = []

    class Outside(grpc.aio.StreamUnaryClientInterceptor):
        async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
            held.append(await continuation(client_call_details, request_iterator))
            return held[0]

    play = Play()
    async with (
        serving(play.handlers) as target,
        grpc.aio.insecure_channel(target, interceptors=[Outside(), *interceptors(policy=POLICY)]) as plain,
    ):
        channel: Any = plain
        call = channel.stream_unary(CLIENT)([b"1"], timeout=3.0)
        assert await call == b"answer"
        inner = held[0]
        for write in (inner.write(b"2"), inner.done_writing()):
            with pytest.raises(grpc.aio.UsageError):
                await write

        assert 0.0 < inner.time_remaining() < 3.0
        assert await inner == b"answer"
