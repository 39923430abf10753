"""What the model tests share: a machine with a clock of its own, and how long it runs.

Each machine drives the real state machine and a *model* of it side by side, through a random history, and compares what can be
seen after every step. A model is slow and beyond doubt: fractions, plain lists, everything counted anew. Time is in ticks of an
eighth of a second, which floats hold exactly.

Together they run more than a thousand histories in each run of the suite. `HYPOTHESIS_PROFILE=thousand pytest tests/models -n 0`
runs a thousand of each machine, the same ones each time; `HYPOTHESIS_PROFILE=long` thirty times as many, other ones each time.
"""

import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine

from resilient import clock
from resilient.observe import listeners

__all__ = ("SEEDS", "TICK", "Timed", "runs", "thorough", "tried")

T = TypeVar("T")
E = TypeVar("E", bound=Exception)

TICK: Final = 1 / 8

_FORM: Final = os.environ.get("HYPOTHESIS_PROFILE", "")
SEEDS: Final = {"long": 5000, "thousand": 500}.get(_FORM, 90)
"""Orders of the tasks in which a concurrent scenario runs."""


def thorough(examples: int, steps: int = 30) -> hypothesis.settings:
    """So many histories of so many steps; the other forms have more."""
    if _FORM == "long":
        return hypothesis.settings(max_examples=30 * examples, stateful_step_count=2 * steps, deadline=None, derandomize=False)
    most = max(examples, 1000) if _FORM == "thousand" else examples
    return hypothesis.settings(max_examples=most, stateful_step_count=steps, deadline=None, derandomize=True)


class Timed(RuleBasedStateMachine):
    """A machine whose steps share a clock, which is the library's until its end. Nothing is logged meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks: int = 0
        self._clock: Callable[[], float] = clock.now
        self._logs = listeners.notable[:]
        clock.now = lambda: self.now
        listeners.notable.clear()

    @property
    def now(self) -> float:
        """Seconds."""
        return self.ticks * TICK

    def teardown(self) -> None:
        clock.now = self._clock
        listeners.notable[:] = self._logs


def runs(machine: type[RuleBasedStateMachine], examples: int, steps: int = 30) -> Any:
    """The test that runs a machine so often."""
    case: Any = machine.TestCase
    case.settings = thorough(examples, steps)
    return case


def tried(refusal: type[E], fn: Callable[[], T]) -> tuple[T | None, E | None]:
    """What it gives, or the refusal that it raises."""
    try:
        return fn(), None
    except refusal as error:
        return None, error
