"""What GoSentry offers or plans, written with this library. See `docs/seeds.md`."""

import itertools
from random import Random
from typing import Any

import anyio
import pytest

from helpers import Failure, Script, cancelled_after
from resilient import (
    Attempt,
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Constant,
    Event,
    Exponential,
    Fallback,
    Linear,
    Pipeline,
    RateLimited,
    Retry,
    SlidingWindow,
    Step,
    Strategy,
    Timeout,
    TimeoutExceeded,
    TokenBucket,
    listening,
    timeline_of,
)
from resilient.observe.events import BreakerStateChanged

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]


def first_delays(backoff: Any, count: int = 3) -> list[float]:
    return list(itertools.islice(backoff.delays(Random(1)), count))


class Announced(Strategy):
    """A policy of a user's own: it wraps a handler."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log

    async def run(self, call: Step, attempt: Attempt) -> Any:
        self.log.append(f"{self.name} begins")
        try:
            return await call(attempt)
        finally:
            self.log.append(f"{self.name} ends")


async def test_the_quick_start_runs() -> None:
    """A retry with three attempts, one second at first and ten at most, exponential, with jitter, around a handler."""
    policy = Retry(on=Failure, attempts=3, backoff=Exponential(initial=1, maximum=10))

    async def handler() -> str:
        return "result"

    assert await Pipeline(policy).call(handler) == "result"


async def test_a_handler_that_fails_is_tried_again() -> None:
    """With 100 ms at first and at most five seconds, until it works or the attempts are over."""
    policy = Retry(on=Failure, attempts=3, backoff=Exponential(initial=0.1, maximum=5))
    recovers, fails = Script(Failure(), Failure(), "result"), Script(Failure())

    assert await policy.call(recovers) == "result"
    with pytest.raises(Failure):
        await policy.call(fails)
    assert (recovers.calls, fails.calls) == (3, 3)


async def test_the_error_of_the_handler_surfaces_with_its_attempts() -> None:
    """GoSentry hands out the bare last error; here it is the same object too, and it tells how often it was tried."""
    error = Failure("down")
    with pytest.raises(Failure) as raised:
        await Retry(on=Failure, backoff=[1]).call(Script(error))
    timeline = timeline_of(raised.value)

    assert raised.value is error
    assert timeline is not None
    assert timeline.statistics().attempts == 3


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        (Constant(delay=1, jitter="none"), [1, 1, 1]),
        (Linear(initial=1, jitter="none"), [1, 2, 3]),
        (Exponential(initial=1, jitter="none"), [1, 2, 4]),
        (Exponential(initial=1, maximum=2, jitter="none"), [1, 2, 2]),
    ],
)
async def test_backoff_is_fixed_linear_or_exponential(backoff: Any, delays: list[float]) -> None:
    """Each of them up to a largest delay."""
    assert first_delays(backoff) == delays


async def test_jitter_keeps_clients_apart_and_is_on_by_default() -> None:
    """In GoSentry a struct that does not mention jitter has none."""
    schedules = {tuple(itertools.islice(Exponential().delays(Random(seed)), 3)) for seed in range(100)}

    assert len(schedules) == 100


async def test_the_cap_comes_before_the_jitter() -> None:
    """GoSentry caps what jitter was added to: all clients that reached the cap then wait for the same time."""
    delays = {next(Exponential(initial=10, maximum=5).delays(Random(seed))) for seed in range(100)}

    assert len(delays) == 100
    assert max(delays) <= 5


async def test_a_delay_next_to_nothing_can_have_jitter() -> None:
    """GoSentry panics where the delay is shorter than two nanoseconds."""
    assert first_delays(Constant(delay=0), 1) == [0]
    assert 0 <= first_delays(Exponential(initial=1e-9), 1)[0] <= 1e-9


async def test_many_attempts_do_not_overflow() -> None:
    """2 ** n nanoseconds overflow after 33 attempts there."""
    assert first_delays(Exponential(initial=1, maximum=60, jitter="none"), 2000)[-1] == 60


async def test_a_cancelled_call_does_not_wait_on() -> None:
    """The wait between attempts ends at once, and the handler is not called again."""
    handler = Script(Failure())
    async with cancelled_after(5):
        await Retry(on=Failure, backoff=[60]).call(handler)

    assert anyio.current_time() == 5
    assert handler.calls == 1


async def test_the_first_policy_is_the_outermost() -> None:
    """As in the example: a timeout around a retry around a breaker. A policy of one's own is a class with one method."""
    log: list[str] = []
    pipeline = Pipeline(Announced("timeout", log), Announced("retry", log), Announced("breaker", log))
    await pipeline.call(Script("result"))

    assert log == ["timeout begins", "retry begins", "breaker begins", "breaker ends", "retry ends", "timeout ends"]


async def test_timeout_retry_and_breaker_compose() -> None:
    """The example of the README, with the policies that it only plans."""
    breaker = CircuitBreaker(consecutive_failures=5)
    pipeline = Pipeline(Timeout(10), Retry(on=Failure, backoff=[1]), breaker)

    assert await pipeline.call(Script(Failure(), "result")) == "result"
    assert breaker.statistics().total_calls == 2


async def test_the_circuit_breaker_opens_after_failures_and_closes_after_a_success() -> None:
    """Five failures in a row open it for thirty seconds, one success closes it: GoSentry's defaults."""
    breaker = CircuitBreaker(consecutive_failures=5, open_for=30, half_open_successes=1)
    handler = Script(*[Failure()] * 5, "result")
    for _ in range(5):
        with pytest.raises(Failure):
            await breaker.call(handler)
    with pytest.raises(CircuitOpen):
        await breaker.call(handler)
    await anyio.sleep(30)

    assert await breaker.call(handler) == "result"
    assert breaker.state == "closed"


async def test_who_hears_of_a_change_of_state_may_use_the_breaker() -> None:
    """There the callback runs under the breaker's lock, and calling the breaker from it hangs."""
    breaker = CircuitBreaker(consecutive_failures=1)
    states: list[str] = []

    def on_state_change(event: Event) -> None:
        if isinstance(event, BreakerStateChanged):
            states.append(breaker.state)

    with listening(on_state_change), pytest.raises(Failure):
        await breaker.call(Script(Failure()))

    assert states == ["open"]


async def test_the_timeout_cuts_off_and_leaves_nothing_running() -> None:
    """There the handler goes on in the background, and nobody hears how it ends."""
    ended: list[str] = []

    async def handler() -> None:
        try:
            await anyio.sleep(60)
        finally:
            ended.append("cleaned up")

    with pytest.raises(TimeoutExceeded):
        await Timeout(5).call(handler)

    assert ended == ["cleaned up"]
    assert anyio.current_time() == 5


async def test_the_rate_limit_is_a_token_bucket() -> None:
    """Ten a second and ten at once; the eleventh is refused, and told when to come back."""
    bucket = TokenBucket(10, burst=10, max_wait=0)
    for _ in range(10):
        await bucket.call(Script("result"))
    with pytest.raises(RateLimited) as refused:
        await bucket.call(Script("result"))

    assert refused.value.retry_after == pytest.approx(0.1)


async def test_the_rate_limit_may_be_a_sliding_window() -> None:
    """Ten in any second, wherever it begins."""
    window = SlidingWindow(10, exact=True, max_wait=0)
    await anyio.sleep(0.9)
    for _ in range(10):
        await window.call(Script("result"))
    await anyio.sleep(0.9)
    with pytest.raises(RateLimited):
        await window.call(Script("result"))
    await anyio.sleep(0.1)

    assert await window.call(Script("result")) == "result"


async def test_the_bulkhead_isolates() -> None:
    """Two at a time; the third is refused while they run."""
    bulkhead = Bulkhead(2)
    async with bulkhead, bulkhead:
        with pytest.raises(BulkheadFull):
            await bulkhead.call(Script("result"))


async def test_the_fallback_is_a_value_or_another_handler() -> None:
    """A default value, or a function that is given what failed."""

    async def alternative(outcome: Any) -> str:
        return f"instead of {outcome.error}"

    assert await Fallback("default").call(Script(Failure("down"))) == "default"
    assert await Fallback(function=alternative).call(Script(Failure("down"))) == "instead of down"
