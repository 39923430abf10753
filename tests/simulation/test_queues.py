"""The services behave as the theory of queues says, and nothing of what is sent is lost from the books."""

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from resilient.policy.schema import Policy
from resilient.simulation import Clients, Condition, Latency, Scenario, Service, simulate
from resilient.strategies.hedge import Hedge

MEAN = 0.1


def erlang_c(servers: int, load: float) -> float:
    """The probability that one who comes has to wait, at so many servers and a load in Erlang."""
    terms = [load**n / math.factorial(n) for n in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last)


@pytest.mark.parametrize(("servers", "utilisation", "calls"), [(1, 0.5, 6000), (4, 0.8, 12000)])
def test_waits_are_those_of_an_m_m_c_queue(servers: int, utilisation: float, calls: int) -> None:
    """Poisson arrivals, exponential work: the mean wait by Erlang's formula C, the median of one server in closed form."""
    load = servers * utilisation
    rate = load / MEAN
    queue = erlang_c(servers, load) * MEAN / (servers - load)
    run = simulate(
        None,
        Scenario(
            seconds=calls / rate,
            services=(Service(workers=servers, queue=10**6, latency=Latency(mean=MEAN)),),
            clients=(Clients(rate=rate, patience=1e6),),
        ),
    )

    assert run["wait"] - MEAN == pytest.approx(queue, rel=0.1)
    if servers == 1:  # the time in the system is exponential
        assert run["p50"] == pytest.approx(math.log(2) * MEAN / (1 - utilisation), rel=0.1)
        assert run["wait_p99"] == pytest.approx(math.log(100) * MEAN / (1 - utilisation), rel=0.15)


def test_what_is_sent_is_answered_or_fails_or_is_under_way_at_the_end() -> None:
    """In every kind of trouble at once; and all calls have one end."""
    ends: Counter[str] = Counter()

    def counting() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]:
        async def call(request: Callable[[], Awaitable[object]]) -> object:
            ends["sent"] += 1
            try:
                answer = await request()
            except (ConnectionError, TimeoutError):
                ends["failed"] += 1
                raise
            except asyncio.CancelledError:
                ends["under way"] += 1
                raise
            ends["answered"] += 1
            return answer

        return call

    trouble = [
        Condition(on="service", begin=2, end=4, refuses=0.5),
        Condition(on="service", begin=3, end=6, errors=0.5, eases=1),
        Condition(on="service", begin=5, end=7, slow=5),
        Condition(on="service", begin=6, end=9, workers=0),
        Condition(on="service", begin=8, end=10, hangs=0.3),
    ]
    scenario = Scenario(
        seconds=10,
        warm_up=0,
        services=(Service(workers=3, queue=40),),
        clients=(Clients(rate=40, patience=31),),
        conditions=tuple(trouble),
    )
    run = simulate(counting, scenario)

    assert ends["sent"] == run.simulated == run["calls"] == run["attempts"]
    assert ends["sent"] == ends["answered"] + ends["failed"] + ends["under way"]
    assert min(ends.values()) > 0
    assert run["goodput"] == pytest.approx(ends["answered"] / ends["sent"])
    assert run["finished"] == math.inf


def test_calls_of_a_closed_loop_wait_behind_the_slow_ones() -> None:
    """One worker, two users: the second waits for the first, and the percentiles know of it."""
    users = Clients(users=2, think=1e-6, patience=9)
    service = Service(workers=1, latency=Latency(mean=0.1, shape="constant"))
    run = simulate(None, Scenario(seconds=10, services=(service,), clients=(users,)))

    assert run["p50"] == pytest.approx(0.2, abs=0.001)
    assert run["calls"] == pytest.approx(100, abs=2)


def test_calls_come_back_at_once_after_a_time_in_which_they_were_seldom() -> None:
    """The next one is not put off by what the rate was when the last one came."""
    seldom = Condition(on="clients", begin=10, end=15, rate=0.001)
    run = simulate(None, Scenario(seconds=30, clients=(Clients(rate=10),), conditions=(seldom,)))

    assert sum(run.series["offered"][10:15]) <= 1
    assert sum(run.series["offered"][15:]) == pytest.approx(150, rel=0.2)


def test_workers_that_come_back_find_those_who_wait() -> None:
    """Even where nobody comes who would rouse them."""
    none_at_first = Condition(on="service", begin=0, end=3, workers=0)
    run = simulate(None, Scenario(seconds=6, warm_up=0, clients=(Clients(together=5),), conditions=(none_at_first,)))

    assert run["goodput"] == 1
    assert 2 < run["p50"] < 3


def test_hedges_of_all_tiers_count() -> None:
    """Of the one that hedges, and not only of the one that has most to do."""
    clients = (
        Clients(rate=10, arrivals="constant"),
        Clients(name="others", rate=100, arrivals="constant", calls="back", policy="plain", counted=False),
    )
    scenario = Scenario(
        seconds=5,
        services=(Service(name="front", workers=100), Service(name="back", workers=100)),
        clients=clients,
        policies={"plain": Policy(attempt_timeout=9)},
    )

    assert simulate(Policy(hedge=Hedge(0.0)), scenario)["hedges"] == pytest.approx(1 / 11, rel=0.05)
