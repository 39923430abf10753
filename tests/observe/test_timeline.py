"""The record of what happened, and how it reads."""

import textwrap

import pytest

from helpers import Script
from resilient.errors import CircuitOpen
from resilient.observe import Timeline, listening, record_timeline, timeline_of
from resilient.observe.events import (
    AttemptFinished,
    BreakerStateChanged,
    BudgetDecision,
    CallFinished,
    CallRejected,
    ChaosInjected,
    Event,
    FallbackUsed,
    RetryScheduled,
    RetryStopped,
    TimedOut,
    Waited,
)
from resilient.observe.timeline import TimelineStatistics, attach
from resilient.outcome import SUCCESS, Health, Kind, Verdict
from resilient.strategies.backoff import Constant
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio

BUSY = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503")
LOST = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "read_error")
HEDGED = Verdict(Kind.ABORT, Health.NEUTRAL, "cancelled")


def drawn(*events: Event, width: int = 10, limit: int = 1000) -> str:
    timeline = Timeline(limit)
    for event in events:
        timeline(event)
    return timeline.render(width)


def picture(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


async def succeed() -> str:
    return "value"


async def fail() -> None:
    raise ConnectionError


RETRY = Retry(on=ConnectionError, attempts=3, backoff=Constant(delay=1.0, jitter="none"))


# The record


async def test_a_timeline_keeps_what_happens_in_its_block() -> None:
    """All calls of the block are in it, with their attempts; later ones are not."""
    with record_timeline() as timeline:
        await Timeout(1).call(succeed)
        with pytest.raises(ConnectionError):
            await RETRY.call(fail)
    await Timeout(1).call(succeed)

    assert [call.attempts for call in timeline.calls] == [1, 3]
    assert [attempt.number for attempt in timeline.attempts] == [1, 1, 2, 3]


async def test_a_timeline_is_bounded() -> None:
    """What does not fit is counted, not kept."""
    with record_timeline(limit=3) as timeline:
        for _ in range(4):
            await Timeout(1).call(succeed)

    assert len(timeline.events) == 3
    assert timeline.dropped == 5
    assert repr(timeline) == "<Timeline: 3 events, 2 attempts, 5 dropped>"


async def test_statistics_of_a_timeline_sum_up_its_calls() -> None:
    """Attempts, waits and refusals are added up; the last error is told even where a later attempt worked."""
    with record_timeline() as timeline:
        await RETRY.call(Script(ConnectionError(), "value"))
        recovered = timeline.statistics()
        with pytest.raises(CircuitOpen):
            await CircuitBreaker(initial="isolated").call(succeed)

    assert recovered == TimelineStatistics(
        calls=1, attempts=2, retries=1, rejections=0, total_delay=1.0, success=True, last_error="ConnectionError"
    )
    assert timeline.statistics() == TimelineStatistics(
        calls=2, attempts=2, retries=1, rejections=1, total_delay=1.0, success=False, last_error="ConnectionError"
    )


async def test_statistics_of_what_led_to_an_exception() -> None:
    """The record that an exception carries has no end of its call: its last attempt decides."""
    with pytest.raises(ConnectionError) as raised:
        await RETRY.call(fail)
    timeline = timeline_of(raised.value)
    assert timeline is not None
    seen = timeline.statistics()

    assert (seen.attempts, seen.total_delay, seen.success) == (3, 2.0, False)


def test_an_empty_timeline_counts_nothing() -> None:
    """Neither success nor error."""
    seen = Timeline().statistics()

    assert (seen.attempts, seen.success, seen.last_error) == (0, False, "")


async def test_a_timeline_is_a_listener() -> None:
    """It can be given to whatever takes one."""
    timeline = Timeline()

    with listening(timeline):
        await Timeout(1).call(succeed)

    assert len(timeline.attempts) == 1


async def test_the_exception_that_surfaces_carries_its_timeline() -> None:
    """Nobody has to listen for that: a retry keeps the record from its first failure on."""
    with pytest.raises(ConnectionError) as caught:
        await RETRY.call(fail)

    timeline = timeline_of(caught.value)
    assert timeline is not None
    assert [attempt.at for attempt in timeline.attempts] == [0.0, 1.0, 2.0]


def test_an_exception_that_passed_no_retry_has_no_timeline() -> None:
    """The answer is None, also where something else sits in its place."""
    stranger = ValueError()
    setattr(stranger, "__resilient_timeline__", "mine")  # noqa: B010  not an attribute of the type

    assert timeline_of(ValueError()) is None
    assert timeline_of(stranger) is None


def test_an_exception_that_takes_no_attributes_is_left_alone() -> None:
    """The record is lost then; the exception is not."""

    class Fixed(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    error = Fixed()
    attach(error, Timeline())

    assert timeline_of(error) is None


@pytest.mark.parametrize("limit", [0, -1])
def test_a_timeline_that_could_keep_nothing_is_refused(limit: int) -> None:
    """The message names the parameter and its range."""
    with pytest.raises(ValueError, match=rf"limit={limit} is out of range: expected a whole number of at least 1"):
        Timeline(limit)


async def test_the_note_on_an_exception_sums_up_its_attempts_in_one_line() -> None:
    """How many, how long, with which outcomes, and why there was no further one."""
    with pytest.raises(ConnectionError) as caught:
        await RETRY.call(fail)

    assert caught.value.__notes__ == ["resilient: 3 attempts in 2 s (retryable_error ×3); stopped: attempts_exhausted"]


async def test_the_note_of_a_single_attempt_is_in_the_singular() -> None:
    """A retry that may not be made is told too: what stopped it is the news."""
    with pytest.raises(ConnectionError) as caught:
        await RETRY.replace(timeout=0.5).call(fail)

    assert caught.value.__notes__ == ["resilient: 1 attempt in 0 s (retryable_error); stopped: deadline"]


# The waterfall


def test_an_empty_timeline_says_so() -> None:
    """There is no empty picture."""
    assert drawn() == "(nothing happened)"


def test_a_call_comes_first_and_what_happened_inside_is_below_it() -> None:
    """Attempts are bars, waits are dots; offsets, labels, durations and reasons stand in columns."""
    text = drawn(
        AttemptFinished(at=1.02, key="api", call_id=1, number=1, kind="original", started=1.0, verdict=BUSY),
        RetryScheduled(
            at=1.02, key="api", call_id=1, number=1, attempts=3, verdict=BUSY, error="", delay=0.05, delay_source="server"
        ),
        AttemptFinished(at=1.08, key="api", call_id=1, number=2, kind="retry", started=1.07, verdict=LOST, error="ReadError"),
        RetryScheduled(
            at=1.08,
            key="api",
            call_id=1,
            number=2,
            attempts=3,
            verdict=LOST,
            error="ReadError",
            delay=0.01,
            delay_source="backoff",
        ),
        AttemptFinished(at=1.1, key="api", call_id=1, number=3, kind="retry", started=1.09, verdict=SUCCESS),
        CallFinished(at=1.1, key="api", call_id=1, started=1.0, reason="success", attempts=3),
    )

    assert text == picture("""
        call api: success, 3 attempts, 100.0 ms
             0.0 ms │██        │ attempt 1    20.0 ms  http_503
            20.0 ms │  ·····   │ wait         50.0 ms  asked for by the server
            70.0 ms │       █  │ attempt 2    10.0 ms  read_error ReadError
            80.0 ms │        · │ wait         10.0 ms  backoff
            90.0 ms │         █│ attempt 3    10.0 ms  success
    """)


def test_what_is_shorter_than_a_character_is_a_thin_mark() -> None:
    """A full block would claim a tenth of the call for a millisecond."""
    text = drawn(
        AttemptFinished(at=0.001, call_id=1, number=1, kind="original", started=0.0, verdict=BUSY),
        AttemptFinished(at=1.0, call_id=1, number=2, kind="retry", started=0.999, verdict=SUCCESS),
        CallFinished(at=1.0, call_id=1, started=0.0, reason="success", attempts=2),
    )

    assert text == picture("""
        call: success, 2 attempts, 1000.0 ms
             0.0 ms │▏         │ attempt 1     1.0 ms  http_503
           999.0 ms │         ▏│ attempt 2     1.0 ms  success
    """)


def test_a_wait_that_was_cut_short_ends_where_it_was_cut() -> None:
    """Its planned length is told in words."""
    text = drawn(
        AttemptFinished(at=1.0, call_id=1, number=1, kind="original", started=0.0, verdict=BUSY),
        RetryScheduled(at=1.0, call_id=1, number=1, attempts=3, verdict=BUSY, error="", delay=60.0, delay_source="backoff"),
        CallFinished(at=2.0, call_id=1, started=0.0, reason="cancelled", error="CancelledError"),
    )

    assert text == picture("""
        call: cancelled CancelledError, 1 attempt, 2000.0 ms
             0.0 ms │█████     │ attempt 1  1000.0 ms  http_503
          1000.0 ms │     ·····│ wait       1000.0 ms  backoff, cut short of 60.0 s
    """)


def test_a_call_that_still_waits_is_drawn_to_the_planned_end_of_its_wait() -> None:
    """A timeline can be looked at while the call runs."""
    text = drawn(
        AttemptFinished(at=10.0, call_id=1, number=1, kind="original", started=0.0, verdict=BUSY),
        RetryScheduled(at=10.0, call_id=1, number=1, attempts=3, verdict=BUSY, error="", delay=10.0, delay_source="backoff"),
    )

    assert text == picture("""
        call: http_503, 1 attempt, 20.0 s
             0.0 ms │█████     │ attempt 1     10.0 s  http_503
             10.0 s │     ·····│ wait          10.0 s  backoff
    """)


def test_attempts_that_overlap_are_drawn_where_they_began() -> None:
    """A hedge that loses ends last and still stands in the order of beginnings."""
    text = drawn(
        AttemptFinished(at=0.6, call_id=1, number=2, kind="hedge", started=0.2, verdict=SUCCESS),
        AttemptFinished(at=0.6, call_id=1, number=1, kind="original", started=0.0, verdict=HEDGED, error="CancelledError"),
        CallFinished(at=1.0, call_id=1, started=0.0, reason="success", attempts=2),
    )

    assert text == picture("""
        call: success, 2 attempts, 1000.0 ms
             0.0 ms │██████    │ attempt 1          600.0 ms  cancelled CancelledError
           200.0 ms │  ████    │ attempt 2, hedge   400.0 ms  success
    """)


def test_interventions_are_marks_where_they_happened() -> None:
    """Rejections, state changes, timeouts, fallbacks and the end of the retries; a granted budget is not worth a line."""
    text = drawn(
        BreakerStateChanged(at=0.0, call_id=1, strategy="breaker", old="closed", new="open", why="failure_rate"),
        BreakerStateChanged(at=0.1, call_id=1, strategy="other", old="closed", new="open", why="slow_rate", monitor_only=True),
        CallRejected(at=0.1, call_id=1, strategy="breaker", reason="circuit_open"),
        BudgetDecision(at=0.1, call_id=1, allowed=True, cost=1.0, left=9.0),
        RetryScheduled(at=0.1, call_id=1, number=1, attempts=3, verdict=LOST, error="", delay=0.0, delay_source="none"),
        RetryStopped(at=0.2, call_id=1, attempts=1, reason="deadline", verdict=LOST),
        TimedOut(at=0.5, call_id=1, seconds=0.5),
        ChaosInjected(at=0.5, call_id=1, strategy="chaos", kind="latency", seconds=2.0),
        ChaosInjected(at=0.5, call_id=1, strategy="chaos", kind="fault", error="OSError"),
        ChaosInjected(at=0.5, call_id=1, strategy="chaos", kind="outcome"),
        FallbackUsed(at=1.0, call_id=1, verdict=LOST, error="ReadError"),
        CallFinished(at=1.0, call_id=1, started=0.0, reason="success", attempts=0, degraded=True),
    )

    assert text == picture("""
        call: success, degraded, 0 attempts, 1000.0 ms
             0.0 ms │▏         │ breaker              closed → open, failure_rate
           100.0 ms │ ▏        │ breaker              closed → open, slow_rate (monitor-only)
           100.0 ms │ ▏        │ rejected             circuit_open by breaker
           200.0 ms │  ▏       │ stopped              deadline
           500.0 ms │     ▏    │ timeout              limit 500.0 ms
           500.0 ms │     ▏    │ chaos                latency of 2000.0 ms by chaos
           500.0 ms │     ▏    │ chaos                fault OSError by chaos
           500.0 ms │     ▏    │ chaos                outcome by chaos
          1000.0 ms │         ▏│ fallback             instead of read_error ReadError
    """)


def test_a_wait_in_a_queue_is_drawn_where_it_was() -> None:
    """Before the attempt that it was for; and one outside of a call by itself."""
    text = drawn(
        Waited(at=0.6, call_id=1, strategy="bulkhead", seconds=0.6),
        AttemptFinished(at=1.0, call_id=1, number=1, kind="original", started=0.6, verdict=SUCCESS),
        CallFinished(at=1.0, call_id=1, started=0.0, reason="success"),
        Waited(at=3.0, strategy="api", seconds=1.0),
    )

    assert text == picture("""
        call: success, 1 attempt, 1000.0 ms
             0.0 ms │······    │ queue       600.0 ms  bulkhead
           600.0 ms │      ████│ attempt 1   400.0 ms  success

        outside of a call, 1000.0 ms, 2000.0 ms after the first
             0.0 ms │··········│ queue  1000.0 ms  api
    """)


def test_each_call_has_its_own_block_and_scale() -> None:
    """Calls that ran at the same time do not mix; what belongs to no call stands by itself."""
    text = drawn(
        AttemptFinished(at=1.0, call_id=1, number=1, kind="original", started=0.0, verdict=SUCCESS),
        AttemptFinished(at=0.6, call_id=2, number=1, kind="transparent_retry", started=0.5, verdict=SUCCESS),
        CallFinished(at=0.6, call_id=2, started=0.5, reason="success"),
        CallFinished(at=1.0, call_id=1, started=0.0, reason="success"),
        CallRejected(at=2.0, strategy="bulkhead", reason="bulkhead_full"),
    )

    assert text == picture("""
        call: success, 1 attempt, 1000.0 ms
             0.0 ms │██████████│ attempt 1  1000.0 ms  success

        call: success, 1 attempt, 100.0 ms, 500.0 ms after the first
             0.0 ms │██████████│ attempt 1, transparent retry   100.0 ms  success

        outside of a call, 0.0 ms, 2000.0 ms after the first
             0.0 ms │▏         │ rejected             bulkhead_full by bulkhead
    """)


def test_what_is_missing_is_said() -> None:
    """A full record says how much it did not keep; a call without attempts or end is not finished."""
    text = drawn(
        RetryStopped(at=0.0, call_id=1, attempts=1, reason="deadline", verdict=LOST),
        TimedOut(at=0.0, call_id=1, seconds=1.0),
        limit=1,
    )

    assert text == picture("""
        call: not finished, 0 attempts, 0.0 ms
             0.0 ms │▏         │ stopped             deadline

        (1 more events were not kept)
    """)


def test_names_cannot_forge_lines() -> None:
    """Keys, strategies and reasons may come from outside: line breaks and escapes are shown, not obeyed."""
    text = drawn(
        CallRejected(at=0.0, key="a\nb\x1b[31m", call_id=1, strategy="x\r", reason="no\u202e"),
        CallFinished(at=0.0, key="a\nb\x1b[31m", call_id=1, started=0.0, reason="rejected"),
    )

    assert len(text.splitlines()) == 2
    assert "call a\\nb\\x1b[31m: rejected" in text
    assert "no\\u202e by x\\r" in text


def test_a_picture_without_width_is_refused() -> None:
    """The message names the parameter and its range."""
    with pytest.raises(ValueError, match="width=0 is out of range"):
        Timeline().render(0)
