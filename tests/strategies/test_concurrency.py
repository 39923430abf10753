"""Closed loop: an adaptive limit in front of a simulated service with ten workers and an endless queue.

At 50 ms a call the service does two hundred calls a second, with ten to fifteen of them inside. No loop and no clock runs: each
case is minutes, with several seeds. Whoever calls does not care for refusals, and comes again at the same rate.
"""

import itertools
from random import Random
from typing import Any

import pytest

from resilient.strategies.adaptive_limit import AdaptiveLimit
from resilient.strategies.concurrency import Concurrency
from strategies.queueing import Phase, Service, exponential, heavy_tailed, load, lognormal, steady

SEEDS = [1, 2]


def run(seed: int, *phases: float, initial: int = 20, service: Service | None = None, **more: Any) -> list[Phase]:
    limit = AdaptiveLimit(initial, maximum=1000, random=Random(seed))
    settings: dict[str, Any] = {"workers": 10, "rate": 400, **more}
    return load(limit, *phases, service=service or exponential(0.05), seed=seed, **settings)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("initial", [2, 20, 200])
def test_it_converges_near_the_capacity_from_below_and_from_above(initial: int, seed: int) -> None:
    """Under twice the load that the service can bear: nearly all of its capacity is used, and hardly anybody queues in it."""
    _, settled = run(seed, 30, 60, initial=initial)

    assert 7 <= settled.limit <= 18
    assert settled.rate >= 0.85 * 200
    assert settled.median <= 1.3 * 0.05
    assert settled.worst <= 0.3  # that of the service alone is 0.23


@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_overload_does_not_make_it_drift(seed: int) -> None:
    """After ten minutes it stands where it stood after three: what is slow all the time does not become the normal state."""
    _, early, _, late = run(seed, 60, 180, 480, 600, workers=5, rate=125)

    assert late.limit == pytest.approx(early.limit, rel=0.25)
    assert late.limit <= 10
    assert late.median <= 1.5 * 0.05
    assert late.rate >= 0.8 * 100


@pytest.mark.parametrize("seed", SEEDS)
def test_it_recovers_after_a_slow_phase(seed: int) -> None:
    """Ten times slower for two minutes: then it takes half a minute until the capacity is used again."""

    def service(random: Random, now: float) -> float:
        return random.expovariate(1 / (0.5 if 60 < now < 180 else 0.05))

    before, slow, _, after = run(seed, 60, 180, 210, 270, service=service)

    assert slow.rate >= 0.5 * 20
    assert slow.worst <= 6  # five hundred would wait for more than ten seconds
    assert after.rate >= 0.9 * before.rate
    assert after.median <= 1.3 * 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_a_service_that_is_slower_for_good_is_no_overload(seed: int) -> None:
    """Calls take twice as long, and there is capacity for all of them: hardly any is refused."""

    def service(random: Random, now: float) -> float:
        return random.expovariate(1 / (0.05 if now < 60 else 0.1))

    _, at_first, later = run(seed, 60, 120, 240, service=service, rate=75)

    assert at_first.rate >= 0.9 * 75
    assert later.rate >= 0.97 * 75


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("service", [steady(0.05), lognormal(0.05), heavy_tailed(0.05)], ids=["steady", "lognormal", "heavy"])
def test_latencies_of_every_kind_are_understood(service: Service, seed: int) -> None:
    """Also where one call in fifty takes fifty times as long: the mean of the logarithms hardly moves."""
    _, settled = run(seed, 30, 120, service=service)

    assert 6 <= settled.limit <= 20
    assert settled.rate >= 0.85 * 200


@pytest.mark.parametrize("seed", SEEDS)
def test_without_overload_it_is_not_in_the_way(seed: int) -> None:
    """At 85 % of the capacity nobody is refused once it has found its place."""
    _, settled = run(seed, 30, 120, rate=170)

    assert settled.rate >= 0.97 * 170


@pytest.mark.parametrize("seed", SEEDS)
def test_it_follows_a_service_that_sheds_load(seed: int) -> None:
    """What is refused beyond 12 at a time are drops, however fast the calls that get in are."""
    _, settled = run(seed, 30, 120, sheds=12)

    assert 7 <= settled.limit <= 13
    assert settled.rate >= 0.8 * 200


# -- the machine, step by step


def heard(machine: Concurrency, now: float, latency: float | None, active: int, count: int = 20) -> str | None:
    """So many equal outcomes and one more, in the second that ends at `now`."""
    why = None
    for index in range(count + 1):
        why = machine.hear(now - 1 + index / count, latency, active, 1, 100, Random(1)) or why
    return why


def settled_machine(limit: float = 20) -> Concurrency:
    """One that knows its baseline: 100 ms."""
    machine = Concurrency(limit)
    heard(machine, 1, 0.1, 1)
    return machine


def test_a_limit_that_is_used_grows_by_half_of_its_root_and_one_that_is_not_stays() -> None:
    """Once in a window; what is not reached needs no room."""
    machine = settled_machine(16)
    idle = heard(machine, 10, 0.1, 7)
    unchanged = machine.limit
    busy = heard(machine, 12, 0.1, 8)

    assert (idle, unchanged) == (None, 16)
    assert (busy, machine.limit, machine.slots) == ("room", 18, 18)


def test_a_full_window_that_is_slow_shrinks_it_in_proportion_and_at_most_by_half() -> None:
    """Beyond a tolerance of a quarter."""
    slow, slower, tolerable = settled_machine(), settled_machine(), settled_machine()
    whys = heard(slow, 10, 0.15, 20), heard(slower, 10, 0.4, 20), heard(tolerable, 10, 0.12, 20)

    assert whys == ("slower", "probe", "room")
    assert slow.limit == pytest.approx(20 * 0.125 / 0.15)
    assert slower.limit == 5  # half, and a probe of that because it has halved
    assert tolerable.limit > 20


def test_twenty_outcomes_make_a_window() -> None:
    """Also those that come in the same instant."""
    machine = Concurrency(20)
    whys = [machine.hear(now, 0.1, 10, 1, 100, Random(1)) for now in [0.0] * 10 + [1.0] * 10]

    assert whys == [None] * 19 + ["room"]


def test_the_house_is_full_at_nineteen_of_twenty() -> None:
    """With fewer it is not the limit that makes calls slow."""
    assert [heard(settled_machine(20), 10, 0.15, active) for active in (18, 19)] == [None, "slower"]
    assert [heard(Concurrency(40), 1, 0.4, active) for active in (37, 38)] == ["room", "probe"]


def test_faster_calls_lower_the_baseline_where_they_are_certainly_faster() -> None:
    """Of a full house too: it cannot be the calls that wait which are fast."""
    faster, noisy = settled_machine(), settled_machine()
    heard(faster, 10, 0.05, 20)
    for index in range(21):
        noisy.hear(9 + index / 20, 0.19 if index % 2 else 0.05, 20, 1, 100, Random(1))

    assert faster.baseline == pytest.approx(0.1 * 0.5**0.1)
    assert noisy.baseline == pytest.approx(0.1)


def test_slow_calls_where_there_is_room_are_no_reason_to_shrink() -> None:
    """The limit did not bring them about: the baseline follows instead."""
    machine = settled_machine()
    before = machine.baseline
    why = heard(machine, 10, 0.4, 15)

    assert (why, machine.limit) == (None, 20)
    assert before == pytest.approx(0.1)
    assert machine.baseline == pytest.approx(0.1 * 4**0.1)


def test_drops_shrink_it_by_their_share() -> None:
    """And no further than by half, where everything fails."""
    some, all_of_them = settled_machine(), settled_machine()
    why = None
    for index in range(21):
        why = some.hear(9 + index / 20, None if index < 7 else 0.1, 5, 1, 100, Random(1))
    heard(all_of_them, 10, None, 5)

    assert why == "drops"
    assert some.limit == pytest.approx(20 * 2 / 3)
    assert all_of_them.limit == 10


def test_drops_that_outweigh_what_it_grew_by_are_why_it_shrinks() -> None:
    """The others were as fast as ever: there was room for them, and for a few drops it grows all the same."""
    many, few = settled_machine(), settled_machine()
    whys = list[str | None]()
    for index in range(21):
        whys = [
            machine.hear(9 + index / 20, None if index < drops else 0.1, 20, 1, 100, Random(1))
            for machine, drops in ((many, 10), (few, 1))
        ]

    assert whys == ["drops", "room"]
    assert (many.slots, few.slots) == (11, 21)


def test_a_baseline_that_was_learned_from_a_full_house_is_doubted_at_once() -> None:
    """Half of the limit for one window, from the moment when that many are left; then the old one again."""
    machine = Concurrency(40)
    first = heard(machine, 1, 0.4, 40)
    during = machine.slots, machine.probing
    draining = heard(machine, 4, 0.4, 30), machine.slots
    machine.hear(4.5, 0.4, 22, 1, 100, Random(1))
    stale = heard(machine, 6, 3.0, 20), machine.slots  # they began before the probe
    over = heard(machine, 8, 0.1, 20)

    assert (first, during) == ("probe", (21, True))
    assert (draining, stale) == ((None, 21), (None, 21))
    assert (over, machine.slots, machine.probing) == ("probe_over", 43, False)
    assert machine.baseline == pytest.approx(0.1)


def test_a_probe_heeds_what_began_in_it_once_the_others_have_left() -> None:
    """From the very moment when only as many are left as there are slots."""
    machine = Concurrency(40)
    heard(machine, 1, 0.4, 40)
    slots = machine.slots
    before = [machine.hear(2.0, 0.4, slots + 2, 1, 100, Random(1)), machine.hear(3.0, 0.4, slots + 1, 1, 100, Random(1))]
    during = [machine.hear(3.25, 0.25, slots, 1, 100, Random(1)) for _ in range(19)]
    stale = machine.hear(3.5, 0.75, slots, 1, 100, Random(1))
    over = machine.hear(4.0, 0.25, slots, 1, 100, Random(1))

    assert {*before, *during, stale} == {None}
    assert over == "probe_over"
    assert machine.baseline == pytest.approx(0.25)


def test_the_gap_to_the_next_probe_is_four_times_the_one_before() -> None:
    """Three full windows at first; a quarter more or less, by chance."""
    machine = Concurrency(100)
    heard(machine, 1, 0.1, 100)
    machine.hear(2, 0.1, 10, 1, 100, Random(1))
    over, windows = heard(machine, 4, 0.1, 50), 1
    while heard(machine, 4 + 2 * windows, 0.1, 100) != "probe":
        windows += 1

    assert (over, windows) == ("probe_over", round(12 * Random(1).uniform(0.75, 1.25)))


def test_a_limit_that_is_used_is_probed_again_and_again() -> None:
    """Every sixty full windows, a quarter more or less: what the service can do is asked anew, however long all has been well."""
    machine, now, probes = settled_machine(100), 1, list[int]()
    for window in range(300):
        now += 2
        if heard(machine, now, 0.1, machine.slots) == "probe":
            probes.append(window)
            now += 2
            machine.hear(now - 1, 0.1, 10, 1, 100, Random(1))  # all but those who fit have left
            heard(machine, now, 0.1, machine.slots, count=40)
    gaps = [later - earlier for earlier, later in itertools.pairwise(probes)]
    usual = round(60 * Random(1).uniform(0.75, 1.25))

    assert probes[0] == 59  # what was learned where there was room is believed at first
    assert gaps[0] < gaps[1] < usual  # the first ones come sooner
    assert gaps[2:] == [usual] * 3


def test_a_limit_that_has_doubled_is_probed() -> None:
    """What was true of half of it need not be true of all."""
    machine, now = settled_machine(20), 1
    while not machine.probing:
        now += 2
        heard(machine, now, 0.1, machine.slots)

    assert 40 <= 2 * machine.limit < 44


def test_a_probe_in_which_nothing_goes_well_teaches_no_baseline() -> None:
    """And its drops count."""
    machine = Concurrency(40)
    heard(machine, 1, 0.4, 40)
    probing = machine.probing
    machine.hear(2, 0.4, 20, 1, 100, Random(1))
    why = heard(machine, 4, None, 20)

    assert probing
    assert (why, machine.probing) == (None, False)  # half of 43, where it is already
    assert machine.slots == 21
    assert machine.baseline == pytest.approx(0.4)


def test_at_its_lowest_it_learns_what_normal_is_now() -> None:
    """It cannot be lowered to see: a service that is slower for good is believed in the end."""
    machine = Concurrency(1)
    for second in range(1, 1200):
        machine.hear(float(second), 0.1 if second < 40 else 0.5, 1, 1, 1, Random(1))

    assert machine.limit == 1
    assert machine.baseline == pytest.approx(0.5, rel=0.1)


def test_a_window_that_only_holds_drops_says_nothing_of_latency() -> None:
    """There is no baseline yet, and none is made up."""
    machine = Concurrency(20)
    heard(machine, 1, None, 20)

    assert machine.baseline is None
    assert machine.limit == 10


def test_calls_that_take_no_time_are_no_trouble() -> None:
    """In virtual time they do."""
    machine = Concurrency(20)
    for second in range(1, 20, 2):
        heard(machine, second, 0.0, 15)

    assert machine.limit > 20
    assert machine.baseline == pytest.approx(1e-6)


def test_a_clock_that_goes_back_begins_a_new_window() -> None:
    """As that of a test does."""
    machine = Concurrency(20)
    heard(machine, 1e6, 0.4, 1, count=10)
    heard(machine, 1, 0.1, 1)

    assert machine.baseline == pytest.approx(0.1)
    assert machine.heard_at == 1
