"""Hedging inside of a pipeline: permits, breakers, keys, timeouts, attempts. What a hedge knows, and how it is set up."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from helpers import SECOND, VALUES, Failure
from resilient import clock
from resilient.context import Attempt
from resilient.pipeline import Pipeline
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.gate import Gate
from resilient.strategies.hedge import Hedge, HedgeState
from resilient.strategies.latency import P50
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout
from strategies.legs import Legs

pytestmark = pytest.mark.anyio


# Inside of a pipeline


@pytest.mark.parametrize("make", [lambda: Bulkhead(1, max_queue=10), lambda: TokenBucket(1, per=60, max_wait=60)])
async def test_a_hedge_never_waits_for_a_permit(make: Callable[[], Gate]) -> None:
    """Where there is none at once, it is not sent; the call goes on as if nothing had been."""
    callee = Legs((5, "first"))
    pipeline = Pipeline(Hedge(1, max_hedges=2), make())

    assert await pipeline.call(callee) == "first"
    assert (clock.now(), callee.at) == (5, [0])


async def test_a_permit_is_taken_for_each_leg() -> None:
    """And comes back."""
    bulkhead = Bulkhead(2)
    callee = Legs((5, "first"), (3, "second"))

    async def look() -> None:
        await anyio.sleep(2)
        assert bulkhead.statistics().active == 2

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        assert await Pipeline(Hedge(1), bulkhead).call(callee) == "second"
    assert bulkhead.statistics().active == 0


def opened(breaker: CircuitBreaker) -> None:
    for _ in range(5):
        breaker.acquire_nowait().settle(Failure())


@pytest.mark.parametrize(
    ("prepare", "legs"),
    [
        pytest.param(CircuitBreaker.close, 2, id="closed"),
        pytest.param(CircuitBreaker.disable, 2, id="disabled"),
        pytest.param(CircuitBreaker.monitor, 2, id="monitor_only"),
        pytest.param(opened, 1, id="half_open"),
    ],
)
async def test_nothing_is_hedged_while_a_breaker_inside_is_not_closed(
    prepare: Callable[[CircuitBreaker], None], legs: int
) -> None:
    """A probe must not be doubled."""
    breaker = CircuitBreaker(consecutive_failures=5, open_for=1, half_open_calls=5)
    prepare(breaker)
    await anyio.sleep(1)
    callee = Legs((5, "value"))

    assert await Pipeline(Hedge(1), breaker).call(callee) == "value"
    assert len(callee.at) == legs


async def test_a_breaker_that_opens_meanwhile_stops_hedging() -> None:
    """It is asked again when the hedge is due."""
    breaker = CircuitBreaker(consecutive_failures=5)
    callee = Legs((5, "value"))
    async with anyio.create_task_group() as group:
        group.start_soon(Pipeline(Hedge(2), breaker).call, callee)
        await anyio.sleep(1)
        opened(breaker)

    assert callee.at == [0]


class UneasyUntil(Bulkhead):
    """A gate of the user's own."""

    def __init__(self, calm_at: float) -> None:
        super().__init__(9)
        self.calm_at = calm_at

    def is_calm(self, now: float) -> bool:
        return now >= self.calm_at


@pytest.mark.parametrize(("delay", "calm_at", "legs"), [(2, 0, 2), (2, 1, 1), (2, -1, 2), (0, 0, 2)])
async def test_a_gate_inside_is_asked_whether_it_is_calm(delay: float, calm_at: float, legs: int) -> None:
    """When the call begins, and when the hedge is due."""
    callee = Legs((5, "value"))
    await Pipeline(Hedge(delay), UneasyUntil(calm_at)).call(callee)

    assert len(callee.at) == legs


async def test_a_hedge_carries_its_kind_and_number() -> None:
    """It shares the number of the attempt that it doubles, and says which hedge it is."""
    callee = Legs((2.5, Failure()), (1, Failure()), (0.1, Failure()), (5, "slow"), (0.5, "fast"))
    pipeline = Pipeline(Retry(on=Failure, attempts=2, backoff=SECOND), Hedge(1, max_hedges=2, on=Failure))

    assert await pipeline.call(callee) == "fast"
    assert callee.attempts == [("original", 1, 0), ("hedge", 1, 1), ("hedge", 1, 2), ("retry", 2, 0), ("hedge", 2, 1)]


async def test_an_attempt_says_which_hedge_it_is() -> None:
    """In its repr too."""
    attempt = Attempt(Legs()).again("hedge")
    attempt.hedge = 2

    assert repr(attempt) == "<Attempt 2 (hedge 2)>"


async def test_each_key_has_its_own_latency() -> None:
    """What is learned of one says nothing of the other."""
    hedge = Hedge(minimum=2)
    pipeline = Pipeline(hedge, key=str)
    for _ in range(2):
        await pipeline.call(Legs((1, "value")), "a")
    known, unknown = Legs((5, "value")), Legs((5, "value"))
    await pipeline.call(known, "a")
    await pipeline.call(unknown, "b")

    assert (len(known.at), len(unknown.at)) == (2, 1)
    assert hedge.statistics().calls == 0


async def test_a_timeout_outside_ends_all_legs_and_one_inside_ends_each() -> None:
    """The one inside makes a failure of the leg."""
    outside, inside = Legs((60, "value")), Legs((60, "value"), (1, "second"))
    with pytest.raises(TimeoutError):
        await Pipeline(Timeout(5), Hedge(1)).call(outside)
    pipeline = Pipeline(Hedge(9, on=TimeoutError), Timeout(2))

    assert outside.active == 0
    assert await pipeline.call(inside) == "second"
    assert inside.at == [5, 7]


# State and settings


async def test_context_of_the_caller_is_that_of_the_first_leg() -> None:
    """What it sets is seen outside; a hedge has a copy."""
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    variable.set("outside")
    seen: list[str] = []

    async def callee() -> str:
        seen.append(variable.get())
        variable.set(f"leg {len(seen)}")
        await anyio.sleep(3)
        return variable.get()

    assert await Hedge(1).call(callee) == "leg 1"
    assert variable.get() == "leg 1"
    assert seen in (["outside", "outside"], ["outside", "leg 1"])


async def test_a_copy_shares_what_was_learned_and_a_sibling_does_not() -> None:
    """A copy is for another setting of the same thing."""
    hedge = Hedge(1, max_hedges=1)
    await hedge.call(Legs((3, "value")))

    await hedge.replace(max_hedges=2).call(Legs((3, "value"), (0.5, "hedge")))
    await hedge.call(Legs((3, "value"), (0.5, "hedge")))

    assert (hedge.statistics().hedges, hedge.statistics().wins) == (3, 2)
    assert hedge.sibling().statistics().hedges == 0
    assert hedge.sibling() == hedge


async def test_keys_that_are_idle_are_forgotten() -> None:
    """Only those: what was learned a moment ago is kept, and new keys share what there is."""
    pipeline = Pipeline(Hedge(minimum=1), key=str, max_keys=1)
    await pipeline.call(Legs((1, "value")), "a")
    await pipeline.call(Legs((1, "value")), "b")
    kept = list(pipeline.siblings or ())
    await anyio.sleep(120)
    await pipeline.call(Legs((1, "value")), "c")

    assert (kept, list(pipeline.siblings or ())) == (["a"], ["c"])


def test_its_state_can_be_retuned() -> None:
    """New settings, and what was learned stays."""
    state = HedgeState(50)
    state.calls = 7

    assert state.retune(HedgeState(5))
    assert (state.latency.minimum, state.calls) == (5, 7)


def test_its_repr_says_when_it_hedges() -> None:
    """And how often it did."""
    assert repr(Hedge(0.05)) == "<Hedge after 0.05 s, at most 1: 0 of 0 calls hedged, 0 won>"
    assert repr(Hedge()) == "<Hedge not hedging yet, at most 1: 0 of 0 calls hedged, 0 won>"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delay": -1}, "delay=-1"),
        ({"delay": "soon"}, "delay='soon'"),
        ({"percentile": 95}, "percentile=95"),
        ({"max_hedges": 0}, "max_hedges=0"),
        ({"minimum": 0}, "minimum=0"),
        ({"delay": 1, "trigger": P50}, "delay= and trigger="),
        ({"on": OSError, "classify": VALUES}, "on= and classify="),
        ({"never": OSError}, "never= needs on="),
    ],
)
def test_arguments_are_checked(settings: dict[str, Any], message: str) -> None:
    """The message names what is wrong."""
    with pytest.raises((TypeError, ValueError), match=message):
        Hedge(**settings)
