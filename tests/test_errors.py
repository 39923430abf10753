import copy
import pickle
from collections.abc import Callable

import pytest

from resilient import errors
from resilient.errors import (
    BudgetDenied,
    BulkheadFull,
    CircuitOpen,
    DeadlineExceeded,
    InvalidPolicy,
    NoClassifier,
    NoPolicy,
    PolicyNotFound,
    Problem,
    ProviderError,
    RateLimited,
    Rejected,
    ResilienceError,
    RetryableError,
    Throttled,
    TimeoutExceeded,
)

SAMPLES = [
    Rejected("mine", 1.5),
    CircuitOpen("breaker", 2.0, "half_open", 7),
    BulkheadFull("bulkhead", None, 10, 5, 1.25),
    RateLimited("limiter", 0.1),
    Throttled("throttle", None, 0.75),
    TimeoutExceeded(2.0),
    DeadlineExceeded(3.0),
    RetryableError("busy", 4.0),
    NoPolicy("resilience"),
    NoPolicy("resilience", None, "provider_unavailable"),
    NoClassifier("resilience", None, "mine"),
    BudgetDenied("resilience", None, "shared"),
    ProviderError("svc.Get", "no answer", "policy_fetch_failed"),
    ProviderError(),
    PolicyNotFound("svc.Get"),
    InvalidPolicy((Problem(("retry", "attempts"), "too many"),)),
    InvalidPolicy((Problem(("hosts", 0), "wrong"), Problem((), "empty"))),
]


def pickled(error: ResilienceError) -> ResilienceError:
    other: ResilienceError = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    return other


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy])
def test_an_error_survives_being_pickled_and_copied(
    error: ResilienceError, again: Callable[[ResilienceError], ResilienceError]
) -> None:
    """Its data, its message and its notes are the same, so it can cross a process."""
    error.__notes__ = ["a note"]
    other = again(error)

    assert (type(other), vars(other), str(other)) == (type(error), vars(error), str(error))


def test_an_error_made_with_keywords_survives_being_pickled() -> None:
    """The arguments that are no positional ones travel with its attributes."""
    error = CircuitOpen("breaker", retry_after=1.0, state="isolated")

    assert vars(pickled(error)) == vars(error)


def test_every_error_is_a_resilience_error() -> None:
    """One `except` clause catches all that this library raises on its own account."""
    raised = [getattr(errors, name) for name in errors.__all__]

    assert all(issubclass(kind, ResilienceError) for kind in raised)


def test_a_timeout_is_a_timeout_error_and_no_rejection() -> None:
    """The callee was called: nobody may conclude that nothing was sent."""
    assert issubclass(TimeoutExceeded, TimeoutError)
    assert not issubclass(TimeoutExceeded, Rejected)


def test_every_reason_is_a_code_of_its_own() -> None:
    """Reasons are told apart in logs and metrics."""
    kinds: list[type[Rejected | TimeoutExceeded]] = [
        Rejected,
        CircuitOpen,
        BulkheadFull,
        RateLimited,
        TimeoutExceeded,
        DeadlineExceeded,
    ]

    assert [kind.reason for kind in kinds] == ["rejected", "circuit_open", "bulkhead_full", "rate_limited", "timeout", "deadline"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Rejected(), "Rejected: the call was refused and not sent"),
        (Rejected("mine", 1.5), "mine: the call was refused and not sent; ask again in 1.5 s"),
        (CircuitOpen("breaker", 2.0), "breaker: the circuit is open, the call was not sent; ask again in 2 s"),
        (CircuitOpen("breaker", 2.0, "half_open"), "its probes are out, the call was not sent; ask again in 2 s"),
        (CircuitOpen("breaker", None, "isolated"), "isolated by hand, the call was not sent; close() or reset() it"),
        (BulkheadFull("bulkhead", None, 10, 5), "all 10 permits are out and 5 callers wait, the call was not sent"),
        (BulkheadFull("bulkhead", None, 10, 5, 1.25), "the call was not sent after a wait of 1.25 s"),
        (RateLimited("limiter", 0.1), "limiter: the rate limit is reached, the call was not sent; ask again in 0.1 s"),
        (TimeoutExceeded(2.0), "the call did not finish within 2 s"),
        (DeadlineExceeded(3.0), "the deadline of 3 s has passed"),
        (RetryableError("busy", 4.0), "busy"),
    ],
    ids=str,
)
def test_a_message_says_what_happened_and_what_to_do(error: ResilienceError, message: str) -> None:
    """It is made from the data of the error when somebody reads it."""
    assert message in str(error)


def test_a_rejection_names_the_key_of_the_call() -> None:
    """The guard fills it in."""
    error = RateLimited("limiter", 0.1)
    error.key = "user-service"

    assert str(error).startswith("limiter for 'user-service': ")
