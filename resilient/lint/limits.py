"""Rules on numbers: limits that are never reached, or that leave no room for what stands inside of them."""

import math
from collections.abc import Iterator
from typing import Any, Final

from resilient.errors import TimeoutExceeded
from resilient.lint.stack import Layer, Problem, Stack
from resilient.lint.worst import first_delay, longest_delays, longest_wait, seconds_of, span_of
from resilient.outcome import Kind, judge
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.backoff import Backoff, Custom
from resilient.strategies.budget import RetryBudget, TokenBudget
from resilient.strategies.chaos import Chaos
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.flow import Flow
from resilient.strategies.hedge import Hedge
from resilient.strategies.limiter import Limiter
from resilient.strategies.retry import Retry
from resilient.strategies.sliding_window import SlidingWindow
from resilient.strategies.slots import Slots
from resilient.strategies.timeout import Timeout
from resilient.strategies.windows import CountWindow

__all__ = (
    "attempts_beyond_timeout",
    "backoff_beyond_timeout",
    "backoff_without_jitter",
    "breaker_cannot_trip",
    "budget_pays_nothing",
    "chaos_enabled",
    "hedge_beyond_timeout",
    "hedge_floods",
    "max_retry_after_beyond_timeout",
    "no_attempt_timeout",
    "no_time_to_retry",
    "probe_lease_too_short",
    "retry_without_budget",
    "retry_without_limit",
    "retry_without_wait",
    "slow_call_unreachable",
    "timeout_never_reached",
    "timeout_not_retried",
    "unbounded_queue",
    "unbounded_wait",
)

_MANY_ATTEMPTS: Final = 3
_DEFAULT_RETRY_AFTER: Final = 60.0
_EXAMPLE: Final = "budget=RetryBudget()"


def _repeating(stack: Stack) -> Iterator[Layer[Retry]]:
    """The retries that may repeat anything."""
    return (layer for layer in stack.of(Retry) if layer.strategy.attempts != 1)


def _totals(stack: Stack, layer: Layer[Any]) -> Iterator[tuple[Layer[Any], float]]:
    """What bounds the time of a retry: the timeouts outside of it, and its own."""
    yield from stack.outside(layer).limits()
    if isinstance(layer.strategy, Retry) and layer.strategy.timeout is not None:
        yield layer, seconds_of(layer.strategy.timeout)


def no_time_to_retry(stack: Stack) -> Iterator[Problem]:
    """No second attempt after one that timed out."""
    for layer in _repeating(stack):
        each, first = _one_attempt(stack, layer), first_delay(layer.strategy, max)
        for total, limit in _totals(stack, layer):
            own = total is layer  # it bounds the start of attempts, not their end
            left = limit - each - first
            if each < math.inf and (left <= 0 if own else limit > each > 2 * left):
                message = (
                    f"An attempt may take {each:g} s, of the {limit:g} s for all: after one that timed out and the first wait "
                    f"{max(left, 0.0):.3g} s are left for the next."
                )
                yield ((layer,) if own else (total, layer)), message, "Allow more time in all, or less for each attempt."


def attempts_beyond_timeout(stack: Stack) -> Iterator[Problem]:
    """Last attempts for which there is no time where all are slow."""
    for layer in _repeating(stack):
        retry, each = layer.strategy, _one_attempt(stack, layer)
        attempts, delays = retry.attempts, longest_delays(retry)
        if attempts is None or math.inf in {each, delays}:
            continue
        for total, limit in _totals(stack, layer):
            own = total is layer
            needed = attempts * each + delays - (each if own else 0.0)
            if needed > limit:
                message = (
                    f"{attempts} attempts of up to {each:g} s and waits of up to {delays:.3g} s in all take {needed:.3g} s"
                    f"{' until the last one starts' if own else ''}, but there are {limit:g} s: where each of them is slow, "
                    "the last ones are not made or are cut off."
                )
                mend = f"Where all should be made, allow {needed:.3g} s, or take fewer attempts, or a shorter timeout for each."
                yield ((layer,) if own else (total, layer)), message, mend


def _one_attempt(stack: Stack, layer: Layer[Retry]) -> float:
    """Seconds that one attempt may take. What a hedge adds is left out: it comes to make attempts shorter."""
    return span_of([strategy for strategy in stack.inside(layer).strategies if not isinstance(strategy, Hedge)]).busy


def backoff_beyond_timeout(stack: Stack) -> Iterator[Problem]:
    """A wait that always ends too late."""
    for layer in _repeating(stack):
        shortest = first_delay(layer.strategy, min)
        for total, limit in _totals(stack, layer):
            if shortest >= limit:
                message = (
                    f"The first wait takes at least {shortest:g} s, the whole call may take {limit:g} s: nothing is ever retried."
                )
                yield ((layer,) if total is layer else (total, layer)), message, "Shorten the backoff, or allow more time."


def max_retry_after_beyond_timeout(stack: Stack) -> Iterator[Problem]:
    """A patience with servers that there is no time for."""
    for layer in _repeating(stack):
        patience = seconds_of(layer.strategy.max_retry_after)
        for total, limit in _totals(stack, layer):
            if patience > limit and patience != _DEFAULT_RETRY_AFTER:
                message = f"max_retry_after={patience:g} s is never used: a wait beyond {limit:g} s ends the call at once."
                yield ((layer,) if total is layer else (total, layer)), message, "Leave max_retry_after out, or allow more time."


def timeout_never_reached(stack: Stack) -> Iterator[Problem]:
    """An inner limit that an outer one never lets come."""
    for inner, limit in stack.limits():
        for outer, most in stack.outside(inner).limits():
            if limit >= most:
                message = f"The inner Timeout of {limit:g} s is never reached: the outer one ends the call after {most:g} s."
                yield (outer, inner), message, f"Make the inner one shorter than {most:g} s, or leave it out."


def timeout_not_retried(stack: Stack) -> Iterator[Problem]:
    """A limit for attempts whose expiry is not retried."""
    for retry, timeout in stack.pairs(Retry, Timeout):
        classifier = retry.strategy.classifier or retry.classifier
        if classifier is None or retry.strategy.attempts == 1 or any(stack.inside(retry).outside(timeout).of(Retry)):
            continue
        if judge(classifier, TimeoutExceeded(1.0), error=True).kind is not Kind.RETRYABLE:
            message = "The Timeout inside ends an attempt with TimeoutExceeded, which this Retry does not repeat."
            yield (retry, timeout), message, "Add TimeoutError to on= if it is safe to send again what may have arrived."


def no_attempt_timeout(stack: Stack) -> Iterator[Problem]:
    """One attempt that hangs takes all the time."""
    for timeout, retry in stack.pairs(Timeout, Retry):
        if retry.strategy.attempts != 1 and not any(stack.inside(retry).of(Timeout)):
            message = (
                "Nothing limits the attempt: unless the callee has a timeout of its own, one that hangs uses up all the time."
            )
            yield (timeout, retry), message, "Add a Timeout inside of the Retry (attempt_timeout of a Policy)."


def retry_without_limit(stack: Stack) -> Iterator[Problem]:
    """Retries that only the caller can end."""
    for layer in stack.of(Retry):
        if layer.strategy.attempts is None and layer.strategy.timeout is None and not stack.outside(layer).has_deadline():
            message = "attempts=None and no deadline: a call to a service that is down never ends, unless its caller sets one."
            yield (layer,), message, "Give Retry(timeout=...), a Timeout outside, or a number of attempts."


def retry_without_budget(stack: Stack) -> Iterator[Problem]:
    """Many attempts that nobody pays for."""
    for layer in stack.of(Retry):
        attempts = layer.strategy.attempts
        if layer.strategy.budget is None and (attempts is None or attempts > _MANY_ATTEMPTS):
            load = "without end" if attempts is None else f"{attempts} times over"
            message = f"Without a budget every caller repeats what fails: a service that is down hears each call {load}."
            yield (layer,), message, f"Give it a budget, Retry(..., {_EXAMPLE}), or take {_MANY_ATTEMPTS} attempts."


def budget_pays_nothing(stack: Stack) -> Iterator[Problem]:
    """A budget from which nothing can come."""
    layers: tuple[Layer[Any], ...] = (*stack.of(Retry), *stack.of(Hedge))
    for layer in layers:
        budget = layer.strategy.budget
        empty = (isinstance(budget, RetryBudget) and not budget.ratio and not budget.floor) or (
            isinstance(budget, TokenBudget) and budget.capacity < 1
        )
        if empty:
            name = type(layer.strategy).__name__
            yield (
                (layer,),
                f"{budget!r} never pays for anything: this {name} does nothing.",
                "Give it a ratio or a floor, or leave it out.",
            )


def retry_without_wait(stack: Stack) -> Iterator[Problem]:
    """A loop without a pause."""
    for layer in _repeating(stack):
        attempts = layer.strategy.attempts
        probe = layer.strategy if attempts is not None else layer.strategy.replace(attempts=10)
        if longest_delays(probe) == 0.0:
            message = "No wait between attempts: what failed a moment ago is asked again at once, by all callers together."
            yield (layer,), message, "Leave backoff= out for the default, or give it an Exponential()."


def backoff_without_jitter(stack: Stack) -> Iterator[Problem]:
    """Callers that come back in step."""
    for layer in _repeating(stack):
        backoff = layer.strategy.backoff
        if isinstance(backoff, Backoff) and not isinstance(backoff, Custom) and backoff.jitter == "none":
            message = "Without jitter all callers that failed together come back together."
            yield (layer,), message, 'Leave jitter= out: "full" is the default.'


def unbounded_queue(stack: Stack) -> Iterator[Problem]:
    """A line that grows for as long as more come than may go."""
    for layer in stack.of(Limiter):
        if longest_wait(layer.strategy) == math.inf and not stack.outside(layer).has_deadline():
            message = (
                "Callers wait for their turn without a limit: while more come than may go, the line and their waits grow, unless "
                "each of them sets a deadline."
            )
            yield (layer,), message, "Give it max_wait=, or put a Timeout outside."


def unbounded_wait(stack: Stack) -> Iterator[Problem]:
    """A place in a line for as long as it takes."""
    for layer in stack.of(Slots):
        if longest_wait(layer.strategy) == math.inf and not stack.outside(layer).has_deadline():
            queue = layer.strategy.max_queue
            message = f"Up to {queue} callers wait for a slot, each for as long as it takes, unless it sets a deadline."
            yield (layer,), message, "Give it queue_timeout=, or put a Timeout outside."


def breaker_cannot_trip(stack: Stack) -> Iterator[Problem]:
    """A minimum that the traffic never reaches."""
    for breaker in stack.of(CircuitBreaker):
        settings = breaker.strategy.settings
        if isinstance(settings.window, CountWindow) or settings.trip is not None or settings.consecutive_failures < math.inf:
            continue
        for limiter in stack.of(Limiter):
            most = _most_within(limiter.strategy, settings.window)
            if limiter in stack.outside(breaker).layers:  # retries in between bring more
                most *= span_of(stack.outside(breaker).inside(limiter).strategies).attempts
            if most < settings.minimum_calls and limiter.scope in {None, breaker.scope}:
                message = (
                    f"The breaker never opens: it needs {settings.minimum_calls} calls within {settings.window:g} s, and the "
                    f"{type(limiter.strategy).__name__} lets {most:g} through at most."
                )
                mend = "Lower minimum_calls, take a longer window or CountWindow, or trip on consecutive_failures."
                yield stack.ordered(limiter, breaker), message, mend


def _most_within(limiter: Limiter, seconds: float) -> float:
    """How many calls it lets through within so many seconds at most; infinity where that is not known."""
    if isinstance(limiter, SlidingWindow):
        return limiter.limit * (math.ceil(seconds / limiter.per) + 1)
    if isinstance(limiter, Flow):
        rate = limiter.ceiling if isinstance(limiter, AdaptiveRate) else limiter.rate
        return math.floor(limiter.most + rate * seconds / limiter.per)
    return math.inf


def slow_call_unreachable(stack: Stack) -> Iterator[Problem]:
    """Calls that are cut off before they are slow."""
    for breaker in stack.of(CircuitBreaker):
        slow, longest = breaker.strategy.settings.slow_call, _longest(stack, breaker)
        if longest < slow < math.inf and not any(_repeating(stack.inside(breaker))):  # a server may ask these to wait
            message = f"No call is ever slow: from slow_call={slow:g} s on it would be, but it is cut off after {longest:g} s."
            yield (breaker,), message, f"Make slow_call shorter than {longest:g} s, or leave it out."


def probe_lease_too_short(stack: Stack) -> Iterator[Problem]:
    """Probes whose result comes too late."""
    for breaker in stack.of(CircuitBreaker):
        lease, longest = breaker.strategy.settings.probe_lease, _longest(stack, breaker)
        if lease < longest < math.inf:
            message = (
                f"A call may take {longest:g} s, but a half-open probe loses its place after {lease:g} s: "
                "a good one that is slow does not close the breaker."
            )
            yield (breaker,), message, "Make probe_lease longer than the slowest good call."


def hedge_beyond_timeout(stack: Stack) -> Iterator[Problem]:
    """A hedge that comes too late."""
    for hedge in stack.of(Hedge):
        delay, longest = hedge.strategy.delay, _longest(stack, hedge)
        if isinstance(delay, float) and delay >= longest:
            message = f"No hedge ever runs beside the first leg: it starts after {delay:g} s, and a leg ends after {longest:g} s."
            yield (hedge,), message, f"Make the delay much shorter than {longest:g} s, or leave it to the live latency."


def _longest(stack: Stack, layer: Layer[Any]) -> float:
    """Seconds that what is inside of a layer may take: by the timeouts in there, and by those outside."""
    span = span_of(stack.inside(layer).strategies)
    return min([span.busy + span.waiting, *(limit for _, limit in stack.outside(layer).limits())])


def hedge_floods(stack: Stack) -> Iterator[Problem]:
    """Hedges for most calls."""
    for hedge in stack.of(Hedge):
        setting = hedge.strategy
        most = setting.delay is None and setting.trigger is None and setting.percentile < 0.5  # noqa: PLR2004  most of the calls
        if setting.budget is None and (setting.delay == 0.0 or most):
            times = 1 + setting.max_hedges
            message = f"Most calls are hedged, and no budget bounds that: a sick service gets {times} times the calls."
            yield (hedge,), message, f"Hedge later (percentile=0.95 is the default), or give it a budget, {_EXAMPLE}."


def chaos_enabled(stack: Stack) -> Iterator[Problem]:
    """Chaos that is on."""
    for layer in stack.of(Chaos):
        if layer.strategy.is_on():
            yield (
                (layer,),
                "Chaos is on: calls are made to fail or to wait.",
                "Make sure that it is meant: enabled=False switches it off.",
            )
