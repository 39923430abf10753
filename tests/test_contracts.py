"""What every strategy promises: a table of strategies and contracts. A cell that does not apply is skipped, and says why."""

import asyncio
import dataclasses
import inspect
import itertools
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import resilient
from helpers import Failure, Fatal, Script, cancelled_after
from resilient import clock
from resilient.context import Attempt, deadline, invoke
from resilient.errors import BulkheadFull, CircuitOpen, DeadlineExceeded, RateLimited, RetryableError
from resilient.observe import events
from resilient.observe.timeline import record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.base import Strategy
from resilient.strategies.budget import RetryBudget
from resilient.strategies.gate import Gate
from resilient.strategies.limiter import Limiter
from resilient.strategies.lingering import Lingering
from resilient.strategies.slots import Slots
from resilient.testing import VirtualTime, virtual_time
from subjects import NO_PERMITS, NO_STATE, NO_WAITS, SUBJECTS, Subject, every_strategy

pytestmark = pytest.mark.anyio


async def add(first: int, *, fn: int, self: int = 0, call: int = 0) -> int:
    return first + fn + self + call


async def plain_outcome(call: Coroutine[Any, Any, Any]) -> tuple[str, str]:
    """The value or the error of a call, in a form that can be compared."""
    try:
        return "value", repr(await call)
    except Exception as error:  # noqa: BLE001  it is the outcome
        return "error", repr(error)


# How it is used


@every_strategy()
async def test_it_is_a_call_a_decorator_and_a_part_of_a_pipeline(subject: Subject) -> None:
    """All forms hand the arguments on as they are, and return what the callee returned."""
    decorated = subject.make()(add)

    assert await subject.make().call(add, 1, fn=2, self=3, call=4) == 10
    assert await decorated(1, fn=2) == 3
    assert await Pipeline(subject.make()).call(add, 1, fn=2) == 3
    assert await subject.make().run(invoke, Attempt(add, (1,), {"fn": 2})) == 3
    assert (decorated.__name__, inspect.iscoroutinefunction(decorated)) == ("add", True)
    assert inspect.signature(decorated) == inspect.signature(add)


@every_strategy()
async def test_it_wraps_methods_and_generators(subject: Subject) -> None:
    """A generator is opened in its way, and can be walked to its end."""

    class Service:
        @subject.make()
        async def fetch(self, number: int) -> int:
            return number

        @subject.make()
        async def pages(self, count: int) -> AsyncGenerator[int]:
            for number in range(count):
                yield number

    assert await Service().fetch(7) == 7
    assert [page async for page in Service().pages(3)] == [0, 1, 2]


@every_strategy(
    Retry=NO_PERMITS,
    RetryBudget="what it pays is taken and given back by `Retry`",
    Timeout=NO_PERMITS,
    Fallback=NO_PERMITS,
    Chaos=NO_PERMITS,
    Hedge=NO_PERMITS,
    Pipeline="its gates are taken by hand one by one",
)
async def test_its_permit_can_be_taken_by_hand(subject: Subject) -> None:
    """Waiting, not waiting, and as a block; leaving it twice is harmless."""
    gate = subject.make()
    assert isinstance(gate, Gate)
    with await gate.acquire() as lease:
        pass
    lease.settle()
    await anyio.sleep(1)
    with gate.acquire_nowait():
        pass
    await anyio.sleep(1)
    async with gate.permit():
        pass

    assert subject.idle(gate)


# Every way out


permits_only = every_strategy(
    Retry=NO_PERMITS, RetryBudget=NO_PERMITS, Timeout=NO_PERMITS, Fallback=NO_PERMITS, Chaos=NO_PERMITS, Hedge=NO_PERMITS
)


@permits_only
async def test_its_permit_comes_back_after_a_value_and_an_error(subject: Subject) -> None:
    """And the next call passes."""
    for outcome in (1, Failure(), RetryableError(retry_after=60.0), CircuitOpen(), KeyError()):
        strategy = subject.make()
        await plain_outcome(strategy(Script(outcome, seconds=1))())
        await anyio.sleep(5)

        assert subject.idle(strategy)
        assert await strategy.call(Script(2)) == 2


@permits_only
async def test_its_permit_comes_back_wherever_a_call_is_cancelled(subject: Subject) -> None:
    """Five calls contend, all are cancelled after so many steps of the event loop, and some time."""
    for steps, seconds in itertools.product(range(6), (0, 0.25, 0.5)):
        strategy = subject.make()
        callee = strategy(Script(1, seconds=0.5))
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(callee)
            await anyio.sleep(seconds)
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await anyio.sleep(5)

        assert subject.idle(strategy)
        assert await strategy.call(Script(2)) == 2


@permits_only
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_its_permit_comes_back_wherever_a_task_is_cancelled_natively(subject: Subject) -> None:
    """Each of three contending tasks, in the tick of a hand-off too: the first ends while the others are cancelled."""
    for ticks, victim in itertools.product(range(8), range(3)):
        strategy = subject.make()
        tasks = [asyncio.create_task(strategy(Script(1))()) for _ in range(3)]
        for _ in range(ticks):
            await asyncio.sleep(0)
        tasks[victim].cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(5)

        assert subject.idle(strategy)
        assert await strategy.call(Script(2)) == 2


@permits_only
async def test_its_permit_comes_back_when_the_call_is_closed(subject: Subject) -> None:
    """A coroutine that is abandoned half-way ends with a GeneratorExit."""
    strategy = subject.make()
    call = strategy(anyio.lowlevel.checkpoint)()
    call.send(None)
    call.close()

    assert subject.idle(strategy)


# Cancellation, deadlines, errors


@every_strategy()
async def test_cancellation_is_neither_success_nor_failure_and_propagates(subject: Subject) -> None:
    """What it learned before it still knows, and no more."""
    strategy = subject.make()
    before = [learned(part) for part in subject.state(strategy)]
    for _ in range(3):
        async with cancelled_after(0.5) as scope:
            await strategy.call(anyio.sleep, 10)

        assert scope.cancelled_caught
        await anyio.sleep(10)

    assert [learned(part) for part in subject.state(strategy)] == before


def learned(part: Any) -> tuple[Any, ...]:
    """Everything that success or failure of a call could change."""
    seen = part.statistics()
    return tuple(
        getattr(seen, name, None)
        for name in ("failures", "slow", "consecutive_failures", "state", "active", "spent", "rate", "limit")
    )


@every_strategy(
    RetryBudget="it is asked, and never waits",
    Timeout="it is what ends the wait of others",
    Fallback=NO_WAITS,
    Hedge="while it waits for its turn, another leg runs: it holds nobody up",
    Chaos="its latency plays a slow callee, which knows no deadline",
    CircuitBreaker=NO_WAITS,
    Throttle=NO_WAITS,
)
async def test_it_does_not_wait_beyond_the_deadline(subject: Subject) -> None:
    """Where it knows that it cannot finish in time it gives up at once, with the real error; else when the time is over."""
    strategy = subject.make()
    blocked: dict[str, tuple[Callable[..., Any], type[Exception], float]] = {
        "Retry": (Script(RetryableError(retry_after=30)), RetryableError, 0),
        "Bulkhead": (Script(1), DeadlineExceeded, 0.9),
        "AdaptiveLimit": (Script(1), DeadlineExceeded, 0.9),
        "TokenBucket": (Script(1), RateLimited, 0),
        "AdaptiveRate": (Script(1), RateLimited, 0),
        "SlidingWindow": (Script(1), RateLimited, 0),
        "LeakyBucket": (Script(1), RateLimited, 0),
        "Pipeline": (Script(RetryableError(retry_after=30)), RetryableError, 0),
    }
    callee, error, at = blocked[subject.name]
    lease = strategy.acquire_nowait() if isinstance(strategy, (Slots, Limiter)) else None
    with pytest.raises(error), deadline(0.9):
        await strategy.call(callee)

    assert clock.now() == at
    if lease is not None:
        lease.settle()
    assert subject.idle(strategy)


@every_strategy()
async def test_the_error_of_the_callee_surfaces_as_it_is(subject: Subject) -> None:
    """The same object, without a cause or a context of ours."""
    error = Fatal()
    with pytest.raises(Fatal) as caught:
        await subject.make().call(Script(error))

    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)


@every_strategy()
async def test_a_rejection_from_within_passes_and_is_no_failure(subject: Subject) -> None:
    """It is not retried, counts in no breaker, costs no budget; what was not sent is not paid for."""
    strategy = subject.make()
    before = [learned(part) for part in subject.state(strategy)]
    rejection = BulkheadFull("inner", 1.0)
    callee = Script(rejection)
    with pytest.raises(BulkheadFull) as caught:
        await strategy.call(callee)

    assert caught.value is rejection
    assert callee.calls == 1
    assert [learned(part) for part in subject.state(strategy)] == before
    assert await strategy.call(Script(2)) == 2
    assert clock.now() == 0


# Values that live on


class Body(Lingering):
    """A value that is still in use after the call returned."""


@every_strategy()
async def test_a_value_that_lives_on_is_handed_out_and_its_end_is_heard(subject: Subject) -> None:
    """The same object; whatever was kept for it is free when it has ended, and not before."""
    strategy, body = subject.make(), Body()

    assert await strategy.call(Script(body)) is body
    assert subject.idle(strategy) is (subject.name not in {"Bulkhead", "AdaptiveLimit", "Pipeline", "CircuitBreaker"})
    body.ended()
    body.ended()
    assert subject.idle(strategy)


@every_strategy()
async def test_a_generator_holds_what_it_was_given_until_it_is_closed(subject: Subject) -> None:
    """Left early and closed, everything is free."""
    strategy = subject.make()

    @strategy
    async def pages() -> AsyncGenerator[int]:
        yield 1
        yield 2

    stream = pages()
    assert await anext(stream) == 1
    await stream.aclose()

    assert subject.idle(strategy)


# Observers


@pytest.fixture
def made_events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    for name in events.__all__:
        kind = getattr(events, name)
        if isinstance(kind, type):
            monkeypatch.setattr(kind, "__init__", _counting(made, vars(kind)["__init__"]))
    return made


def _counting(made: list[str], init: Callable[..., None]) -> Callable[..., None]:
    def counted(self: object, *args: Any, **kwargs: Any) -> None:
        made.append(type(self).__name__)
        init(self, *args, **kwargs)

    return counted


@every_strategy()
async def test_a_success_makes_no_events_where_nobody_listens(subject: Subject, made_events: list[str]) -> None:
    """And where somebody does, its attempt and its end."""
    strategy = subject.make()
    await strategy.call(Script(1))
    silent = list(made_events)
    await anyio.sleep(5)
    with record_timeline() as timeline:
        await strategy.call(Script(1))

    assert silent == []
    assert [type(event).__name__ for event in timeline.events] == ["AttemptFinished", "CallFinished"]


@every_strategy(Retry=NO_STATE, Timeout=NO_STATE, Fallback=NO_STATE, Pipeline="its parts have their own")
async def test_its_statistics_are_a_snapshot_and_looking_changes_nothing(subject: Subject) -> None:
    """Frozen, equal when nothing happened, another one when something did."""
    strategy = subject.make()
    (part,) = subject.state(strategy)
    first, again = part.statistics(), part.statistics()
    seen: list[Any] = []

    async def look() -> None:
        seen.append(part.statistics())

    await strategy.call(look)

    assert first == again
    assert seen[0] != first
    assert dataclasses.is_dataclass(first)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(first, dataclasses.fields(first)[0].name, 7)


@every_strategy()
async def test_its_repr_shows_what_it_is(subject: Subject) -> None:
    """With its live state, where it has one."""
    strategy = subject.make()
    shown = [repr(strategy), *map(repr, subject.state(strategy))]

    assert subject.name in shown[-1] or subject.name in shown[0]
    assert not any(" at 0x" in text for text in shown if "<function" not in text)


# Construction and sharing


@every_strategy()
def test_arguments_are_checked_at_construction(subject: Subject) -> None:
    """The message names what is wrong."""
    with pytest.raises((ValueError, TypeError)) as caught:
        subject.wrong()

    assert subject.message in str(caught.value)


@every_strategy()
async def test_it_is_shared_by_many_tasks(subject: Subject) -> None:
    """Each call gets its own result."""
    double = subject.make()(_double)
    results: list[int] = []

    async def one(number: int) -> None:
        results.append(await double(number))

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, number)

    assert sorted(results) == [2 * number for number in range(20)]


@every_strategy()
def test_it_is_made_outside_of_a_loop_and_used_by_several_in_turn(subject: Subject) -> None:
    """On both backends, with calls that contend, also where the loop before was left while some waited."""
    strategy = subject.make()
    double = strategy(_double)
    passed = 0.0

    async def contend() -> list[int]:
        results: list[int] = []

        async def one(number: int) -> None:
            results.append(await double(number))

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(one, number)
        return sorted(results)

    async def leave() -> None:
        async with cancelled_after(0.05):
            await contend()

    for backend in ("asyncio", "trio", "asyncio"):
        with virtual_time(backend) as virtual:
            clock.now = _later(virtual, passed)  # one clock for all loops: it never goes back
            virtual.run(leave)

            assert virtual.run(contend) == [0, 2, 4, 6, 8]
            passed = clock.now()
    assert subject.idle(strategy)


def _later(virtual: VirtualTime, passed: float) -> Callable[[], float]:
    return lambda: passed + virtual.now()


async def _double(number: int) -> int:
    await anyio.sleep(0.1)
    return 2 * number


@pytest.fixture(params=[0, 1_000_000], ids="clock+{}".format)
def clock_offset(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library's clock and that of the event loop have different origins."""
    offset: int = request.param
    monkeypatch.setattr(clock, "now", lambda: anyio.current_time() + offset)
    yield
    monkeypatch.undo()


@every_strategy()
@pytest.mark.usefixtures("clock_offset")
async def test_the_origin_of_the_clock_does_not_matter(subject: Subject) -> None:
    """State reads one clock, waits are the seconds that remain: nothing mixes them up."""
    strategy = subject.make()
    started = anyio.current_time()
    with deadline(20):
        outcomes = [await plain_outcome(strategy(Script(outcome, 1))()) for outcome in (1, Failure(), Fatal(), 1)]
    elapsed = anyio.current_time() - started

    expected = {
        "Retry": 1,
        "RetryBudget": 1,
        "TokenBucket": 3,
        "AdaptiveRate": 3,
        "SlidingWindow": 3,
        "LeakyBucket": 3,
        "Pipeline": 4,
    }
    assert [kind for kind, _ in outcomes].count("error") == (
        1 if subject.name in {"Retry", "RetryBudget", "Pipeline", "Hedge"} else 2
    )
    assert elapsed == pytest.approx(expected.get(subject.name, 0))


@every_strategy(Timeout="its cancel scope sets a timer: that is what it is", Hedge="its next leg waits for a timer")
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_call_makes_no_task_and_sets_no_timer(subject: Subject) -> None:
    """A success on a loop that has nothing else to do leaves it with nothing to do."""
    strategy = subject.make()
    if isinstance(strategy, Pipeline):
        strategy = Pipeline(*strategy.strategies[:-1])
    loop: Any = asyncio.get_running_loop()

    async def look() -> tuple[int, int]:
        return len(asyncio.all_tasks()), len(loop._scheduled)

    before = await look()

    assert await strategy.call(look) == before
    assert await look() == before


def test_every_strategy_of_the_library_is_in_the_table() -> None:
    """A new one is tested by being added."""
    public = {name for name in resilient.__all__ if _is_strategy(getattr(resilient, name))}

    assert public - {"Strategy", "Gate"} <= {subject.name for subject in SUBJECTS}


def _is_strategy(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, (Strategy, RetryBudget))
