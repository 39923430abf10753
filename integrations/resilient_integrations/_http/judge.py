"""The classifier of the pipeline: the user's own word first, then the tables.

Whatever they say, a request that cannot be sent again is not: its body was consumed, or the transport is closed.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from resilient.outcome import SUCCESS, Classifier, Kind, Verdict
from resilient_integrations._http.classify import FIRST_ERROR
from resilient_integrations._http.exchange import Exchange
from resilient_integrations._http.failure import failure_of

if TYPE_CHECKING:
    from resilient_integrations._http.call import Sending

__all__ = ("http_classifier",)


def http_classifier(own: Classifier | None) -> Classifier:
    """A classifier of exchanges and of exceptions that carry a verdict. `own`, of responses and exceptions, is asked first."""
    own_values = own.values if own is not None else None

    def errors(error: Exception) -> Verdict | None:
        verdict = own.errors(error) if own is not None else None
        failure = failure_of(error)
        if failure is None:
            return verdict
        return _unless_impossible(verdict or failure.verdict, failure.sending)

    def values(value: Any) -> Verdict | None:
        if not isinstance(value, Exchange):
            return None
        verdict = own_values(value.response) if own_values is not None else None
        if verdict is None and value.response.status_code < FIRST_ERROR:
            return SUCCESS
        return _unless_impossible(verdict or value.verdict(), value.sending)

    return Classifier(errors, values)


def _unless_impossible(verdict: Verdict | None, sending: "Sending") -> Verdict | None:
    if verdict is None or not (verdict.kind is Kind.RETRYABLE or verdict.transparent):
        return verdict
    if not sending.can_resend:
        return replace(verdict, kind=Kind.PERMANENT, transparent=False)
    return verdict if sending.options.retry else replace(verdict, transparent=False)
