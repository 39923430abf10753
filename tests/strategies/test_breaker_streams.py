"""The circuit breaker around values that are still in use after the call returned."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
import pytest

from resilient.outcome import Classifier
from resilient.strategies.lingering import Lingering
from strategies.breakers import BAD, Down, breaker, fail, opened

pytestmark = pytest.mark.anyio


class Body(Lingering):
    """A response whose body is read after the call returned."""


async def body() -> Body:
    return Body()


async def test_a_closed_breaker_counts_a_stream_when_it_has_ended() -> None:
    """An error while it is read is a failure of that call."""
    gate = breaker(consecutive_failures=1)
    response = await gate.call(body)
    seen = gate.statistics()
    response.ended(Down())

    assert (seen.calls, seen.in_flight) == (0, 1)
    assert (gate.state, gate.statistics().in_flight) == ("open", 0)


async def test_a_probe_is_decided_when_its_stream_is_returned() -> None:
    """An hour-long one does not hold its place. An error of its body is one more failure, in the state of that time."""
    gate = await opened(failure_rate=0.5, minimum_calls=2)
    await anyio.sleep(5)
    response = await gate.call(body)
    closed = gate.state
    await anyio.sleep(3600)
    response.ended(Down())
    seen = gate.statistics()

    assert closed == "closed"
    assert (seen.state, seen.opened, seen.last_failure_ago) == ("open", 2, 0.0)


async def test_the_body_error_of_a_probe_is_one_failure_among_others() -> None:
    """It does not trip more easily than another one, and no call is thought to be in flight."""
    gate = breaker(consecutive_failures=2)
    await fail(gate, 2)
    await anyio.sleep(5)
    response = await gate.call(body)
    response.ended(Down())
    seen = gate.statistics()

    assert (seen.state, seen.calls, seen.failures, seen.in_flight) == ("closed", 1, 1, 0)


async def test_a_probes_stream_that_ends_well_or_is_left_adds_nothing() -> None:
    """Its success was counted, and leaving it early says nothing."""
    gate = await opened(half_open_calls=2)
    await anyio.sleep(5)
    first, second = await gate.call(body), await gate.call(body)
    first.ended()
    second.ended(GeneratorExit())

    assert (gate.state, gate.statistics().calls) == ("closed", 0)


async def test_a_body_error_of_a_probe_while_it_is_not_closed_changes_nothing() -> None:
    """Other probes are still out, or it has opened again: they decide."""
    gate = await opened(half_open_calls=2)
    await anyio.sleep(5)
    response = await gate.call(body)
    response.ended(Down())

    assert gate.state == "half_open"


async def test_a_stream_that_failed_when_it_was_returned_is_one_failure() -> None:
    """An unwell answer counts at the end once; as a probe, at once, and its body not again."""
    judged = Classifier(errors=lambda _: None, values=lambda _: BAD)
    gate = await opened(classify=judged)
    await anyio.sleep(5)
    response = await gate.call(body)
    seen = gate.statistics()
    response.ended(Down())

    assert (seen.state, seen.opened) == ("open", 2)
    assert gate.statistics().last_failure == "http_503"


async def test_an_async_generator_is_guarded_until_it_ends() -> None:
    """A generator that breaks after some items is a failure; one that is closed early says nothing."""
    gate = breaker(consecutive_failures=1)

    @gate
    async def tokens(count: int) -> AsyncGenerator[int]:
        for number in range(count):
            yield number
        raise Down

    async with aclosing(tokens(3)) as early:
        await anext(early)
    before = gate.state
    with pytest.raises(Down):
        async for _ in tokens(2):
            pass

    assert (before, gate.state) == ("closed", "open")
