"""From what was noted to what is reported: one number for each measure, and series over time.

A call belongs to the time in which it began. *Goodput* is the share of the calls that got a good answer; *before*, *during* and
*after* are the times around the disturbance of the scenario. A measure that makes no sense for a scenario (*after*, where
nothing went wrong) is not a number. Sums are those of `math.fsum`: what `sum` makes of floats depends on the version of Python.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from resilient.simulation.model import Scenario
from resilient.simulation.record import Call, Record, Tally, quantile

__all__ = ("MEASURES", "Measure", "Run", "measure")

_RECOVERED: Final = 0.97  # of the goodput before
_STEADY: Final = 3  # steps in a row
_ANSWERED: Final = frozenset({"ok", "late"})


@dataclass(frozen=True, slots=True)
class Measure:
    """What a number means.

    Attributes:
        about: in a few words.
        unit: `"share"`, `"s"`, or "".
        better: `"more"` or `"less"`; "" where neither is.

    """

    about: str
    unit: str = ""
    better: str = "less"


MEASURES: Final[Mapping[str, Measure]] = {
    "calls": Measure("calls that clients made", better=""),
    "attempts": Measure("requests that reached the most loaded service", better=""),
    "goodput": Measure("calls with a good answer", "share", "more"),
    "goodput_before": Measure("the same, before the disturbance", "share", "more"),
    "goodput_during": Measure("the same, during it", "share", "more"),
    "goodput_after": Measure("the same, after it", "share", "more"),
    "amplification": Measure("requests to the most loaded service, per call"),
    "amplification_during": Measure("the same, during the disturbance"),
    "amplification_after": Measure("the same, after it"),
    "recovery": Measure("from the end of the disturbance until goodput is back at 97 %", "s"),
    "p50": Measure("latency of calls with an answer, late ones too: median", "s"),
    "p95": Measure("95th percentile", "s"),
    "p99": Measure("99th percentile", "s"),
    "p999": Measure("99.9th percentile", "s"),
    "wait": Measure("how long a call took on average, whatever its end", "s"),
    "wait_p99": Measure("99th percentile of the same", "s"),
    "wasted": Measure("work of the services for requests that nobody waited for", "share"),
    "rejected": Measure("calls that a strategy refused", "share"),
    "degraded": Measure("calls that a fallback answered", "share"),
    "flaps": Measure("how often a breaker opened"),
    "open": Measure("time that breakers were not closed", "share"),
    "budget_low": Measure("the least that a retry budget had left, in retries", better="more"),
    "hedges": Measure("hedges per call, at all services", "share"),
    "queue_peak": Measure("requests that waited at a service at most"),
    "finished": Measure("when the last call ended", "s"),
}
"""Every number of a run, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of one run.

    Attributes:
        policy: what the policy is called.
        scenario: what the scenario is called.
        seed: the seed.
        measures: the numbers, by the names in `MEASURES`; not a number where one makes no sense.
        series: lists over time, one value for each step: `offered` and `good` (calls that began then), `answered` (good
            answers that came then), `attempts`, all of these a second; `p50`, `p99` (seconds),
            `queue`, `wasted` (share), `open` (share), `budget` (retries).
        step: seconds between two points of a series.
        simulated: requests to all services: what the run had to simulate.

    """

    policy: str
    scenario: str
    seed: int
    measures: Mapping[str, float]
    series: Mapping[str, Sequence[float]]
    step: float
    simulated: int

    def __getitem__(self, name: str) -> float:
        return self.measures[name]


def measure(scenario: Scenario, policy: str, seed: int, record: Record) -> Run:
    """Work out all numbers and series of a run."""
    phases = _phases(scenario)
    counted = [call for call in record.calls if call.began >= scenario.warm_up or scenario.warm_up >= scenario.seconds]
    answered = sorted(call.ended - call.began for call in counted if call.result in _ANSWERED)
    waits = sorted(min(call.ended, record.over) - call.began for call in counted)  # those that were cut off took at least that
    busiest = max(record.tallies.values(), key=lambda tally: sum(tally.attempts))
    last_step = record.index(scenario.seconds)
    made = sum(record.made)
    worked = math.fsum(math.fsum(tally.worked) for tally in record.tallies.values())
    wasted = math.fsum(math.fsum(tally.wasted) for tally in record.tallies.values())
    measures: dict[str, float] = {
        "calls": len(record.calls),
        "attempts": sum(busiest.attempts),
        "goodput": _goodput(counted),
        "amplification": _ratio(sum(busiest.attempts), made),
        "recovery": _recovery(scenario, record),
        "p50": quantile(answered, 0.5),
        "p95": quantile(answered, 0.95),
        "p99": quantile(answered, 0.99),
        "p999": quantile(answered, 0.999),
        "wait": _ratio(math.fsum(waits), len(waits)),
        "wait_p99": quantile(waits, 0.99),
        "wasted": _ratio(wasted, worked),
        "rejected": _share(counted, "rejected"),
        "degraded": _share(counted, "degraded"),
        "flaps": sum(record.openings),
        "open": _ratio(math.fsum(record.open[:last_step]), last_step) if record.breakers else math.nan,
        "budget_low": min(record.budget) if min(record.budget) < math.inf else math.nan,
        "hedges": _ratio(sum(tally.kinds["hedge"] for tally in record.tallies.values()), made),
        "queue_peak": max(max(tally.queue) for tally in record.tallies.values()),
        "finished": max((call.ended for call in record.calls), default=math.nan),
    }
    for name, (begin, end) in phases.items():
        steps = slice(record.index(begin), record.index(end))
        measures[f"goodput_{name}"] = _goodput([call for call in record.calls if begin <= call.began < end])
        if name != "before":
            measures[f"amplification_{name}"] = _ratio(sum(busiest.attempts[steps]), sum(record.made[steps]))
    ordered = {name: measures.get(name, math.nan) for name in MEASURES}
    simulated = sum(sum(tally.attempts) for tally in record.tallies.values())
    return Run(
        policy=policy,
        scenario=scenario.name,
        seed=seed,
        measures=ordered,
        series=_series(record, busiest, last_step),
        step=record.step,
        simulated=simulated,
    )


def _phases(scenario: Scenario) -> dict[str, tuple[float, float]]:
    disturbance = scenario.disturbance
    if disturbance is None:
        return {}
    begin, end = disturbance
    return {"before": (min(scenario.warm_up, begin), begin), "during": (begin, end), "after": (end, scenario.seconds)}


def _goodput(calls: Sequence[Call]) -> float:
    return _share(calls, "ok")


def _share(calls: Sequence[Call], result: str) -> float:
    return _ratio(sum(call.result == result for call in calls), len(calls))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _recovery(scenario: Scenario, record: Record) -> float:
    """Seconds from the end of the disturbance until goodput is back, for good enough; infinity where it never is.

    Not a number where that makes no sense: nothing was good before, or the run ends while the disturbance lasts.
    """
    begin, end = scenario.disturbance or (math.nan, math.inf)
    before = _goodput([call for call in record.calls if scenario.warm_up <= call.began < begin])
    if end >= scenario.seconds or not before > 0:
        return math.nan
    first, last = record.index(end), record.index(scenario.seconds)
    made, good = [0] * record.steps, [0] * record.steps
    for call in record.calls:
        made[record.index(call.began)] += 1
        good[record.index(call.began)] += call.result == "ok"
    back = [good[step] >= _RECOVERED * before * made[step] for step in range(first, last)]
    for step in range(len(back) - _STEADY + 1):
        if all(back[step : step + _STEADY]):
            return max(0.0, (first + step) * record.step - end)
    return math.inf


def _series(record: Record, busiest: Tally, steps: int) -> dict[str, list[float]]:
    made: list[list[Call]] = [[] for _ in range(record.steps)]
    for call in record.calls:
        made[record.index(call.began)].append(call)
    latencies = [sorted(call.ended - call.began for call in calls if call.result in _ANSWERED) for calls in made[:steps]]
    waste = zip(
        *(
            [math.fsum(parts) for parts in zip(*lists, strict=True)]
            for lists in (
                [tally.wasted for tally in record.tallies.values()],
                [tally.worked for tally in record.tallies.values()],
            )
        ),
        strict=True,
    )
    queues = zip(*(tally.queue for tally in record.tallies.values()), strict=True)
    series: dict[str, list[float]] = {
        "offered": [len(calls) / record.step for calls in made],
        "good": [sum(call.result == "ok" for call in calls) / record.step for calls in made],
        "answered": [answers / record.step for answers in _answers(record)],
        "attempts": [attempts / record.step for attempts in busiest.attempts],
        "p50": [quantile(ordered, 0.5) for ordered in latencies],
        "p99": [quantile(ordered, 0.99) for ordered in latencies],
        "queue": [max(lengths) for lengths in queues],
        "wasted": [_ratio(wasted, worked) for wasted, worked in waste],
        "open": record.open,
        "budget": record.budget,
    }
    return {name: list(values[:steps]) for name, values in series.items()}


def _answers(record: Record) -> list[int]:
    """Good answers by the step in which they came."""
    answers = [0] * record.steps
    for call in record.calls:
        if call.result == "ok":
            answers[record.index(call.ended)] += 1
    return answers
