from typing import Any

import anyio
import pytest

from helpers import RETRY, SECOND, VALUES, Failure, Fatal, Script
from resilient import clock
from resilient.context import Attempt, current_attempt
from resilient.errors import BulkheadFull, CircuitOpen, RateLimited, TimeoutExceeded
from resilient.observe.events import AttemptFinished, CallRejected, RetryScheduled
from resilient.observe.timeline import record_timeline
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.base import Step, Strategy
from resilient.strategies.budget import RetryBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio


class Passing(Strategy):
    """A strategy of a user's own: three lines."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def run(self, call: Step, attempt: Attempt) -> Any:
        self.log.append(f"{self.name} in")
        try:
            return await call(attempt)
        finally:
            self.log.append(f"{self.name} out")


async def user(name: str, *, fields: str = "all") -> str:
    return f"{name}: {fields}"


# Order


async def test_the_first_strategy_is_the_outermost() -> None:
    """Read from left to right, from outside to inside."""
    log: list[str] = []
    await Pipeline(Passing("a", log), Passing("b", log)).call(user, "ann")

    assert log == ["a in", "b in", "b out", "a out"]


async def test_an_empty_pipeline_calls_the_callee() -> None:
    """As a call and as a decorator."""
    assert await Pipeline().call(user, "ann", fields="age") == "ann: age"
    assert await Pipeline()(user)("ann") == "ann: all"


async def test_a_call_a_decorator_and_a_nested_pipeline_do_the_same() -> None:
    """All of them retry."""
    flat, nested = Pipeline(RETRY), Pipeline(Pipeline(Pipeline()), Pipeline(Pipeline(RETRY), Pipeline()))
    for pipeline in (flat, nested):
        assert await pipeline.call(Script(Failure(), "value")) == "value"
        assert await pipeline(Script(Failure(), "value"))() == "value"


async def test_neighbouring_gates_are_entered_in_order_and_left_by_all_if_one_refuses() -> None:
    """They share one guard; a permit that was granted is given back."""
    bulkhead, bucket, breaker = Bulkhead(1), TokenBucket(1), CircuitBreaker()
    breaker.isolate()
    with pytest.raises(CircuitOpen):
        await Pipeline(bulkhead, bucket, breaker).call(user, "ann")

    assert bulkhead.statistics().active == 0
    assert bucket.statistics().tokens == 1  # nothing was sent


async def test_all_gates_hold_while_the_callee_runs() -> None:
    """And none afterwards."""
    bulkhead, breaker = Bulkhead(2), CircuitBreaker()
    seen: list[tuple[int, int]] = []

    async def callee() -> None:
        seen.append((bulkhead.statistics().active, breaker.statistics().in_flight))

    await Pipeline(bulkhead, Timeout(1), breaker).call(callee)

    assert seen == [(1, 1)]
    assert (bulkhead.statistics().active, breaker.statistics().calls) == (0, 1)


async def test_nothing_is_held_while_a_retry_waits() -> None:
    """Gates inside of a retry are left after each attempt."""
    bulkhead = Bulkhead(1)

    async def look() -> None:
        await anyio.sleep(0.5)
        assert bulkhead.statistics().active == 0

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        group.start_soon(Pipeline(RETRY, bulkhead)(Script(Failure(), 1)))

    assert clock.now() == 1


async def test_the_canonical_order_of_all_strategies() -> None:
    """Every send is limited, recorded and permitted; the whole call has its time; something is given in the end."""
    breaker, bulkhead, bucket = CircuitBreaker(minimum_calls=100), Bulkhead(5), TokenBucket(100)
    pipeline = Pipeline(
        Fallback("cached"),
        Timeout(10),
        Retry(on=(Failure, TimeoutError), backoff=SECOND, budget=RetryBudget()),
        bucket,
        breaker,
        bulkhead,
        Timeout(2),
    )
    hangs, works = Script(1, seconds=60), Script(Failure(), "fresh")

    assert [await pipeline.call(works), await pipeline.call(hangs)] == ["fresh", "cached"]
    assert (hangs.calls, breaker.statistics().calls, breaker.statistics().failures) == (3, 5, 4)
    assert bulkhead.statistics().active == 0


# Keys


async def test_each_key_has_state_of_its_own() -> None:
    """What one key does leaves the others alone."""
    bulkhead, bucket, breaker = Bulkhead(1), TokenBucket(1, max_wait=0), CircuitBreaker(consecutive_failures=1)
    pipeline = Pipeline(bucket, breaker, Timeout(1), bulkhead, key=user_name)
    await pipeline.call(user, "ann")
    with pytest.raises(RateLimited) as caught:
        await pipeline.call(user, "ann")

    assert await pipeline.call(user, "bob") == "bob: all"
    assert str(caught.value).startswith("token_bucket for 'ann': ")
    assert bucket.statistics().tokens == 1  # the template itself is never used


async def test_the_key_is_made_from_the_arguments_of_the_call() -> None:
    """Keywords too."""
    keys: list[str | None] = []

    async def fetch(_name: str, *, region: str) -> None:
        keys.append(current_attempt().key)
        assert region

    pipeline = Pipeline(Bulkhead(1), key=lambda name, region: f"{name}@{region}")  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    await pipeline.call(fetch, "ann", region="eu")

    assert keys == ["ann@eu"]


async def test_a_keyed_pipeline_foresees_that_the_breaker_of_its_key_refuses() -> None:
    """The retry looks at the sibling, not at the template."""
    pipeline = Pipeline(RETRY.replace(attempts=9), CircuitBreaker(consecutive_failures=2), key=str)
    callee = Script(Failure())

    async def fetch(_: str) -> None:
        await callee()

    for key in "aab":
        with pytest.raises((Failure, CircuitOpen)):
            await pipeline.call(fetch, key)

    assert callee.calls == 4
    assert clock.now() == 2


async def test_the_events_of_a_keyed_call_name_its_key() -> None:
    """All of them."""
    with record_timeline() as timeline:
        await Pipeline(RETRY, Bulkhead(1), key=user_name).call(user, "ann")

    assert [event.key for event in timeline.events] == ["ann"] * len(timeline.events)


async def test_keys_that_have_nothing_to_remember_are_forgotten() -> None:
    """So that hostile keys cannot grow memory."""
    pipeline = Pipeline(Bulkhead(1), TokenBucket(1000), key=user_name, max_keys=10)
    for number in range(100):
        await pipeline.call(user, str(number))
        await anyio.sleep(1)

    assert pipeline.siblings is not None
    assert len(pipeline.siblings) <= 10


# Pipelines inside of pipelines


async def test_a_nested_pipeline_uses_its_own_classifier() -> None:
    """And the outer one its own: what is inside does not leak."""
    bad = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "bad")

    def bad_if_200(status: Any) -> Verdict | None:
        return bad if status == 200 else None

    inner = Pipeline(Retry(backoff=SECOND), classify=VALUES)
    outer = Pipeline(Fallback("outer"), inner, classify=Classifier(lambda _: None, bad_if_200))
    callee = Script(503, 200)

    assert await outer.call(callee) == "outer"
    assert callee.calls == 2
    assert await Pipeline(Fallback("outer"), inner).call(Script(503)) == 503


async def test_a_nested_pipeline_without_a_classifier_uses_that_around_it() -> None:
    """Its strategies are as those of the outer one."""
    inner = Pipeline(Timeout(5))

    assert await Pipeline(Fallback("cached"), inner, classify=VALUES).call(Script(503)) == "cached"


async def test_a_nested_pipeline_has_keys_of_its_own() -> None:
    """The outer one's are back when it has ended, and nothing piles up from attempt to attempt."""
    siblings: list[int] = []
    inner = Pipeline(Bulkhead(1, name="inner"), key=lambda _: "inner")  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    callee = Script(Failure(), Failure(), 1)

    async def fetch(_: str) -> None:
        siblings.append(len(current_attempt().siblings))
        await callee()

    with record_timeline() as timeline:
        await Pipeline(RETRY, Bulkhead(1), inner, key=str).call(fetch, "outer")

    assert siblings == [2, 2, 2]
    assert {event.key for event in timeline.events if isinstance(event, RetryScheduled)} == {"outer"}
    assert {event.key for event in timeline.events if isinstance(event, AttemptFinished)} == {"inner"}
    assert timeline.calls[0].key == "outer"


async def test_the_gates_behind_a_nested_pipeline_with_keys_are_those_of_the_outer_one() -> None:
    """They are not left out, nor is one of the inner pipeline entered in their place."""
    inner = Pipeline(Bulkhead(1, name="inner"), key=lambda _: "inner")  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    pipeline = Pipeline(Timeout(5), inner, Bulkhead(2), CircuitBreaker(initial="isolated"), key=str)

    with pytest.raises(CircuitOpen):
        await pipeline.call(Script(1), "outer")


async def test_a_retry_does_not_wait_for_the_refusal_of_a_breaker_in_a_nested_pipeline() -> None:
    """It asks the gates of the pipelines inside, too; the error at hand surfaces at once."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=60)
    callee, started = Script(Failure()), clock.now()

    with pytest.raises(Failure):
        await Pipeline(RETRY, Pipeline(Pipeline(breaker), Timeout(5))).call(callee)

    assert (callee.calls, clock.now() - started) == (1, 0.0)


async def test_a_nested_pipeline_without_a_key_shares_its_state_among_the_keys_around_it() -> None:
    """Keys are for the strategies of the pipeline that has them."""
    shared = Bulkhead(1)
    pipeline = Pipeline(Timeout(5), Pipeline(shared), key=user_name)

    async def hold(_: str) -> None:
        assert shared.statistics().active == 1

    await pipeline.call(hold, "ann")

    assert shared.statistics().active == 0


async def test_a_nested_retry_pays_from_its_own_budget() -> None:
    """Which is not among those of the keys around it."""
    budget = RetryBudget(ratio=0, floor=1)
    inner = Pipeline(RETRY.replace(budget=budget))
    with pytest.raises(Failure):
        await Pipeline(Bulkhead(1), inner, key=user_name).call(Script(Failure()), "ann")

    assert budget.statistics().calls == 1


async def test_a_strategy_runs_a_pipeline_by_hand() -> None:
    """`run` is the one method that composition needs."""
    attempt = Attempt(user, ("ann",))

    async def call(inside: Attempt) -> str:
        return f"{inside.key} {await inside.fn(*inside.args)}"

    assert await Pipeline(Timeout(5), key=user_name).run(call, attempt) == "ann ann: all"
    assert attempt.key is None


# Refusals and mistakes


async def test_a_refusal_is_told_with_the_strategy_that_refused() -> None:
    """One event, whoever else stands around."""
    bulkhead = Bulkhead(1, name="small")
    pipeline = Pipeline(RETRY, Timeout(1), TokenBucket(10), bulkhead)
    with record_timeline() as timeline, bulkhead.acquire_nowait(), pytest.raises(BulkheadFull):
        await pipeline.call(user, "ann")

    refusals = [event for event in timeline.events if isinstance(event, CallRejected)]
    assert [(event.strategy, event.reason) for event in refusals] == [("small", "bulkhead_full")]


async def test_what_is_no_strategy_is_refused() -> None:
    """With the right way to say it."""
    for wrong in (Retry, "retry", [Timeout(1)], user):
        with pytest.raises(TypeError, match="is not a strategy: pass instances"):
            Pipeline(wrong)  # type: ignore[arg-type]


async def test_an_error_of_the_key_function_surfaces() -> None:
    """Nothing was called, nothing is held."""
    bulkhead = Bulkhead(1)

    def broken(*_: object) -> str:
        raise Fatal

    with pytest.raises(Fatal):
        await Pipeline(Timeout(1), Pipeline(bulkhead, key=broken)).call(user, "ann")
    with pytest.raises(Fatal):
        await Pipeline(bulkhead, key=broken).call(user, "ann")

    assert bulkhead.statistics().active == 0


async def test_it_shows_its_strategies() -> None:
    """In order."""
    assert repr(Pipeline(Timeout(1), Fallback(None))) == "Pipeline(Timeout(1.0), Fallback(None))"


async def test_one_pipeline_is_shared_by_many_tasks() -> None:
    """Each call has its own attempts and its own time."""
    pipeline = Pipeline(Timeout(2.5), RETRY.replace(attempts=None), Bulkhead(100))
    ended: list[float] = []

    async def one(start: float) -> None:
        await anyio.sleep(start)
        with pytest.raises((Failure, TimeoutExceeded)):
            await pipeline.call(Script(Failure()))
        ended.append(clock.now() - start)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number / 4)

    assert ended == [2.0] * 10


def user_name(name: str, **_: object) -> str:
    return name
