"""What recourse lets observers see, written with this library; what is wrong there is right here. See `docs/seeds.md`."""

import pytest

from helpers import RETRY, Failure, Script
from resilient import (
    CircuitBreaker,
    CircuitOpen,
    Dispatch,
    Event,
    Kind,
    current_attempt,
    listening,
    record_timeline,
)
from resilient.observe.events import AttemptFinished, CallFinished

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]


async def test_a_timeline_holds_every_attempt() -> None:
    """One record for each attempt, with its number, start, end, error and verdict, and the waits between them."""
    with record_timeline() as timeline:
        await RETRY.call(Script(Failure(), "value", seconds=0.5))
    first, second = timeline.attempts

    assert (first.number, first.started, first.at, first.error, first.verdict.kind) == (1, 0.0, 0.5, "Failure", Kind.RETRYABLE)
    assert (second.number, second.started, second.at, second.error, second.kind) == (2, 1.5, 2.0, "", "retry")
    assert timeline.statistics().total_delay == 1.0


async def test_a_timeline_of_a_refused_call_says_so() -> None:
    """No attempt was made; the reason is there."""
    with record_timeline() as timeline, pytest.raises(CircuitOpen):
        await CircuitBreaker(initial="isolated").call(Script("value"))

    assert timeline.attempts == []
    assert [call.reason for call in timeline.calls] == ["circuit_open"]


async def test_a_nested_call_does_not_take_over_the_record() -> None:
    """There a capture is switched off inside of a call; here each call has a number of its own."""

    async def outer() -> str:
        return await RETRY.call(Script("value"))

    with record_timeline() as timeline:
        await RETRY.call(outer)
    numbers = [event.call_id for event in timeline.calls]

    assert len(set(numbers)) == 2
    assert [event.call_id for event in timeline.attempts] == numbers


async def test_the_callee_knows_its_attempt() -> None:
    """`observe.AttemptFromContext` there."""
    seen: list[tuple[int, str]] = []

    async def callee() -> None:
        attempt = current_attempt()
        seen.append((attempt.number, attempt.kind))
        if attempt.number == 1:
            raise Failure

    await RETRY.call(callee)

    assert seen == [(1, "original"), (2, "retry")]


class LoggingObserver(Dispatch):
    """The observer of the README: it implements what it needs."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_attempt_finished(self, event: AttemptFinished) -> None:
        self.lines.append(f"{event.number} {event.verdict.reason} {event.at - event.started:g}")

    def on_call_finished(self, event: CallFinished) -> None:
        self.lines.append(f"{event.reason} after {event.attempts}")


async def test_an_observer_has_a_method_for_each_event() -> None:
    """And several may listen: one that raises is no harm to the others, nor to the call."""
    observer = LoggingObserver()

    def broken(_: Event) -> None:
        raise ZeroDivisionError

    with listening(broken), listening(observer):
        assert await RETRY.call(Script(Failure(), "value", seconds=0.5)) == "value"

    assert observer.lines == ["1 retryable_error 0.5", "2 success 0.5", "success after 2"]


async def test_an_observer_is_called_outside_of_every_lock() -> None:
    """It may make a call of its own; there OnAttempt runs under the mutex of the timeline."""
    breaker = CircuitBreaker(consecutive_failures=1)
    states: list[str] = []
    with listening(lambda _: states.append(breaker.state)), pytest.raises(Failure):
        await breaker.call(Script(Failure()))

    assert set(states) >= {"open"}
