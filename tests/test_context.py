import math
from collections.abc import Generator
from contextvars import copy_context
from datetime import timedelta

import anyio
import pytest

from helpers import Failure, Fatal, Script
from resilient import clock
from resilient.context import Attempt, current, current_attempt, deadline, make_current, put_back, time_left
from resilient.errors import DeadlineExceeded
from resilient.observe.timeline import record_timeline
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio

RETRY = Retry(on=Failure, backoff=Constant(delay=1, jitter="none"))


class Suspended:
    """Never done."""

    def __await__(self) -> Generator[None]:
        yield


def users(*_: object) -> str:
    return "users"


async def seen(log: list[tuple[int, str, str | None]]) -> None:
    attempt = current_attempt()
    log.append((attempt.number, attempt.kind, attempt.key))


async def test_outside_of_any_call_there_is_a_first_attempt_without_a_key() -> None:
    """Code that asks need not know whether it is retried."""
    log: list[tuple[int, str, str | None]] = []
    await seen(log)

    assert log == [(1, "original", None)]
    assert current() is None


async def test_a_callee_sees_its_attempt() -> None:
    """The number counts up, the kind says why."""
    log: list[tuple[int, str, str | None]] = []

    async def callee() -> None:
        await seen(log)
        if len(log) < 3:
            raise Failure

    await RETRY.call(callee)

    assert log == [(1, "original", None), (2, "retry", None), (3, "retry", None)]
    assert current() is None


async def test_a_callee_sees_the_key_of_its_pipeline() -> None:
    """Where the pipeline is keyed."""
    log: list[tuple[int, str, str | None]] = []
    await Pipeline(RETRY, key=users).call(seen, log)

    assert log == [(1, "original", "users")]


async def test_an_inner_call_has_an_attempt_of_its_own() -> None:
    """The outer one is back when it has ended, also where it failed."""
    log: list[tuple[int, str, str | None]] = []

    async def inner() -> None:
        await seen(log)
        raise Fatal

    async def outer() -> None:
        await seen(log)
        with pytest.raises(Fatal):
            await RETRY.call(inner)
        await seen(log)
        if len(log) < 6:
            raise Failure

    await RETRY.call(outer)

    assert [number for number, _, _ in log] == [1, 1, 1, 2, 1, 2]


async def test_tasks_side_by_side_see_their_own_attempts() -> None:
    """The current attempt belongs to a task."""
    numbers: list[int] = []

    async def second_time() -> None:
        await anyio.sleep(0.1)
        numbers.append(current_attempt().number)
        if current_attempt().number == 1:
            raise Failure

    async def first_time() -> None:
        await anyio.sleep(1.15)
        numbers.append(current_attempt().number)

    async with anyio.create_task_group() as group:
        group.start_soon(RETRY(second_time))
        group.start_soon(RETRY(first_time))

    assert numbers == [1, 1, 2]


async def test_all_attempts_of_a_call_have_its_number() -> None:
    """Whichever of them is asked for it first."""
    attempt = Attempt(seen)
    other = attempt.again("hedge")

    assert other.identify() == attempt.identify()
    assert Attempt(seen).identify() != attempt.identify()


async def test_a_call_that_is_closed_in_another_context_leaves_that_alone() -> None:
    """The garbage collector closes a call that was given up wherever it runs."""
    context = copy_context()
    context.run(make_current, Attempt(seen))
    call = context.run(Pipeline(key=lambda: "users").call, Suspended)
    context.run(call.send, None)
    call.close()

    assert current() is None


async def test_an_attempt_can_be_made_current_by_hand() -> None:
    """What was current before is handed out, to be put back."""
    attempt = Attempt(seen)
    before = make_current(attempt)
    now = current_attempt()
    put_back(attempt, before)

    assert (before, now, current()) == (None, attempt, None)


async def test_an_attempt_shows_what_it_is() -> None:
    """In logs and debuggers."""
    attempt = Attempt(seen)
    keyed = attempt.again()
    keyed.key = "users"

    assert (repr(attempt), repr(keyed)) == ("<Attempt 1 (original)>", "<Attempt 2 (retry) for 'users'>")


async def test_nothing_limits_the_time_unless_something_does() -> None:
    """Infinity, then."""
    assert time_left() == math.inf


async def test_the_least_of_all_limits_counts() -> None:
    """A scope around, a limit that is given, the deadline of the call around."""
    attempt = Attempt(seen)
    attempt.deadline = clock.now() + 5
    make_current(attempt)
    lefts = [time_left(), time_left(clock.now() + 3)]
    with deadline(4):
        lefts.append(time_left())
    make_current(None)

    assert lefts == [5, 3, 4]


async def test_a_call_has_no_more_time_than_any_call_around_it() -> None:
    """Also where the one in between says nothing of time."""
    lefts: list[float] = []

    async def innermost() -> None:
        lefts.append(time_left())

    async def between() -> None:
        await Pipeline(Bulkhead(1), key=lambda: "between").call(innermost)

    await Retry(on=OSError, timeout=5).call(between)

    assert lefts == [5]


async def test_clocks_with_different_origins_are_never_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's clock and that of the event loop only meet as seconds that remain."""
    monkeypatch.setattr(clock, "now", lambda: anyio.current_time() + 1_000_000)
    lefts: list[float] = []
    with deadline(4):
        lefts += time_left(), time_left(clock.now() + 3), time_left(clock.now() + 9)

    assert lefts == [4, 3, 4]


async def test_a_retry_works_where_the_clocks_have_different_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops where its scope, or its own time, has not enough left, and not before."""
    monkeypatch.setattr(clock, "now", lambda: anyio.current_time() + 1_000_000)
    by_scope, by_itself = Script(Failure()), Script(Failure())
    with pytest.raises(Failure), deadline(2.5):
        await RETRY.replace(attempts=None).call(by_scope)
    with pytest.raises(Failure):
        await RETRY.replace(attempts=None, timeout=3.5).call(by_itself)

    assert (by_scope.calls, by_itself.calls) == (3, 4)


async def test_a_deadline_gives_a_block_of_calls_one_budget_of_time() -> None:
    """The call that cannot finish in time gives up at once, with its real error."""
    callee = Script(Failure("down"))
    with deadline(2.5), pytest.raises(Failure, match="down"):
        await RETRY.replace(attempts=None).call(callee)

    assert callee.at == [0, 1, 2]
    assert clock.now() == 2


async def test_what_still_runs_at_the_deadline_is_cut_off() -> None:
    """The error names the budget."""
    with pytest.raises(DeadlineExceeded, match=r"deadline of 2\.5 s"), deadline(timedelta(seconds=2.5)):
        await anyio.sleep(10)

    assert clock.now() == 2.5


async def test_a_nested_deadline_can_only_shorten() -> None:
    """The outer one ends the block, and it is its error that surfaces."""
    with pytest.raises(DeadlineExceeded) as caught, deadline(1), deadline(5):
        await anyio.sleep(10)

    assert (caught.value.seconds, clock.now()) == (1, 1)


async def test_an_inner_deadline_ends_only_its_block() -> None:
    """The outer budget goes on."""
    with deadline(5):
        with pytest.raises(DeadlineExceeded), deadline(1):
            await anyio.sleep(10)
        await anyio.sleep(1)

    assert clock.now() == 2


async def test_a_deadline_does_not_relabel_cancellation_from_outside() -> None:
    """The scope that was cancelled catches it."""
    with anyio.CancelScope() as scope, deadline(5):
        scope.cancel()
        await anyio.sleep(1)

    assert scope.cancelled_caught


async def test_a_call_inside_of_a_deadline_that_passed_is_not_retried() -> None:
    """The caller has no time left, whoever raises it."""
    callee = Script(DeadlineExceeded(1))
    with pytest.raises(DeadlineExceeded):
        await Retry(on=TimeoutError).call(callee)

    assert callee.calls == 1


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
async def test_a_deadline_out_of_range_is_refused(seconds: float) -> None:
    """With its name, value and range."""
    with pytest.raises(ValueError, match="is out of range: expected a finite number at least 0 seconds"), deadline(seconds):
        pass


async def test_the_events_of_a_call_share_a_number_and_other_calls_have_others() -> None:
    """So that a log can be sorted by call."""
    with record_timeline() as timeline:
        for _ in range(2):
            await Pipeline(Timeout(5), RETRY).call(Script(Failure(), 1))

    ids = [event.call_id for event in timeline.events]
    assert len(set(ids)) == 2
    assert ids == sorted(ids)
