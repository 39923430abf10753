"""Lint: what can't work, or is dangerous, in a composition of strategies.

`Pipeline.lint()` and `Policy.lint()` call `lint()`. It lays nested pipelines open, and asks each rule of the table `RULES` in
turn. A rule is a small function over the stack of layers; it looks at settings alone, never at state, and calls nothing but
predicates, backoffs and switches. No rule may be wrong about a composition that works: where it cannot know, it is silent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from resilient.lint import limits, order
from resilient.lint.stack import Finding, Problem, Severity, Stack, flatten, where
from resilient.lint.worst import WorstCase, worst_case
from resilient.outcome import Classifier
from resilient.strategies.base import Strategy

__all__ = ("RULES", "Finding", "Severity", "WorstCase", "lint", "worst_case")

Rule = Callable[[Stack], Iterator[Problem]]

RULES: Final[Mapping[str, tuple[Severity, Rule]]] = {
    "fallback-inside-retry": ("error", order.fallback_inside_retry),
    "fallback-inside-hedge": ("error", order.fallback_inside_hedge),
    "fallback-inside-breaker": ("error", order.fallback_inside_breaker),
    "gate-twice": ("error", order.gate_twice),
    "backoff-beyond-timeout": ("error", limits.backoff_beyond_timeout),
    "breaker-cannot-trip": ("error", limits.breaker_cannot_trip),
    "budget-pays-nothing": ("error", limits.budget_pays_nothing),
    "hedge-beyond-timeout": ("error", limits.hedge_beyond_timeout),
    "retry-inside-breaker": ("warning", order.retry_inside_breaker),
    "retry-inside-bulkhead": ("warning", order.retry_inside_bulkhead),
    "retry-inside-rate-limit": ("warning", order.retry_inside_rate_limit),
    "retry-inside-throttle": ("warning", order.retry_inside_throttle),
    "retry-inside-hedge": ("warning", order.retry_inside_hedge),
    "hedge-inside-gate": ("warning", order.hedge_inside_gate),
    "retries-multiply": ("warning", order.retries_multiply),
    "retry-of-rejections": ("warning", order.retry_of_rejections),
    "attempt-timeout-outside-breaker": ("warning", order.attempt_timeout_outside_breaker),
    "no-time-to-retry": ("warning", limits.no_time_to_retry),
    "timeout-never-reached": ("warning", limits.timeout_never_reached),
    "retry-without-limit": ("warning", limits.retry_without_limit),
    "retry-without-wait": ("warning", limits.retry_without_wait),
    "unbounded-queue": ("warning", limits.unbounded_queue),
    "slow-call-unreachable": ("warning", limits.slow_call_unreachable),
    "probe-lease-too-short": ("warning", limits.probe_lease_too_short),
    "hedge-floods": ("warning", limits.hedge_floods),
    "attempts-beyond-timeout": ("note", limits.attempts_beyond_timeout),
    "retry-without-budget": ("note", limits.retry_without_budget),
    "timeout-outside-fallback": ("note", order.timeout_outside_fallback),
    "hang-never-trips": ("note", order.hang_never_trips),
    "no-attempt-timeout": ("note", limits.no_attempt_timeout),
    "timeout-not-retried": ("note", limits.timeout_not_retried),
    "max-retry-after-beyond-timeout": ("note", limits.max_retry_after_beyond_timeout),
    "backoff-without-jitter": ("note", limits.backoff_without_jitter),
    "unbounded-wait": ("note", limits.unbounded_wait),
    "same-kind-twice": ("note", order.same_kind_twice),
    "chaos-outside": ("note", order.chaos_outside),
    "chaos-enabled": ("note", limits.chaos_enabled),
}
"""All rules by their code, errors first. The codes are stable."""


def lint(
    strategies: Sequence[Strategy], *, names: Sequence[str] = (), classify: Classifier | None = None, keyed: bool = False
) -> tuple[Finding, ...]:
    """What can't work or is dangerous in these strategies, the outermost first. Errors come first, then warnings, then notes.

    Args:
        strategies: as in a `Pipeline`.
        names: what to call them in `Finding.where`; the fields of a policy, say.
        classify: the classifier of the pipeline.
        keyed: whether the pipeline keeps its state per key.

    """
    stack = Stack(flatten(strategies, names=names, classify=classify, keyed=keyed))
    return tuple(
        Finding(code, severity, where(*layers), message, mend)
        for code, (severity, rule) in RULES.items()
        for layers, message, mend in rule(stack)
    )
