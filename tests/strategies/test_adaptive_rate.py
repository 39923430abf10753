"""The adaptive rate: it follows what the server says, keeps the server's word, and never gives a token too many."""

from fractions import Fraction
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Script, on_errors
from resilient import clock
from resilient.context import deadline
from resilient.errors import RateLimited, RetryableError
from resilient.keyed import Keyed
from resilient.observe.events import Event, LimitChanged
from resilient.observe.listeners import listening
from resilient.outcome import CANCELLED, SUCCESS, Classifier, RateHint, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.outbox import announce
from strategies.callers import tasks, ticks
from strategies.rates import BUSY, DOWN, REFUSED, call, told

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"rate": 0}, ValueError, ["rate=0", "greater than 0"]),
        ({"rate": 1, "per": 0}, ValueError, ["per=0", "greater than 0"]),
        ({"rate": 1, "floor": 0}, ValueError, ["floor=0", "greater than 0"]),
        ({"rate": 1, "floor": 2}, ValueError, ["floor=2", "at most 1"]),
        ({"rate": 2, "ceiling": 1}, ValueError, ["ceiling=1", "at least 2"]),
        ({"rate": 1, "burst": 0}, ValueError, ["burst=0", "at least 1"]),
        ({"rate": 1, "max_wait": -1}, ValueError, ["max_wait=-1", "at least 0"]),
    ],
)
def test_arguments_are_checked_at_construction(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    """The message names the parameter, the value and the range."""
    with pytest.raises(error) as raised:
        AdaptiveRate(**settings)

    assert all(word in str(raised.value) for word in words)


async def test_defaults_and_what_it_shows() -> None:
    """It begins at its ceiling, and spaces calls evenly."""
    rate = AdaptiveRate(100, name="api")
    await rate.call(Script(1))
    with pytest.raises(RetryableError):
        await rate.call(Script(RetryableError(retry_after=5.0)))
    seen = rate.statistics()

    assert (seen.rate, seen.per, seen.floor, seen.ceiling, seen.burst, seen.left) == (100, 1, 1, 100, 1, None)
    assert seen.opens_in == pytest.approx(5.0)
    assert repr(rate) == "<AdaptiveRate 'api': 100 in 1 s, 1 to 100, 0.0 of 1 tokens there, 0 queued, shut for 5 s>"
    assert repr(AdaptiveRate(2, per=60)) == (
        "<AdaptiveRate 'adaptive_rate': 2 in 60 s, 0.02 to 2, 1.0 of 1 tokens there, 0 queued>"
    )


# -- the law


def test_too_many_calls_lower_the_rate_by_a_share_down_to_the_floor() -> None:
    """And not below."""
    rate = AdaptiveRate(10, floor=4, burst=100)
    seen = [rate.rate]
    for second in range(1, 6):
        call(rate, second * 2.0, BUSY)
        seen.append(rate.rate)

    assert seen == [10, 7, 4.9, 4, 4, 4]


def test_it_is_lowered_once_in_a_round_trip_and_once_a_second_at_most() -> None:
    """A hundred calls that were under way when it was lowered tell nothing new."""
    rate = AdaptiveRate(10, burst=100)
    early = [rate.admit(0.0) for _ in range(50)]
    quick = [rate.admit(5.5) for _ in range(10)]
    for permit in early:
        assert permit is not None
        permit.settle(BUSY, 5.0, 5.0)
    after_round_trip = rate.rate
    for permit in quick:
        assert permit is not None
        permit.settle(BUSY, 0.1, 5.6)
    within_a_second = rate.rate
    late = rate.admit(6.2)
    assert late is not None
    late.settle(BUSY, 0.1, 6.3)

    assert (after_round_trip, within_a_second, rate.rate) == (7, 7, 4.9)


def test_it_grows_by_a_step_a_second_while_it_is_used_up_to_the_ceiling() -> None:
    """A fiftieth of the ceiling."""
    rate = AdaptiveRate(10, ceiling=11, burst=100)
    seen = list[float]()
    for tenth in range(100):
        call(rate, tenth / 10)
        if tenth % 20 == 19:
            seen.append(rate.rate)

    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (10.22, 11)


@pytest.mark.parametrize(("verdict", "every"), [(SUCCESS, 1.0), (DOWN, 0.1), (CANCELLED, 0.1), (REFUSED, 0.1)])
def test_it_does_not_grow_where_it_is_not_used_or_where_calls_are_not_well(verdict: Verdict, every: float) -> None:
    """What is not tried teaches nothing."""
    rate = AdaptiveRate(10, ceiling=20, burst=100)
    for index in range(100):
        call(rate, index * every, told(verdict))

    assert rate.rate == 10


@pytest.mark.parametrize("capacity", [20.0, 50.0, 80.0])
def test_it_finds_the_rate_of_a_server_that_refuses_what_is_too_much(capacity: float) -> None:
    """Between seven tenths of what the server takes and a little more than it; few calls are refused."""
    rate, server = AdaptiveRate(100, max_wait=0), AdaptiveRate(capacity, burst=5, max_wait=0)
    served = refused = 0
    for step in range(24_000):
        now = step / 200
        permit = None
        try:
            permit = rate.admit(now)
        except RateLimited:
            continue
        assert permit is not None
        try:
            server.admit(now)
        except RateLimited:
            permit.settle(BUSY, 0.01, now + 0.01)
            refused += now > 60
        else:
            permit.settle(SUCCESS, 0.01, now + 0.01)
            served += now > 60

    assert served / 60 >= 0.8 * capacity
    assert refused <= 0.05 * served


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3 * 10**8), st.sampled_from(["well", "busy", "busy", "refused", "wait"])), max_size=80
    ),
    burst=st.integers(1, 4),
)
def test_no_token_is_given_away_whatever_the_rate_does(steps: list[tuple[int, str]], burst: int) -> None:
    """An ideal bucket in fractions, whose rate changes at the same moments, would never have less."""
    rate = AdaptiveRate(7, ceiling=9, burst=burst, max_wait=0)
    at, level = 0, Fraction(burst)
    flow = Fraction(str(rate.rate)) / 10**9
    for gap, outcome in steps:
        at += gap
        level = min(Fraction(burst), level + gap * flow)
        try:
            permit = rate.admit(at / 1e9)
        except RateLimited:
            continue
        assert permit is not None
        level -= 1
        assert level >= 0
        verdict = {"well": SUCCESS, "busy": BUSY, "refused": REFUSED, "wait": told(DOWN, wait=0.5)}[outcome]
        permit.settle(verdict, 0.0, at / 1e9)
        if outcome == "refused":
            level += 1
        flow = Fraction(str(rate.rate)) / 10**9


# -- the server's word


async def test_nobody_goes_before_the_server_wants_calls_again() -> None:
    """Then one at a time, whatever was saved up before; a shorter wait does not shorten a longer one."""
    rate = AdaptiveRate(2, burst=4)
    got: list[float] = []
    for wait in (10.0, 3.0):
        rate.hear(told(DOWN, wait=wait), 0.0, 0.0)

    async def take() -> None:
        await rate.acquire()
        got.append(clock.now())

    async with tasks() as group:
        for _ in range(3):
            group.start_soon(take)

    assert got == [pytest.approx(at, abs=1e-5) for at in (10, 10.5, 11)]
    assert rate.statistics().rate == 2


async def test_who_waits_already_waits_for_longer_when_the_server_says_so() -> None:
    """The one at the head of the line, too."""
    rate = AdaptiveRate(1)
    got: list[float] = []
    first = await rate.acquire()

    async def take() -> None:
        await rate.acquire()
        got.append(clock.now())

    async with tasks() as group:
        group.start_soon(take)
        await anyio.sleep(0.5)
        rate.hear(told(BUSY, wait=5.0), clock.now(), 0.1)
    first.settle()

    assert got == [pytest.approx(5.5, abs=1e-5)]


async def test_a_wait_that_is_longer_than_the_deadline_is_refused_at_once() -> None:
    """With the time at which the server wants calls again."""
    rate = AdaptiveRate(10)
    rate.hear(told(BUSY, wait=30.0), 0.0, 0.0)
    with pytest.raises(RateLimited) as raised, deadline(20):
        await rate.acquire()

    assert raised.value.retry_after == pytest.approx(30)
    assert clock.now() == 0


def test_a_server_that_wants_to_be_left_alone_for_ever_is_asked_again_after_an_hour() -> None:
    """Whatever it says."""
    rate = AdaptiveRate(10, max_wait=0)
    rate.hear(told(BUSY, wait=1e9), 5.0, 5.0)
    at_first = call(rate, 3604.0), rate.ready_in(5.0)
    later = call(rate, 3605.0)
    rate.hear(told(limits=RateHint(0, 1e9)), 4000.0, 4000.0)

    assert (at_first, later) == ((False, 3600.0), True)
    assert rate.ready_in(4000.0) == 3600.0


def test_no_more_is_taken_than_the_server_has_left_until_it_is_renewed() -> None:
    """Each answer tells anew; what was taken since that call was is not in its number yet."""
    rate = AdaptiveRate(100, burst=50, max_wait=0)
    permits = [rate.admit(0.0) for _ in range(3)]
    first, _, last = permits
    assert first is not None
    assert last is not None
    first.settle(told(limits=RateHint(5, 10.0)), 0.1, 0.1)
    taken = sum(call(rate, 0.2) for _ in range(9))
    last.settle(told(limits=RateHint(6, 10.0)), 0.2, 0.2)
    again = sum(call(rate, 0.3) for _ in range(9))
    waits = rate.ready_in(0.3)
    renewed = call(rate, 10.2)

    assert (taken, again) == (3, 3)  # 5 - 2 others; 6 - 3 taken since
    assert waits == pytest.approx(9.9)
    assert renewed


async def test_who_waits_for_a_quota_goes_as_soon_as_there_is_a_new_one() -> None:
    """An answer that says more lets the line move on."""
    rate = AdaptiveRate(100, burst=50)
    got: list[float] = []
    rate.hear(told(limits=RateHint(0, 10.0)), 0.0, 0.0)
    left = rate.statistics().left

    async def take() -> None:
        await rate.acquire()
        got.append(clock.now())

    async with tasks() as group:
        group.start_soon(take)
        await anyio.sleep(1)
        rate.hear(told(limits=RateHint(7, 10.0)), 1.0, 1.0)
        await ticks(5)

    assert got == [1]
    assert (left, rate.statistics().left) == (0, 6)


def test_the_token_of_a_call_that_was_not_sent_is_put_back_to_the_quota_as_well() -> None:
    """Unless somebody has taken one since."""
    rate = AdaptiveRate(1, burst=5, max_wait=0)
    rate.hear(told(limits=RateHint(2, 100.0)), 0.0, 0.0)
    first, second = rate.admit(0.0), rate.admit(0.0)
    assert first is not None
    assert second is not None
    first.settle(REFUSED, 0.0, 0.0)
    after_first = call(rate, 0.0, REFUSED)
    second.settle(REFUSED, 0.0, 0.0)
    after_second = call(rate, 0.0, REFUSED)

    assert (after_first, after_second) == (False, True)
    assert rate.ready_in(0.0) == 0.0  # the wait of a breaker further in is none of the server's


def test_a_clock_that_goes_back_frees_it_from_what_was_said_by_another_one() -> None:
    """A module's limiter in tests: each test starts its clock anew."""
    rate = AdaptiveRate(10, max_wait=0)
    rate.hear(told(BUSY, wait=60.0), 1e6, 1e6)
    rate.hear(told(limits=RateHint(0, 60.0)), 1e6, 1e6)
    first = call(rate, 0.0)
    later = [call(rate, second / 10) for second in range(1, 30)]

    assert not first  # empty, at worst
    assert any(later)


# -- how it is used


async def test_it_learns_from_the_classifier_of_a_pipeline_or_its_own() -> None:
    """What `throttled` looks like only they know."""
    in_pipeline, own, by_itself = AdaptiveRate(10), AdaptiveRate(10, classify=on_errors(BUSY)), AdaptiveRate(10)
    pipeline = Pipeline(in_pipeline, classify=on_errors(BUSY))
    for each in (pipeline.call, own.call, by_itself.call):
        with pytest.raises(OSError, match="x"):
            await each(Script(OSError("x")))
    with pytest.raises(OSError, match="x"):
        async with AdaptiveRate(10, classify=on_errors(BUSY)) as _:
            raise OSError("x")

    assert (in_pipeline.rate, own.rate, by_itself.rate) == (7, 7, 10)


async def test_a_block_tells_how_it_ended() -> None:
    """A wait that its exception asks for is kept; a block that goes well lets the rate grow."""
    rate, growing = AdaptiveRate(10), AdaptiveRate(10, ceiling=20)
    with pytest.raises(RetryableError):
        async with rate:
            raise RetryableError(retry_after=5.0)
    shut = rate.statistics().opens_in
    for _ in range(30):
        async with growing:
            pass

    assert shut == pytest.approx(5)
    assert growing.rate > 10


async def test_weighted_tokens_are_taken_and_tell_as_well() -> None:
    """By hand, waiting or not."""
    rate = AdaptiveRate(10, burst=5)
    with await rate.acquire(tokens=5):
        pass
    with pytest.raises(RateLimited):
        rate.acquire_nowait(tokens=2)
    with pytest.raises(ValueError, match="raise burst"):
        await rate.acquire(tokens=6)
    with pytest.raises(RetryableError), await rate.acquire(tokens=2):
        raise RetryableError(retry_after=7.0)

    assert rate.statistics().opens_in == pytest.approx(7)


async def test_values_may_tell_it_too() -> None:
    """A response with a quota on it, say."""
    hint = RateHint(0, 9.0)
    rate = AdaptiveRate(10, classify=Classifier(lambda _error: None, lambda _value: told(limits=hint)))
    await rate.call(Script(1))

    assert rate.statistics().left == 0
    assert rate.statistics().opens_in == pytest.approx(9)


async def test_a_bulkhead_further_in_that_refuses_costs_no_token() -> None:
    """Nothing was sent, and nothing is learned."""
    rate, bulkhead = AdaptiveRate(1), Bulkhead(1)
    async with bulkhead:
        with pytest.raises(Exception, match="permits are out"):
            await Pipeline(rate, bulkhead).call(Script(1))

    assert rate.statistics().tokens == 1


def test_a_change_is_told_to_those_who_listen() -> None:
    """And not made where nobody does."""
    silent, rate, heard = AdaptiveRate(10), AdaptiveRate(10, name="api"), list[Event]()
    silent.hear(BUSY, 1.0, 1.0)
    with listening(heard.append):
        rate.hear(BUSY, 1.0, 1.0)
        announce(rate)

    assert not silent.outbox
    (change,) = heard
    assert isinstance(change, LimitChanged)
    assert (change.strategy, change.old, change.new, change.why) == ("api", 10, 7, "throttled")


def test_siblings_have_the_same_settings_and_fresh_state() -> None:
    """One that is full again, at the rate of its begin or not heard of for long, may be forgotten."""
    rate = AdaptiveRate(10, floor=2, ceiling=30, max_wait=0, classify=on_errors(BUSY), name="api")
    fresh = rate.is_fresh(0.0)
    call(rate, 1.0, told(BUSY, wait=3.0))
    sibling = rate.sibling()

    assert (fresh, rate.is_fresh(1.0), rate.is_fresh(4.5), rate.is_fresh(602.0)) == (True, False, False, True)
    assert (sibling.rate, sibling.floor, sibling.ceiling, sibling.max_wait, sibling.name) == (10, 2, 30, 0, "api")
    assert (sibling.classifier, sibling.is_fresh(1.0)) == (rate.classifier, True)


def test_keys_have_rates_of_their_own() -> None:
    """One customer's quota says nothing of another's."""
    keyed = Keyed(AdaptiveRate(10, max_wait=0))
    call(keyed["alice"], 1.0, BUSY)

    assert (keyed["alice"].rate, keyed["bob"].rate) == (7, 10)


async def test_settings_can_be_changed_and_what_was_learned_stays() -> None:
    """The rate moves only as far as the new range asks for; one that has learned nothing begins at the new place."""
    learned, unused = AdaptiveRate(10), AdaptiveRate(10)
    learned.hear(told(BUSY, wait=5.0), 0.0, 0.0)
    template = AdaptiveRate(1200, per=60, floor=480, max_wait=3, classify=on_errors(BUSY), name="new")
    results = learned.retune(template), unused.retune(template)
    seen = learned.statistics()

    assert results == (True, True)
    assert (seen.rate, seen.per, seen.floor, seen.ceiling) == (480, 60, 480, 1200)
    assert seen.opens_in == pytest.approx(5)
    assert (learned.max_wait, learned.name) == (3, "new")
    assert (learned.classifier, unused.rate, learned.sibling().rate) == (template.classifier, 1200, 1200)
