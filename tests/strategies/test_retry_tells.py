from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from helpers import BUSY, RETRY, SECOND, Failure, Fatal, Script, on_errors
from resilient.errors import RetryableError
from resilient.observe.events import AttemptFinished, CallFinished, RetryScheduled, RetryStopped
from resilient.observe.timeline import Timeline, record_timeline, timeline_of
from resilient.outcome import Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.base import Strategy
from resilient.strategies.budget import RetryBudget
from resilient.strategies.lingering import Lingering
from resilient.strategies.retry import Retry

pytestmark = pytest.mark.anyio

NEVER_SENT = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "connect_error", transparent=True)


async def test_an_error_that_surfaces_carries_what_happened() -> None:
    """A timeline of all attempts and waits, whether or not anybody listened."""
    with pytest.raises(Failure) as caught:
        await RETRY.replace(attempts=2).call(Script(Failure()))

    timeline = timeline_of(caught.value)
    assert isinstance(timeline, Timeline)
    assert [type(event) for event in timeline.events] == [AttemptFinished, RetryScheduled, AttemptFinished, RetryStopped]


async def in_blocks(retry: Retry, callee: Script) -> None:
    async for attempt in retry:
        with attempt:
            await callee()


@pytest.mark.parametrize("run", [Retry.call, in_blocks])
async def test_the_record_says_all_of_each_attempt_and_of_each_decision(
    run: Callable[[Retry, Script], Awaitable[object]],
) -> None:
    """When it began and ended, why, of how many, and what came of it; listeners hear the same."""
    await anyio.sleep(5)
    with record_timeline() as heard, pytest.raises(Failure) as caught:
        await run(RETRY.replace(attempts=2), Script(Failure(), seconds=0.5))
    record = timeline_of(caught.value)
    assert record is not None
    first, last = record.events[0], heard.events[-1]
    assert isinstance(first, AttemptFinished)
    assert isinstance(last, CallFinished)
    call_id, verdict = first.call_id, first.verdict

    assert list(record.events) == [
        AttemptFinished(at=5.5, call_id=call_id, number=1, kind="original", started=5.0, verdict=verdict, error="Failure"),
        RetryScheduled(
            at=5.5, call_id=call_id, number=1, attempts=2, verdict=verdict, error="Failure", delay=1.0, delay_source="backoff"
        ),
        AttemptFinished(at=7.0, call_id=call_id, number=2, kind="retry", started=6.5, verdict=verdict, error="Failure"),
        RetryStopped(at=7.0, call_id=call_id, attempts=2, reason="attempts_exhausted", verdict=verdict, error="Failure"),
    ]
    assert [event for event in heard.events if type(event) in {AttemptFinished, RetryScheduled, RetryStopped}] == record.events
    assert (last.at, last.started, last.error, last.attempts) == (7.0, 5.0, "Failure", 2)
    assert caught.value.__notes__ == ["resilient: 2 attempts in 2 s (retryable_error ×2); stopped: attempts_exhausted"]


async def test_a_permanent_error_carries_its_one_attempt() -> None:
    """From the first failed attempt on there is a record."""
    with pytest.raises(Fatal) as caught:
        await RETRY.call(Script(Fatal()))

    timeline = timeline_of(caught.value)
    assert timeline is not None
    assert [attempt.verdict.reason for attempt in timeline.attempts] == ["permanent_error"]


async def test_the_record_of_endless_attempts_is_bounded() -> None:
    """It counts what it did not keep."""
    with pytest.raises(Failure) as caught:
        await Retry(on=Failure, attempts=500, backoff=Constant(delay=0)).call(Script(Failure()))

    timeline = timeline_of(caught.value)
    assert timeline is not None
    assert (len(timeline.events), timeline.dropped) == (100, 900)


async def test_an_error_object_that_is_raised_again_has_one_note_and_keeps_those_of_others() -> None:
    """The newest one."""
    error = Failure()
    error.add_note("mine")
    for _ in range(2):
        with pytest.raises(Failure):
            await RETRY.call(Script(error))

    assert error.__notes__ == ["mine", "resilient: 3 attempts in 2 s (retryable_error ×3); stopped: attempts_exhausted"]


async def test_an_error_that_refuses_attributes_surfaces_without_them() -> None:
    """A frozen dataclass, say."""

    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    with pytest.raises(Frozen) as caught:
        await Retry(on=Frozen, backoff=SECOND).call(Script(Frozen(7)))

    assert (caught.value.code, timeline_of(caught.value)) == (7, None)


async def test_a_scheduled_retry_tells_all_that_an_operator_asks() -> None:
    """Which attempt, of how many, why, how long the wait is, who chose it, and what is left."""
    retry = RETRY.replace(budget=RetryBudget(ratio=0, floor=5))
    with record_timeline() as timeline, anyio.fail_after(10):
        await Pipeline(retry, key=lambda *_: "users").call(Script(RetryableError(retry_after=2), 1))

    event = next(event for event in timeline.events if isinstance(event, RetryScheduled))
    assert 2 <= event.delay <= 2.2
    assert (event.key, event.number, event.attempts, event.error) == ("users", 1, 3, "RetryableError")
    assert (event.delay_source, event.time_left, event.budget_left) == ("server", 10, 4)


async def test_attempts_are_told_by_the_verdict_of_the_retry() -> None:
    """What is tried again is called retryable in its event too; a classifier of the whole call comes first."""
    busy = on_errors(BUSY)
    with record_timeline() as timeline:
        await RETRY.call(Script(Failure(), "value"))
        async for attempt in RETRY:
            with attempt:
                if attempt.number == 1:
                    raise Failure
        await Pipeline(RETRY, classify=busy).call(Script(Failure(), "value"))
    verdicts = [(event.verdict.kind, event.verdict.reason) for event in timeline.attempts if event.error]

    assert verdicts == [(Kind.RETRYABLE, "retryable_error")] * 2 + [(Kind.RETRYABLE, "http_503")]


async def test_a_value_that_lives_on_takes_the_record_along() -> None:
    """Of the failures before it, and of the attempt that it came from."""
    value = Lingering()
    await RETRY.call(Script(Failure(), value))
    record = timeline_of(value)

    assert record is not None
    assert [(event.number, event.error) for event in record.attempts] == [(1, "Failure"), (2, "")]


async def test_a_transparent_retry_is_nobodys_choice() -> None:
    """It comes at once: neither the backoff nor the server said so."""
    retry = Retry(classify=on_errors(NEVER_SENT))
    with record_timeline() as timeline:
        await retry.call(Script(Failure(), 1))
    (event,) = [event for event in timeline.events if isinstance(event, RetryScheduled)]

    assert (event.delay, event.delay_source) == (0.0, "none")


@pytest.mark.parametrize("seconds", [1, 2])
async def test_what_was_never_sent_is_not_tried_again_when_the_time_is_up(seconds: float) -> None:
    """Not even at the very deadline; that is told like any other end."""
    retry = Retry(classify=on_errors(NEVER_SENT), timeout=1)
    with record_timeline() as timeline, pytest.raises(Failure):  # noqa: PT012  the loop is what raises
        async for attempt in retry:
            with attempt:
                await anyio.sleep(seconds)
                raise Failure
    (event,) = [event for event in timeline.events if isinstance(event, RetryStopped)]

    assert (event.attempts, event.reason) == (1, "deadline")


async def test_a_call_may_have_a_limit_of_its_own() -> None:
    """One that cannot be sent again, say: it counts in place of that of the retry."""

    class Once(Strategy):
        async def run(self, call: Any, attempt: Any) -> Any:
            attempt.limit = 1
            return await call(attempt)

    callee = Script(Failure())
    with record_timeline(), pytest.raises(Failure):
        await Pipeline(Once(), RETRY).call(callee)

    assert callee.calls == 1


async def test_a_permanent_error_is_no_news() -> None:
    """Nothing is told about a retry that was never considered."""
    with record_timeline() as timeline, pytest.raises(Fatal):
        await RETRY.call(Script(Fatal()))

    assert not [event for event in timeline.events if isinstance(event, (RetryScheduled, RetryStopped))]


async def test_one_retry_is_shared_by_many_tasks() -> None:
    """It has no state: each task makes its own attempts and gets its own error (tenacity loses some here)."""
    caught: list[str] = []

    async def one(name: str) -> None:
        callee = Script(Failure(name), seconds=0.1)
        try:
            await RETRY.call(callee)
        except Failure as error:
            caught.append(str(error))
        assert callee.calls == 3

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, str(number))

    assert sorted(caught) == [str(number) for number in range(10)]
