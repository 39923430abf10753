"""The bulkhead beside a line of people and a number of chairs."""

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.loops import OnLoop
from models.machines import runs, tried
from resilient.errors import BulkheadFull
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.gate import Lease

TIMEOUT = 2.0


class Waiting:
    """A caller in line, who leaves it at a time."""

    def __init__(self, task: "asyncio.Task[Lease]", until: float) -> None:
        self.task = task
        self.until = until
        self.cancelled = False


class Slots(OnLoop):
    """Callers come, wait, give up, are cancelled, and leave, several of them in one tick; there are more chairs, or fewer."""

    @initialize(slots=st.integers(1, 3), places=st.sampled_from([4, 7, 0]), impatient=st.booleans())
    def begin(self, *, slots: int, places: int, impatient: bool) -> None:
        self.slots, self.places = slots, places
        self.patience = TIMEOUT if impatient and places else 1e9
        self.real = Bulkhead(slots, max_queue=places, queue_timeout=TIMEOUT if impatient and places else None)
        self.inside: list[Lease] = []
        self.line: list[Waiting] = []
        self.called: list[Waiting] = []  # to whom a slot was handed, who have not moved yet
        self.settled = True  # nothing is to happen in this tick any more

    @property
    def active(self) -> int:
        return len(self.inside) + len(self.called)

    def hand_over(self) -> None:
        while self.line and self.active < self.slots:
            self.called.append(self.line.pop(0))

    @rule(quarters=st.sampled_from([0, 0, 1, 4, 8, 40]))
    def go_round(self, quarters: int) -> None:
        """Those who were cancelled go, and what was handed to them goes on; then time passes, and patience ends."""
        self.go_on()
        while gone := [one for one in [*self.called, *self.line] if one.cancelled]:
            for one in gone:
                assert one.task.cancelled()
                (self.called if one in self.called else self.line).remove(one)
            self.hand_over()
        for one in self.called:
            self.inside.append(one.task.result())
        self.called = []
        self.settled = True
        if quarters:
            self.go_on(quarters / 4)
            gone = [one for one in self.line if one.until <= self.now]
            for one in gone:
                refusal = one.task.exception()
                assert isinstance(refusal, BulkheadFull)
                assert refusal.waited == TIMEOUT
                self.line.remove(one)

    @rule(times=st.sampled_from([4, 1]))
    def arrive(self, times: int) -> None:
        if not self.settled:
            self.go_round(0)
        for _ in range(times):
            task = self.start(self.real.acquire())
            self.go_on()
            if self.active < self.slots:
                self.inside.append(task.result())
            elif len(self.line) < self.places:
                assert not task.done()
                self.line.append(Waiting(task, self.now + self.patience))
            else:
                refusal = task.exception()
                assert isinstance(refusal, BulkheadFull)
                assert (refusal.active, refusal.queued) == (self.active, len(self.line))

    @rule()
    def arrive_without_waiting(self) -> None:
        """In the tick of a hand-off too: what was handed over cannot be snatched."""
        lease, _ = tried(BulkheadFull, self.real.acquire_nowait)
        assert (lease is None) == (self.active >= self.slots)
        if lease is not None:
            self.inside.append(lease)

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 5))
    def leave(self, which: int) -> None:
        lease = self.inside.pop(which % len(self.inside))
        lease.settle()
        lease.settle()
        self.hand_over()
        self.settled = False

    @precondition(lambda self: self.line or self.called)
    @rule(which=st.integers(0, 5))
    def cancel(self, which: int) -> None:
        waiting = [*self.called, *self.line]
        one = waiting[which % len(waiting)]
        one.task.cancel()
        one.cancelled = True
        self.settled = False

    @rule(slots=st.integers(1, 4))
    def resize(self, slots: int) -> None:
        self.slots = slots
        self.real.resize(slots)
        self.hand_over()
        self.settled = False

    @invariant()
    def it_holds_as_many_as_the_model(self) -> None:
        if hasattr(self, "real"):
            seen: Any = self.real.statistics()
            assert (seen.active, seen.queued, seen.max_concurrent) == (self.active, len(self.line), self.slots)
            assert self.real.is_fresh(self.now) == (not self.active)

    def teardown(self) -> None:
        """However it went: when all have left, nothing is held, and nobody waits."""
        if hasattr(self, "real"):
            self.go_round(0)
            while self.inside:
                self.leave(0)
                self.go_round(0)
        super().teardown()
        if hasattr(self, "real"):
            seen = self.real.statistics()
            assert (seen.active, seen.queued) == (0, 0)


TestSlots = runs(Slots, 80, 20)
