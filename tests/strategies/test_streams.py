"""Async generator functions in strategies and pipelines."""

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any, Self

import anyio
import pytest

from resilient import clock
from resilient.context import Attempt, current_attempt
from resilient.errors import CircuitOpen, RateLimited, Rejected, TimeoutExceeded
from resilient.observe.events import Event, TimedOut
from resilient.observe.listeners import listening
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.base import Step, Strategy
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.gate import Gate, Permit
from resilient.strategies.retry import Retry
from resilient.strategies.streams import Stream, is_stream_function
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio


class Counter(Gate):
    """A gate that counts its permits and keeps the verdicts that they were settled with."""

    def __init__(self, limit: int = 100, *, lingers: bool = True) -> None:
        super().__init__("counter")
        self.limit = limit
        self.lingers = lingers
        self.active = 0
        self.verdicts: list[Verdict] = []

    def admit(self, now: float) -> Permit:
        if self.active == self.limit:
            raise RateLimited(self.name)
        self.active += 1
        return _Counted(self)

    def sibling(self) -> Self:
        return type(self)(self.limit, lingers=self.lingers)

    def is_fresh(self, now: float) -> bool:
        return not self.active

    @property
    def reasons(self) -> list[str]:
        return [verdict.reason for verdict in self.verdicts]


class _Counted:
    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.lingers = counter.lingers

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self.counter.active -= 1
        self.counter.verdicts.append(verdict)


class Source:
    """Opens generators, each failing or going on as its script says; counts what was opened and what was closed."""

    def __init__(self, *fails: int) -> None:
        self.fails = list(fails)  # how many items each opening gives before it fails
        self.opened = 0
        self.closed = 0

    async def items(self, count: int = 3) -> AsyncGenerator[int, None]:
        self.opened += 1
        fails_at = self.fails.pop(0) if self.fails else None
        try:
            for number in range(count):
                if number == fails_at:
                    raise ConnectionError(number)
                await anyio.sleep(1)
                yield number
        finally:
            self.closed += 1


def retry(attempts: int = 3) -> Retry:
    return Retry(on=ConnectionError, attempts=attempts, backoff=Constant(delay=0.5))


async def collect(stream: AsyncIterator[int], into: list[int]) -> None:
    """Consume a stream; what was seen before an error is kept."""
    async for item in stream:
        into.append(item)  # noqa: PERF401  a comprehension would lose it


@pytest.fixture
def gate() -> Counter:
    return Counter()


async def test_a_wrapped_generator_gives_its_items(gate: Counter) -> None:
    """Wrapping changes nothing for who consumes the items."""
    source = Source()
    stream = Pipeline(Timeout(5), retry(), gate)(source.items)

    assert [item async for item in stream(4)] == [0, 1, 2, 3]
    assert (source.opened, source.closed) == (1, 1)
    assert (gate.active, gate.reasons) == (0, ["success"])


async def test_the_wrapper_is_an_async_generator_function_with_the_same_name_and_signature() -> None:
    """Frameworks that look at a function see what they would have seen without the decorator."""

    async def pages(size: int, *, start: int = 0) -> AsyncIterator[int]:
        """All pages."""
        yield size + start

    wrapped = retry()(pages)

    assert inspect.isasyncgenfunction(wrapped)
    assert (wrapped.__name__, wrapped.__doc__) == ("pages", "All pages.")
    assert inspect.signature(wrapped) == inspect.signature(pages)
    assert inspect.isasyncgen(wrapped(1))


async def test_parameters_of_the_generator_may_have_any_name() -> None:
    """The machinery takes its own arguments by position only."""

    @retry()
    async def echo(fn: str, strategy: str, self: str, opened: str, args: str) -> AsyncIterator[str]:
        yield fn + strategy + self + opened + args

    assert [item async for item in echo(fn="a", strategy="b", self="c", opened="d", args="e")] == ["abcde"]


async def test_methods_and_class_methods_can_be_wrapped() -> None:
    """A wrapped method binds like any other one."""

    class Client:
        base = "class"

        def __init__(self) -> None:
            self.base = "instance"

        @retry()
        async def method(self) -> AsyncIterator[str]:
            yield self.base

        @classmethod
        @retry()
        async def of_class(cls) -> AsyncIterator[str]:
            yield cls.base

    assert [item async for item in Client().method()] == ["instance"]
    assert [item async for item in Client.of_class()] == ["class"]


async def test_what_counts_as_an_async_generator_function() -> None:
    """Functions, methods, partials, and objects whose call is one; not what merely returns something."""

    class Callable:
        async def __call__(self) -> AsyncIterator[int]:
            yield 1

    async def coroutine() -> None:
        pass

    assert is_stream_function(Source().items)
    assert is_stream_function(functools.partial(Source().items, 2))
    assert is_stream_function(Callable())
    assert not is_stream_function(coroutine)
    assert [item async for item in retry()(Callable())()] == [1]


async def test_it_is_opened_again_only_before_its_first_item(gate: Counter) -> None:
    """Two openings fail, the third works: the consumer sees one stream, the gate sees three calls."""
    source = Source(0, 0)

    assert [item async for item in Pipeline(retry(), gate)(source.items)()] == [0, 1, 2]
    assert source.opened == 3
    assert gate.reasons == ["error", "error", "success"]


async def test_an_error_before_the_first_item_surfaces_when_the_attempts_are_used_up() -> None:
    """It is the callee's own exception, the last one, with a note of the attempts."""
    source = Source(0, 0, 0)

    with pytest.raises(ConnectionError) as caught:
        await anext(retry()(source.items)())

    assert "3 attempts" in caught.value.__notes__[0]


async def test_an_error_in_the_middle_surfaces_as_it_is_and_is_a_failure_for_gates(gate: Counter) -> None:
    """Items were handed out already: opening it again would give them twice."""
    source = Source(2)
    seen: list[int] = []

    with pytest.raises(ConnectionError) as caught:
        await collect(Pipeline(retry(), gate)(source.items)(), seen)

    assert (seen, source.opened) == ([0, 1], 1)
    assert caught.value.args == (2,)
    assert not hasattr(caught.value, "__notes__")
    assert [verdict.health for verdict in gate.verdicts] == [Health.UNHEALTHY]
    assert gate.active == 0


async def test_an_empty_generator_is_a_success(gate: Counter) -> None:
    """No items is an answer, not a failure."""
    source = Source()

    assert [item async for item in Pipeline(retry(), gate)(source.items)(0)] == []
    assert (source.opened, gate.active, gate.reasons) == (1, 0, ["success"])


async def test_nothing_runs_before_the_first_item_is_asked_for(gate: Counter) -> None:
    """Like any generator: calling it does nothing yet, and closing it then has nothing to close."""
    source = Source()
    stream = Pipeline(gate)(source.items)()

    await stream.aclose()

    assert (source.opened, gate.verdicts) == (0, [])


async def test_permits_that_linger_are_held_until_the_stream_is_exhausted() -> None:
    """Others are settled when the first item is there."""
    lingering, prompt = Counter(), Counter(lingers=False)
    stream = Pipeline(lingering, prompt)(Source().items)(2)

    await anext(stream)

    assert (lingering.active, prompt.active) == (1, 0)
    assert await anext(stream) == 1
    assert lingering.active == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert lingering.active == 0


async def test_a_refused_call_opens_nothing_and_a_permit_that_is_free_again_lets_the_next_one_in() -> None:
    """The consumer of the second stream hears the rejection at its first item."""
    gate, source = Counter(1), Source()
    stream = Pipeline(retry(), gate)(source.items)

    async with contextlib.aclosing(stream()) as first:
        await anext(first)
        with pytest.raises(Rejected):
            await anext(stream())

        assert source.opened == 1
    assert [item async for item in stream(1)] == [0]


async def test_closing_gives_permits_back_and_tells_nothing_of_the_callee(gate: Counter) -> None:
    """A consumer that has seen enough is neither a success nor a failure."""
    source = Source()

    async with contextlib.aclosing(Pipeline(gate)(source.items)()) as stream:
        async for _ in stream:
            break
        assert gate.active == 1

    assert (gate.active, gate.reasons) == (0, ["abandoned"])
    assert gate.verdicts[0].health is Health.NEUTRAL
    assert source.closed == 1


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # trio tells to use aclosing, and is right
async def test_a_stream_that_was_dropped_gives_its_permits_back_when_it_is_collected(gate: Counter) -> None:
    """A `break` without `aclosing`: the finalizer of the event loop closes it."""

    async def consume() -> None:
        async for _ in Pipeline(gate)(Source().items)():
            break

    await consume()
    gc.collect()
    await anyio.sleep(1)

    assert (gate.active, gate.reasons) == (0, ["abandoned"])


async def test_what_is_sent_reaches_the_generator() -> None:
    """`asend` works as on the plain generator, also across the first item."""

    @Pipeline(Timeout(5), retry())
    async def doubled() -> AsyncGenerator[int, int]:
        number = yield 0
        while True:
            number = yield number * 2

    stream: AsyncGenerator[int, Any] = doubled()

    assert await anext(stream) == 0
    assert await stream.asend(4) == 8
    assert await stream.asend(5) == 10
    await stream.aclose()


async def test_what_is_thrown_reaches_the_generator(gate: Counter) -> None:
    """`athrow` works as on the plain generator: it may answer with an item."""

    @Pipeline(gate)
    async def patient() -> AsyncGenerator[str, None]:
        try:
            yield "item"
        except KeyError as error:
            yield f"caught {error}"

    stream: AsyncGenerator[str, Any] = patient()
    await anext(stream)

    assert await stream.athrow(KeyError(1)) == "caught 1"
    await stream.aclose()
    assert gate.active == 0


async def test_an_async_context_manager_can_be_made_of_it(gate: Counter) -> None:
    """Its entry is retried, permits are held while the block runs, and an error of the block is not one of the callee."""
    log: list[str] = []
    attempts = 0

    @contextlib.asynccontextmanager
    @Pipeline(Timeout(5), retry(), gate)
    async def connection() -> AsyncIterator[str]:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ConnectionError
        try:
            yield "connected"
        finally:
            log.append("closed")

    async with connection() as value:
        log.append(value)
        assert gate.active == 1
    with pytest.raises(KeyError):
        async with connection():
            raise KeyError

    assert log == ["connected", "closed", "closed"]
    assert gate.reasons == ["error", "success", "abandoned"]


async def test_a_timeout_bounds_the_time_to_the_first_item(gate: Counter) -> None:
    """The opening takes a second."""
    source = Source()

    with pytest.raises(TimeoutExceeded):
        await anext(Pipeline(Timeout(0.5), gate)(source.items)())

    assert clock.now() == 0.5
    assert (source.closed, gate.active, gate.reasons) == (1, 0, ["cancelled"])


async def test_a_timeout_then_bounds_the_wait_for_each_further_item(gate: Counter) -> None:
    """The expiry closes the generator, is told as an event, and is a failure for gates."""
    events: list[Event] = []
    expired: list[float] = []
    closed: list[float] = []

    @Pipeline(Timeout(2, on_timeout=lambda: expired.append(clock.now())), gate)
    async def slower() -> AsyncIterator[int]:
        try:
            for seconds in (1, 1, 5, 1):
                await anyio.sleep(seconds)
                yield seconds
        finally:
            closed.append(clock.now())

    seen: list[int] = []
    with listening(events.append), pytest.raises(TimeoutExceeded) as caught:
        await collect(slower(), seen)

    assert (seen, caught.value.seconds) == ([1, 1], 2.0)
    assert expired == closed == [4.0]
    assert [event.at for event in events if isinstance(event, TimedOut)] == [4.0]
    assert (gate.active, gate.verdicts[0].health) == (0, Health.UNHEALTHY)


async def test_a_timeout_never_counts_the_time_of_the_consumer() -> None:
    """A consumer may take as long as it likes between items."""
    seen: list[int] = []

    async for item in Timeout(1.5)(Source().items)():
        seen.append(item)
        await anyio.sleep(100)

    assert seen == [0, 1, 2]


async def test_the_shortest_of_several_timeouts_counts_for_items() -> None:
    """Those of the whole call and of an attempt both bound each item."""
    for first, second in ((2, 30), (30, 2)):

        @Pipeline(Timeout(first), retry(), Timeout(second))
        async def slow() -> AsyncIterator[int]:
            yield 1
            await anyio.sleep(60)
            yield 2

        stream = slow()
        await anext(stream)
        with pytest.raises(TimeoutExceeded) as caught:
            await anext(stream)

        assert caught.value.seconds == 2.0


async def test_a_timeout_may_change_from_item_to_item() -> None:
    """A function as the limit is asked for each item; None is no limit."""
    limits: list[float | None] = [5, None, 5, 0.5]

    stream = Timeout(lambda: limits.pop(0))(Source().items)()

    assert [await anext(stream), await anext(stream), await anext(stream)] == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_timeout_error_of_the_generator_keeps_its_name() -> None:
    """Only the expiry of the limit is a `TimeoutExceeded`."""

    @Timeout(5)
    async def stream() -> AsyncIterator[int]:
        yield 1
        raise TimeoutError("mine")

    items = stream()
    await anext(items)

    with pytest.raises(TimeoutError, match="mine") as caught:
        await anext(items)
    assert not isinstance(caught.value, TimeoutExceeded)


@contextlib.asynccontextmanager
async def cancel_scope() -> AsyncGenerator[None, None]:
    with anyio.CancelScope():
        yield


@pytest.mark.parametrize("holds", [cancel_scope, anyio.create_task_group])
async def test_a_generator_that_holds_a_scope_cannot_be_opened_under_a_timeout(gate: Counter, holds: Any) -> None:
    """The error says what is wrong and what to do; the generator is closed in order and the task is as sane as before."""
    closed: list[bool] = []

    @Pipeline(Timeout(5), gate)
    async def holder() -> AsyncIterator[int]:
        try:
            async with holds():
                yield 1
        finally:
            closed.append(True)

    with anyio.CancelScope() as around:
        with pytest.raises(
            RuntimeError, match=r"holder> keeps a cancel scope or a task group open across a `yield`.*anyio\.fail_after"
        ):
            await anext(holder())
        around.cancel()
        await anyio.sleep(1)

    assert around.cancelled_caught
    assert (closed, gate.active) == ([True], 0)


async def test_a_generator_that_opens_a_scope_later_is_found_out_at_that_item(gate: Counter) -> None:
    """Each step is looked at."""

    @Pipeline(Timeout(5), gate)
    async def later() -> AsyncIterator[int]:
        yield 1
        with anyio.move_on_after(60):
            yield 2

    items = later()
    await anext(items)

    with pytest.raises(RuntimeError, match="across a `yield`"):
        await anext(items)
    assert gate.active == 0


async def test_a_generator_that_holds_a_scope_works_without_a_timeout(gate: Counter) -> None:
    """Retries and gates open no scope of their own around its steps."""

    @Pipeline(retry(), gate)
    async def holder() -> AsyncIterator[int]:
        with anyio.CancelScope():
            yield 1
            yield 2

    assert [item async for item in holder()] == [1, 2]
    assert gate.active == 0


async def test_a_scope_inside_of_one_step_is_no_problem() -> None:
    """It is closed before the item is handed out."""

    @Timeout(5)
    async def fine() -> AsyncIterator[int]:
        for number in range(2):
            with anyio.fail_after(1):
                await anyio.sleep(0.5)
            yield number

    assert [item async for item in fine()] == [0, 1]


async def test_cancelling_the_wait_for_the_first_item_leaves_nothing_behind(gate: Counter) -> None:
    """The generator is closed, the permit is back, and nothing was learnt."""
    source = Source()

    with anyio.move_on_after(0.5) as scope:
        await anext(Pipeline(retry(), gate)(source.items)())

    assert scope.cancelled_caught
    assert (source.closed, gate.active, gate.reasons) == (1, 0, ["cancelled"])


async def test_cancelling_the_wait_for_a_further_item_leaves_nothing_behind(gate: Counter) -> None:
    """Also through the scopes of timeouts, which do not take the cancellation for theirs."""
    source = Source()

    with anyio.move_on_after(1.5) as scope:
        async for _ in Pipeline(Timeout(60), retry(), Timeout(30), gate)(source.items)():
            pass

    assert scope.cancelled_caught
    assert (source.closed, gate.active, gate.reasons) == (1, 0, ["cancelled"])


async def test_cancelling_the_consumer_between_items_gives_permits_back(gate: Counter) -> None:
    """The clean-up of the generator is cancelled too, as that of a plain one; the permit comes back all the same."""

    @Pipeline(Timeout(5), gate)
    async def unclean() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(1)

    with anyio.move_on_after(3):
        async with contextlib.aclosing(unclean()) as stream:
            await anext(stream)
            await anyio.sleep(60)

    assert (clock.now(), gate.active, gate.reasons) == (3.0, 0, ["abandoned"])


async def test_a_clean_up_that_fails_surfaces_and_gives_permits_back(gate: Counter) -> None:
    """As from a plain generator."""

    @Pipeline(gate)
    async def unclean() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyError("clean-up")

    stream = unclean()
    await anext(stream)

    with pytest.raises(KeyError, match="clean-up"):
        await stream.aclose()
    assert gate.active == 0


class Late(Strategy):
    """Does something after the call, and so can lose its value."""

    async def run(self, call: Step, attempt: Attempt) -> Any:
        value = await call(attempt)
        await anyio.sleep(10)
        return value


async def test_a_stream_that_was_opened_by_a_call_that_was_then_cut_off_is_closed(gate: Counter) -> None:
    """The first item was there, the call around ran out of time: nobody will ever see the stream."""
    source = Source()

    with pytest.raises(TimeoutExceeded):
        await anext(Pipeline(Timeout(5), Late(), gate)(source.items)())

    assert (source.opened, source.closed) == (1, 1)
    assert (gate.active, gate.reasons) == (0, ["abandoned"])


async def test_a_stream_that_is_lost_to_a_cancellation_is_closed_with_time_to_clean_up(gate: Counter) -> None:
    """The clean-up is shielded: it may await, though the call is cancelled."""
    closed: list[float] = []

    @Pipeline(Late(), gate)
    async def careful() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(1)
            closed.append(clock.now())

    with anyio.move_on_after(5):
        await anext(careful())

    assert closed == [6.0]
    assert gate.active == 0


async def test_a_discarded_stream_gets_five_seconds_to_clean_up(gate: Counter) -> None:
    """One that hangs cannot hold its permit for ever."""

    @Pipeline(Late(), gate)
    async def stuck() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep_forever()

    with anyio.move_on_after(5):
        await anext(stuck())

    assert (clock.now(), gate.active) == (10.0, 0)


async def test_a_discarded_stream_that_fails_to_clean_up_does_not_hide_how_the_call_ended(
    gate: Counter, caplog: pytest.LogCaptureFixture
) -> None:
    """The failure is logged, the time-out surfaces."""

    @Pipeline(Timeout(5), Late(), gate)
    async def unclean() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise KeyError

    with caplog.at_level(logging.WARNING, "resilient"), pytest.raises(TimeoutExceeded):
        await anext(unclean())

    assert "unclean> was discarded, and raised while it was closed" in caplog.text
    assert gate.active == 0


class Rejecting(Strategy):
    """Takes the value and raises."""

    async def run(self, call: Step, attempt: Attempt) -> Any:
        await call(attempt)
        raise RateLimited("rejecting")


@pytest.mark.parametrize("holds", [cancel_scope, anyio.create_task_group])
async def test_a_discarded_stream_that_holds_a_scope_is_closed_in_order(gate: Counter, holds: Any) -> None:
    """No shield is put around what must be closed inside of it."""
    closed: list[bool] = []

    @Pipeline(Fallback([]), Rejecting(), gate)
    async def holder() -> AsyncIterator[int]:
        try:
            async with holds():
                yield 1
        finally:
            closed.append(True)

    assert [item async for item in holder()] == []
    assert (closed, gate.active) == ([True], 0)


def is_reset(value: object) -> Verdict | None:
    """Judge a stream that was opened by its first item."""
    if isinstance(value, Stream) and value.first == "reset":
        return Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "reset")
    return None


async def test_a_classifier_of_values_can_look_at_the_first_item(gate: Counter) -> None:
    """Streams that are retried away are closed; what the first item said of the callee's health stands."""
    opened: list[int] = []
    closed: list[int] = []

    @Pipeline(Retry(backoff=Constant(delay=0.1)), gate, classify=Classifier(errors=lambda _: None, values=is_reset))
    async def resets() -> AsyncIterator[str]:
        opened.append(number := len(opened))
        try:
            yield "reset" if number < 2 else "item"
        finally:
            closed.append(number)

    assert [item async for item in resets()] == ["item"]
    assert (opened, closed) == ([0, 1, 2], [0, 1, 2])
    assert gate.reasons == ["reset", "reset", "success"]
    assert gate.active == 0


class Items:
    """Async iterable, and not a generator."""

    async def __aiter__(self) -> AsyncIterator[int]:
        yield 7
        yield 8


async def cached(_: object) -> AsyncIterator[int]:
    yield 7
    yield 8


@pytest.mark.parametrize(
    "fallback",
    [Fallback([7, 8]), Fallback((7, 8)), Fallback(Items()), Fallback(function=cached), Fallback(function=lambda _: [7, 8])],
    ids=["list", "tuple", "async iterable", "async generator function", "function"],
)
async def test_a_fallback_gives_items_in_place_of_a_stream_that_cannot_be_opened(fallback: Fallback, gate: Counter) -> None:
    """Any iterable will do, sync or async."""
    stream = Pipeline(fallback, gate)(Source(0).items)

    assert [item async for item in stream()] == [7, 8]
    assert gate.active == 0


async def test_a_fallback_that_is_no_iterable_of_items_is_a_mistake() -> None:
    """A text is no list of letters here."""
    for value in (None, "text"):
        with pytest.raises(TypeError, match=r"stands in for an async generator: give an iterable of items"):
            await anext(Fallback(value)(Source(0).items)())


async def test_a_fallback_does_not_hide_an_error_in_the_middle() -> None:
    """What was handed out cannot be taken back."""
    stream = Fallback([7, 8])(Source(1).items)()

    assert await anext(stream) == 0
    with pytest.raises(ConnectionError):
        await anext(stream)


async def test_strategies_can_be_stacked(gate: Counter) -> None:
    """The outer one wraps what the inner one made."""
    outer = Counter()
    source = Source(0)
    stream = outer(Pipeline(retry())(gate(source.items)))()

    assert [item async for item in stream] == [0, 1, 2]
    assert (outer.reasons, gate.reasons) == (["success"], ["error", "success"])


async def test_streams_of_one_function_are_independent(gate: Counter) -> None:
    """Ten tasks, each of which needs two openings."""
    source = Source(*[0] * 10)
    stream = Pipeline(Timeout(5), retry(), gate)(source.items)
    seen: list[list[int]] = []

    async def consume() -> None:
        seen.append([item async for item in stream()])

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(consume)

    assert seen == [[0, 1, 2]] * 10
    assert (source.opened, source.closed, gate.active) == (20, 20, 0)


async def test_a_keyed_pipeline_takes_the_key_from_the_arguments() -> None:
    """Each key has a gate of its own, also while streams are open."""
    stream = Pipeline(Counter(1), key=str)(Source().items)

    async with contextlib.aclosing(stream(1)) as one, contextlib.aclosing(stream(2)) as two:
        assert (await anext(one), await anext(two)) == (0, 0)
        with pytest.raises(Rejected):
            await anext(stream(2))


async def test_the_attempt_is_current_until_the_first_item() -> None:
    """The opening is what is tried; from then on the generator runs in the context of its consumer."""
    numbers: list[int] = []

    @retry()
    async def stream() -> AsyncIterator[int]:
        numbers.append(current_attempt().number)
        if len(numbers) == 1:
            raise ConnectionError
        yield 1
        numbers.append(current_attempt().number)
        yield 2

    assert [item async for item in stream()] == [1, 2]
    assert numbers == [1, 2, 1]


async def test_a_custom_strategy_works_on_streams() -> None:
    """It sees the opening as the call."""
    log: list[float] = []

    class Timed(Strategy):
        def run(self, call: Step, attempt: Attempt) -> Awaitable[Any]:
            return self.measure(call, attempt)

        async def measure(self, call: Step, attempt: Attempt) -> Any:
            started = clock.now()
            try:
                return await call(attempt)
            finally:
                log.append(clock.now() - started)

    assert [item async for item in Timed()(Source().items)()] == [0, 1, 2]
    assert log == [1.0]


async def test_a_bulkhead_and_a_breaker_guard_a_stream_until_it_ends() -> None:
    """The waiter gets the permit when the stream ahead ends; two streams that break in the middle trip the breaker."""
    bulkhead, breaker = Bulkhead(1, max_queue=1), CircuitBreaker(consecutive_failures=2)
    stream = Pipeline(breaker, bulkhead)(Source(1, 1).items)
    failures: list[float] = []

    async def consume() -> None:
        with pytest.raises(ConnectionError):
            await collect(stream(), [])
        failures.append(clock.now())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(consume)
        tasks.start_soon(consume)
    with pytest.raises(CircuitOpen):
        await anext(stream())

    assert failures == [1.0, 2.0]
    assert bulkhead.statistics().active == 0


async def test_a_probe_is_decided_by_the_first_item_and_what_follows_is_one_more_sample() -> None:
    """An hour-long stream does not hold up a half-open breaker; its failure later on is heard all the same."""
    breaker = CircuitBreaker(consecutive_failures=1, open_for=10)
    stream = breaker(Source(0, 1).items)
    with pytest.raises(ConnectionError):
        await anext(stream())
    await anyio.sleep(60)

    probe = stream()
    await anext(probe)
    states = [breaker.state]
    with pytest.raises(ConnectionError):
        await anext(probe)
    states.append(breaker.state)

    assert states == ["closed", "open"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("seconds", [0.5, 1.0, 1.5, 3.5])
async def test_native_cancellation_of_asyncio_leaves_nothing_behind(gate: Counter, seconds: float) -> None:
    """In the opening, at the moment of the first item, in a later step, and while the consumer works."""
    source = Source()

    async def consume() -> None:
        async with contextlib.aclosing(Pipeline(Timeout(30), retry(), Timeout(20), gate)(source.items)(2)) as stream:
            async for _ in stream:
                pass
            await anyio.sleep(60)

    task = asyncio.ensure_future(consume())
    await anyio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (source.opened, source.closed, gate.active) == (1, 1, 0)


class Twice(Strategy):
    """Opens two streams, of which one is lost."""

    async def run(self, call: Step, attempt: Attempt) -> Any:
        await call(attempt)
        return await call(attempt.again())


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_native_cancellation_while_streams_are_discarded_loses_no_permit(gate: Counter) -> None:
    """A shield does not keep it off: the clean-up is cut short, and every permit is back."""

    @Pipeline(Late(), Twice(), gate)
    async def slow_to_close() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(3)

    async def consume() -> None:
        await anext(slow_to_close())

    task = asyncio.ensure_future(consume())
    await anyio.sleep(5)
    task.cancel()
    await anyio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (clock.now(), gate.active) == (9.0, 0)


async def test_of_two_streams_that_were_opened_only_the_one_that_is_handed_out_stays_open(gate: Counter) -> None:
    """A strategy of one's own need not think of streams that it loses."""
    source = Source()

    assert [item async for item in Pipeline(Twice(), gate)(source.items)(1)] == [0]
    assert (source.opened, source.closed) == (2, 2)
    assert gate.reasons == ["abandoned", "success"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_program_that_never_used_anyio_can_consume_streams(gate: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backend for asyncio is loaded with the first scope; before that there is no scope to look for."""
    monkeypatch.delitem(sys.modules, "anyio._backends._asyncio")

    @Pipeline(gate)
    async def numbers() -> AsyncIterator[int]:
        yield 1

    assert [item async for item in numbers()] == [1]
