"""The hysteresis sweep: raise the load until the service collapses, lower it until it recovers.

A system whose failures end with their cause gives the same goodput at the same load, rising or falling. One that can be
*metastable* does not: once it has collapsed it stays so at loads that it carried before. The loads in between, at which both
states are stable, are the metastable region; a trigger at such a load brings it down for good. See Bronson et al. (2021).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from resilient._arguments import seconds as check_seconds
from resilient.simulation.model import Condition, Scenario
from resilient.simulation.run import Subject, simulate

__all__ = ("Level", "Sweep", "sweep")

_LOWEST, _HIGHEST, _STEP = 0.2, 1.3, 0.1  # of the capacity
_WELL: Final = 0.9
"""The goodput from which on a service is well."""
_SETTLED: Final = 0.5
"""What share of the time at one load is left for it to settle, before goodput is measured."""


class Level(NamedTuple):
    """One load.

    Attributes:
        load: calls, as a share of the capacity of the service that has least.
        rising: whether it was reached from below.
        goodput: the share of the calls with a good answer.

    """

    load: float
    rising: bool
    goodput: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What came of it.

    Attributes:
        policy: what the policy is called.
        levels: each load in its turn.
        collapse: the lowest load, on the way up, at which goodput is below 0.9; infinity where there is none.
        recovery: the highest load, on the way down after the collapse, at which it is not; 0 where it never is again.

    """

    policy: str
    levels: Sequence[Level]
    collapse: float
    recovery: float

    @property
    def metastable(self) -> tuple[float, float] | None:
        """The loads between which a collapse lasts although its cause is gone, or None."""
        return (self.recovery, self.collapse) if self.recovery < self.collapse - 1.5 * _STEP < math.inf else None


def sweep(
    subject: Subject,
    scenario: Scenario,
    *,
    name: str = "",
    seed: int = 1,
    hold: float = 8.0,
    progress: Callable[[float], object] | None = None,
) -> Sweep:
    """Raise the load from a fifth of the capacity to 1.3 times as much, and lower it again.

    Args:
        subject: the policy; see `simulate`.
        scenario: the services and clients; its conditions are left out. The clients that make the load have a `rate`.
        name: what the policy is called.
        seed: the seed.
        hold: seconds at each load, above 0 (default 8).
        progress: is told how far it has come, from 0 to 1.

    Raises:
        ValueError: the scenario has no clients with a rate.

    """
    check_seconds("hold", hold, above=0.0)
    groups = [group for group in scenario.clients if group.rate]
    if not groups:
        msg = f"scenario {scenario.name!r}: a sweep needs clients with a rate"
        raise ValueError(msg)
    capacity = min(service.capacity for service in scenario.services)
    whole = capacity / sum(group.rate * group.fan_out for group in groups)
    up = [round(_LOWEST + step * _STEP, 6) for step in range(round((_HIGHEST - _LOWEST) / _STEP) + 1)]
    loads = [(load, True) for load in up] + [(load, False) for load in reversed(up[:-1])]
    conditions = [
        Condition(on=group.name, begin=index * hold, end=(index + 1) * hold, rate=load * whole)
        for index, (load, _) in enumerate(loads)
        for group in groups
    ]
    swept = scenario.replace(
        seconds=len(loads) * hold, warm_up=0.0, step=hold * _SETTLED, clients=tuple(groups), conditions=tuple(conditions)
    )
    run = simulate(subject, swept, seed=seed, name=name, progress=progress)
    settled = zip(run.series["good"][1::2], run.series["offered"][1::2], strict=True)
    levels = [
        Level(load, rising, good / offered if offered else 1.0)
        for (load, rising), (good, offered) in zip(loads, settled, strict=True)
    ]
    return Sweep(policy=run.policy, levels=levels, collapse=_collapse(levels), recovery=_recovery(levels))


def _collapse(levels: Sequence[Level]) -> float:
    """Where it begins to fail on the way up, for good: a bad moment at a lower load is none."""
    bad = itertools.takewhile(lambda level: level.goodput < _WELL, reversed([level for level in levels if level.rising]))
    return min((level.load for level in bad), default=math.inf)


def _recovery(levels: Sequence[Level]) -> float:
    return max((level.load for level in levels if not level.rising and level.goodput >= _WELL), default=0.0)
