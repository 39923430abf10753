"""The event loop of simulations."""

import asyncio

import anyio
import pytest

from resilient import clock
from resilient.simulation.loop import run_simulated
from resilient.testing import Deadlock


async def nothing() -> None:
    pass


def test_time_jumps_and_order_is_kept() -> None:
    """What is due at the same time runs in the order in which it was asked for; anyio works on it."""
    told: list[tuple[float, str]] = []

    def note(name: str) -> None:
        told.append((clock.now(), name))

    async def main() -> str:
        loop = asyncio.get_running_loop()
        for name in "abc":
            loop.call_later(5, note, name)
        never = loop.call_later(1, told.append, (0.0, "never"))
        never.cancel()
        with anyio.move_on_after(3600) as scope:
            await anyio.sleep(7200)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 10)
        await asyncio.wait_for(asyncio.gather(nothing(), asyncio.create_task(nothing())), 1)

        assert (scope.cancelled_caught, never.cancelled(), never.when()) == (True, True, 1)
        assert loop.is_running()
        assert not loop.is_closed()
        return "done"

    before = clock.now
    assert run_simulated(main) == "done"
    assert told == [(5, "a"), (5, "b"), (5, "c")]
    assert clock.now is before


def test_an_error_that_nobody_handles_surfaces() -> None:
    """In a callback, or told to the loop; the first one."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "first"})
        loop.call_exception_handler({"message": "second", "exception": OSError()})

    async def other() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await anyio.sleep(1)

    with pytest.raises(RuntimeError, match="first"):
        run_simulated(main)
    with pytest.raises(ZeroDivisionError):
        run_simulated(other)


def test_what_can_never_go_on_is_a_deadlock() -> None:
    """Nothing is due, and no timer is set."""
    with pytest.raises(Deadlock):
        run_simulated(anyio.sleep_forever)
