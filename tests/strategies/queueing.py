"""A service with a queue, simulated without a clock: what the tests of adaptive limits are about."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from resilient.errors import BulkheadFull
from resilient.outcome import SUCCESS, Health, Kind, Verdict
from resilient.strategies.adaptive_limit import AdaptiveLimit

__all__ = ("Phase", "exponential", "heavy_tailed", "load", "lognormal", "steady")

SHED = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", throttled=True)

Service = Callable[[Random, float], float]
"""Seconds that a worker takes for a call that it begins at a time."""


def steady(seconds: float) -> Service:
    return lambda _random, _now: seconds


def exponential(seconds: float) -> Service:
    return lambda random, _now: random.expovariate(1 / seconds)


def lognormal(seconds: float) -> Service:
    return lambda random, _now: seconds * math.exp(random.gauss(0, 1) - 0.5)


def heavy_tailed(seconds: float) -> Service:
    """One in fifty takes fifty times as long."""
    return lambda random, _now: seconds / 1.98 * (50 if random.random() < 0.02 else 1)


@dataclass
class Phase:
    """What was seen in a stretch of time, from its begin to its end.

    Attributes:
        limits: the limit at the end of each second.
        latencies: seconds that calls took which ended in it.
        rate: calls that went well, a second.

    """

    limits: list[int]
    latencies: list[float]
    rate: float

    @property
    def median(self) -> float:
        return sorted(self.latencies)[len(self.latencies) // 2]

    @property
    def worst(self) -> float:
        """The 99th percentile."""
        return sorted(self.latencies)[int(len(self.latencies) * 0.99)]

    @property
    def limit(self) -> float:
        return sum(self.limits) / len(self.limits)


def load(
    limit: AdaptiveLimit,
    *phases: float,
    workers: int,
    service: Service,
    rate: float,
    seed: int,
    sheds: int | None = None,
) -> list[Phase]:
    """Calls come at random, so many a second, to a service with workers and a queue, through a limit.

    `phases` are the times at which one phase ends and the next begins. Beyond `sheds` calls at a time the service refuses.
    """
    random = Random(seed)
    free = [0.0] * workers
    running: list[tuple[float, float, Verdict]] = []
    seen: list[Phase] = []
    arrival, begun, second = random.expovariate(rate), 0.0, 1.0
    limits, latencies, good = list[int](), list[float](), 0
    while len(seen) < len(phases):
        now = min(arrival, running[0][0] if running else math.inf)
        if now >= second:
            limits.append(limit.limit)
            second += 1
        if now >= phases[len(seen)]:
            seen.append(Phase(limits, latencies, good / (phases[len(seen)] - begun)))
            begun, limits, latencies, good = phases[len(seen) - 1], [], [], 0
        if now < arrival:
            _, started, verdict = heapq.heappop(running)
            limit.settle(verdict, now - started, now)
            if verdict is SUCCESS:
                good += 1
                latencies.append(now - started)
            continue
        arrival = now + random.expovariate(rate)
        try:
            limit.admit(now)
        except BulkheadFull:
            continue
        if sheds is not None and len(running) >= sheds:
            heapq.heappush(running, (now + 0.001, now, SHED))
            continue
        start = max(now, heapq.heappop(free))
        end = start + service(random, start)
        heapq.heappush(free, end)
        heapq.heappush(running, (end, now, SUCCESS))
    return seen
