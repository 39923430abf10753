"""The worst case of a composition: how often the callee is called for one call, and how long that takes.

Worked out from inside to outside, strategy by strategy. Nothing is known of the callee but the timeouts around it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any, Final, NamedTuple

from resilient.lint.stack import flatten
from resilient.outcome import Health, Kind, Verdict
from resilient.strategies.backoff import Backoff, ByVerdict, as_backoff
from resilient.strategies.base import Strategy
from resilient.strategies.hedge import Hedge
from resilient.strategies.limiter import Limiter
from resilient.strategies.retry import Retry
from resilient.strategies.slots import Slots
from resilient.strategies.timeout import Timeout

__all__ = ("Span", "WorstCase", "delays_of", "first_delay", "longest_delays", "longest_wait", "span_of", "worst_case")

_LOOKED_AT: Final = 1000
"""Delays of a backoff that are added up one by one; those after them are taken to be as long as the last one."""
Choose = Callable[..., float]
"""`min` or `max`: on which end chance falls."""
_VERDICTS: Final = tuple(
    Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "retryable_error", throttled=throttled) for throttled in (False, True)
)


class WorstCase(NamedTuple):
    """What one call may lead to.

    Attributes:
        attempts: how often the callee is called at most; infinity where nothing bounds that.
        seconds: how long the call takes at most; infinity where nothing bounds that.

    """

    attempts: float
    seconds: float


def worst_case(strategies: Sequence[Strategy]) -> WorstCase:
    """The worst case of one call through these strategies, the outermost first, as they stand in a pipeline or a policy.

    Every attempt takes as long as its timeouts allow, fails, and every wait is as long as it can be: backoffs without luck of
    the jitter, queues up to their limits. Not counted is what nothing in the composition tells: waits that a server asks for
    (up to `Retry.max_retry_after` each), functions of a `Fallback`, strategies of your own, timeouts that are functions,
    deadlines around the call.
    """
    span = span_of(tuple(layer.strategy for layer in flatten(strategies)))
    return WorstCase(span.attempts, span.busy + span.waiting)


@dataclass(frozen=True, slots=True)
class Span:
    """A worst case in parts: attempts and backoffs keep a call `busy`, in queues it is `waiting`; both in seconds."""

    attempts: float = 1
    busy: float = math.inf
    waiting: float = 0.0

    def within(self, limit: float) -> "Span":
        """The same, cut off after `limit` seconds."""
        if self.busy + self.waiting <= limit:
            return self
        busy = min(self.busy, limit)
        return Span(self.attempts, busy, limit - busy)


def span_of(strategies: Sequence[Strategy]) -> Span:
    """The worst case of strategies none of which is a pipeline."""
    span = Span()
    for strategy in reversed(strategies):
        if isinstance(strategy, Timeout):
            span = span.within(strategy.seconds) if isinstance(strategy.seconds, float) else span
        elif isinstance(strategy, Retry):
            span = _retried(strategy, span)
        elif isinstance(strategy, Hedge):
            later = strategy.max_hedges * (min(strategy.delay, span.busy) if isinstance(strategy.delay, float) else span.busy)
            span = Span(span.attempts * (1 + strategy.max_hedges), span.busy + later, span.waiting)
        else:
            span = Span(span.attempts, span.busy, span.waiting + longest_wait(strategy))
    return span


def _retried(retry: Retry, each: Span) -> Span:
    times = retry.attempts
    every = Span(math.inf)
    if times is not None:
        every = Span(times * each.attempts, times * each.busy + longest_delays(retry), times * each.waiting)
    # It starts no attempt and ends every wait after `timeout`, but an attempt that runs may finish.
    return every if retry.timeout is None else every.within(seconds_of(retry.timeout) + each.busy)


def seconds_of(value: Any) -> float:
    """A duration that was checked, which makes it a float."""
    return float(value)


def longest_wait(strategy: Strategy) -> float:
    """Seconds that a caller may stand in the queue of this strategy."""
    if isinstance(strategy, Slots):
        allowed = strategy.queue_timeout if strategy.max_queue else 0.0
    elif isinstance(strategy, Limiter):
        allowed = strategy.max_wait
    else:
        return 0.0
    return math.inf if allowed is None else allowed


def longest_delays(retry: Retry) -> float:
    """Seconds of all backoffs of a call together, each as long as it can be. Infinity where that is not known."""
    if retry.attempts is None:
        return math.inf
    return max((_sum(backoff, retry.attempts - 1) for backoff in _backoffs(retry)), default=math.inf)


def first_delay(retry: Retry, choose: Choose) -> float:
    """Seconds of the first backoff, at the least (`min`) or at the most (`max`). 0.0 where that is not known."""
    return choose([next(iter(delays_of(backoff, choose, 1)), 0.0) for backoff in _backoffs(retry)] or [0.0])


def _backoffs(retry: Retry) -> list[Backoff]:
    backoff = as_backoff(retry.backoff)
    if not isinstance(backoff, ByVerdict):
        return [backoff]
    try:
        return [backoff.choose(verdict) for verdict in _VERDICTS]
    except Exception:  # noqa: BLE001  a function of the user's: what it does not say is not known
        return []


def _sum(backoff: Backoff, count: int) -> float:
    delays = delays_of(backoff, max, min(count, _LOOKED_AT))
    if count and not delays:
        return math.inf
    return sum(delays) + (delays[-1] * (count - len(delays)) if delays else 0.0)


def delays_of(backoff: Backoff, choose: Choose, count: int) -> list[float]:
    """The first delays, with all the luck of the jitter or none; empty where a function of the user's fails."""
    try:
        return list(islice(backoff.delays(_Biased(choose)), count))
    except Exception:  # noqa: BLE001  as above
        return []


class _Biased(Random):
    """Chance that always falls on one end."""

    def __init__(self, choose: Choose) -> None:
        super().__init__()
        self._choose = choose

    def uniform(self, a: float, b: float) -> float:
        return self._choose(a, b)
