import itertools
import math
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.outcome import Health, Kind, Verdict
from resilient.strategies.backoff import Backoff, ByVerdict, Constant, Custom, Exponential, Fibonacci, Jitter, Linear, as_backoff


def first(count: int, backoff: Backoff, seed: int = 0) -> list[float]:
    return list(itertools.islice(backoff.delays(Random(seed)), count))


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Constant(delay=2, jitter="none"), [2, 2, 2, 2]),
        (Linear(initial=1, jitter="none"), [1, 2, 3, 4]),
        (Linear(initial=1, increment=0.5, jitter="none"), [1, 1.5, 2, 2.5]),
        (Exponential(initial=0.5, jitter="none"), [0.5, 1, 2, 4]),
        (Exponential(initial=1, factor=3, maximum=100, jitter="none"), [1, 3, 9, 27]),
        (Fibonacci(initial=1, maximum=100, jitter="none"), [1, 1, 2, 3]),
        (Custom(source=[0.1, 0.5, 2]), [0.1, 0.5, 2, 2]),
        (Custom(source=lambda number: number * 10), [10, 20, 30, 40]),
        (Exponential(initial=timedelta(seconds=1), maximum=timedelta(seconds=3), jitter="none"), [1, 2, 3, 3]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Backoff) else repr(value),
)
def test_the_delays_of_each_shape(backoff: Backoff, delays: list[float]) -> None:
    """Without jitter they are exact."""
    assert first(4, backoff) == delays


@pytest.mark.parametrize(
    "backoff",
    [
        Constant(delay=9, maximum=5, jitter="none"),
        Linear(initial=9, jitter="none"),
        Exponential(initial=9, jitter="none"),
        Fibonacci(initial=9, jitter="none"),
        Custom(source=[9], maximum=5),
    ],
    ids=repr,
)
def test_no_delay_exceeds_the_maximum(backoff: Backoff) -> None:
    """Not even the first one."""
    assert first(3, backoff) == [5, 5, 5]


@pytest.mark.parametrize("backoff", [Exponential(factor=1e300), Fibonacci(initial=1), Linear(increment=1e300)], ids=repr)
def test_many_attempts_do_not_overflow(backoff: Backoff) -> None:
    """The delay stays at the maximum, finite, for ever (an overflow in Polly made it zero)."""
    delays = first(5000, backoff)

    assert all(0 <= delay <= 5 for delay in delays)


@pytest.mark.parametrize(
    "backoff",
    [Exponential(initial=100), Constant(delay=100), Linear(initial=100), Fibonacci(initial=100)],
    ids=lambda backoff: type(backoff).__name__,
)
def test_the_cap_comes_before_the_jitter(backoff: Backoff) -> None:
    """Delays at the cap are still spread: jitter that is cut off would make all clients wait the same time."""
    delays = first(1000, backoff)

    assert len(set(delays)) == 1000
    assert sum(delays) / 1000 == pytest.approx(2.5, abs=0.2)


@pytest.mark.parametrize(
    ("jitter", "low", "high"), [("full", 0.0, 1.0), ("equal", 0.5, 1.0), ("none", 1.0, 1.0), ("decorrelated", 1.0, 3.0)]
)
def test_each_jitter_keeps_its_range_and_fills_it(jitter: Jitter, low: float, high: float) -> None:
    """Over many calls the first delay is uniform in its range."""
    delays = [first(1, Constant(delay=1, jitter=jitter), seed)[0] for seed in range(2000)]

    assert min(delays) >= low
    assert max(delays) <= high
    assert min(delays) == pytest.approx(low, abs=0.01 * (high - low) + 1e-9)
    assert max(delays) == pytest.approx(high, abs=0.01 * (high - low) + 1e-9)
    assert sum(delays) / 2000 == pytest.approx((low + high) / 2, abs=0.03 * (high - low) + 1e-9)


def test_decorrelated_jitter_grows_from_the_delay_before() -> None:
    """Each delay is between the initial one and three times the one before it."""
    delays = first(200, Exponential(initial=0.1, maximum=5, jitter="decorrelated"))

    for before, delay in itertools.pairwise(delays):
        assert 0.1 <= delay <= min(5, 3 * before)
    assert max(delays) > 4
    assert min(delays[100:]) < 0.5  # and it shrinks again


def test_decorrelated_jitter_above_the_cap_is_the_cap() -> None:
    """Where even the initial delay exceeds the maximum."""
    assert first(3, Exponential(initial=9, maximum=5, jitter="decorrelated")) == [5, 5, 5]


@given(
    initial=st.floats(0, 100),
    factor=st.floats(1, 1000),
    maximum=st.floats(0, 1000),
    jitter=st.sampled_from(["none", "full", "equal", "decorrelated"]),
    seed=st.integers(),
)
def test_whatever_the_settings_a_delay_is_finite_and_within_the_cap(
    initial: float, factor: float, maximum: float, jitter: Jitter, seed: int
) -> None:
    """No setting makes a negative, infinite or undefined delay."""
    backoff = Exponential(initial=initial, factor=factor, maximum=maximum, jitter=jitter)

    assert all(math.isfinite(delay) and 0 <= delay <= maximum for delay in first(50, backoff, seed))


def test_each_call_has_a_schedule_of_its_own() -> None:
    """A backoff is a setting: two calls that use it do not share where they are."""
    backoff = Exponential(initial=1, jitter="none")
    one, other = backoff.delays(Random(0)), backoff.delays(Random(0))

    assert [next(one), next(one), next(other)] == [1, 2, 1]


def test_the_same_seed_gives_the_same_delays() -> None:
    """Randomness is injected, so a test can repeat it."""
    assert first(10, Exponential(), 7) == first(10, Exponential(), 7)


def test_what_a_user_gives_becomes_a_backoff() -> None:
    """A backoff stays, a function and an iterable are wrapped."""
    constant, by_verdict = Constant(), ByVerdict(lambda _: Constant())

    assert as_backoff(constant) is constant
    assert as_backoff(by_verdict) is by_verdict
    assert as_backoff([1, 2]) == Custom(source=[1, 2])


def test_another_backoff_for_some_outcomes() -> None:
    """Any mapping from a verdict to a backoff."""
    throttled, transient = Constant(delay=1), Constant(delay=2)
    backoff = ByVerdict(lambda verdict: throttled if verdict.throttled else transient)

    assert backoff.choose(Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", throttled=True)) is throttled


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(delay=-1), "delay=-1 is out of range"),
        (lambda: Constant(maximum=-1), "maximum=-1 is out of range"),
        (lambda: Linear(initial=-1), "initial=-1 is out of range"),
        (lambda: Linear(increment=-1), "increment=-1 is out of range"),
        (lambda: Exponential(factor=0.5), "factor=0.5 is out of range: expected a finite number at least 1"),
        (lambda: Exponential(jitter="some"), "jitter='some': expected one of 'none', 'full', 'equal', 'decorrelated'"),  # type: ignore[arg-type]
        (lambda: as_backoff([]), "backoff=[] is empty: give at least one delay in seconds"),
        (lambda: first(1, Custom(source=[-1])), "backoff=-1 is out of range"),
        (lambda: first(1, Custom(source=lambda _: math.nan)), "backoff=nan is out of range"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    """With the name, the value and the range."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is what is compared
        make()

    assert message in str(caught.value)


@pytest.mark.parametrize("value", [3, None, iter([1, 2]), (delay for delay in [1])], ids=lambda value: type(value).__name__)
def test_what_cannot_be_walked_many_times_is_no_backoff(value: Any) -> None:
    """An iterator would be used up by the first call."""
    with pytest.raises(TypeError, match="can be walked many times"):
        as_backoff(value)


def test_defaults_are_those_that_are_documented() -> None:
    """A tenth of a second each time; of a schedule of one's own no jitter, and a day at most."""
    assert (Constant().delay, Custom(source=[1]).jitter, Custom(source=[1]).maximum) == (0.1, "none", 86_400.0)
