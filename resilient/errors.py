"""The exceptions of the toolkit.

    ResilienceError
    ├── Rejected                 a strategy refused to run the callee: nothing was sent
    │   ├── CircuitOpen          the breaker is open, isolated, or has all its probes out
    │   ├── BulkheadFull         no permit is free, and none came free in time
    │   ├── RateLimited          no token is there, and none will be in time
    │   ├── Throttled            the server refuses so much that this call was not even sent
    │   ├── NoPolicy             there is no policy for the key, and calls without one are not allowed
    │   ├── NoClassifier         the policy names a classifier that is not there
    │   └── BudgetDenied         the policy names a budget that is not there
    ├── TimeoutExceeded          a `Timeout` cut the call off (also a `TimeoutError`)
    │   └── DeadlineExceeded     the deadline of the call, or of a `deadline()` block, has passed
    ├── RetryableError           raised by a callee to say: trying again may help
    ├── ProviderError            a provider could not find out which policy is valid
    │   └── PolicyNotFound       it has none for the key
    └── InvalidPolicy            a document is no policy; it lists everything that is wrong (also a `ValueError`)

The arguments of each class are positional: `BaseException` keeps them, so instances can be pickled and copied.
A callee's own exceptions are never wrapped: after the last attempt the same object surfaces.
Errors carry data; the message is made from it when somebody reads it.
"""

import json
from dataclasses import dataclass
from typing import ClassVar

__all__ = (
    "BudgetDenied",
    "BulkheadFull",
    "CircuitOpen",
    "DeadlineExceeded",
    "InvalidPolicy",
    "NoClassifier",
    "NoPolicy",
    "PolicyNotFound",
    "ProviderError",
    "RateLimited",
    "Rejected",
    "ResilienceError",
    "RetryableError",
    "Throttled",
    "TimeoutExceeded",
)


class ResilienceError(Exception):
    """The base of every exception that this library raises on its own account."""


class Rejected(ResilienceError):
    """A strategy refused to run the callee. Nothing was sent, so trying elsewhere or later is safe.

    Attributes:
        strategy: the name of the strategy that refused.
        retry_after: seconds until asking again may succeed, or None where that is not known.
        key: the key of the call, or None.
        reason: the stable reason code of the class.

    """

    reason: ClassVar[str] = "rejected"
    key: str | None = None

    # `BaseException.__new__` keeps the arguments: its `__init__` is not called, which would make a refusal dearer.
    def __init__(self, strategy: str = "", retry_after: float | None = None) -> None:
        self.strategy = strategy
        self.retry_after = retry_after

    def __str__(self) -> str:
        called = f" for {self.key!r}" if self.key is not None else ""
        hint = "" if self.retry_after is None else f"; ask again in {self.retry_after:.3g} s"
        return f"{self.strategy or type(self).__name__}{called}: {self._why()}{hint}"

    def _why(self) -> str:
        return "the call was refused and not sent"


class CircuitOpen(Rejected):
    """The circuit breaker lets nothing through at the moment.

    Attributes:
        state: the state that refused: `"open"`, `"half_open"` (all probes are out) or `"isolated"`.
        rejections: how many calls this opening of the breaker has refused so far, this one included.

    """

    reason: ClassVar[str] = "circuit_open"

    def __init__(
        self,
        strategy: str = "",
        retry_after: float | None = None,
        state: str = "open",
        rejections: int = 1,
    ) -> None:
        self.strategy = strategy
        self.retry_after = retry_after
        self.state = state
        self.rejections = rejections

    def _why(self) -> str:
        if self.state == "isolated":
            return "the circuit is isolated by hand, the call was not sent; close() or reset() it to let calls through"
        if self.state == "half_open":
            return "the circuit is half-open and its probes are out, the call was not sent"
        return "the circuit is open, the call was not sent"


class BulkheadFull(Rejected):
    """All permits of the bulkhead are out, and its queue is full or the wait was too long.

    Attributes:
        active: permits that are out.
        queued: callers that wait.
        waited: seconds that this caller waited; 0.0 where it did not.

    """

    reason: ClassVar[str] = "bulkhead_full"

    def __init__(
        self,
        strategy: str = "",
        retry_after: float | None = None,
        active: int = 0,
        queued: int = 0,
        waited: float = 0.0,
    ) -> None:
        super().__init__(strategy, retry_after)
        self.active = active
        self.queued = queued
        self.waited = waited

    def _why(self) -> str:
        waited = f" after a wait of {self.waited:.3g} s" if self.waited else ""
        return f"all {self.active} permits are out and {self.queued} callers wait, the call was not sent{waited}"


class RateLimited(Rejected):
    """The rate limiter has no token now, and the next one comes too late for this call."""

    reason: ClassVar[str] = "rate_limited"

    def _why(self) -> str:
        return "the rate limit is reached, the call was not sent"


class Throttled(Rejected):
    """A `Throttle` refused the call: of late the server has refused too many.

    Attributes:
        probability: how likely the refusal was, 0.0 to 1.0.

    """

    reason: ClassVar[str] = "throttled"

    def __init__(self, strategy: str = "", retry_after: float | None = None, probability: float = 0.0) -> None:
        super().__init__(strategy, retry_after)
        self.probability = probability

    def _why(self) -> str:
        return f"the server refuses too much, {self.probability:.0%} of the calls are not sent"


class NoPolicy(Rejected):
    """There is no policy for the key, and the executor was told to deny such calls (`missing_policy="deny"`).

    Attributes:
        why: the code of what the provider said: `policy_not_found`, `provider_unavailable`, `policy_fetch_failed`, or
            `provider_raised`.

    """

    reason: ClassVar[str] = "no_policy"

    def __init__(self, strategy: str = "", retry_after: float | None = None, why: str = "policy_not_found") -> None:
        super().__init__(strategy, retry_after)
        self.why = why

    def _why(self) -> str:
        if self.why != "policy_not_found":
            return f"no policy could be found out ({self.why}), the call was not sent"
        return "there is no policy, the call was not sent; give the provider one, or say missing_policy='fallback'"


class NoClassifier(Rejected):
    """The policy names a classifier that is not registered, and the executor was told to deny such calls.

    Attributes:
        name: the name that the policy gives.

    """

    reason: ClassVar[str] = "classifier_not_found"

    def __init__(self, strategy: str = "", retry_after: float | None = None, name: str = "") -> None:
        super().__init__(strategy, retry_after)
        self.name = name

    def _why(self) -> str:
        return f"the classifier {self.name!r} is not registered, the call was not sent; pass classifiers={{{self.name!r}: ...}}"


class BudgetDenied(Rejected):
    """The policy names a budget that is not registered: without it retries and hedges would be paid for by nobody.

    Attributes:
        name: the name that the policy gives.

    """

    reason: ClassVar[str] = "budget_not_found"

    def __init__(self, strategy: str = "", retry_after: float | None = None, name: str = "") -> None:
        super().__init__(strategy, retry_after)
        self.name = name

    def _why(self) -> str:
        return f"the budget {self.name!r} is not registered, the call was not sent; pass budgets={{{self.name!r}: RetryBudget()}}"


class TimeoutExceeded(ResilienceError, TimeoutError):
    """A `Timeout` cut the call off.

    Attributes:
        seconds: the limit that was reached, in seconds.

    """

    reason: ClassVar[str] = "timeout"

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return f"the call did not finish within {self.seconds:.3g} s"


class DeadlineExceeded(TimeoutExceeded):
    """The deadline has passed: nothing that is bound by it can be finished or started any more."""

    reason: ClassVar[str] = "deadline"

    def __str__(self) -> str:
        return f"the deadline of {self.seconds:.3g} s has passed"


class RetryableError(ResilienceError):
    """Raise it in a callee (`raise RetryableError("busy") from error`) to say that trying again may help.

    Any exception of your own with an attribute `retryable: bool` speaks for itself in the same way; one with
    `retry_after: float` (seconds) says when.

    Attributes:
        retryable: True.
        retry_after: seconds before which trying again is useless, or None.

    """

    retryable: ClassVar[bool] = True

    def __init__(self, message: object = "", retry_after: float | None = None) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class ProviderError(ResilienceError):
    """A provider of policies could not find out which policy is valid.

    Attributes:
        key: the key that was asked for, or "".
        why: what went wrong.
        kind: the stable code: `provider_unavailable` (default) or `policy_fetch_failed`; `policy_not_found` of its subclass.

    """

    def __init__(self, key: str = "", why: str = "the provider cannot be reached", kind: str = "provider_unavailable") -> None:
        super().__init__(key, why, kind)
        self.key = key
        self.why = why
        self.kind = kind

    def __str__(self) -> str:
        return f"policy of {str(self.key)!r}: {self.why}" if self.key else self.why


class PolicyNotFound(ProviderError):
    """The provider has no policy for the key."""

    def __init__(self, key: str = "", why: str = "there is none", kind: str = "policy_not_found") -> None:
        super().__init__(key, why, kind)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong in a document.

    Attributes:
        path: where: names and, in lists, numbers from 0.
        message: what, and what to write instead.
        line: of the text that it was read from, from 1; None where that is not known.

    """

    path: tuple[str | int, ...]
    message: str
    line: int | None = None

    @property
    def where(self) -> str:
        """The path as text: `policies."user-service.GetUser".retry.attempts`."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{_quoted(part)}" for part in self.path)
        return "".join(parts).removeprefix(".")

    def __str__(self) -> str:
        where = ": ".join(filter(None, (f"line {self.line}" if self.line else "", self.where)))
        return f"{where}: {self.message}" if where else self.message


def _quoted(name: str) -> str:
    is_bare = name.isascii() and name.replace("-", "_").isidentifier()
    return name if is_bare else json.dumps(name)


class InvalidPolicy(ResilienceError, ValueError):
    """A document is no policy.

    Attributes:
        problems: everything that is wrong, in the order of the document.

    """

    def __init__(self, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        return "\n".join((f"{len(self.problems)} problems:", *(f"  {problem}" for problem in self.problems)))
