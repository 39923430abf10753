"""The bulkhead: a slot comes back on every way out, alone and together with others."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

import anyio
import pytest

from resilient.errors import BulkheadFull
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.lingering import Lingering
from resilient.strategies.retry import Retry
from resilient.testing import disabled
from strategies.bulkheads import is_empty
from strategies.callers import Caller, tasks, ticks

pytestmark = pytest.mark.anyio


# -- every way out


async def test_a_slot_comes_back_on_every_way_out() -> None:
    """A value, an exception of any kind, a cancellation, a coroutine that is closed or never resumed."""
    bulkhead = Bulkhead(1)

    async def fail(error: BaseException) -> None:
        raise error

    async def value() -> int:
        return 1

    async def stay() -> None:
        await anyio.sleep_forever()

    await bulkhead.call(value)
    after_value = is_empty(bulkhead)
    for error in (ValueError("x"), SystemExit(1), GeneratorExit()):
        with pytest.raises(type(error)):
            await bulkhead.call(fail, error)
    after_errors = is_empty(bulkhead)
    with anyio.move_on_after(1):
        await bulkhead.call(stay)

    assert (after_value, after_errors, is_empty(bulkhead)) == (True, True, True)


async def test_the_error_of_the_callee_surfaces_as_it_is() -> None:
    """The same object: nothing is wrapped."""
    bulkhead = Bulkhead(1)
    error = ValueError("from the callee")

    async def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="from the callee") as raised:
        await bulkhead.call(fail)

    assert raised.value is error


async def test_anything_that_returns_an_awaitable_can_be_called() -> None:
    """Lambdas and partials are not sent to a thread: what they return is awaited."""
    bulkhead = Bulkhead(1)

    async def double(number: int) -> int:
        return 2 * number

    assert await bulkhead.call(lambda: double(2)) == 4
    assert await bulkhead.call(partial(double, 3)) == 6


async def test_a_lease_is_settled_once() -> None:
    """Settling twice, or by hand inside of its block, frees one slot only."""
    bulkhead = Bulkhead(2)
    other = bulkhead.acquire_nowait()
    with bulkhead.acquire_nowait() as lease:
        lease.settle()
        lease.settle()

    assert bulkhead.statistics().active == 1
    other.settle()
    assert is_empty(bulkhead)


class Body(Lingering):
    """A value that lives on, such as a streamed response."""


async def test_a_value_that_lives_on_holds_its_slot_until_it_has_ended() -> None:
    """A response that is still read occupies the service: its slot comes back, once, when the body has ended."""
    bulkhead = Bulkhead(1, max_queue=1)
    waiter = Caller(bulkhead)

    async def respond() -> Body:
        return Body()

    async with tasks() as group:
        body = await bulkhead.call(respond)
        group.start_soon(waiter.run)
        await ticks(5)
        before = waiter.state
        body.ended()
        body.ended()
        await ticks(5)
        after = waiter.state
        waiter.leave.set()

    assert (before, after) == ("waiting", "inside")
    assert is_empty(bulkhead)


async def test_a_value_that_is_discarded_gives_its_slot_back() -> None:
    """Nobody reads it: it ends by being discarded."""
    bulkhead = Bulkhead(1)

    async def respond() -> Body:
        return Body()

    body = await bulkhead.call(respond)
    await body.discard()

    assert is_empty(bulkhead)


async def test_a_stream_holds_its_slot_until_it_is_exhausted_or_closed() -> None:
    """An async generator function can be wrapped too."""
    bulkhead = Bulkhead(1)

    @bulkhead
    async def tokens() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    held = [bulkhead.statistics().active async for _ in tokens()]
    exhausted = bulkhead.statistics().active
    async with aclosing(tokens()) as stream:
        async for _ in stream:
            break
        held.append(bulkhead.statistics().active)

    assert held == [1, 1, 1, 1]
    assert exhausted == 0
    assert is_empty(bulkhead)


# -- composition


async def test_a_refusal_is_no_failure_of_the_callee_and_is_not_retried() -> None:
    """A breaker outside learns nothing from it, and a retry hands it on at once."""
    breaker, bulkhead = CircuitBreaker(consecutive_failures=1), Bulkhead(1)
    pipeline = Pipeline(Retry(on=Exception, attempts=5), breaker, bulkhead)
    async with bulkhead:
        started = anyio.current_time()
        with pytest.raises(BulkheadFull):
            await pipeline.call(anyio.sleep, 0)
        took = anyio.current_time() - started

    assert took == 0.0
    assert breaker.statistics().state == "closed"
    assert is_empty(bulkhead)


async def test_a_slot_is_not_held_while_a_retry_outside_of_it_sleeps() -> None:
    """The canonical order puts the bulkhead inside of the retry."""
    bulkhead = Bulkhead(1)
    seen: list[int] = []

    async def fail() -> None:
        raise OSError

    async def look() -> None:
        await anyio.sleep(0.5)
        seen.append(bulkhead.statistics().active)

    pipeline = Pipeline(Retry(on=OSError, attempts=2, backoff=Constant(delay=1.0)), bulkhead)
    async with tasks() as group:
        group.start_soon(look)
        with pytest.raises(OSError):  # noqa: PT011  it has no words
            await pipeline.call(fail)

    assert seen == [0]


async def test_a_gate_further_in_that_refuses_gives_the_slot_back() -> None:
    """Permits come back on that way out too."""
    outer, inner = Bulkhead(1), Bulkhead(1)
    async with inner:
        with pytest.raises(BulkheadFull):
            await Pipeline(outer, inner).call(anyio.sleep, 0)

    assert is_empty(outer)
    assert is_empty(inner)


async def test_keys_have_slots_of_their_own() -> None:
    """A pipeline with a key keeps one bulkhead for each."""
    inside: list[str] = []

    def key_of(host: str) -> str:
        return host

    @Pipeline(Bulkhead(1), key=key_of)
    async def call(host: str) -> None:
        inside.append(host)
        await anyio.sleep(1)

    async with tasks() as group:
        for host in ("a", "b"):
            group.start_soon(call, host)
        await ticks(3)
        with pytest.raises(BulkheadFull) as raised:
            await call("a")

    assert sorted(inside) == ["a", "b"]
    assert raised.value.key == "a"


async def test_while_strategies_are_disabled_nobody_is_refused() -> None:
    """What is entered inside of such a block may be left after it: no slot is lost, and none too many is there."""
    bulkhead = Bulkhead(1)
    entered = Caller(bulkhead)
    async with bulkhead, tasks() as group:
        with disabled():
            await bulkhead.call(anyio.sleep, 0)
            bulkhead.acquire_nowait().settle()
            group.start_soon(entered.run)
            await ticks(3)
        state = entered.state
        with pytest.raises(BulkheadFull):
            bulkhead.acquire_nowait()
        entered.leave.set()

    assert state == "inside"
    assert is_empty(bulkhead)
