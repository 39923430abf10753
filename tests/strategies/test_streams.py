"""Async generator functions in strategies and pipelines."""

import contextlib
import functools
import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anyio
import pytest

from resilient import clock
from resilient.context import Attempt, current_attempt
from resilient.errors import Rejected
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.base import Step, Strategy
from resilient.strategies.fallback import Fallback
from resilient.strategies.retry import Retry
from resilient.strategies.streams import Stream, is_stream_function
from resilient.strategies.timeout import Timeout
from strategies.sources import Counter, Source, collect, retry

pytestmark = pytest.mark.anyio


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
        async def run(self, call: Step, attempt: Attempt) -> Any:
            started = clock.now()
            try:
                return await call(attempt)
            finally:
                log.append(clock.now() - started)

    assert [item async for item in Timed()(Source().items)()] == [0, 1, 2]
    assert log == [1.0]


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_program_that_never_used_anyio_can_consume_streams(gate: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backend for asyncio is loaded with the first scope; before that there is no scope to look for."""
    monkeypatch.delitem(sys.modules, "anyio._backends._asyncio")

    @Pipeline(gate)
    async def numbers() -> AsyncIterator[int]:
        yield 1

    assert [item async for item in numbers()] == [1]
