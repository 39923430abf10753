import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.strategies.windows import CountWindow, RingCounts, TimeCounts

SPAN = 10.0

steps = st.lists(st.tuples(st.floats(0, 4), st.booleans(), st.booleans()), max_size=40)
"""Seconds since the call before, whether it failed, whether it was slow."""


def totals(window: TimeCounts | RingCounts) -> tuple[float, float, float]:
    return window.calls, window.failures, window.slow


@given(steps=steps, start=st.sampled_from([0.0, -1e6, 1e9]), idle=st.floats(0, 25))
def test_a_time_window_counts_what_is_young_and_nothing_that_is_old(
    steps: list[tuple[float, bool, bool]], start: float, idle: float
) -> None:
    """Whatever is younger than nine tenths of the span is counted, and nothing that is older than the span."""
    window, now, calls = TimeCounts(SPAN), start, list[tuple[float, bool, bool]]()
    for passed, failed, slow in steps:
        now += passed
        window.record(now, 1, failed, slow)
        calls.append((now, failed, slow))
    now += idle
    window.expire(now)
    slack = 1e-6  # of the largest clock, in floats
    young = [(failed, slow) for at, failed, slow in calls if now - at < 0.9 * SPAN - slack]
    recent = [(failed, slow) for at, failed, slow in calls if now - at <= SPAN + slack]

    assert len(young) <= window.calls <= len(recent)
    assert sum(failed for failed, _ in young) <= window.failures <= sum(failed for failed, _ in recent)
    assert sum(slow for _, slow in young) <= window.slow <= sum(slow for _, slow in recent)


def test_a_time_window_expires_on_reading() -> None:
    """After ten idle windows not one failure of the outage is left, though nothing was recorded since."""
    window = TimeCounts(SPAN)
    for second in range(10):
        window.record(float(second), 50, 50)
    window.expire(10 * SPAN)

    assert totals(window) == (0, 0, 0)


def test_a_time_window_forgets_a_tenth_at_a_time() -> None:
    """One call a second: the oldest second goes as a whole when the next one begins."""
    window = TimeCounts(SPAN)
    seen: list[float] = []
    for second in range(13):
        window.record(float(second))
        seen.append(window.calls)

    assert seen == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10]


def test_a_time_window_may_be_shorter_than_a_second() -> None:
    """Its span is not rounded to whole seconds."""
    window = TimeCounts(0.05)
    window.record(1.0, 1, 1)
    window.expire(1.04)
    kept = window.failures
    window.expire(1.06)

    assert (kept, window.failures) == (1, 0)


def test_a_time_window_does_not_mind_a_clock_that_stands_still() -> None:
    """Thousands of calls in one instant, wherever a bucket ends because of rounding, need no more than one bucket."""
    for width in (0.1, 0.3, 0.7, 1.1):
        window = TimeCounts(10 * width)
        for bucket in range(50):
            for _ in range(100):
                window.record(bucket * width)

        assert 900 <= window.calls <= 1000
        assert len(window._older or ()) <= 4 * 10  # pyright: ignore[reportPrivateUsage]  how it keeps them


def test_a_time_window_keeps_fractions_and_takes_back() -> None:
    """A retry budget records fractions, and gives back what it did not spend."""
    window = TimeCounts(SPAN)
    window.record(0.5, 0, 0.2)
    window.record(1.5, 0, 0.7)
    window.record(2.5, 0, -0.2)

    assert math.isclose(window.failures, 0.7)

    window.expire(11.5)

    assert math.isclose(window.failures, -0.2)

    window.expire(100.0)

    assert totals(window) == (0, 0, 0)


def test_a_time_window_is_small_however_many_calls_it_counts() -> None:
    """Constant memory: ten buckets of four plain numbers. Of many windows: other threads allocate too."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        windows = [TimeCounts(SPAN) for _ in range(50)]
        for window in windows:
            for call in range(200):
                window.record(call * 0.25, 1, call % 2)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert used / len(windows) <= 800


def test_a_time_window_is_fresh_until_it_counts_and_when_all_has_expired() -> None:
    """An idle one can be forgotten: it equals a new one."""
    window = TimeCounts(SPAN)
    states = [window.is_fresh(0.0)]
    window.record(0.0)
    states += [window.is_fresh(5.0), window.is_fresh(20.0)]

    assert states == [True, False, True]


def test_an_idle_time_window_keeps_no_buckets() -> None:
    """Only those that hold something take room."""
    window = TimeCounts(SPAN)
    window.record(0.0)
    for second in range(1, 15):
        window.expire(float(second))

    assert window._older is None  # pyright: ignore[reportPrivateUsage]  how it keeps them


def test_a_count_window_is_fresh_while_it_remembers_nothing_bad() -> None:
    """Successes never grow old here; were they kept for themselves, no key could ever be forgotten."""
    window = RingCounts(2)
    window.record(0.0)
    states = [window.is_fresh(0.0)]
    window.record(0.0, 1, 0, 1)
    states.append(window.is_fresh(0.0))
    window.record(0.0)
    window.record(0.0)
    states.append(window.is_fresh(0.0))

    assert states == [True, False, True]


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), (True, TypeError)])
def test_the_size_of_a_count_window_is_a_whole_number_above_zero(size: int, error: type[Exception]) -> None:
    """Another one is refused, by name."""
    with pytest.raises(error, match="size="):
        CountWindow(size)
