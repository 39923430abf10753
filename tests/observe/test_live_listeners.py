"""Live listeners go along with calls and attempts while they run."""

import logging
from collections.abc import Callable
from contextvars import ContextVar, Token

import anyio
import anyio.lowlevel
import pytest

from helpers import RETRY, Failure, Script
from resilient import Attempt, Hedge, LiveListener, Pipeline, listening
from resilient.observe import listeners
from resilient.observe.events import AttemptFinished, CallFinished, Event

pytestmark = pytest.mark.anyio

inside: ContextVar[str] = ContextVar("inside", default="")


class Notes(LiveListener):
    """Notes what it hears, and says in a context variable where it is."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.notes: list[str] = []

    def on_event(self, event: Event) -> None:
        self.notes.append(type(event).__name__)

    def on_call_begins(self, attempt: Attempt) -> Callable[[CallFinished], None]:
        self.notes.append(f"call by {self.name or attempt.fn}")
        token = inside.set("call")

        def ended(event: CallFinished) -> None:
            self.notes.append(f"call ended: {event.reason}")
            inside.reset(token)

        return ended

    def on_attempt_begins(self, attempt: Attempt) -> Callable[[AttemptFinished], None]:
        self.notes.append(f"attempt {attempt.number}")
        token: Token[str] = inside.set(f"{inside.get()} attempt {attempt.number}{attempt.kind[0]}".strip())

        def ended(event: AttemptFinished) -> None:
            self.notes.append(f"attempt ended: {event.verdict.reason}")
            inside.reset(token)

        return ended


async def where() -> str:
    await anyio.lowlevel.checkpoint()
    return inside.get()


async def test_it_hears_the_beginning_before_and_the_end_after_the_events() -> None:
    """Each end is told once, in the order of nesting, with the event that tells it."""
    notes = Notes("test")
    with listening(notes):
        await RETRY.call(Script(Failure(), "value"))

    assert notes.notes == [
        "call by test",
        "attempt 1",
        "AttemptFinished",
        "attempt ended: retryable_error",
        "RetryScheduled",
        "attempt 2",
        "AttemptFinished",
        "attempt ended: success",
        "CallFinished",
        "call ended: success",
    ]


async def test_the_callee_sees_the_context_that_it_sets() -> None:
    """What it sets is gone when the call is over."""
    with listening(Notes()):
        seen = await RETRY.call(where)

    assert seen == "call attempt 1o"
    assert inside.get() == ""


async def test_a_hedge_has_a_context_of_its_own() -> None:
    """The attempts of a race are both inside of the call, and not inside of each other."""
    seen: list[str] = []

    async def slow_at_first() -> None:
        seen.append(inside.get())
        await anyio.sleep(10 if len(seen) == 1 else 0)

    with listening(Notes()):
        await Pipeline(Hedge(1)).call(slow_at_first)

    assert seen == ["call attempt 1o", "call attempt 1h"]
    assert inside.get() == ""


async def test_the_blocks_of_a_loop_are_attempts_without_a_call() -> None:
    """A loop may be left at any time, so nothing is open between its blocks."""
    seen: list[str] = []
    script = Script(Failure(), "value")
    with listening(Notes()):
        async for attempt in RETRY:
            seen.append(inside.get())
            with attempt:
                seen.append(inside.get())
                await script()

    assert seen == ["", "attempt 1o", "", "attempt 2r"]


async def test_a_cancelled_call_is_ended() -> None:
    """The end is told on every way out."""
    notes = Notes("test")
    with listening(notes), anyio.move_on_after(1):
        await RETRY.call(anyio.sleep, 10)

    assert notes.notes[-3:] == ["attempt ended: cancelled", "CallFinished", "call ended: cancelled"]
    assert inside.get() == ""


async def test_of_two_the_last_one_begun_ends_first() -> None:
    """They nest, as contexts must."""
    first = Notes("first")
    second = Notes("second")
    second.notes = first.notes
    with listening(first), listening(second):
        await RETRY.call(where)

    assert [note for note in first.notes if note.startswith("call")] == [
        "call by first",
        "call by second",
        *["call ended: success"] * 2,
    ]
    assert inside.get() == ""


async def test_one_that_only_listens_goes_along_with_nothing() -> None:
    """Both methods may be left out."""
    with listening(LiveListener()):
        seen = await RETRY.call(where)

    assert seen == ""


async def test_one_that_raises_is_reported_once_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Neither at the beginning nor at the end."""

    class Broken(LiveListener):
        def on_call_begins(self, attempt: Attempt) -> None:
            raise ZeroDivisionError

        def on_attempt_begins(self, attempt: Attempt) -> Callable[[AttemptFinished], object]:
            return lambda _: 1 / 0

    listeners._reported.clear()  # pyright: ignore[reportPrivateUsage]  ids of those that are gone come again
    with listening(Broken()), caplog.at_level(logging.ERROR):
        values = [await RETRY.call(Script("value")) for _ in range(3)]

    assert values == ["value"] * 3
    assert len(caplog.records) == 1
