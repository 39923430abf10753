"""The circuit breaker: what counts as a failure of the callee, and what does not."""

from typing import Any

import anyio
import pytest

from resilient import clock
from resilient.context import deadline
from resilient.errors import BulkheadFull, CircuitOpen, TimeoutExceeded
from resilient.pipeline import Pipeline
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.timeout import Timeout
from strategies.breakers import UNWELL_IF_503, Down, Lowest, breaker, fail, good, hang, opened

pytestmark = pytest.mark.anyio


async def test_cancellation_is_neither_a_failure_nor_a_success() -> None:
    """However many calls are cancelled it does not open, and failures in a row go on from where they were."""
    gate = breaker(consecutive_failures=3)
    await fail(gate, 2)
    for _ in range(10):
        with anyio.move_on_after(1):
            await gate.call(hang)
    before = gate.state
    await fail(gate)

    assert (before, gate.state) == ("closed", "open")


async def test_a_callee_that_hangs_until_an_outer_timeout_cuts_it_off_trips() -> None:
    """The timeout cancels it, so it tells nothing but how long it took: that is enough."""
    gate = breaker(slow_call=2, minimum_calls=5)
    pipeline = Pipeline(Timeout(2), gate)
    for _ in range(5):
        with pytest.raises(TimeoutExceeded):
            await pipeline.call(hang)
    with pytest.raises(CircuitOpen):
        await pipeline.call(hang)

    assert clock.now() == 10.0


async def test_a_timeout_inside_is_a_failure() -> None:
    """An attempt that took too long."""
    gate = breaker(consecutive_failures=1)
    with pytest.raises(TimeoutExceeded):
        await Pipeline(gate, Timeout(1)).call(hang)

    assert gate.statistics().last_failure == "timeout"
    assert gate.state == "open"


async def test_the_callers_own_deadline_is_no_failure() -> None:
    """That the caller had no more time says nothing of the callee."""
    gate = breaker(consecutive_failures=1)
    with pytest.raises(TimeoutError), deadline(1):
        await gate.call(hang)

    assert gate.state == "closed"


async def test_a_full_bulkhead_further_in_is_no_failure() -> None:
    """Nothing was sent. An open breaker further in is none either."""
    gate, inner = breaker(consecutive_failures=1), await opened()
    full = Bulkhead(1)
    async with full:
        with pytest.raises(BulkheadFull):
            await Pipeline(gate, full).call(good)
    with pytest.raises(CircuitOpen):
        await Pipeline(gate, inner).call(good)

    assert (gate.state, gate.statistics().calls) == ("closed", 0)


async def test_with_on_every_other_error_is_an_answer() -> None:
    """The service did respond: a `LookupError` here is a success to the breaker, and starts the count anew."""
    gate = breaker(consecutive_failures=2, on=(OSError, Down), never=PermissionError)

    async def raising(error: Exception) -> None:
        raise error

    for error in (Down(), LookupError(), OSError(), PermissionError(), Down()):
        with pytest.raises(type(error)):
            await gate.call(raising, error)
    seen = gate.statistics()

    assert (seen.state, seen.calls, seen.failures, seen.consecutive_failures) == ("closed", 5, 3, 1)


async def test_never_alone_leaves_all_other_errors_failures() -> None:
    """`never=` narrows the default."""
    gate = breaker(consecutive_failures=1, never=LookupError)

    async def missing() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await gate.call(missing)
    before = gate.state
    await fail(gate)

    assert (before, gate.state) == ("closed", "open")


@pytest.mark.parametrize("settings", [{"on": Down}, {"classify": None}])
async def test_an_exception_can_say_when_to_come_back(settings: dict[str, Any]) -> None:
    """Its `retry_after` keeps the breaker open for at least that long, if it is what trips it."""

    class Busy(Down):
        retry_after = 30.0
        retryable = True

    async def busy() -> None:
        raise Busy

    gate = breaker(consecutive_failures=1, random=Lowest(), **settings)
    with pytest.raises(Busy):
        await gate.call(busy)

    assert gate.statistics().open_remaining == 30.0


@pytest.mark.parametrize("own", [True, False])
async def test_a_classifier_judges_values(*, own: bool) -> None:
    """That of the breaker, or that of the pipeline."""
    gate = breaker(consecutive_failures=1, classify=UNWELL_IF_503 if own else None)
    pipeline = Pipeline(gate, classify=None if own else UNWELL_IF_503)

    async def answer(status: int) -> int:
        return status

    await pipeline.call(answer, 200)
    before = gate.state
    value = await pipeline.call(answer, 503)

    assert (before, gate.state, value) == ("closed", "open", 503)
    assert gate.statistics().last_failure == "http_503"
