"""Cancel a call where it is suspended for the k-th time, for every k, in every way.

`Suspensions` drives a coroutine by hand and sees each time that it hands control to the event loop. At the k-th one the call is
cancelled: *at once*, before it is asleep, or on asyncio *as it is woken*, in the very tick in which what it waits for has come
true (a hand-off, a timer, a result). That covers every `await` of every strategy without knowing one of them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import anyio.lowlevel

from helpers import Failure
from resilient import clock
from resilient.strategies.base import Strategy
from resilient.strategies.budget import TokenBudget
from resilient.testing.inside_asyncio import pending_timers
from strategies.callers import ways_to_cancel

__all__ = ("Scenario", "Way", "cancel_at_every_suspension", "ways")

Way = Literal["scope, at once", "scope, as it is woken", "native, at once", "native, as it is woken"]
BUDGET = 5
LONG = 1000.0
"""Seconds after which everything is over that ends by itself: leases, open breakers."""


def ways() -> list[Way]:
    """How a call can be cancelled on the backend that runs."""
    if ways_to_cancel() == ("scope",):
        return ["scope, at once"]
    return ["scope, at once", "scope, as it is woken", "native, at once", "native, as it is woken"]


@dataclass
class Scenario:
    """Some state, and a call that is about to be cancelled.

    Attributes:
        call: what is cancelled.
        again: a call that works, by the same strategies, to see that they are not wedged.
        gates: those that may hold something, where they are found now.
        meanwhile: what others do at the same time.
        budget: what pays for attempts, of five tokens.
        sent: how many attempts were made.

    """

    call: Callable[[], Coroutine[Any, Any, Any]]
    again: Callable[[], Coroutine[Any, Any, Any]]
    gates: Callable[[], list[Any]]
    meanwhile: Callable[[], Coroutine[Any, Any, Any]] = field(default=anyio.lowlevel.checkpoint)
    budget: TokenBudget = field(default_factory=lambda: TokenBudget(BUDGET))
    sent: Callable[[], int] = field(default=lambda: 0)


class Suspensions:
    """An awaitable that runs a coroutine, and calls `cancel` at its k-th suspension."""

    def __init__(self, call: Coroutine[Any, Any, Any], kth: int, cancel: Callable[[], object], *, as_woken: bool) -> None:
        self.call = call
        self.kth = kth
        self.cancel = cancel
        self.as_woken = as_woken
        self.seen = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        send: Callable[[Any], Any] = self.call.send
        argument: Any = None
        while True:
            try:
                trap = send(argument)
            except StopIteration as end:
                return end.value
            self.seen += 1
            if self.seen == self.kth:
                self._cancel_at(trap)
            try:
                argument = yield trap
                send = self.call.send
            except BaseException as error:  # noqa: BLE001  it is thrown into the coroutine
                argument, send = error, self.call.throw

    def _cancel_at(self, trap: Any) -> None:
        if self.as_woken and hasattr(trap, "add_done_callback"):
            trap.add_done_callback(self._cancel_now)  # it comes before the wake-up of the task
        else:
            self.cancel()

    def _cancel_now(self, _: object) -> None:
        self.cancel()


async def cancel_at_every_suspension(make: Callable[[], Scenario], way: Way) -> int:
    """Cancel the call of a fresh scenario at each of its suspensions, and look what is left. Returns how many there are."""
    kth = 1
    while await _cancel_at(make(), kth, way):
        kth += 1
    return kth - 1


async def _cancel_at(scenario: Scenario, kth: int, way: Way) -> bool:
    """Whether there is a k-th suspension."""
    seen, cancelled, before = 0, False, _running()

    async def natively() -> None:
        nonlocal seen
        task: Any = asyncio.current_task()
        call = Suspensions(scenario.call(), kth, task.cancel, as_woken=way.endswith("woken"))
        try:
            with contextlib.suppress(Failure):
                await call
        finally:
            seen = call.seen

    async def by_scope() -> bool:
        nonlocal seen
        with anyio.CancelScope() as scope:
            call = Suspensions(scenario.call(), kth, scope.cancel, as_woken=way.endswith("woken"))
            try:
                with contextlib.suppress(Failure):
                    await call
            finally:
                seen = call.seen
        return scope.cancelled_caught

    async with anyio.create_task_group() as group:
        group.start_soon(scenario.meanwhile)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        if way.startswith("native"):
            task = asyncio.ensure_future(natively())
            await asyncio.wait([task])
            cancelled = task.cancelled()
            if not cancelled:
                task.result()
        else:
            cancelled = await by_scope()
    reached = seen >= kth
    # A scope cancels the next wait, if there is one: not what was woken already, nor a step of anyio's own that is shielded.
    may_go_on = way == "scope, as it is woken" or (way == "scope, at once" and seen == kth)
    assert cancelled == reached or (may_go_on and reached), f"cancelled at suspension {kth} of {seen} ({way}), and yet it went on"
    paid = BUDGET - scenario.budget.left(clock.now())
    assert paid == max(0, scenario.sent() - 1), f"cancelled at suspension {kth} ({way}): paid for {paid} attempts"
    assert _running() == before, f"cancelled at suspension {kth} ({way}): tasks or timers are left"
    await _nothing_is_held(scenario, f"cancelled at suspension {kth} ({way})")
    return reached


def _running() -> tuple[set[Any], list[Any]]:
    """The tasks and timers of the loop."""
    if ways_to_cancel() == ("scope",):
        return set(), []  # trio has neither outside of a nursery
    return asyncio.all_tasks(), pending_timers(asyncio.get_running_loop())


async def _nothing_is_held(scenario: Scenario, how: str) -> None:
    for gate in scenario.gates():
        seen = gate.statistics()
        held = {name: getattr(seen, name, 0) for name in ("active", "queued", "in_flight", "probes_out")}
        assert not any(held.values()), f"{how}: {gate!r} still holds {held}"
    await anyio.sleep(LONG)
    assert await scenario.again() == "good", how


def statistics_of(*gates: Strategy) -> Callable[[], list[Any]]:
    """The gates that are always the same."""
    return lambda: list(gates)
