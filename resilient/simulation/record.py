"""What is noted while a scenario runs, and the series over time that it becomes.

Everything is counted by *step*, the unit of time of the series. A call belongs to the step in which it began.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ("Call", "Record", "Tally", "quantile")

REJECTED: Final = "rejected"


class Call(NamedTuple):
    """A call that has ended, as its user saw it.

    Attributes:
        began: when, in seconds.
        ended: when; infinity where it never did.
        result: `"ok"`, `"late"`, `"failed"`, `"degraded"` (a fallback answered), or `"rejected"` (a strategy refused it).

    """

    began: float
    ended: float
    result: str


class Tally:
    """What a service has done, by step.

    Attributes:
        attempts: requests that came in.
        worked: seconds of its workers.
        wasted: those that went into requests that nobody waited for any more.
        kinds: requests by the kind of their attempt.
        queue: how many waited at the end of the step, sampled.

    """

    __slots__ = ("_step", "attempts", "kinds", "queue", "wasted", "worked")

    def __init__(self, step: float, steps: int) -> None:
        self._step = step
        self.attempts = [0] * steps
        self.worked = [0.0] * steps
        self.wasted = [0.0] * steps
        self.queue = [0] * steps
        self.kinds: Counter[str] = Counter()

    def attempt(self, now: float, kind: str) -> None:
        """A request came in."""
        self.attempts[int(now / self._step)] += 1
        self.kinds[kind] += 1

    def work(self, now: float, spent: float, *, wasted: bool) -> None:
        """A piece of work is done."""
        step = int(now / self._step)
        self.worked[step] += spent
        if wasted:
            self.wasted[step] += spent


class Record:
    """All that is noted of one run.

    Attributes:
        step: seconds between two points of a series.
        steps: how many points there are, the time in which the last calls end included.
        calls: the calls that are counted.
        made: how many calls were begun by step, those that are not counted included, times their fan-out.
        tallies: of each service, by its name.
        openings: how often a breaker has opened, by step.
        open: the share of breakers that were not closed, sampled at the end of each step.
        budget: the retries that the poorest budget would have paid for, sampled; infinity where there is none.
        breakers: how many breakers there are.
        over: when the last call ended, or those that were left were cut off.

    """

    def __init__(self, step: float, seconds: float, services: Sequence[str]) -> None:
        self.step = step
        self.steps = math.ceil(seconds / step) + 2
        self.calls: list[Call] = []
        self.made = [0] * self.steps
        self.tallies = {name: Tally(step, self.steps) for name in services}
        self.openings = [0] * self.steps
        self.open = [0.0] * self.steps
        self.budget = [math.inf] * self.steps
        self.breakers = 0
        self.over = seconds

    def index(self, now: float) -> int:
        """The step of a time."""
        return int(now / self.step)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed; not a number where there are none. They must be sorted."""
    if not ordered:
        return math.nan
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
