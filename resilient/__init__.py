"""Resilience for asyncio and trio: retries, circuit breakers, bulkheads, rate limits, and how they compose.

The public names, re-exported. The map of the package:

    errors → outcome, observe, context → strategies → pipeline, keyed → policy → testing, cli
"""

from resilient.context import Attempt, current_attempt, deadline
from resilient.errors import (
    BudgetDenied,
    BulkheadFull,
    CircuitOpen,
    DeadlineExceeded,
    InvalidPolicy,
    NoClassifier,
    NoPolicy,
    PolicyNotFound,
    ProviderError,
    RateLimited,
    Rejected,
    ResilienceError,
    RetryableError,
    Throttled,
    TimeoutExceeded,
)
from resilient.keyed import Keyed
from resilient.lint import Finding, WorstCase, worst_case
from resilient.observe.events import Event
from resilient.observe.listeners import Dispatch, Listener, LiveListener, add_listener, listening, remove_listener
from resilient.observe.logs import configure_logging
from resilient.observe.timeline import Timeline, TimelineStatistics, record_timeline, timeline_of
from resilient.outcome import Classifier, Health, Kind, Outcome, RateHint, Verdict
from resilient.parts import Part, parts_of
from resilient.pipeline import Pipeline
from resilient.policy.executor import Resilience, current_policy
from resilient.policy.facade import call, call_with_timeline, configure, default, protect
from resilient.policy.key import PolicyKey
from resilient.policy.names import BudgetRef
from resilient.policy.normalise import policy_from_document
from resilient.policy.override import override
from resilient.policy.providers.base import Provider
from resilient.policy.providers.static import StaticProvider
from resilient.policy.schema import Normalisation, Policy
from resilient.strategies.adaptive_limit import AdaptiveLimit, AdaptiveLimitStatistics
from resilient.strategies.adaptive_rate import AdaptiveRate, AdaptiveRateStatistics
from resilient.strategies.backoff import Backoff, ByVerdict, Constant, Exponential, Fibonacci, Linear
from resilient.strategies.base import Step, Strategy
from resilient.strategies.budget import Budget, BudgetStatistics, RetryBudget, Spending, TokenBudget, UnlimitedBudget
from resilient.strategies.bulkhead import Bulkhead, BulkheadStatistics
from resilient.strategies.chaos import Chaos, ChaosStatistics
from resilient.strategies.circuit_breaker import BreakerCounts, BreakerStatistics, CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.gate import Gate, Permit
from resilient.strategies.hedge import Hedge, HedgeStatistics
from resilient.strategies.latency import FixedDelay, Latency, Percentile, Trigger
from resilient.strategies.leaky_bucket import LeakyBucket, LeakyBucketStatistics
from resilient.strategies.limiter import Quota
from resilient.strategies.lingering import Lingering
from resilient.strategies.rate_limit import TokenBucket, TokenBucketStatistics
from resilient.strategies.retry import Retry
from resilient.strategies.sliding_window import SlidingWindow, SlidingWindowStatistics
from resilient.strategies.throttle import Throttle, ThrottleStatistics
from resilient.strategies.timeout import Timeout
from resilient.strategies.windows import CountWindow

__all__ = (
    "AdaptiveLimit",
    "AdaptiveLimitStatistics",
    "AdaptiveRate",
    "AdaptiveRateStatistics",
    "Attempt",
    "Backoff",
    "BreakerCounts",
    "BreakerStatistics",
    "Budget",
    "BudgetDenied",
    "BudgetRef",
    "BudgetStatistics",
    "Bulkhead",
    "BulkheadFull",
    "BulkheadStatistics",
    "ByVerdict",
    "Chaos",
    "ChaosStatistics",
    "CircuitBreaker",
    "CircuitOpen",
    "Classifier",
    "Constant",
    "CountWindow",
    "DeadlineExceeded",
    "Dispatch",
    "Event",
    "Exponential",
    "Fallback",
    "Fibonacci",
    "Finding",
    "FixedDelay",
    "Gate",
    "Health",
    "Hedge",
    "HedgeStatistics",
    "InvalidPolicy",
    "Keyed",
    "Kind",
    "Latency",
    "LeakyBucket",
    "LeakyBucketStatistics",
    "Linear",
    "Lingering",
    "Listener",
    "LiveListener",
    "NoClassifier",
    "NoPolicy",
    "Normalisation",
    "Outcome",
    "Part",
    "Percentile",
    "Permit",
    "Pipeline",
    "Policy",
    "PolicyKey",
    "PolicyNotFound",
    "Provider",
    "ProviderError",
    "Quota",
    "RateHint",
    "RateLimited",
    "Rejected",
    "Resilience",
    "ResilienceError",
    "Retry",
    "RetryBudget",
    "RetryableError",
    "SlidingWindow",
    "SlidingWindowStatistics",
    "Spending",
    "StaticProvider",
    "Step",
    "Strategy",
    "Throttle",
    "ThrottleStatistics",
    "Throttled",
    "Timeline",
    "TimelineStatistics",
    "Timeout",
    "TimeoutExceeded",
    "TokenBucket",
    "TokenBucketStatistics",
    "TokenBudget",
    "Trigger",
    "UnlimitedBudget",
    "Verdict",
    "WorstCase",
    "add_listener",
    "call",
    "call_with_timeline",
    "configure",
    "configure_logging",
    "current_attempt",
    "current_policy",
    "deadline",
    "default",
    "listening",
    "override",
    "parts_of",
    "policy_from_document",
    "protect",
    "record_timeline",
    "remove_listener",
    "timeline_of",
    "worst_case",
)
