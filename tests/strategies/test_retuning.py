"""Retuning: settings change, the state stays. A reload of policies does it."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from helpers import Failure, Script
from resilient import Bulkhead, BulkheadFull, CircuitBreaker, CircuitOpen, CountWindow, Gate, TokenBucket, clock

pytestmark = pytest.mark.anyio


def state_of(breaker: CircuitBreaker) -> str:
    return breaker.state


async def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Failure):
            await breaker.call(Script(Failure()))


async def test_a_breaker_that_is_open_stays_open() -> None:
    """For as long as it was to be; the new settings count from the next time on."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=10)
    await fail(breaker)

    assert breaker.retune(CircuitBreaker(name="other", consecutive_failures=5, open_for=1))
    assert (state_of(breaker), breaker.name) == ("open", "other")
    await anyio.sleep(7.9)
    assert state_of(breaker) == "open"
    await anyio.sleep(2.1)
    await breaker.call(Script(1))
    await fail(breaker, 4)
    assert state_of(breaker) == "closed"
    await fail(breaker)
    assert state_of(breaker) == "open"
    assert breaker.statistics().open_remaining <= 1.0


async def test_what_a_breaker_counted_still_counts() -> None:
    """A lower threshold trips at the next failure, not at the reload."""
    breaker = CircuitBreaker(consecutive_failures=5)
    await fail(breaker, 3)
    breaker.retune(CircuitBreaker(consecutive_failures=2))

    assert state_of(breaker) == "closed"
    await fail(breaker)
    assert state_of(breaker) == "open"


async def test_another_window_begins_empty() -> None:
    """The state stays, and so do failures in a row."""
    breaker = CircuitBreaker(minimum_calls=10, window=CountWindow(20))
    await fail(breaker, 4)
    breaker.retune(CircuitBreaker(minimum_calls=10, window=CountWindow(10)))

    seen = breaker.statistics()
    assert (seen.calls, seen.consecutive_failures) == (0, 4)


async def test_the_growth_of_an_opening_begins_anew_with_other_settings() -> None:
    """And goes on with the same ones."""
    for settings, longest in (({"open_for_factor": 4}, 4), ({"open_for_factor": 4, "open_for_max": 2}, 1)):
        breaker = CircuitBreaker(consecutive_failures=1, open_for=1, open_for_factor=4)
        await fail(breaker)
        breaker.retune(CircuitBreaker(consecutive_failures=1, open_for=1, **settings))  # type: ignore[arg-type]  # numbers
        await anyio.sleep(1)
        await fail(breaker)

        assert 0.8 * longest <= breaker.statistics().open_remaining <= longest


async def test_another_initial_state_needs_a_new_breaker() -> None:
    """It says that the breaker shall be in that state."""
    breaker = CircuitBreaker()

    assert not breaker.retune(CircuitBreaker(initial="isolated"))
    assert state_of(breaker) == "closed"


async def test_a_bulkhead_that_grows_lets_waiters_in() -> None:
    """One that shrinks takes nothing from those who are inside."""
    bulkhead = Bulkhead(1, max_queue=5)
    entered: list[int] = []

    async def enter(number: int) -> None:
        async with bulkhead:
            entered.append(number)
            await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(enter, number)
            await anyio.sleep(0.1)
        assert bulkhead.retune(Bulkhead(2, max_queue=1, name="other"))
        await anyio.sleep(0.1)

        assert entered == [0, 1]
        assert (bulkhead.max_queue, bulkhead.name) == (1, "other")
        bulkhead.retune(Bulkhead(1))
        with pytest.raises(BulkheadFull):
            bulkhead.acquire_nowait()

    assert entered == [0, 1, 2]
    assert bulkhead.statistics().active == 0


async def test_tokens_that_were_taken_stay_taken() -> None:
    """A reload is no way around a limit."""
    bucket = TokenBucket(1, burst=10, max_wait=0)
    for _ in range(8):
        bucket.acquire_nowait()

    assert bucket.retune(TokenBucket(10, burst=10, max_wait=0))
    assert bucket.statistics().tokens == 2
    await anyio.sleep(0.2)
    assert bucket.statistics().tokens == 4


def test_a_bucket_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the nanosecond, however late it is: a reload of the same settings moves nothing."""
    monkeypatch.setattr(clock, "now", lambda: 1e9)
    bucket = TokenBucket(1.23456789, burst=3, max_wait=0)
    bucket.acquire_nowait(2)
    before = bucket.refuse(1e9, 3).retry_after
    bucket.retune(bucket.sibling())

    assert bucket.refuse(1e9, 3).retry_after == before


@pytest.mark.parametrize("make", [CircuitBreaker, lambda: Bulkhead(1), lambda: TokenBucket(1)])
def test_retuned_by_what_it_is_already_it_is_the_same(make: Callable[[], Any]) -> None:
    """Nothing is counted and nothing is lost."""
    gate = make()
    before = gate.statistics()

    assert gate.retune(make())
    assert gate.statistics() == before
    assert gate.is_fresh(clock.now())


def test_a_gate_of_ones_own_is_not_retuned() -> None:
    """Unless it says how: a new one takes its place, which is safe."""
    assert not Gate.retune(CircuitBreaker(), CircuitBreaker())


async def test_a_call_that_is_refused_still_says_by_whom() -> None:
    """Under its new name."""
    breaker = CircuitBreaker(initial="isolated")
    breaker.retune(CircuitBreaker(initial="isolated", name="orders"))

    with pytest.raises(CircuitOpen, match="orders"):
        await breaker.call(Script(1))
