"""What an adaptive rate decides at the edges: when it moves and how far, what stays spent, and what those hear who wait."""

import pytest

from helpers import on_errors
from resilient import clock
from resilient.observe.events import Event, LimitChanged
from resilient.observe.listeners import listening
from resilient.outcome import SUCCESS, RateHint
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.gate import Permit
from resilient.strategies.outbox import announce
from strategies.callers import tasks, ticks
from strategies.rates import BUSY, DOWN, REFUSED, call, told

pytestmark = pytest.mark.anyio


def taken(rate: AdaptiveRate, now: float, tokens: int = 1) -> Permit:
    """A permit that is there."""
    permit = rate.admit(now, tokens)
    assert permit is not None
    return permit


def there(rate: AdaptiveRate, now: float) -> int:
    """How many calls get in now. It takes all that there is."""
    return sum(call(rate, now, DOWN, 0.0) for _ in range(rate.burst + 1))


# -- the law


def test_a_call_from_before_the_rate_was_lowered_tells_nothing_however_late_it_ends() -> None:
    """Nor one from the same moment."""
    rate = AdaptiveRate(10, burst=9)
    early, same = taken(rate, 0.0), taken(rate, 1.0)
    rate.hear(BUSY, 1.0, 0.5)
    early.settle(BUSY, 9.0, 9.0)
    same.settle(BUSY, 8.0, 9.0)

    assert rate.rate == 7


def test_a_second_after_it_was_lowered_it_may_be_lowered_again() -> None:
    """By a call that was sent since; not a moment earlier."""
    rate, seen = AdaptiveRate(10), list[float]()
    for now, sent in [(1.0, 0.5), (1.875, 1.5), (2.0, 1.5)]:
        rate.hear(BUSY, now, sent)
        seen.append(rate.rate)

    assert seen == [7, 7, 4.9]


@pytest.mark.parametrize(("calls", "after"), [(1, 8), (2, 8.16), (4, 8.16)])
def test_it_grows_where_half_of_it_was_used_and_not_where_it_was_less(calls: int, after: float) -> None:
    """Four in a second is all of it; two are half. Each block counts once."""
    rate = AdaptiveRate(8, ceiling=8.16, per=2)
    rate.hear(DOWN, 1.0, 1.0)
    for _ in range(calls - 1):
        rate.hear(SUCCESS, 1.5, 1.0)
    rate.hear(SUCCESS, 2.0, 1.5)

    assert rate.rate == after


def test_what_goes_well_in_the_moment_of_a_decision_counts_for_the_next_one() -> None:
    """All of it."""
    rate = AdaptiveRate(6, ceiling=12)
    for now in (1.0, 1.0, 2.0):
        rate.hear(SUCCESS, now, now)

    assert rate.rate == 6.24


@pytest.mark.parametrize("ceiling", [2 / 3, 1 / 3])
def test_what_is_no_short_number_is_reached_and_never_passed(ceiling: float) -> None:
    """Once there it does not move, so nothing is told."""
    rate, heard = AdaptiveRate(ceiling, floor=ceiling * 0.9), list[Event]()
    with listening(heard.append):
        rate.hear(BUSY, 0.0, 0.0)
        lowest = rate.rate
        for second in range(1, 20):
            rate.hear(SUCCESS, second * 1.0, second * 1.0)
        announce(rate)

    assert (lowest, rate.rate) == (rate.floor, ceiling)
    assert all(event.old != event.new for event in heard if isinstance(event, LimitChanged))


def test_a_rate_that_grows_is_told_with_its_time_and_reason() -> None:
    """As one that is lowered."""
    rate, heard = AdaptiveRate(1, ceiling=2), list[Event]()
    with listening(heard.append):
        for now in (1.0, 2.5):
            rate.hear(SUCCESS, now, now)
        rate.hear(BUSY, 3.0, 3.0)
        announce(rate)

    assert [(event.at, event.why) for event in heard if isinstance(event, LimitChanged)] == [(2.5, "room"), (3.0, "throttled")]


def test_what_was_learned_is_kept_for_ten_minutes_from_then() -> None:
    """Not from the begin of the clock."""
    rate = AdaptiveRate(10)
    rate.hear(BUSY, 400.0, 400.0)

    assert [rate.is_fresh(now) for now in (500.0, 999.0, 1000.0)] == [False, False, True]


async def test_a_rate_that_was_learned_in_a_minute_is_the_same_in_a_second() -> None:
    """It is a rate, whatever it is counted in."""
    rate = AdaptiveRate(600, per=60)
    rate.hear(BUSY, 0.0, 0.0)
    rate.retune(AdaptiveRate(1, per=1, floor=0.001, ceiling=1e6))

    assert rate.rate == 7


# -- the server's word


def test_a_short_wait_does_not_give_a_token_away() -> None:
    """A server that says "at once" with every answer is not asked more often for it."""
    rate = AdaptiveRate(1, per=60, max_wait=0)
    got = [now for now in range(130) if call(rate, now, told(BUSY if now else DOWN, wait=0.0), 0.0)]

    assert got == [0, 60]
    assert rate.rate == 0.7


async def test_a_pause_leaves_one_token_at_most_and_takes_none_of_one() -> None:
    """What is saved up beyond is gone."""
    single, many = AdaptiveRate(1, max_wait=0), AdaptiveRate(1, burst=4, max_wait=0)
    for rate in (single, many):
        rate.hear(told(DOWN, wait=2.0), 0.0, 0.0)

    assert single.statistics().tokens == 1
    assert single.is_fresh(2.0)
    assert not many.is_fresh(2.0)
    assert (there(single, 2.0), there(many, 2.0)) == (1, 1)


def test_a_call_that_was_not_sent_brings_nothing_back_from_before_a_pause() -> None:
    """Else there would be two at its end."""
    rate = AdaptiveRate(1, burst=4, max_wait=0)
    before = taken(rate, 0.0)
    rate.hear(told(DOWN, wait=8.0), 0.0, 0.0)
    before.settle(REFUSED, 1.0, 1.0)

    assert there(rate, 8.0) == 1


def test_a_wait_that_says_nothing_new_keeps_no_token_back() -> None:
    """One that was taken after the first such word is put back after the second."""
    rate = AdaptiveRate(1, burst=1, max_wait=0)
    rate.hear(told(DOWN, wait=0.0), 1.0, 1.0)
    permit = taken(rate, 1.0)
    rate.hear(told(DOWN, wait=0.0), 1.0, 1.0)
    permit.settle(REFUSED, 0.0, 1.0)

    assert there(rate, 1.0) == 1


def test_calls_that_were_not_sent_bring_all_back_one_after_the_other() -> None:
    """The last one first, each to the bucket and to the quota."""
    rate = AdaptiveRate(1, burst=9, max_wait=0)
    rate.hear(told(limits=RateHint(7, 100.0)), 0.0, 0.0)
    permits = [taken(rate, 0.0, tokens) for tokens in (1, 1, 2, 3)]
    for permit in reversed(permits[1:]):
        permit.settle(REFUSED, 0.0, 0.0)

    assert there(rate, 0.0) == 6


def test_a_block_that_hears_of_a_quota_leaves_no_more_of_it_than_the_server_said() -> None:
    """A call that turns out not to have been sent is none that the server had counted."""
    rate = AdaptiveRate(1, burst=9, max_wait=0)
    permit = taken(rate, 0.0)
    rate.hear(told(limits=RateHint(2, 100.0)), 0.0, 0.0)
    permit.settle(REFUSED, 0.0, 0.0)

    assert there(rate, 0.0) == 2


def test_a_clock_that_goes_back_by_seconds_frees_it_from_the_longest_wait() -> None:
    """There is none that long."""
    rate = AdaptiveRate(1, max_wait=0)
    rate.hear(told(DOWN, wait=3600.0), 1.5, 1.5)

    assert rate.ready_in(0.0) < 10


# -- those who wait, and what is shown


async def test_the_last_call_of_a_quota_is_there_for_one() -> None:
    """It is shown, and two at a time are refused until more are."""
    rate = AdaptiveRate(10, burst=5, max_wait=0)
    rate.hear(told(limits=RateHint(1, 9.0)), 0.0, 0.0)

    assert (rate.quota().remaining, rate.statistics().opens_in) == (1, 0)
    assert (rate.refuse(0.0, 1).retry_after, rate.refuse(0.0, 2).retry_after) == (0, 9)


async def test_who_comes_behind_others_hears_of_their_tokens_too() -> None:
    """Of the bucket and of the quota."""
    slow, short = AdaptiveRate(1), AdaptiveRate(100, burst=5)
    await slow.acquire()
    short.hear(told(limits=RateHint(1, 9.0)), 0.0, 0.0)

    async with tasks() as group:
        group.start_soon(slow.acquire)
        group.start_soon(short.acquire, 2)
        await ticks(5)
        now = clock.now()
        waits = [gate.refuse(now).retry_after for gate in (slow, short)]
        group.cancel_scope.cancel()

    assert waits == pytest.approx([2, 9])


async def test_who_waits_for_several_tokens_gets_so_many() -> None:
    """And not one."""
    rate = AdaptiveRate(1, burst=5, max_wait=60)
    await rate.acquire(tokens=5)
    await rate.acquire(tokens=5)

    assert clock.now() == pytest.approx(5)
    assert rate.statistics().tokens == pytest.approx(0, abs=1e-5)


async def test_the_classifier_of_its_own_judges_blocks_too() -> None:
    """There is no pipeline to do it."""
    rate = AdaptiveRate(10, classify=on_errors(BUSY))
    with pytest.raises(OSError, match="x"):
        async with rate:
            raise OSError("x")

    assert rate.rate == 7
