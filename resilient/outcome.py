"""Outcomes, what they mean, and who says so.

An `Outcome` is what an attempt ended with. A `Verdict` is what that means: its `kind` says whether trying again
makes sense, its `health` what breakers and adaptive limits learn from it, its `reason` is a stable code. A
`Classifier` turns one into the other. Retry and health are separate on purpose: a POST whose answer was lost must
not be sent again (`PERMANENT`) and yet tells that the service is unwell (`UNHEALTHY`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Generic, TypeVar, cast

from resilient.errors import DeadlineExceeded, Rejected, TimeoutExceeded

__all__ = (
    "ABANDONED",
    "CANCELLED",
    "SUCCESS",
    "Classifier",
    "Health",
    "Kind",
    "On",
    "Outcome",
    "RateHint",
    "Verdict",
    "checked_on",
    "failure_on",
    "judge",
    "matches",
    "own_word",
    "retry_after_of",
    "retry_on",
)

T = TypeVar("T")


class Kind(Enum):
    """What may be done after an outcome."""

    SUCCESS = "success"
    """It worked."""
    RETRYABLE = "retryable"
    """It may work if tried again, and trying again is allowed."""
    PERMANENT = "permanent"
    """Trying again cannot help, or is not safe."""
    ABORT = "abort"
    """Stop everything now: cancelled, or the caller's own deadline has passed."""


class Health(Enum):
    """What an outcome tells about the one who was called."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    NEUTRAL = "neutral"
    """Nothing: cancelled, refused on our side, throttled."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What an attempt ended with: a value, or an exception.

    Attributes:
        value: what the callee returned; None where it raised.
        error: what the callee raised; None where it returned.

    """

    value: T | None = None
    error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether the callee raised."""
        return self.error is not None

    def unwrap(self) -> T:
        """The value; or the exception is raised, the same object."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


@dataclass(frozen=True, slots=True)
class RateHint:
    """What the callee says of its own rate limit: not more than `remaining` calls within the next `reset` seconds.

    Attributes:
        remaining: how many more it takes, at least 0.
        reset: seconds until it takes more, at least 0.

    """

    remaining: int
    reset: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an outcome means.

    Attributes:
        kind: whether trying again makes sense.
        health: what breakers and adaptive limits learn.
        reason: a stable code, see the page on reason codes.
        retry_after: seconds before which trying again is useless (a hint of the server), or None.
        throttled: the callee said that it gets too many calls.
        transparent: the attempt certainly never left this process: one more try is free.
        rejected: a strategy refused the call: nothing was sent.
        limits: what the callee says of its rate limit, or None where it says nothing, or where nobody asked.

    """

    kind: Kind
    health: Health
    reason: str
    retry_after: float | None = None
    throttled: bool = False
    transparent: bool = False
    rejected: bool = False
    limits: RateHint | None = None


@dataclass(frozen=True, slots=True)
class Classifier:
    """Says what outcomes mean. It has two parts, so that a success costs nothing where values need no judgement.

    `first | second` asks `second` where `first` has no opinion.

    Attributes:
        errors: from an exception to a verdict, or None for "no opinion".
        values: from a returned value to a verdict, or None for "no opinion"; None where every value is a success.

    """

    errors: Callable[[Exception], Verdict | None]
    values: Callable[[Any], Verdict | None] | None = None

    def __or__(self, other: "Classifier") -> "Classifier":
        mine, others = self.values, other.values

        def both(value: Any) -> Verdict | None:
            return (mine and mine(value)) or (others and others(value)) or None

        values = both if mine and others else mine or others
        return Classifier(lambda error: self.errors(error) or other.errors(error), values)


On = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
"""Which exceptions: a type, a tuple of types, or a predicate."""

SUCCESS: Final = Verdict(Kind.SUCCESS, Health.HEALTHY, "success")
CANCELLED: Final = Verdict(Kind.ABORT, Health.NEUTRAL, "cancelled")
ABANDONED: Final = Verdict(Kind.ABORT, Health.NEUTRAL, "abandoned")
"""A stream that was closed early, or lost: it tells nothing."""

_DEADLINE: Final = Verdict(Kind.ABORT, Health.NEUTRAL, "deadline")
_CLASSIFIER_RAISED: Final = Verdict(Kind.ABORT, Health.NEUTRAL, "classifier_raised")
_UNKNOWN: Final = Verdict(Kind.ABORT, Health.NEUTRAL, "unknown_verdict")
_UNCLASSIFIED: Final = Verdict(Kind.PERMANENT, Health.UNHEALTHY, "error")
_TIMED_OUT: Final = Verdict(Kind.PERMANENT, Health.UNHEALTHY, TimeoutExceeded.reason)
_PERMANENT: Final = Verdict(Kind.PERMANENT, Health.UNHEALTHY, "permanent_error")
_ANSWERED: Final = Verdict(Kind.PERMANENT, Health.HEALTHY, "permanent_error")


def checked_on(name: str, on: On) -> On:
    """`on`, for `matches`.

    Raises:
        TypeError: it is neither a type of exception, nor a tuple of them, nor callable.

    """
    wanted = cast("tuple[object, ...]", on if isinstance(on, tuple) else (on,))
    if isinstance(on, (tuple, type)) or not callable(on):
        if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in wanted):
            return cast("On", on)
        msg = f"{name}={on!r}: expected a type of exception, a tuple of them, or a predicate, e.g. {name}=(OSError, TimeoutError)"
        raise TypeError(msg)
    return on


def matches(on: On, error: Exception) -> bool:
    """Whether an exception is one of those. Types match a rejection only where they name one: `Exception` does not."""
    if not isinstance(on, (tuple, type)):
        return on(error)
    if not isinstance(error, Rejected):
        return isinstance(error, on)
    kinds = cast("tuple[type[BaseException], ...]", on if isinstance(on, tuple) else (on,))
    return any(issubclass(kind, Rejected) and isinstance(error, kind) for kind in kinds)


def judge(classifier: Classifier | None, outcome: object, *, error: bool) -> Verdict:
    """The verdict on an outcome, whatever the classifier does.

    Cancellation, rejections and the caller's own deadline are not for a classifier to decide. One that raises, or
    returns no verdict, ends the call: `ABORT`.
    """
    if not error:
        if classifier is None or classifier.values is None:
            return SUCCESS
        return _ask(classifier.values, outcome) or SUCCESS
    if not isinstance(outcome, Exception):
        return CANCELLED
    if isinstance(outcome, DeadlineExceeded):
        return _DEADLINE
    verdict = _ask(classifier.errors, outcome) if classifier is not None else None
    if isinstance(outcome, Rejected):
        kind = verdict.kind if verdict is not None else Kind.PERMANENT
        return Verdict(kind, Health.NEUTRAL, outcome.reason, outcome.retry_after, rejected=True)
    return verdict or _ask(own_word, outcome) or _failed(outcome)


def own_word(error: Exception) -> Verdict | None:
    """The verdict of an exception that speaks for itself (`retryable: bool`, `retry_after: float`), else None."""
    retryable = getattr(error, "retryable", None)
    if not isinstance(retryable, bool):
        return None
    return Verdict(
        Kind.RETRYABLE if retryable else Kind.PERMANENT,
        Health.UNHEALTHY,
        "retryable_error" if retryable else "permanent_error",
        retry_after_of(error),
    )


def retry_after_of(error: Exception) -> float | None:
    """The hint that an exception carries as `retry_after`, in seconds, or None where it has no usable one."""
    hint = getattr(error, "retry_after", None)
    return float(hint) if isinstance(hint, (int, float)) and 0 <= hint < float("inf") else None


def retry_on(on: On, never: On | None = None) -> Classifier:
    """The classifier behind `on=` and `never=`: `never` beats what an exception says of itself, and that beats `on`."""
    return Classifier(_RetryOn(on, never))


def failure_on(on: On, never: On | None = None) -> Classifier:
    """What a breaker learns from `on=` and `never=`: these errors are failures, every other one is an answer."""
    return Classifier(_FailureOn(on, never))


class _Chosen:
    """What `on=` and `never=` say of an exception. A class, as closures take several times the memory."""

    __slots__ = ("never", "on")

    def __init__(self, on: On, never: On | None) -> None:
        self.on = checked_on("on", on)
        self.never = None if never is None else checked_on("never", never)


class _RetryOn(_Chosen):
    __slots__ = ()

    def __call__(self, error: Exception) -> Verdict:
        if self.never is not None and matches(self.never, error):
            return _PERMANENT
        own = own_word(error)
        if own is not None:
            return own
        if matches(self.on, error):
            return Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "retryable_error", retry_after_of(error))
        return _PERMANENT


class _FailureOn(_Chosen):
    __slots__ = ()

    def __call__(self, error: Exception) -> Verdict:
        if not matches(self.on, error) or (self.never is not None and matches(self.never, error)):
            return _ANSWERED
        verdict, hint = _failed(error), retry_after_of(error)
        return verdict if hint is None else replace(verdict, retry_after=hint)


def _failed(error: Exception) -> Verdict:
    """The verdict on an exception of which nothing else is known."""
    return _TIMED_OUT if isinstance(error, TimeoutError) else _UNCLASSIFIED


def _ask(judgement: Callable[[Any], Verdict | None], outcome: object) -> Verdict | None:
    try:
        verdict: object = judgement(outcome)
    except Exception:  # noqa: BLE001  a broken classifier must not hide the outcome of the callee
        return _CLASSIFIER_RAISED
    return verdict if verdict is None or isinstance(verdict, Verdict) else _UNKNOWN
