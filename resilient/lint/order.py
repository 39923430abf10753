"""Rules on what stands outside of what."""

import math
from collections.abc import Iterator
from typing import Any, Final, cast

from resilient.errors import CircuitOpen
from resilient.lint.stack import Layer, Problem, Stack
from resilient.lint.worst import span_of
from resilient.outcome import Kind, judge
from resilient.strategies.base import Strategy
from resilient.strategies.chaos import Chaos
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.gate import Gate
from resilient.strategies.hedge import Hedge
from resilient.strategies.limiter import Limiter
from resilient.strategies.retry import Retry
from resilient.strategies.slots import Slots
from resilient.strategies.throttle import Throttle
from resilient.strategies.timeout import Timeout

__all__ = (
    "attempt_timeout_outside_breaker",
    "chaos_outside",
    "fallback_inside_breaker",
    "fallback_inside_hedge",
    "fallback_inside_retry",
    "gate_twice",
    "hang_never_trips",
    "hedge_inside_gate",
    "retries_multiply",
    "retry_inside_breaker",
    "retry_inside_bulkhead",
    "retry_inside_hedge",
    "retry_inside_rate_limit",
    "retry_inside_throttle",
    "retry_of_rejections",
    "same_kind_twice",
    "timeout_outside_fallback",
)

_PLACE: Final = "Put the {} inside of the {}, as a Policy does."


def _hiding(stack: Stack, kind: type[Strategy], what: str) -> Iterator[Problem]:
    """Fallbacks that leave nothing to see for a strategy outside of them."""
    for outer, fallback in stack.pairs(kind, Fallback):
        if fallback.strategy.on is None or _share_types(outer.strategy, fallback.strategy):
            mend = (
                "Put the Fallback outermost. Where it is meant for other errors only, name them: Fallback(..., on=LookupError)."
            )
            yield (outer, fallback), f"A Fallback inside replaces the failure: {what}", mend


def _share_types(outer: Strategy, fallback: Fallback) -> bool:
    mine, others = _types(getattr(outer, "on", None)), _types(fallback.on)
    return any(issubclass(one, other) or issubclass(other, one) for one in mine for other in others)


def _types(on: Any) -> tuple[type[BaseException], ...]:
    """The types that an `on=` names; a predicate names none."""
    named = cast("tuple[object, ...]", on if isinstance(on, tuple) else (on,))
    return tuple(kind for kind in named if isinstance(kind, type))


def fallback_inside_retry(stack: Stack) -> Iterator[Problem]:
    """A retry that never sees a failure."""
    return _hiding(stack, Retry, "the Retry sees a success and never tries again.")


def fallback_inside_hedge(stack: Stack) -> Iterator[Problem]:
    """A hedge whose leg that failed wins."""
    return _hiding(stack, Hedge, "a leg that failed wins with it, and the one that would have answered is cancelled.")


def fallback_inside_breaker(stack: Stack) -> Iterator[Problem]:
    """A breaker that never sees a failure."""
    for layers, message, mend in _hiding(stack, CircuitBreaker, "the CircuitBreaker counts a success and never opens."):
        if layers[0].strategy.settings.slow_call == math.inf:
            yield layers, message, mend


def timeout_outside_fallback(stack: Stack) -> Iterator[Problem]:
    """A limit whose expiry is not replaced."""
    for timeout, fallback in stack.pairs(Timeout, Fallback):
        message = (
            "When this Timeout cuts the call off, the Fallback is cut off with it: TimeoutExceeded surfaces, not the replacement."
        )
        yield (timeout, fallback), message, "Put the Fallback outside of the Timeout."


def retry_inside_breaker(stack: Stack) -> Iterator[Problem]:
    """A breaker that counts calls, and sees none of their attempts."""
    for breaker, retry in stack.pairs(CircuitBreaker, Retry):
        if retry.strategy.attempts == 1:
            continue
        sends = f"after all {retry.strategy.attempts} attempts" if retry.strategy.attempts else "when its attempts end"
        message = (
            f"The CircuitBreaker stands outside of the Retry: it hears of a failure {sends}, a call that a retry saved "
            "counts as a success, the waits count as latency, and when it opens, calls that are under way go on retrying."
        )
        mend = _PLACE.format("CircuitBreaker", "Retry") + " It then counts each attempt."
        yield (breaker, retry), message, mend


def retry_inside_bulkhead(stack: Stack) -> Iterator[Problem]:
    """A slot that is held asleep."""
    for slots, retry in stack.pairs(Slots, Retry):
        if retry.strategy.attempts != 1:
            message = (
                "A slot is held while the Retry waits between attempts: a few sick calls take all slots and do nothing with them."
            )
            yield (slots, retry), message, _PLACE.format(type(slots.strategy).__name__, "Retry")


def retry_inside_rate_limit(stack: Stack) -> Iterator[Problem]:
    """A limit that retries pass by."""
    for limiter, retry in stack.pairs(Limiter, Retry):
        if retry.strategy.attempts != 1:
            times = "any number of times" if retry.strategy.attempts is None else f"{retry.strategy.attempts} times"
            message = f"Only first attempts take a token: the service may hear {times} as many calls as the limit says."
            yield (limiter, retry), message, _PLACE.format(type(limiter.strategy).__name__, "Retry")


def retry_inside_throttle(stack: Stack) -> Iterator[Problem]:
    """A throttle that retries pass by."""
    for throttle, retry in stack.pairs(Throttle, Retry):
        if retry.strategy.attempts != 1:
            message = (
                "The Throttle hears of calls, not of their attempts: what it counts is not what the server gets and refuses."
            )
            yield (throttle, retry), message, _PLACE.format("Throttle", "Retry")


def retry_inside_hedge(stack: Stack) -> Iterator[Problem]:
    """Legs that retry by themselves."""
    for hedge, retry in stack.pairs(Hedge, Retry):
        legs, attempts = 1 + hedge.strategy.max_hedges, retry.strategy.attempts
        if attempts != 1:
            most = "without a limit" if attempts is None else f"{legs} x {attempts} = {legs * attempts} attempts for one call"
            message = f"Each leg of the Hedge retries by itself: {most}, and a leg that waits for its backoff looks slow."
            mend = "Put the Retry outside of the Hedge: a retry then hedges anew, one budget pays for both."
            yield (hedge, retry), message, mend


def hedge_inside_gate(stack: Stack) -> Iterator[Problem]:
    """Permits that the legs of a hedge share."""
    for gate, hedge in stack.pairs((CircuitBreaker, Slots, Limiter, Throttle), Hedge):
        name = type(gate.strategy).__name__
        message = f"All legs of the Hedge share one permit of the {name}: the service gets more calls than it knows of."
        mend = f"Put the {name} inside of the Hedge: each leg then takes a permit of its own, without waiting."
        yield (gate, hedge), message, mend


def retries_multiply(stack: Stack) -> Iterator[Problem]:
    """Retry layers, one inside of the other."""
    layers = tuple(layer for layer in stack.of(Retry) if layer.strategy.attempts != 1)
    if len(layers) > 1:
        counts = [layer.strategy.attempts for layer in layers]
        worst = span_of([layer.strategy for layer in layers]).attempts
        product = " x ".join("∞" if count is None else str(count) for count in counts)
        total = "∞" if worst == math.inf else f"{worst:g}"
        message = f"Retries inside of retries multiply: {product} = {total} attempts for one call in the worst case."
        mend = "Retry in one layer: the one that knows best what may be repeated. Give the others attempts=1."
        yield layers, message, mend


def retry_of_rejections(stack: Stack) -> Iterator[Problem]:
    """A retry that asks an open breaker again."""
    for retry, breaker in stack.pairs(Retry, CircuitBreaker):
        classifier = retry.strategy.classifier or retry.classifier
        verdict = judge(classifier, CircuitOpen(breaker.strategy.name), error=True)
        if verdict.kind is Kind.RETRYABLE and retry.strategy.attempts != 1:
            message = (
                "This Retry repeats CircuitOpen: it asks a breaker again that has just said no, and its waits hold up the caller."
            )
            mend = "Leave CircuitOpen and Rejected out of on=; give the caller the rejection, or a Fallback."
            yield (retry, breaker), message, mend


def attempt_timeout_outside_breaker(stack: Stack) -> Iterator[Problem]:
    """An attempt's limit that the breaker takes for a cancellation."""
    for timeout, breaker in _unseen_timeouts(stack):
        if any(layer.strategy.attempts != 1 for layer in stack.outside(timeout).of(Retry)):
            message = (
                "The Timeout of each attempt stands outside of the CircuitBreaker, which sees a cancellation and no failure: "
                "a service that hangs never trips it."
            )
            yield (timeout, breaker), message, "Put that Timeout inside of the CircuitBreaker, or give it slow_call."


def hang_never_trips(stack: Stack) -> Iterator[Problem]:
    """A breaker to which nothing says that a call hangs."""
    for timeout, breaker in _unseen_timeouts(stack):
        if not any(layer.strategy.attempts != 1 for layer in stack.outside(timeout).of(Retry)):
            message = (
                "Only a Timeout outside of the CircuitBreaker cuts off a call that hangs. The breaker sees a cancellation and no "
                "failure: unless the callee has a timeout of its own, a service that hangs never trips it."
            )
            mend = "Add a Timeout inside of the CircuitBreaker (attempt_timeout of a Policy), or slow_call."
            yield (timeout, breaker), message, mend


def _unseen_timeouts(stack: Stack) -> Iterator[tuple[Layer[Timeout], Layer[CircuitBreaker]]]:
    """Breakers that look for failures alone, with the next timeout outside of each, where there is none inside."""
    for breaker in stack.of(CircuitBreaker):
        outside = tuple(stack.outside(breaker).of(Timeout))
        if outside and breaker.strategy.settings.slow_call == math.inf and not any(stack.inside(breaker).of(Timeout)):
            yield outside[-1], breaker


def gate_twice(stack: Stack) -> Iterator[Problem]:
    """One object in two places."""
    seen: dict[int, Layer[Gate]] = {}
    for layer in stack.of(Gate):
        first = seen.setdefault(id(layer.strategy), layer)
        if first is not layer:
            name = type(layer.strategy).__name__
            harm = (
                "a call may wait for a slot that it holds itself"
                if isinstance(layer.strategy, Slots)
                else "each call counts twice"
            )
            yield (first, layer), f"The same {name} stands in two places of one call: {harm}.", "Leave one of them out."


def same_kind_twice(stack: Stack) -> Iterator[Problem]:
    """Neighbours that do the same."""
    for first, second in zip(stack.layers, stack.layers[1:], strict=False):
        one, other = first.strategy, second.strategy
        same_pipeline = first.path[:-1] == second.path[:-1]
        if same_pipeline and one is not other and type(one) is type(other) and _do_the_same(one, other):
            message = f"Two neighbours, each a {type(one).__name__}, guard the same calls: the stricter one decides."
            yield (first, second), message, "Leave one of them out."


def _do_the_same(one: Strategy, other: Strategy) -> bool:
    if isinstance(one, CircuitBreaker) and isinstance(other, CircuitBreaker):
        return one.settings.classifier is other.settings.classifier
    if isinstance(one, Limiter):  # so many a second, and so many an hour, are two limits
        return bool(getattr(one, "per", None) == getattr(other, "per", None))
    return isinstance(one, Slots)


def chaos_outside(stack: Stack) -> Iterator[Problem]:
    """Chaos that what stands inside of it never sees."""
    for layer in stack.of(Chaos):
        inner = next((other for other in stack.inside(layer).layers if not isinstance(other.strategy, Chaos)), None)
        if inner is not None:
            message = (
                f"What Chaos injects here is not seen by what stands inside of it, the {type(inner.strategy).__name__} for one."
            )
            yield (layer, inner), message, "Put Chaos innermost, beside the callee."
