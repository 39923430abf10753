"""What recourse offers for hedging, written with this library; what is wrong there is right here. See `docs/seeds.md`."""

import anyio
import pytest

from helpers import Failure
from resilient import (
    CircuitBreaker,
    Event,
    Hedge,
    Latency,
    Pipeline,
    Retry,
    TokenBudget,
    current_attempt,
    listening,
    record_timeline,
)
from resilient.observe.events import HedgeFinished, HedgeStarted
from resilient.strategies.latency import P99

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]


class Callee:
    """Its legs take so many seconds, one after the other; the last one is that of all further ones.

    Attributes:
        at: when it was called.
        ended: how many legs were cleaned up.

    """

    def __init__(self, *seconds: float, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.at: list[float] = []
        self.ended = 0

    async def __call__(self) -> str:
        leg = len(self.at)
        self.at.append(anyio.current_time())
        try:
            await anyio.sleep(self.seconds[min(leg, len(self.seconds) - 1)])
        finally:
            self.ended += 1
        if self.error is not None:
            raise self.error
        return f"leg {leg}"


async def test_a_slow_attempt_gets_a_hedge_after_a_delay() -> None:
    """Fixed delay: the second leg begins after 100 ms, and wins."""
    callee = Callee(10, 0.2)

    assert await Hedge(delay=0.1).call(callee) == "leg 1"
    assert callee.at == pytest.approx([0, 0.1])
    assert anyio.current_time() == pytest.approx(0.3)


async def test_a_hedge_follows_the_latency() -> None:
    """Latency-aware: nothing is hedged before fifty calls were seen; then what is slower than 99 % of them is."""
    hedge = Hedge(percentile=P99)
    early = Callee(10)
    await hedge.call(early)
    for _ in range(500):
        await hedge.call(Callee(0.1))
    late = Callee(10, 0.1)
    began = anyio.current_time()
    await hedge.call(late)

    assert len(early.at) == 1
    assert late.at[1] - began == pytest.approx(0.1, rel=0.05)


async def test_hedges_keep_their_distance() -> None:
    """There all of them fire in the same instant when they follow the latency."""
    hedge = Hedge(percentile=P99, max_hedges=3)
    for _ in range(100):
        await hedge.call(Callee(0.1))
    began = anyio.current_time()
    callee = Callee(10)
    await hedge.call(callee)

    assert [at - began for at in callee.at] == pytest.approx([0, 0.1, 0.2, 0.3], rel=0.05)


async def test_a_trigger_of_ones_own() -> None:
    """A function of the live latency."""

    def twice_the_median(latency: Latency) -> float:
        return 2 * (latency.quantile(0.5) or 0.5)

    callee = Callee(10, 0.1)
    await Hedge(trigger=twice_the_median).call(callee)

    assert callee.at == [0, 1.0]


async def test_hedged_calls_that_fail_never_hang() -> None:
    """There one in ten thousand does, for ever where it has no deadline. Virtual time would call it a deadlock."""
    hedge = Hedge(delay=0, max_hedges=2, on=Failure)
    for _ in range(100):
        with pytest.raises(Failure):
            await hedge.call(Callee(0, error=Failure()))
    callee = Callee(0.1, error=Failure())
    with pytest.raises(Failure):
        await hedge.call(callee)

    assert callee.ended == len(callee.at)


async def test_a_hedge_that_is_not_paid_for_does_no_harm() -> None:
    """There the denial ends the call, and its first leg with it."""
    callee = Callee(1)
    hedge = Hedge(delay=0.1, budget=TokenBudget(0, refill=0))

    assert await hedge.call(callee) == "leg 0"
    assert len(callee.at) == 1


async def test_hedges_and_retries_are_paid_from_one_budget() -> None:
    """There hedges without a budget of their own are free, whatever the retries have."""
    budget = TokenBudget(1, refill=0)
    callee = Callee(1, error=Failure())
    pipeline = Pipeline(Retry(on=Failure, budget=budget, backoff=[0]), Hedge(delay=0.1, budget=budget, on=Failure))
    with pytest.raises(Failure):
        await pipeline.call(callee)

    assert len(callee.at) == 2


async def test_the_loser_is_recorded() -> None:
    """There it is not, nor is it awaited."""
    callee = Callee(10, 0.2)
    with record_timeline() as timeline:
        await Hedge(delay=0.1).call(callee)

    assert callee.ended == 2
    assert sorted((attempt.kind, attempt.verdict.reason) for attempt in timeline.attempts) == [
        ("hedge", "success"),
        ("original", "cancelled"),
    ]


async def test_hedges_are_told() -> None:
    """`OnHedgeSpawn` and `OnHedgeCancel`; the callee knows what it is, too."""
    kinds: list[str] = []
    told: list[Event] = []

    async def callee() -> None:
        kinds.append(current_attempt().kind)
        await anyio.sleep(1 if kinds == ["original"] else 0.1)

    with listening(told.append):
        await Hedge(delay=0.1).call(callee)
    spawned = [(event.hedge, event.after) for event in told if isinstance(event, HedgeStarted)]
    ended = [(event.hedge, event.result) for event in told if isinstance(event, HedgeFinished)]

    assert kinds == ["original", "hedge"]
    assert (spawned, ended) == ([(1, 0.1)], [(1, "won")])


async def test_an_open_circuit_switches_hedging_off() -> None:
    """While it is not closed there is one leg, the probe."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=1, on=Failure)
    pipeline = Pipeline(Hedge(delay=0.1), breaker)
    with pytest.raises(Failure):
        await breaker.call(Callee(0, error=Failure()))
    await anyio.sleep(1)
    callee = Callee(1)
    await pipeline.call(callee)

    assert len(callee.at) == 1
    assert breaker.state == "closed"
