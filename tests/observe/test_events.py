"""What happens is told as typed events, in order, each with the number of its call."""

import dataclasses
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilient.observe import events, listening
from resilient.observe.events import AttemptFinished, CallFinished, Event, FallbackUsed, RetryScheduled, RetryStopped, TimedOut
from resilient.outcome import SUCCESS
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.fallback import Fallback
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio

ALL = [getattr(events, name) for name in events.__all__ if name not in {"AttemptKind", "Event", "HedgeResult"}]


def failing(times: int, error: Callable[[], Exception] = ConnectionError) -> Callable[[], Any]:
    left = iter(range(times))

    async def callee() -> str:
        if next(left, None) is not None:
            raise error()
        return "value"

    return callee


@pytest.mark.parametrize("kind", ALL)
def test_an_event_is_a_frozen_slotted_value_with_keyword_arguments(kind: type[Event]) -> None:
    """Listeners can keep events: nobody changes them, and they carry nothing but their fields."""
    fields = dataclasses.fields(kind)

    assert all(field.kw_only for field in fields)
    assert getattr(kind, "__dataclass_params__").frozen  # noqa: B009  not in the types
    assert not hasattr(object.__new__(kind), "__dict__")


async def test_a_call_that_is_retried_tells_its_attempts_its_waits_and_its_end() -> None:
    """The events of one call come in the order in which things happened, and share the number of the call."""
    heard: list[Event] = []
    retry = Retry(on=ConnectionError, backoff=Constant(delay=1.0, jitter="none"))

    with listening(heard.append):
        await retry.call(failing(2))

    assert [type(event) for event in heard] == [
        AttemptFinished,
        RetryScheduled,
        AttemptFinished,
        RetryScheduled,
        AttemptFinished,
        CallFinished,
    ]
    assert len({event.call_id for event in heard}) == 1
    assert [event.at for event in heard] == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    finished = heard[-1]
    assert isinstance(finished, CallFinished)
    assert (finished.attempts, finished.reason, finished.error, finished.started) == (3, "success", "", 0.0)


async def test_attempts_tell_their_number_their_kind_and_when_they_began() -> None:
    """The first attempt is `original`, the others say why they were made."""
    heard: list[Event] = []

    with listening(heard.append):
        await Retry(on=ConnectionError, backoff=Constant(delay=1.0, jitter="none")).call(failing(1))

    attempts = [event for event in heard if isinstance(event, AttemptFinished)]
    assert [(event.number, event.kind, event.started, event.error) for event in attempts] == [
        (1, "original", 0.0, "ConnectionError"),
        (2, "retry", 1.0, ""),
    ]
    assert attempts[-1].verdict is SUCCESS


async def test_two_calls_have_two_numbers() -> None:
    """Calls can be told apart in a stream of events."""
    heard: list[Event] = []

    with listening(heard.append):
        await Timeout(1).call(failing(0))
        await Timeout(1).call(failing(0))

    assert len({event.call_id for event in heard}) == 2


async def test_a_retry_that_stops_says_why() -> None:
    """Its last event before the end of the call names the reason and how many attempts were made."""
    heard: list[Event] = []

    with listening(heard.append), pytest.raises(ConnectionError):
        await Retry(on=ConnectionError, attempts=2, backoff=Constant(delay=0)).call(failing(5))

    stopped = next(event for event in heard if isinstance(event, RetryStopped))
    assert (stopped.reason, stopped.attempts, stopped.error) == ("attempts_exhausted", 2, "ConnectionError")
    assert isinstance(heard[-1], CallFinished)
    assert heard[-1].error == "ConnectionError"


async def test_an_intervention_is_told_and_marks_the_call_as_degraded() -> None:
    """A timeout and the fallback that covers it are events of the call."""
    heard: list[Event] = []

    async def hang() -> str:
        await anyio.sleep_forever()
        return "never"

    with listening(heard.append):
        value = await Pipeline(Fallback("instead"), Timeout(2.0)).call(hang)

    assert value == "instead"
    assert [type(event) for event in heard] == [AttemptFinished, TimedOut, FallbackUsed, CallFinished]
    assert isinstance(heard[-1], CallFinished)
    assert heard[-1].degraded
