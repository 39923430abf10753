"""What a run measures, in scenarios so simple that the numbers are known."""

import asyncio
import contextlib
import gc
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from resilient import chance, clock
from resilient.outcome import retry_on
from resilient.pipeline import Pipeline
from resilient.policy.schema import Policy
from resilient.simulation import Clients, Condition, Latency, Scenario, Service, simulate
from resilient.strategies.backoff import Constant
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.retry import Retry
from resilient.testing import Deadlock

TENTH = Latency(mean=0.1, shape="constant")
EVERY_SECOND = Clients(rate=1, arrivals="constant", patience=1)


def scene(
    *conditions: Condition, service: Service | None = None, clients: Clients = EVERY_SECOND, seconds: float = 20
) -> Scenario:
    """A service that answers after a tenth of a second, and a call each second."""
    services = (service or Service(latency=TENTH),)
    return Scenario(seconds=seconds, warm_up=0, services=services, clients=(clients,), conditions=conditions)


def from_ten_to_fifteen(**effects: float) -> Condition:
    return Condition(on="service", begin=10, end=15, **effects)


def test_where_nothing_goes_wrong_all_calls_are_good() -> None:
    """What has to do with a disturbance is not a number."""
    run = simulate(None, scene(), name="nothing")

    assert (run.policy, run.scenario, run.seed, run.simulated) == ("nothing", "scenario", 1, 19)
    assert (run["calls"], run["goodput"], run["amplification"]) == (19, 1, 1)
    assert [run[name] for name in ("p50", "p95", "p999", "wait")] == pytest.approx([0.1] * 4)
    assert all(math.isnan(run[name]) for name in ("recovery", "goodput_after", "amplification_after", "open", "budget_low"))
    assert len(run.series["good"]) == 20
    assert sum(run.series["good"]) == 19


def test_an_outage_is_refused_at_once() -> None:
    """Calls of that time fail, without a wait; recovery takes no time."""
    run = simulate(None, scene(from_ten_to_fifteen(refuses=1)))

    assert (run["goodput_before"], run["goodput_during"], run["goodput_after"], run["recovery"]) == (1, 0, 1, 0)
    assert run["wait"] == pytest.approx(0.1 * 14 / 19)
    assert run["wasted"] == 0


def test_a_black_hole_costs_the_patience_of_the_client() -> None:
    """Nothing is worked on, and calls wait in vain."""
    run = simulate(None, scene(from_ten_to_fifteen(hangs=1)))

    assert run["goodput_during"] == 0
    assert run["wait"] == pytest.approx((0.1 * 14 + 1 * 5) / 19)


def test_a_brown_out_wastes_work() -> None:
    """The service ends what its clients have given up."""
    run = simulate(None, scene(from_ten_to_fifteen(slow=20)))

    assert run["goodput_during"] == 0
    assert run["wasted"] == pytest.approx(5 * 2 / (5 * 2 + 14 * 0.1))


def test_errors_come_after_the_work() -> None:
    """A retry pays for them."""
    policy = Policy(retry=Retry(attempts=3, backoff=Constant(delay=0.1, jitter="none")))
    run = simulate(policy, scene(from_ten_to_fifteen(errors=1)))

    assert (run["goodput_during"], run["amplification_during"], run["amplification_after"]) == (0, 3, 1)
    assert run["wait"] == pytest.approx((0.1 * 14 + 0.5 * 5) / 19)


def test_a_loss_of_capacity_fills_the_queue() -> None:
    """What waits is worked on when the workers are back."""
    service = Service(workers=2, latency=TENTH)
    clients = Clients(rate=10, arrivals="constant", patience=9)
    run = simulate(None, scene(from_ten_to_fifteen(workers=0), service=service, clients=clients))

    assert run["goodput"] == 1
    assert run["queue_peak"] == pytest.approx(50, abs=1)
    assert run["p999"] == pytest.approx(5.1, abs=0.11)


def test_a_full_queue_refuses() -> None:
    """And says that it is overloaded."""
    service = Service(workers=1, latency=Latency(mean=1.5, shape="constant"), queue=1)
    run = simulate(None, scene(service=service, clients=Clients(rate=1, arrivals="constant", patience=9)))

    assert 0.6 < run["goodput"] < 0.8
    assert run["queue_peak"] == 1


@pytest.mark.parametrize(("discipline", "good"), [("fifo", 0.0), ("lifo", 0.4)])
def test_the_newest_first_serves_some_where_the_oldest_first_serves_none(discipline: str, good: float) -> None:
    """Under overload a line is full of those who have given up."""
    service = Service(workers=1, latency=Latency(mean=0.2, shape="constant"), discipline=discipline)  # type: ignore[arg-type]  # of the table  # pyright: ignore[reportArgumentType]
    clients = Clients(rate=10, arrivals="constant", patience=0.5)
    run = simulate(None, scene(service=service, clients=clients))

    assert run.series["good"][15] / run.series["offered"][15] == pytest.approx(good, abs=0.15)


def test_a_service_may_notice_who_has_given_up() -> None:
    """It works only for those who still wait."""
    clients = Clients(rate=10, arrivals="constant", patience=0.5)
    services = [Service(workers=1, latency=Latency(mean=0.2), notices=notices) for notices in (False, True)]
    stubborn, attentive = (simulate(None, scene(service=service, clients=clients)) for service in services)

    assert attentive["wasted"] < stubborn["wasted"]
    assert attentive["goodput"] > 2 * stubborn["goodput"]


def test_a_disturbance_may_ease_and_may_come_and_go() -> None:
    """Its strength goes down to nothing after its end; with a period it is there for the first half of it."""
    easing = Condition(on="service", begin=10, end=12, eases=4, errors=1)
    coming = Condition(on="service", begin=10, end=18, period=4, errors=1)

    assert [easing.strength(now) for now in (9, 10, 11.9, 12, 13, 15, 16)] == [0, 1, 1, 1, 0.75, 0.25, 0]
    assert [coming.strength(now) for now in (9, 10, 11.9, 12, 13.9, 14, 16, 18)] == [0, 1, 1, 0, 0, 1, 0, 0]
    assert (easing.over, coming.over) == (16, 18)


def test_recovery_is_when_goodput_stays_back() -> None:
    """A single good step is none; where it never is back in time, it takes for ever."""
    flicker = [Condition(on="service", begin=at, end=at + 1.5, hangs=1) for at in (12.5, 14.5)]
    outage = from_ten_to_fifteen(refuses=1, eases=0.0)

    assert simulate(None, scene(Condition(on="service", begin=10, end=10.5, hangs=1), *flicker))["recovery"] == 0
    assert simulate(None, scene(Condition(on="service", begin=10, end=19.5, refuses=1)))["recovery"] == math.inf
    assert simulate(None, scene(outage))["recovery"] == 0


def test_there_is_no_recovery_without_a_before_and_an_after() -> None:
    """What was never well, was not looked at before, or is disturbed to the end cannot come back."""
    never_well = scene(from_ten_to_fifteen(errors=1), clients=Clients(rate=1, arrivals="constant", patience=0.05))
    cases = [
        never_well,
        scene(Condition(on="service", begin=0, end=5, errors=1)),
        scene(from_ten_to_fifteen(errors=1), seconds=15),
    ]

    assert all(math.isnan(simulate(None, case)["recovery"]) for case in cases)


def test_a_good_answer_may_have_to_come_in_time() -> None:
    """A late one is none."""
    late = Clients(rate=1, arrivals="constant", good_within=0.05)

    run = simulate(None, scene(clients=late))

    assert run["goodput"] == 0
    assert [run[name] for name in ("wait", "p50", "p999")] == pytest.approx([0.1] * 3)  # what was late was slow, too
    assert run.series["p99"][5] == pytest.approx(0.1)


def test_an_answer_at_the_last_moment_counts() -> None:
    """The client gives up a little later."""
    service = Service(latency=Latency(mean=1, shape="constant"))

    assert simulate(None, scene(service=service))["goodput"] == 1


def test_fallbacks_and_rejections_are_told_apart_from_answers() -> None:
    """A fallback degrades, a rejection refuses."""
    outage = from_ten_to_fifteen(refuses=1)
    degraded = simulate(Policy(fallback=Fallback("stale")), scene(outage))
    breaker = CircuitBreaker(consecutive_failures=2, open_for=60)
    refused = simulate(Policy(circuit_breaker=breaker), scene(outage))

    assert degraded["degraded"] == pytest.approx(5 / 19)
    assert degraded["goodput_during"] == 0
    assert refused["rejected"] == pytest.approx(8 / 19)
    assert refused["flaps"] == 1
    assert refused["open"] > 0.3
    assert refused.series["open"][5] == 0
    assert refused.series["open"][18] == 1


def test_users_call_one_after_the_other() -> None:
    """A closed loop: a slow service is called less often."""
    users = Clients(users=10, think=0.5, patience=9)
    quick, slow = (simulate(None, scene(service=Service(latency=Latency(mean=mean)), clients=users)) for mean in (0.01, 2.0))

    assert quick["calls"] > 2 * slow["calls"] > 0


def test_clients_may_come_all_together_or_not_at_all_for_a_while() -> None:
    """A herd is one moment; a rate may be nothing for a time."""
    herd = simulate(None, scene(clients=Clients(together=7)))
    pause = Condition(on="clients", begin=5, end=15, rate=0)
    paused = simulate(None, scene(pause))

    assert (herd["calls"], herd.series["offered"][1]) == (7, 7)
    assert herd["finished"] == pytest.approx(1.1)
    assert sum(paused.series["offered"][6:15]) == 0
    assert paused["calls"] == 9  # after 1, 2, ... 5, and after 16, ... 19
    assert math.isnan(simulate(None, scene(Condition(on="clients", begin=0, end=30, rate=0)))["finished"])


def test_calls_that_never_end_are_cut_off() -> None:
    """Half a minute after the last call all is over. They took at least until then, and have no place among the answers."""
    forever = Clients(rate=1, arrivals="constant", patience=1e6)
    run = simulate(None, scene(from_ten_to_fifteen(hangs=1), clients=forever))

    assert run["finished"] == math.inf
    assert run["wait"] == pytest.approx((0.1 * 14 + sum(50 - at for at in range(10, 15))) / 19)
    assert run["wait_p99"] == pytest.approx(40)
    assert run["p999"] == pytest.approx(0.1)


def test_processes_have_state_of_their_own() -> None:
    """Two of them have two breakers, and a bulkhead each."""
    policy = Policy(bulkhead=Bulkhead(1), circuit_breaker=CircuitBreaker(consecutive_failures=1, open_for=60))
    herd = Clients(together=6, pipelines=2)

    assert simulate(policy, scene(clients=herd))["rejected"] == pytest.approx(4 / 6)


def test_other_clients_are_load_and_not_counted() -> None:
    """Groups may call by policies of their own."""
    refusing = Policy(bulkhead=Bulkhead(1))
    groups = (EVERY_SECOND, Clients(name="others", together=50, counted=False, policy="refusing"))
    run = simulate(None, scene().replace(clients=groups, policies={"refusing": refusing}))

    assert (run["calls"], run["rejected"], run["attempts"]) == (19, 0, 20)


def test_another_library_can_be_driven() -> None:
    """A function that makes a caller stands for it; what it raises is a failed call."""

    def twice() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]:
        async def call(request: Callable[[], Awaitable[object]]) -> object:
            try:
                return await request()
            except (ConnectionError, TimeoutError):
                return await request()

        return call

    run = simulate(twice, scene(from_ten_to_fifteen(refuses=1)), name="twice")

    assert (run["amplification_during"], run["goodput_during"]) == (2, 0)


def test_a_policy_with_its_own_ideas_of_failure_keeps_them() -> None:
    """Failures are connection errors, an impatient client raises a timeout: `on=` decides."""
    policy = Policy(
        retry=Retry(on=TimeoutError, backoff=Constant(delay=0.1)), circuit_breaker=CircuitBreaker(classify=retry_on(OSError))
    )

    assert simulate(policy, scene(from_ten_to_fifteen(refuses=1)))["amplification_during"] == 1
    assert simulate(policy, scene(from_ten_to_fifteen(hangs=1)))["amplification_during"] > 2


def test_a_run_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """The logs are silent, the common source of chance goes on where it was, and progress is told."""
    chance.source.seed(1)
    expected = chance.source.random()
    chance.source.seed(1)
    told: list[float] = []
    with caplog.at_level(logging.DEBUG):
        simulate(
            Policy(circuit_breaker=CircuitBreaker(consecutive_failures=1)),
            scene(from_ten_to_fifteen(refuses=1)),
            progress=told.append,
        )

    assert chance.source.random() == expected
    assert not caplog.records
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 1)


@pytest.mark.anyio
async def test_a_run_may_be_made_where_a_loop_runs() -> None:
    """As in a notebook. It is the same run, and the loop around waits for it."""
    assert simulate(None, scene()).series["good"][10] == 1


def test_a_subject_that_waits_for_nothing_is_found_out() -> None:
    """A caller that cannot be cancelled ends the run with a deadlock."""

    def stuck() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]:
        async def call(_: Callable[[], Awaitable[object]]) -> object:
            while True:
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    continue

        return call

    with pytest.raises(Deadlock):
        simulate(stuck, scene(seconds=2))


def _not_async(_: object) -> str:
    return "an answer"


async def _call(request: Callable[[], Awaitable[object]]) -> object:
    return await request()


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("http", "subject='http': expected a policy, None, or a function without arguments that makes an async caller"),
        (Pipeline(), "lambda: pipeline.call"),
        (_call, "_call.*expected a policy, None, or a function without arguments"),
        (lambda: None, r"subject\(\) returned None: expected"),
        (lambda: _not_async, "_not_async.*returned 'an answer': expected an async caller"),
    ],
)
def test_what_cannot_be_driven_is_told(subject: Any, message: str) -> None:
    """Instead of a run in which all calls fail."""
    with pytest.raises(TypeError, match=message):
        simulate(subject, scene())


def test_a_subject_that_tries_for_ever_without_a_wait_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time would stand still. The run ends there."""
    monkeypatch.setattr("resilient.simulation.service._AT_ONCE", 1000)
    tried: list[float] = []

    def stubborn() -> Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]:
        async def call(request: Callable[[], Awaitable[object]]) -> object:
            while True:
                tried.append(clock.now())
                with contextlib.suppress(Exception):
                    return await request()

        return call

    with pytest.raises(ValueError, match="1,000 requests to 'service' at second 10: does something try again"):
        simulate(stubborn, scene(from_ten_to_fifteen(refuses=1)))
    assert len(tried) == 9 + 1001


def test_a_run_may_be_stopped() -> None:
    """By Ctrl-C, say; nothing is told of calls that had no time to begin."""

    async def stopped(_: object) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(lambda: stopped, scene(clients=Clients(together=3)))
    gc.collect()
