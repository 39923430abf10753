import gc

import anyio
import pytest

from helpers import RETRY, Failure, Fatal, Script, cancelled_after
from resilient import clock
from resilient.context import current_attempt
from resilient.errors import CircuitOpen
from resilient.observe.timeline import record_timeline, timeline_of
from resilient.strategies.backoff import Constant
from resilient.strategies.budget import RetryBudget, TokenBudget
from resilient.strategies.retry import Retry

pytestmark = pytest.mark.anyio


async def in_loop(retry: Retry, callee: Script) -> None:
    async for attempt in retry:
        with attempt:
            await callee()


async def test_the_loop_form_tries_a_block_until_it_works() -> None:
    """The block sees which attempt it is."""
    seen: list[tuple[int, str, int]] = []
    async for attempt in RETRY:
        with attempt:
            seen.append((attempt.number, attempt.kind, current_attempt().number))
            if attempt.number < 3:
                raise Failure

    assert seen == [(1, "original", 1), (2, "retry", 2), (3, "retry", 3)]
    assert clock.now() == 2
    assert current_attempt().number == 1


async def test_inside_of_a_call_the_attempt_around_is_current_again_after_a_block() -> None:
    """Whoever asks then is asked about the call."""

    async def callee() -> list[bool]:
        around, seen = current_attempt(), list[bool]()
        async for attempt in RETRY:
            with attempt:
                seen.append(current_attempt() is around)
            seen.append(current_attempt() is around)
        return seen

    with record_timeline():
        seen = await RETRY.call(callee)

    assert seen == [False, True]


async def test_a_block_that_was_refused_further_in_is_not_paid_for() -> None:
    """What it sent was sent to nobody."""
    budget = TokenBudget(5)
    with pytest.raises(CircuitOpen):  # noqa: PT012  the loop is what raises
        async for attempt in RETRY.replace(budget=budget):
            with attempt:
                if attempt.number > 1:
                    raise CircuitOpen
                raise Failure

    assert budget.statistics().left == 5


async def test_the_last_error_of_the_loop_form_surfaces_as_it_is() -> None:
    """With its note and its record."""
    error = Failure()
    with pytest.raises(Failure) as caught:
        await in_loop(RETRY, Script(error))

    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    assert error.__notes__ == ["resilient: 3 attempts in 2 s (retryable_error ×3); stopped: attempts_exhausted"]
    assert timeline_of(error) is not None


async def test_a_permanent_error_leaves_the_loop_at_once() -> None:
    """And nothing to be cleaned up: the loop is no generator."""
    with pytest.raises(Fatal):
        await in_loop(RETRY, Script(Fatal()))
    gc.collect()  # a generator that was left would warn on trio

    assert clock.now() == 0


async def test_the_loop_form_can_be_left_early() -> None:
    """By `break` in the block, or by never entering it."""
    numbers: list[int] = []
    async for attempt in RETRY:
        with attempt:
            numbers.append(attempt.number)
            break
    numbers += [attempt.number async for attempt in RETRY]

    assert numbers == [1, 1]


async def test_the_loop_form_can_be_begun_before_it_is_walked() -> None:
    """Its iterator is a loop too; its time runs from the beginning."""
    attempts = aiter(RETRY.replace(timeout=2.5))
    await anyio.sleep(1)
    numbers: list[int] = []
    with pytest.raises(Failure):  # noqa: PT012  the loop is what raises
        async for attempt in attempts:
            with attempt:
                numbers.append(attempt.number)
                raise Failure

    assert numbers == [1, 2]


async def test_the_loop_form_is_cancelled_like_a_call() -> None:
    """In the block and in the wait."""
    numbers: list[int] = []
    for when in (0.5, 1.5):
        async with cancelled_after(when) as scope:
            async for attempt in RETRY.replace(on=BaseException):
                with attempt:
                    numbers.append(attempt.number)
                    await anyio.sleep(1)
                    raise Failure

        assert scope.cancelled_caught
    assert numbers == [1, 1]


async def test_the_loop_form_keeps_to_its_time_and_its_budget() -> None:
    """Both are for all attempts together."""
    timely, thrifty = Script(Failure()), Script(Failure())
    budget = RetryBudget(ratio=0, floor=1)
    with pytest.raises(Failure):
        await in_loop(RETRY.replace(timeout=0.5), timely)
    with pytest.raises(Failure):
        await in_loop(RETRY.replace(budget=budget, backoff=Constant(delay=0)), thrifty)

    assert (timely.calls, thrifty.calls) == (1, 2)
    assert budget.statistics().calls == 1


async def test_the_loop_form_gives_back_what_it_spent_on_a_retry_that_is_not_made() -> None:
    """As the other forms do."""
    budget = RetryBudget(ratio=0, floor=1)
    async with cancelled_after(0.5):
        async for attempt in RETRY.replace(budget=budget):
            with attempt:
                raise Failure

    assert budget.statistics().left == 1


async def test_the_loop_form_is_heard_by_those_who_listen() -> None:
    """Attempts, waits and the end of the call, as of any call."""
    with record_timeline() as timeline:
        await in_loop(RETRY, Script(Failure(), 1))
        with pytest.raises(Fatal):
            await in_loop(RETRY, Script(Fatal()))

    assert [type(event).__name__ for event in timeline.events] == [
        "AttemptFinished",
        "RetryScheduled",
        "AttemptFinished",
        "CallFinished",
        "AttemptFinished",
        "CallFinished",
    ]
    assert [(call.attempts, call.error) for call in timeline.calls] == [(2, ""), (1, "Fatal")]


async def test_loops_of_ten_tasks_do_not_disturb_each_other() -> None:
    """One `Retry`, ten loops: each makes as many attempts as it needs."""
    attempts: list[int] = []

    async def one(needed: int) -> None:
        async for attempt in RETRY.replace(attempts=20):
            with attempt:
                await anyio.sleep(0.1)
                if attempt.number < needed:
                    raise Failure
                attempts.append(attempt.number)

    async with anyio.create_task_group() as group:
        for number in range(1, 11):
            group.start_soon(one, number)

    assert sorted(attempts) == list(range(1, 11))
