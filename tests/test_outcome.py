import asyncio
from typing import Any

import pytest

from resilient.errors import CircuitOpen, DeadlineExceeded, RateLimited, Rejected, RetryableError, TimeoutExceeded
from resilient.outcome import (
    CANCELLED,
    SUCCESS,
    Classifier,
    Health,
    Kind,
    Outcome,
    Verdict,
    checked_on,
    failure_on,
    judge,
    matches,
    own_word,
    retry_after_of,
    retry_on,
)

BUSY = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503")


class Speaks(Exception):
    def __init__(self, *, retryable: object = None, retry_after: object = None) -> None:
        self.retryable = retryable
        self.retry_after = retry_after


class Mute(Exception):
    @property
    def retryable(self) -> bool:
        raise RuntimeError("do not ask")


def is_rejection(error: Exception) -> bool:
    return isinstance(error, Rejected)


def is_full(error: Exception) -> bool:
    return "full" in str(error)


def is_never(_: Exception) -> bool:
    return False


def kind_and_reason(verdict: Verdict) -> tuple[Kind, str]:
    return verdict.kind, verdict.reason


def test_an_outcome_has_failed_where_it_is_an_exception() -> None:
    """A value of None is a value."""
    assert (Outcome(None).failed, Outcome(error=OSError()).failed) == (False, True)


# What a verdict is, whatever the classifier


@pytest.mark.parametrize("classifier", [None, Classifier(lambda _: BUSY), retry_on(Exception)])
@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_cancellation_is_no_question_for_a_classifier(classifier: Classifier | None, error: BaseException) -> None:
    """It aborts, and says nothing of the callee."""
    assert judge(classifier, error, error=True) == CANCELLED


def test_a_catch_all_does_not_match_cancellation_even_if_it_says_so() -> None:
    """`on=BaseException` is no way to retry a cancelled call."""
    assert judge(retry_on(BaseException), asyncio.CancelledError(), error=True).kind is Kind.ABORT


def test_the_deadline_of_the_caller_aborts() -> None:
    """Trying again cannot help who has no time left; another timeout is an error like others."""
    verdicts = [judge(retry_on(TimeoutError), error, error=True) for error in (DeadlineExceeded(1), TimeoutExceeded(1))]

    assert [kind_and_reason(verdict) for verdict in verdicts] == [(Kind.ABORT, "deadline"), (Kind.RETRYABLE, "retryable_error")]


@pytest.mark.parametrize("on", [Exception, (Exception,), BaseException, OSError])
def test_a_rejection_is_not_retried_by_default(on: Any) -> None:
    """A catch-all does not name it; its reason, its hint and that it was never sent are in the verdict."""
    verdict = judge(retry_on(on), CircuitOpen("breaker", 2.0), error=True)

    assert verdict == Verdict(Kind.PERMANENT, Health.NEUTRAL, "circuit_open", retry_after=2.0, rejected=True)


@pytest.mark.parametrize("on", [Rejected, RateLimited, (OSError, RateLimited), is_rejection])
def test_a_rejection_that_is_named_is_retried(on: Any) -> None:
    """It stays neutral for breakers."""
    verdict = judge(retry_on(on), RateLimited("limiter", 0.5), error=True)

    assert verdict == Verdict(Kind.RETRYABLE, Health.NEUTRAL, "rate_limited", retry_after=0.5, rejected=True)


def test_an_error_that_nobody_judges_is_permanent_and_unhealthy() -> None:
    """A breaker counts any exception; nobody retries it."""
    assert judge(None, OSError(), error=True) == Verdict(Kind.PERMANENT, Health.UNHEALTHY, "error")


@pytest.mark.parametrize("classifier", [None, Classifier(lambda _: BUSY), Classifier(lambda _: BUSY, lambda _: None)])
def test_a_value_that_nobody_judges_is_a_success(classifier: Classifier | None) -> None:
    """Also where a classifier has no opinion on it."""
    assert judge(classifier, 503, error=False) == SUCCESS


def test_a_classifier_of_values_judges_values() -> None:
    """A response may ask for a retry."""
    classifier = Classifier(lambda _: None, lambda status: BUSY if status == 503 else None)

    assert [judge(classifier, status, error=False) for status in (503, 200)] == [BUSY, SUCCESS]


@pytest.mark.parametrize("error", [True, False])
def test_a_classifier_that_raises_aborts(error: bool) -> None:  # noqa: FBT001  a parameter of the test
    """Nobody knows what the outcome means, so nothing is done about it."""

    def broken(_: object) -> Verdict:
        raise ZeroDivisionError

    verdict = judge(Classifier(broken, broken), OSError() if error else 1, error=error)

    assert (verdict.kind, verdict.health, verdict.reason) == (Kind.ABORT, Health.NEUTRAL, "classifier_raised")


@pytest.mark.parametrize("error", [True, False])
def test_what_is_no_verdict_aborts(error: bool) -> None:  # noqa: FBT001  as above
    """A classifier that returns True, say, is not understood."""
    wrong: Any = bool
    verdict = judge(Classifier(wrong, wrong), OSError() if error else 1, error=error)

    assert kind_and_reason(verdict) == (Kind.ABORT, "unknown_verdict")


def test_an_error_whose_own_word_cannot_be_heard_aborts() -> None:
    """A property that raises is treated as a classifier that raises: it does not replace the error."""
    verdicts = [judge(classifier, Mute(), error=True) for classifier in (None, retry_on(Exception))]

    assert [kind_and_reason(verdict) for verdict in verdicts] == [(Kind.ABORT, "classifier_raised")] * 2


# Errors that speak for themselves


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RetryableError("busy"), Kind.RETRYABLE),
        (Speaks(retryable=True), Kind.RETRYABLE),
        (Speaks(retryable=False), Kind.PERMANENT),
    ],
)
@pytest.mark.parametrize("classifier", [None, Classifier(lambda _: None), retry_on(OSError), retry_on(Exception)])
def test_an_error_with_an_opinion_is_heard_before_on(error: Exception, kind: Kind, classifier: Classifier | None) -> None:
    """`retryable: bool` beats `on`, and is heard where nobody else has an opinion."""
    assert judge(classifier, error, error=True).kind is kind


def test_never_beats_what_an_error_says_of_itself() -> None:
    """The user of the strategy has the last word."""
    verdict = judge(retry_on(Exception, never=RetryableError), RetryableError("busy"), error=True)

    assert verdict.kind is Kind.PERMANENT


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_only_a_bool_is_an_opinion(value: object) -> None:
    """An attribute that happens to have this name is none."""
    assert own_word(Speaks(retryable=value)) is None


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [(3, 3.0), (0.5, 0.5), (0, 0.0), (-1, None), (float("inf"), None), (float("nan"), None), ("3", None), (None, None)],
)
def test_a_hint_is_a_finite_number_of_seconds(hint: object, seconds: float | None) -> None:
    """Any other is as good as none."""
    error = Speaks(retryable=True, retry_after=hint)

    assert retry_after_of(error) == seconds
    assert judge(retry_on(OSError), error, error=True).retry_after == seconds


def test_an_error_matched_by_on_is_heard_about_when() -> None:
    """Its `retry_after` is used though it has no opinion on whether."""
    assert judge(retry_on(Speaks), Speaks(retry_after=7), error=True).retry_after == 7.0


# What `on` may be


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (OSError, True),
        ((ValueError, OSError), True),
        (is_full, True),
        (ValueError, False),
        ((), False),
        (is_never, False),
    ],
)
def test_on_is_a_type_or_several_or_a_predicate(on: Any, expected: bool) -> None:  # noqa: FBT001  as above
    """All are asked in one way."""
    assert matches(checked_on("on", on), OSError("disk full")) is expected


@pytest.mark.parametrize("on", [3, "OSError", int, (OSError, int), (OSError, "x"), [OSError]])
def test_what_is_no_exception_is_refused_at_construction(on: Any) -> None:
    """The message shows how to say it."""
    with pytest.raises(TypeError, match=r"never=.*: expected a type of exception, a tuple of them, or a predicate"):
        checked_on("never", on)


def test_a_breaker_learns_from_on_which_errors_are_failures() -> None:
    """The others are answers: the service is well."""
    classifier = failure_on(OSError, never=PermissionError)
    errors = [OSError(), PermissionError(), ValueError()]

    assert [judge(classifier, error, error=True).health for error in errors] == [
        Health.UNHEALTHY,
        Health.HEALTHY,
        Health.HEALTHY,
    ]


def test_a_breaker_hears_when_to_come_back() -> None:
    """The hint of a failure is kept."""
    assert judge(failure_on(Speaks), Speaks(retry_after=9), error=True).retry_after == 9.0


# How classifiers combine


def test_a_second_classifier_is_asked_where_the_first_has_no_opinion() -> None:
    """For errors and values alike; who has no part for values lets the other's decide."""
    first = Classifier(lambda error: BUSY if isinstance(error, OSError) else None, lambda value: BUSY if value == 1 else None)
    other = Verdict(Kind.PERMANENT, Health.HEALTHY, "mine")
    second = Classifier(lambda _: other, lambda _: other)
    no_values = Classifier(lambda _: None)

    both = first | second
    assert [judge(both, error, error=True) for error in (OSError(), ValueError())] == [BUSY, other]
    assert [judge(both, value, error=False) for value in (1, 2)] == [BUSY, other]
    assert judge(no_values | second, 1, error=False) == other
    assert judge(first | no_values, 1, error=False) == BUSY
    assert (no_values | no_values).values is None


def test_a_timeout_that_no_classifier_knows_has_a_reason_of_its_own() -> None:
    """`timeout` says more than `error`: it is what a log line of a fallback or a stopped retry shows."""
    verdict = judge(None, TimeoutExceeded(1.0), error=True)

    assert (verdict.kind, verdict.health, verdict.reason) == (Kind.PERMANENT, Health.UNHEALTHY, "timeout")
