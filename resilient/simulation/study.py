"""Several policies, several seeds, one scenario: what reports are made of.

One seed is an anecdote: each number comes as the median of all seeds, with the least and the greatest. All policies meet the
same arrivals, so their differences are their own.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from resilient.simulation.claims import Claim, Verification
from resilient.simulation.measures import Run
from resilient.simulation.model import Scenario
from resilient.simulation.run import Subject, simulate

__all__ = ("Band", "Study", "study")


class Band(NamedTuple):
    """A number of several runs.

    Attributes:
        median: the value in the middle.
        low: the least.
        high: the greatest.

    """

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What came of it.

    Attributes:
        scenario: the scenario.
        runs: those of each policy, one for each seed, in the order of the policies.
        claims: what became of the scenario's claims and of those that were asked for.

    """

    scenario: Scenario
    runs: Mapping[str, Sequence[Run]]
    claims: Sequence[Verification] = field(default=())

    def band(self, policy: str, measure: str) -> Band:
        """A number of a policy over all seeds; not a number where it makes no sense."""
        return _band([run[measure] for run in self.runs[policy]])

    def series(self, policy: str, name: str) -> list[Band]:
        """A series of a policy, with its band over all seeds."""
        return [_band(values) for values in zip(*(run.series[name] for run in self.runs[policy]), strict=True)]

    @property
    def passed(self) -> bool:
        """Whether all claims hold."""
        return all(claim.holds for claim in self.claims)


def study(
    subjects: Mapping[str, Subject],
    scenario: Scenario,
    *,
    seeds: int = 5,
    claims: Sequence[str] = (),
    progress: Callable[[float], object] | None = None,
) -> Study:
    """Try policies in a scenario.

    Args:
        subjects: the policies by name; see `simulate`. The first one is what claims without a name are about.
        scenario: the scenario.
        seeds: how many runs of each policy, with the seeds 1, 2, ...; at least 1 (default 5).
        claims: to be verified, see `resilient.simulation.claims`.
        progress: is told how far it has come, from 0 to 1.

    Raises:
        ValueError: a claim is none, or names what there is not; `seeds` is out of range; a policy names what is not built in.

    """
    if seeds < 1 or not subjects:
        msg = f"seeds={seeds!r}, {len(subjects)} policies: at least one of each is needed"
        raise ValueError(msg)
    wanted = [Claim.parse(text).about(subjects) for text in claims]
    rounds = len(subjects) * seeds
    runs: dict[str, list[Run]] = {name: [] for name in subjects}
    for done, (name, seed) in enumerate((name, seed) for name in subjects for seed in range(1, seeds + 1)):

        def tell(share: float, done: int = done) -> None:
            if progress is not None:
                progress((done + share) / rounds)

        runs[name].append(simulate(subjects[name], scenario, seed=seed, name=name, progress=tell))
    return Study(scenario=scenario, runs=runs, claims=[claim.verify(runs) for claim in wanted])


def _band(values: Sequence[float]) -> Band:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Band(math.nan, math.nan, math.nan)
    return Band(statistics.median(known), min(known), max(known))
