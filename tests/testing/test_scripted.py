"""Callees that play a script."""

import math
from datetime import timedelta
from typing import Any

import anyio
import pytest

from resilient import Constant, Hedge, Pipeline, Retry, Timeout, TimeoutExceeded
from resilient.testing import After, ScriptedCallee, ScriptEnded, run_virtual

RETRY = Retry(on=OSError, backoff=Constant(delay=1, jitter="none"))


def play(callee: ScriptedCallee, times: int) -> list[Any]:
    """What so many calls see, one after the other."""
    seen: list[Any] = []

    async def main() -> None:
        for _ in range(times):
            try:
                seen.append(await callee())
            except Exception as error:  # noqa: BLE001  whatever the script says
                seen.append(error)

    run_virtual(main)
    return seen


def test_outcomes_come_in_order_and_the_last_one_stays() -> None:
    """Values are returned; exceptions and their classes are raised."""
    error = OSError("down")
    seen = play(ScriptedCallee(503, error, LookupError, 200), 5)

    assert [seen[0], *seen[3:]] == [503, 200, 200]
    assert seen[1] is error
    assert isinstance(seen[2], LookupError)


def test_a_script_can_be_repeated() -> None:
    """From the first outcome on."""
    assert play(ScriptedCallee(1, 2, then="repeat"), 5) == [1, 2, 1, 2, 1]


def test_a_script_can_end() -> None:
    """A call too many is a failure of the test, and tells how many there were."""
    *_, last = play(ScriptedCallee(1, 2, then="raise"), 3)

    assert isinstance(last, ScriptEnded)
    assert str(last).startswith("call 3 of a callee whose script has 2 outcomes: (1, 2). Add an outcome")


def test_outcomes_take_their_time() -> None:
    """Each call so long, and some longer."""
    callee = ScriptedCallee(After(0.5, 503), After(2), 200, seconds=1)

    assert play(callee, 4) == [503, None, 200, 200]
    assert callee.at == [0, 1.5, 4.5, 5.5]


def test_the_time_may_be_a_timedelta() -> None:
    """As everywhere."""
    assert After(timedelta(minutes=1), 503) == After(60.0, 503)


def test_a_callee_can_hang() -> None:
    """Until it is cancelled; the call has been received."""
    callee = ScriptedCallee(After(math.inf))
    with pytest.raises(TimeoutExceeded):
        run_virtual(Timeout(5)(callee))

    assert callee.calls == 1


def test_calls_are_recorded_with_their_arguments_and_attempts() -> None:
    """The number and the kind are those of the attempt that runs; without one it is the first."""
    callee = ScriptedCallee(OSError(), After(5, 1), 2)

    async def main() -> None:
        await Pipeline(RETRY, Hedge(1)).call(callee, "user", limit=5)
        await callee()

    run_virtual(main)

    first, second, hedge, plain = callee.received
    assert [(call.at, call.attempt, call.kind) for call in callee.received] == [
        (0, 1, "original"),
        (1, 2, "retry"),
        (2, 2, "hedge"),
        (plain.at, 1, "original"),
    ]
    assert [(call.args, call.kwargs) for call in (first, second, hedge)] == [(("user",), {"limit": 5})] * 3
    assert (plain.args, plain.kwargs) == ((), {})
    assert repr(callee) == "<ScriptedCallee: 3 outcomes, 4 calls>"


def test_it_is_shared_by_tasks() -> None:
    """Whoever calls first gets the first outcome."""
    callee, seen = ScriptedCallee(1, 2, 3, seconds=1), list[int]()

    async def call() -> None:
        seen.append(await callee())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(call)

    run_virtual(main)

    assert sorted(seen) == [1, 2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (ScriptedCallee, "at least one outcome"),
        (lambda: ScriptedCallee(1, then="again"), "then='again': expected 'last', 'repeat' or 'raise'"),  # type: ignore[arg-type]
        (lambda: ScriptedCallee(1, seconds=-1), "seconds=-1 is out of range"),
        (lambda: After(-1), "seconds=-1 is out of range"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Any, message: str) -> None:
    """The message names the parameter and its range."""
    with pytest.raises(ValueError, match=message):
        make()
