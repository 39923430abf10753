"""HTTP outcomes outside of the transport: the classifier `"http"` of policies.

It judges what a client of either family returns or raises, by the tables of the transport: a response by its status, an
exception of `raise_for_status()` by that of its response, one of the connection by its type. How far a request came is not
known here, so that only those that certainly never left are sent again whatever their method. What is not of HTTP it has no
opinion on.
"""

from typing import Any, Final

from resilient.errors import Rejected
from resilient.outcome import SUCCESS, Classifier, Verdict
from resilient_integrations._http.call import IDEMPOTENT, KEY_HEADERS
from resilient_integrations._http.classify import FIRST_ERROR, error_verdict, response_verdict
from resilient_integrations._http.evidence import Evidence

__all__ = ("HTTP",)


class _Request:
    """What the tables ask of a request, where no transport sends it."""

    misdirected = 1
    retry_503 = False

    def __init__(self, outcome: Any) -> None:
        request = _of(outcome, "request")
        headers = getattr(request, "headers", None) or ()
        self.engine = self
        self.keyed = any(name in headers for name in KEY_HEADERS)
        self.idempotent = self.keyed or str(getattr(request, "method", "")).upper() in IDEMPOTENT


def _values(value: Any) -> Verdict | None:
    status = getattr(value, "status_code", None)
    if not isinstance(status, int) or not hasattr(value, "headers"):
        return None
    return SUCCESS if status < FIRST_ERROR else response_verdict(value, _Request(value))  # type: ignore[arg-type]  # all that is asked


def _errors(error: Exception) -> Verdict | None:
    if isinstance(error, Rejected):
        return None  # those of the transport are of the client's family too
    response = _of(error, "response")
    if response is not None and (verdict := _values(response)) is not None:
        return verdict
    if not hasattr(type(error), "request"):
        return None
    return error_verdict(error, Evidence(None), idempotent=_Request(error).idempotent)


def _of(outcome: Any, name: str) -> Any:
    """An attribute that some clients raise on where it was not set."""
    try:
        return getattr(outcome, name, None)
    except RuntimeError:
        return None


HTTP: Final = Classifier(_errors, _values)
