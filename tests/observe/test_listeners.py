"""Who hears events: everybody of the process, or of a block; never at the expense of the call."""

import logging
from collections.abc import Iterator

import anyio
import pytest

from resilient.observe import Dispatch, add_listener, listeners, listening, remove_listener
from resilient.observe.events import AttemptFinished, CallFinished, Event, RetryScheduled, TimedOut
from resilient.strategies.backoff import Constant
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio

EVENT = Event(at=0.0)


async def succeed() -> str:
    return "value"


@pytest.fixture
def heard() -> Iterator[list[Event]]:
    """What a listener of the whole process heard."""
    events: list[Event] = []
    add_listener(events.append)
    yield events
    remove_listener(events.append)


async def test_a_listener_of_the_process_hears_every_call_until_it_is_removed(heard: list[Event]) -> None:
    """`remove_listener` undoes `add_listener`, also with an equal bound method."""
    await Timeout(1).call(succeed)
    told = len(heard)
    remove_listener(heard.append)
    await Timeout(1).call(succeed)

    assert told == 2
    assert len(heard) == told


async def test_adding_a_listener_twice_changes_nothing(heard: list[Event]) -> None:
    """Each event is heard once."""
    add_listener(heard.append)

    await Timeout(1).call(succeed)

    assert [type(event) for event in heard] == [AttemptFinished, CallFinished]


def test_a_listener_that_cannot_be_called_is_refused() -> None:
    """The error shows what was given and what is expected."""
    with pytest.raises(TypeError, match="listener='x': expected a callable that takes an event"):
        add_listener("x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Dispatch'>: expected .*, a function or an instance"), listening(Dispatch):  # type: ignore[arg-type]
        pass


def test_removing_a_stranger_is_harmless() -> None:
    """Nothing is raised for a listener that was never added."""
    before = listeners.sink()

    remove_listener(print)

    assert listeners.sink() == before


async def test_a_block_hears_its_own_calls_and_those_of_its_child_tasks() -> None:
    """Calls before, after, and in other tasks are not heard."""
    inside: list[Event] = []
    await Timeout(1).call(succeed)

    async with anyio.create_task_group() as tasks:
        started = anyio.Event()
        done = anyio.Event()

        async def elsewhere() -> None:
            await started.wait()
            await Timeout(1).call(succeed)
            done.set()

        tasks.start_soon(elsewhere)
        with listening(inside.append):
            started.set()
            await done.wait()
            async with anyio.create_task_group() as children:
                children.start_soon(Timeout(1)(succeed))
        await Timeout(1).call(succeed)

    assert [type(event) for event in inside] == [AttemptFinished, CallFinished]


async def test_nested_blocks_both_hear() -> None:
    """An inner listener does not hide the outer one."""
    outer: list[Event] = []
    inner: list[Event] = []

    with listening(outer.append), listening(inner.append):
        await Timeout(1).call(succeed)

    assert outer == inner
    assert len(outer) == 2


async def test_a_listener_that_raises_is_reported_once_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The call has its value, the listeners after it hear everything, the log has one record with the traceback."""
    heard: list[Event] = []

    def broken(event: Event) -> None:
        msg = f"cannot handle {event}"
        raise ValueError(msg)

    with listening(broken), listening(heard.append):
        assert await Timeout(1).call(succeed) == "value"
        assert await Timeout(1).call(succeed) == "value"

    assert len(heard) == 4
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "this is reported once" in caplog.text
    assert "ValueError: cannot handle" in caplog.text


async def test_a_cancellation_from_a_listener_is_not_swallowed() -> None:
    """Only `Exception` is a listener's fault: anything stronger passes through."""

    def interrupt(_: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(interrupt):
        listeners.emit(listeners.sink(), EVENT)


async def test_where_nobody_listens_a_call_that_succeeds_makes_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The success path is silent, for the logs too."""
    told: list[Event] = []
    monkeypatch.setattr(listeners, "notable", [told.append])

    await Retry(on=ConnectionError).call(succeed)

    assert told == []


def test_notable_events_reach_the_logs_even_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs hear first, then the listeners of the call."""
    told: list[str] = []

    def logs(_: Event) -> None:
        told.append("logs")

    monkeypatch.setattr(listeners, "notable", [logs])

    listeners.emit_notable((), EVENT)
    listeners.emit_notable((lambda _: told.append("listener"),), EVENT)

    assert told == ["logs", "logs", "listener"]


def test_a_dispatch_calls_the_method_that_is_named_after_the_event() -> None:
    """`TimedOut` goes to `on_timed_out`; what has no method goes to `on_event`."""
    told: list[str] = []

    class Mine(Dispatch):
        def on_timed_out(self, event: TimedOut) -> None:
            told.append(f"timed out after {event.seconds}")

        def on_event(self, event: Event) -> None:
            told.append(type(event).__name__)

    listener = Mine()
    listener(TimedOut(at=0.0, seconds=2.0))
    listener(EVENT)
    Dispatch()(EVENT)

    assert told == ["timed out after 2.0", "Event"]


async def test_a_call_keeps_the_listeners_that_it_started_with() -> None:
    """A listener that is added while a call runs hears the next one."""
    late: list[Event] = []

    async def callee() -> None:
        add_listener(late.append)

    with listening(lambda _: None):
        await Timeout(1).call(callee)
    remove_listener(late.append)

    assert late == []


async def test_a_call_that_nobody_listens_to_from_the_start_stays_silent() -> None:
    """Only what an operator must see is told then, and only to the logs."""
    late: list[Event] = []
    failures = iter([ConnectionError()])

    async def callee() -> str:
        add_listener(late.append)
        if error := next(failures, None):
            raise error
        return "value"

    await Retry(on=ConnectionError, backoff=Constant(delay=0)).call(callee)
    remove_listener(late.append)

    assert [event for event in late if not isinstance(event, RetryScheduled)] == []
