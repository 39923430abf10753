"""Recordings of events, and how their assertions fail."""

import pytest

from resilient import Constant, Retry, record_timeline, timeline_of
from resilient.observe import listeners
from resilient.observe.events import AttemptFinished, CallFinished, CallRejected, Event, RetryScheduled, RetryStopped
from resilient.testing import Recording, ScriptedCallee, recorded, run_virtual

RETRY = Retry(on=OSError, backoff=Constant(delay=1, jitter="none"))


@pytest.fixture
def events() -> Recording:
    """Of a call that succeeds with its third attempt."""
    with recorded() as recording:
        run_virtual(RETRY.call, ScriptedCallee(OSError, OSError, 1))
    return recording


def test_events_are_found_by_type_and_fields(events: Recording) -> None:
    """All of them, those with certain fields, or the only one."""
    assert [event.delay for event in events.of(RetryScheduled)] == [1, 1]
    assert [event.at for event in events.of(RetryScheduled, number=2)] == [1]
    assert events.one(CallFinished, reason="success").attempts == 3
    assert len(events.of(Event)) == len(events.events) == 6


def test_it_is_a_timeline(events: Recording) -> None:
    """With its attempts, its statistics, and its picture."""
    assert events.statistics().retries == 2
    assert len(events.attempts) == 3
    assert "attempt" in events.render()


def test_a_timeline_can_be_made_one() -> None:
    """That of a block, or of an error."""
    with record_timeline() as timeline, pytest.raises(OSError, match="down") as caught:
        run_virtual(RETRY.call, ScriptedCallee(OSError("down")))
    of_error = timeline_of(caught.value)

    assert of_error is not None
    assert Recording(of_error.events).one(RetryStopped).reason == "attempts_exhausted"
    Recording(timeline.events).assert_order(RetryScheduled, RetryStopped)


def test_order_is_asserted_whatever_comes_in_between(events: Recording) -> None:
    """And fails where one is missing from there on."""
    events.assert_order(AttemptFinished, RetryScheduled, RetryScheduled, AttemptFinished, CallFinished)
    events.assert_order()
    with pytest.raises(AssertionError, match="expected a RetryScheduled after CallFinished, there is none") as caught:
        events.assert_order(CallFinished, RetryScheduled)
    with pytest.raises(AssertionError, match="expected a CallRejected, there is none"):
        events.assert_order(CallRejected)

    assert "Heard, in order:\n  AttemptFinished(at=" in str(caught.value)
    assert events.render() in str(caught.value)


def test_absence_is_asserted(events: Recording) -> None:
    """Of some types, or of all events."""
    events.assert_none(CallRejected, RetryStopped)
    Recording().assert_none()
    with pytest.raises(AssertionError, match="expected no CallRejected or RetryScheduled, there are 2"):
        events.assert_none(CallRejected, RetryScheduled)
    with pytest.raises(AssertionError, match="expected no event, there are 6"):
        events.assert_none()


def test_the_only_one_is_asserted(events: Recording) -> None:
    """The message tells what was looked for."""
    with pytest.raises(AssertionError, match=r"expected one RetryScheduled\(\), there are 2"):
        events.one(RetryScheduled)
    with pytest.raises(
        AssertionError, match=r"expected one RetryScheduled\(delay=5\), there are 0\. Heard, in order:\n  nothing"
    ):
        Recording().one(RetryScheduled, delay=5)


def test_a_field_that_events_do_not_have_is_an_error(events: Recording) -> None:
    """Not an empty list."""
    with pytest.raises(TypeError, match="RetryScheduled has no field dely"):
        events.of(RetryScheduled, dely=1)


def test_what_is_no_type_of_event_is_an_error(events: Recording) -> None:
    """An assertion on it would hold whatever happened."""
    for ask in (events.of, events.one, events.assert_order, events.assert_none):
        with pytest.raises(TypeError, match=r"'RetryScheduled': expected a type of resilient\.observe\.events"):
            ask("RetryScheduled")  # type: ignore[arg-type]


def test_nothing_is_heard_before_and_after() -> None:
    """The listener is removed, whatever happens."""
    with pytest.raises(LookupError), recorded():
        raise LookupError

    assert listeners.everywhere == []
