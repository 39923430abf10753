"""Strategies in words: what each part of a policy does, and which of its settings are not the defaults.

A document can make only some of the strategies that code can; there are words for these.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from resilient.policy.fields import FIELDS, SECTIONS
from resilient.policy.names import BudgetRef
from resilient.policy.normalise import shown
from resilient.policy.schema import Policy
from resilient.strategies.adaptive_limit import AdaptiveLimit
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.base import Strategy
from resilient.strategies.budget import Budget, RetryBudget, TokenBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.chaos import Chaos
from resilient.strategies.circuit_breaker import BreakerSettings, CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.hedge import Hedge
from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry
from resilient.strategies.sliding_window import SlidingWindow
from resilient.strategies.throttle import Throttle
from resilient.strategies.timeout import Timeout
from resilient.strategies.windows import CountWindow

__all__ = ("breaker_words", "budget_words", "classifier_words", "plural", "seconds", "settings_changed", "words")

_MINUTES: Final = 120.0


def seconds(value: float) -> str:
    """A duration for people, as it was meant: `250 ms`, `1.5 s`, `5 min`."""
    if value >= _MINUTES and value % 60 == 0:
        return f"{value / 60:g} min"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.4g} s"


def plural(count: float, what: str) -> str:
    """`1 attempt`, `3 attempts`."""
    return f"{count:g} {what}{'' if count == 1 else 's'}"


def words(name: str, strategy: Strategy, policy: Policy) -> str:
    """What a part of a policy does, in a sentence.

    Args:
        name: the field of the policy.
        strategy: what stands there.
        policy: all of it.

    """
    if isinstance(strategy, Timeout):
        what = "the whole call, waits included," if name == "timeout" else "each attempt"
        return f"{what} is cut off after {_limit(strategy.seconds)}"
    text = _WORDS[type(strategy)](strategy)
    return text if strategy is not policy.hedge or policy.hedge_trigger is None else f"{text}; {policy.hedge_trigger!r} says when"


def _limit(value: Any) -> str:
    return seconds(value) if isinstance(value, float) else "a time that a function says"


def _retry(retry: Retry) -> str:
    if retry.attempts == 1:
        return "one attempt: nothing is tried again"
    until = "" if retry.timeout is None else f", none begun after {_limit(retry.timeout)}"
    return f"up to {retry.attempts} attempts{until}; a server may ask for waits of up to {_limit(retry.max_retry_after)}"


def _hedge(hedge: Hedge) -> str:
    slow = f"{_limit(hedge.delay)}" if hedge.delay is not None else f"{_percent(hedge.percentile)} of the calls of late"
    hedges = plural(hedge.max_hedges, "hedge")
    return f"an attempt that takes longer than {slow} gets company, {hedges} at most; the first answer wins"


def _throttle(throttle: Throttle) -> str:
    return (
        f"refuses what the service would refuse: some of what is more than {throttle.multiplier:g} times as much as it accepted "
        f"within {seconds(throttle.window)}, {_percent(throttle.maximum)} of it at most"
    )


def _bucket(bucket: TokenBucket) -> str:
    return f"{_rate(bucket.rate, bucket.per)}, {bucket.burst} at once; {_waiting(bucket.max_wait)}"


def _window(window: SlidingWindow) -> str:
    how = "counted one by one" if window.exact else "estimated from two windows"
    return f"at most {_rate(window.limit, window.per)}, {how}; {_waiting(window.max_wait)}"


def _leaky(bucket: LeakyBucket) -> str:
    how = "evenly spaced" if bucket.shape else f"{bucket.capacity} at once"
    return f"{_rate(bucket.rate, bucket.per)}, {how}; {_waiting(bucket.max_wait)}"


def _adaptive_rate(bucket: AdaptiveRate) -> str:
    bounds = f"from {bucket.floor:g} to {_rate(bucket.ceiling, bucket.per)}"
    return f"as many as the server takes, {bounds}, {bucket.rate:g} at first; {_waiting(bucket.max_wait)}"


def _rate(count: float, per: float) -> str:
    return f"{plural(count, 'call')} in {seconds(per)}"


def _waiting(longest: float | None) -> str:
    if longest == 0:
        return "further ones are refused"
    return "further ones wait" + ("" if longest is None else f" for up to {seconds(longest)}")


def _bulkhead(bulkhead: Bulkhead) -> str:
    return f"at most {plural(bulkhead.max_concurrent, 'call')} at a time; {_queue(bulkhead)}"


def _adaptive_limit(limit: AdaptiveLimit) -> str:
    bounds = f"from {limit.minimum} to {plural(limit.maximum, 'call')} at a time"
    return f"as many as the service takes, {bounds}, {limit.initial} at first; {_queue(limit)}"


def _queue(slots: Bulkhead | AdaptiveLimit) -> str:
    wait = _waiting(slots.queue_timeout if slots.max_queue else 0.0)
    return f"{slots.max_queue} {wait}" if slots.max_queue else wait


def _chaos(chaos: Chaos) -> str:
    parts = [
        f"{_percent(rate)} of the calls {what}"
        for rate, what in ((chaos.fault_rate, "fail"), (chaos.latency_rate, "wait"))
        if rate
    ]
    return f"{' and '.join(parts) or 'no call is changed'}, on purpose"


def _fallback(fallback: Fallback) -> str:
    return f"gives {shown(fallback.value)} where the call failed"


def breaker_words(settings: BreakerSettings) -> str:
    """When a breaker opens, and how it closes again."""
    window = settings.window
    over = f"of the last {window.size}" if isinstance(window, CountWindow) else f"in {seconds(window)}"
    rates = ((settings.failure_rate, "failed"), (settings.slow_rate, f"took {settings.slow_call:g} s or longer"))
    shares = " or ".join(f"{_share(rate)} {what}" for rate, what in rates if rate <= 1)
    opens = [
        *(
            [f"after {plural(settings.consecutive_failures, 'failure')} in a row"]
            if settings.consecutive_failures < math.inf
            else []
        ),
        *([f"when at least {plural(settings.minimum_calls, 'call')} {over} and {shares}"] if shares else []),
    ]
    first, longest = settings.open_for, settings.open_for_max
    grows = longest > first and settings.open_for_factor > 1
    growing = f", each time {settings.open_for_factor:g} times as long, up to {seconds(longest)}" if grows else ""
    probes = f"{plural(settings.half_open_calls, 'probe')} at a time"
    many = settings.half_open_successes > 1
    closes = f"closes after {settings.half_open_successes} good probes" if many else "closes after a good probe"
    state = "" if settings.initial == "closed" else f"; it begins {settings.initial.replace('_', '-')}"
    return f"opens {', or '.join(opens)}; is open for {seconds(first)}{growing}; {closes}, {probes}{state}"


def _share(rate: float) -> str:
    return "half" if rate == 0.5 else _percent(rate)  # noqa: PLR2004  a half


def _percent(share: float) -> str:
    return f"{share * 100:.4g} %"


def _breaker(breaker: CircuitBreaker) -> str:
    return breaker_words(breaker.settings)


_WORDS: Final[Mapping[type[Any], Callable[[Any], str]]] = {
    AdaptiveLimit: _adaptive_limit,
    AdaptiveRate: _adaptive_rate,
    Bulkhead: _bulkhead,
    Chaos: _chaos,
    CircuitBreaker: _breaker,
    Fallback: _fallback,
    Hedge: _hedge,
    LeakyBucket: _leaky,
    Retry: _retry,
    SlidingWindow: _window,
    Throttle: _throttle,
    TokenBucket: _bucket,
}


def budget_words(budget: Budget | BudgetRef | str | None) -> str:
    """What pays for attempts that are one more."""
    if isinstance(budget, BudgetRef):
        cost = "" if budget.cost == 1 else f", {budget.cost:g} for each attempt"
        return f"{budget.name!r}{cost}: a budget that the executor must know"
    if isinstance(budget, RetryBudget):
        share = f"{_percent(budget.ratio)} of the first attempts of the last {seconds(budget.window)}"
        return f"pays for {share}, and for {budget.floor:g} a second in any case"
    if isinstance(budget, TokenBudget):
        return f"pays with {plural(budget.capacity, 'token')}, {budget.refill:g} a second flow in"
    return "none: nothing bounds how many calls do it at the same time"


_CLASSIFIERS: Final = {
    "always": "every exception is tried again, but rejections and those that forbid it",
    "auto": "by the tables for HTTP what comes from there; else every exception but mistakes of the program is tried again",
    "http": "the tables for HTTP: status codes, errors of the network, and what is safe to send again",
}


def classifier_words(policy: Policy) -> str:
    """Who says what outcomes mean."""
    name = policy.classifier
    if not isinstance(name, str):
        return "none named: that of the executor; the HTTP transport has tables of its own"
    return f"{name!r}: {_CLASSIFIERS.get(name, 'a classifier that the executor must know')}"


def settings_changed(part: Any, path: str) -> Iterator[str]:
    """The settings that are not the defaults: `attempts 5 (default 3)`.

    Args:
        part: a part of a policy.
        path: of its section.

    """
    plain = _with_defaults(part)
    for name in dict.fromkeys(name for names in SECTIONS[path].values() for name in names):
        field = FIELDS.get(f"{path}.{name}")
        mine, default = _setting(part, name), _setting(plain, name)
        if field is not None and mine != default:
            yield f"{name} {_value(mine, field.type)} (default {_value(default, field.type)})"


def _with_defaults(part: Any) -> Any:
    """The same with nothing but what must be given."""
    kind: Callable[..., Any] = part.__class__
    parameters = inspect.signature(kind).parameters.values()
    return kind(**{one.name: _setting(part, one.name) for one in parameters if one.default is one.empty})


def _setting(part: Any, name: str) -> Any:
    return getattr(getattr(part, "settings", part), name, None)


def _value(value: Any, kind: str) -> str:
    if value is None or value == math.inf:
        return "none"
    if isinstance(value, CountWindow):
        return plural(value.size, "call")
    if kind == "seconds":
        return seconds(value)
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
