"""The classifier of the pipeline: the user's own word first, then the tables.

Whatever they say, a request that cannot be sent again is not: its body was consumed, or the transport is closed.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from resilient.outcome import SUCCESS, Classifier, Kind, Verdict
from resilient_integrations._http.classify import FIRST_ERROR
from resilient_integrations._http.exchange import Exchange
from resilient_integrations._http.failure import Failure, failure_of
from resilient_integrations._http.quota import rate_hint

if TYPE_CHECKING:
    from resilient_integrations._http.call import Sending

__all__ = ("http_classifier",)


def http_classifier(own: Classifier | None, *, limits: bool = False) -> Classifier:
    """A classifier of exchanges and of exceptions that carry a verdict.

    `own`, of responses and exceptions, is asked first. They have their `request`, which the client gives them only later.
    Where somebody wants it, the verdict tells what the server says of its `limits`.
    """
    own_values = own.values if own is not None else None

    def errors(error: Exception) -> Verdict | None:
        failure = failure_of(error)
        verdict = None
        if own is not None:
            _give_request(error, failure)
            verdict = own.errors(error)
        if failure is None:
            return verdict
        return _unless_impossible(verdict or failure.verdict, failure.sending)

    def values(value: Any) -> Verdict | None:
        if not isinstance(value, Exchange):
            return None
        verdict = None
        if own_values is not None:
            value.response.request = value.sending.request
            verdict = own_values(value.response)
        if verdict is None and value.response.status_code < FIRST_ERROR:
            return SUCCESS
        return _unless_impossible(verdict or value.verdict(), value.sending)

    def values_and_limits(value: Any) -> Verdict | None:
        verdict = values(value)
        hint = rate_hint(value.response.headers) if isinstance(value, Exchange) else None
        return verdict if hint is None else replace(verdict or SUCCESS, limits=hint)

    return Classifier(errors, values_and_limits if limits else values)


def _give_request(error: Any, failure: Failure | None) -> None:
    if failure is not None and isinstance(error, failure.sending.engine.family.package.RequestError):
        error.request = failure.sending.request


def _unless_impossible(verdict: Verdict | None, sending: "Sending") -> Verdict | None:
    if verdict is None or not (verdict.kind is Kind.RETRYABLE or verdict.transparent):
        return verdict
    if not sending.can_resend:
        return replace(verdict, kind=Kind.PERMANENT, transparent=False)
    return verdict if sending.options.retry else replace(verdict, transparent=False)
