"""Live latency: what it knows, what it forgets, and which samples are fair."""

import math
import random
from collections.abc import Callable
from functools import partial

import pytest

from resilient.strategies.latency import P50, P90, P95, P99, FixedDelay, Latency, Percentile

STEP = 2 ** (1 / 16)


def filled(*samples: float, minimum: int = 1) -> Latency:
    latency = Latency(minimum)
    for seconds in samples:
        latency.record(seconds, 0.0)
    return latency


def known(latency: Latency, share: float) -> float:
    quantile = latency.quantile(share)
    assert quantile is not None
    return quantile


def test_it_knows_nothing_before_there_are_samples_enough() -> None:
    """Fifty by default."""
    latency = Latency()
    for _ in range(49):
        latency.record(0.1, 0.0)
    before = latency.quantile(0.95)
    latency.record(0.1, 0.0)

    assert before is None
    assert latency.quantile(0.95) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(partial(random.Random.lognormvariate, mu=-3, sigma=1), id="lognormal"),
        pytest.param(partial(random.Random.uniform, a=0.01, b=0.02), id="uniform"),
        pytest.param(partial(random.Random.uniform, a=0.01, b=0.01), id="constant"),
        pytest.param(partial(random.Random.expovariate, lambd=20), id="exponential"),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_a_quantile_is_never_too_low_and_within_a_bucket(draw: Callable[[random.Random], float], share: float) -> None:
    """No more samples than asked for are above it, whatever the distribution; it is at most one step too high."""
    rng = random.Random(1)
    samples = sorted(draw(rng) for _ in range(992))  # a multiple of sixteen, and nothing has faded yet
    shuffled = rng.sample(samples, len(samples))
    quantile = known(filled(*shuffled), share)
    exact = samples[math.ceil(share * len(samples)) - 1]

    assert sum(sample > quantile for sample in samples) <= (1 - share) * len(samples)
    assert exact <= quantile * (1 + 1e-9) <= exact * STEP * (1 + 1e-6)


def test_what_was_long_ago_fades() -> None:
    """After a thousand samples of another kind, hardly anything is left of those before."""
    latency = filled(*[1.0] * 2000)
    slow = known(latency, 0.5)
    for _ in range(1500):
        latency.record(0.01, 0.0)

    assert slow == pytest.approx(1.0)
    assert known(latency, 0.5) == pytest.approx(0.01, rel=0.05)


def test_it_follows_a_callee_that_gets_slower_at_once() -> None:
    """Sixty slow calls are enough to lift the 95th percentile: hedging backs off before it doubles the load."""
    latency = filled(*[0.01] * 900)
    for _ in range(60):
        latency.record(1.0, 0.0)

    assert known(latency, 0.95) == pytest.approx(1.0)


def test_the_lowest_quantile_is_the_lowest_bucket() -> None:
    """However small the share."""
    assert known(filled(1.0, 2.0), 1e-12) == pytest.approx(1.0)


def test_few_samples_are_counted_one_by_one() -> None:
    """Six tenths of four calls are three of them."""
    assert known(filled(1.0, 2.0, 4.0, 8.0), 0.6) == pytest.approx(4.0)


def test_no_call_exceeds_the_quantile_of_all() -> None:
    """It is the highest bucket."""
    assert known(filled(1.0, 2.0), 1.0) == pytest.approx(2.0)


def _buckets(latency: Latency) -> int:
    return len(latency._weights or ())  # pyright: ignore[reportPrivateUsage]  memory is not seen from outside


def test_half_of_what_it_knows_is_as_old_as_a_thousand_samples() -> None:
    """By then all weights are halved: five hundred new samples weigh as much as the thousand before."""
    latency = filled(*[1.0] * 1000)
    for _ in range(488):
        latency.record(0.01, 0.0)
    before = known(latency, 0.5)
    for _ in range(32):
        latency.record(0.01, 0.0)

    assert before == pytest.approx(1.0, rel=0.05)
    assert known(latency, 0.5) == pytest.approx(0.01, rel=0.05)


def test_a_lonely_sample_is_given_up_when_it_was_halved_seven_times() -> None:
    """Its weight is then below a sixty-fourth: hardly anything, but a bucket all the same, and all those in between."""
    for lonely in (0.05, 0.2):  # below what is usual, and above it
        latency, kept = filled(lonely), list[bool]()
        for _ in range(4100):
            latency.record(0.1, 0.0)
            kept.append(_buckets(latency) > 1)

        assert kept[3600]
        assert not kept[-1]


def test_there_are_buckets_from_the_lowest_to_the_highest_and_no_more() -> None:
    """Sixteen for each doubling, in whatever order the samples come."""
    assert [_buckets(filled(*order)) for order in ((2.0, 4.0, 1.0), (1.0, 4.0, 2.0), (4.0, 2.0, 1.0))] == [33, 33, 33]


def test_what_cannot_be_counts_as_the_nearest_that_can() -> None:
    """A clock that went back took no time; one that leapt, an age."""
    assert [known(filled(seconds), 0.5) for seconds in (-1.0, 0.0)] == pytest.approx([1e-6, 1e-6], rel=0.05)
    assert known(filled(1e30), 0.5) == pytest.approx(1e6, rel=0.05)


def test_its_memory_is_bounded() -> None:
    """Samples of every magnitude, impossible ones too, make a few hundred buckets; rare ones vanish."""
    rng = random.Random(2)
    latency = filled(0.0, -1.0, 1e30, *(10 ** rng.uniform(-9, 9) for _ in range(5000)))
    most = _buckets(latency)
    for _ in range(10_000):
        latency.record(0.1, 0.0)

    assert most < 700
    assert _buckets(latency) == 1


def test_quantiles_are_worked_out_now_and_then() -> None:
    """After every sixteen samples: in between the answer stays, which makes a call cheap."""
    latency = filled(*[0.1] * 16)
    first = known(latency, 0.9)
    for _ in range(15):
        latency.record(9.0, 0.0)
    same = known(latency, 0.9)
    latency.record(9.0, 0.0)

    assert first == pytest.approx(0.1, rel=0.05)
    assert same == first
    assert known(latency, 0.9) == pytest.approx(9, rel=0.05)
    assert known(filled(*[0.1] * 16, *[9.0] * 32), 0.5) == pytest.approx(9, rel=0.05)


def test_a_leg_that_was_cut_short_counts_where_it_is_certain() -> None:
    """Longer than the delay: it lies above. Shorter, or while no delay was in force: it tells nothing."""
    latency = Latency()
    latency.record_at_least(0.5, 0.0, 1.0)
    latency.record_at_least(9.0, 0.0, None)
    ignored = latency.samples
    latency.record_at_least(1.0, 0.0, 1.0)

    assert (ignored, latency.samples) == (0, 1)
    assert not latency.is_fresh(60.0)


def hedged_share(*, count_losers: bool) -> float:
    """How many calls of an exponential callee are hedged at p95, once ten thousand calls have been made."""
    rng, latency, hedged = random.Random(3), Latency(), 0
    for number in range(20_000):
        first, second = rng.expovariate(1), rng.expovariate(1)
        delay = latency.quantile(0.95)
        if delay is None or first <= delay:
            latency.record(first, 0.0)
            continue
        hedged += number >= 10_000
        if first <= delay + second:
            latency.record(first, 0.0)
        elif count_losers:
            latency.record_at_least(delay + second, 0.0, delay)
    return hedged / 10_000


def test_samples_are_fair() -> None:
    """One call in twenty is hedged in the long run. Without the legs that lost, the quantile sinks and sinks."""
    assert hedged_share(count_losers=True) == pytest.approx(0.05, abs=0.006)
    assert hedged_share(count_losers=False) > 0.08


def test_a_sibling_has_its_settings_and_none_of_its_samples() -> None:
    """For a key of its own."""
    sibling = filled(1.0, minimum=3).sibling()

    assert (sibling.minimum, sibling.samples) == (3, 0)


def test_it_may_be_forgotten_after_a_minute_without_a_sample() -> None:
    """Where memory is short, that is: nobody misses what an idle key has learned."""
    latency = Latency()
    new = latency.is_fresh(0.0)
    latency.record(0.1, 10.0)

    assert (new, latency.is_fresh(70.0), latency.is_fresh(70.1)) == (True, False, True)


def test_its_repr_shows_what_it_knows() -> None:
    """As soon as it knows something."""
    assert repr(Latency()) == "<Latency of 0 samples>"
    assert repr(filled(1.0)) == "<Latency of 1 samples: p50 1 s, p95 1 s>"


def test_triggers_are_functions_of_live_latency() -> None:
    """Percentiles are floats as well, so that they may be given as such; a fixed delay needs no latency."""
    latency = filled(*[0.01] * 50, *[1.0] * 46)

    assert [trigger(latency) for trigger in (P50, P90)] == pytest.approx([0.01, 1.0], rel=0.05)
    assert [P50, P90, P95, P99] == [0.5, 0.9, 0.95, 0.99]
    assert P95(Latency()) is None
    assert FixedDelay(0.2)(Latency()) == 0.2


@pytest.mark.parametrize("minimum", [0, -1])
def test_it_needs_a_sample_at_least(minimum: int) -> None:
    """The message says what is wrong."""
    with pytest.raises(ValueError, match=f"minimum={minimum}"):
        Latency(minimum)


@pytest.mark.parametrize("share", [0, -1, 1, 95, math.nan, math.inf])
def test_a_percentile_is_a_share(share: float) -> None:
    """Not a number of hundredths."""
    with pytest.raises(ValueError, match="percentile="):
        Percentile(share)
