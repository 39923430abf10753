"""What the outcome of an attempt means: tables from exceptions and status codes to verdicts.

Whether an outcome may be tried again depends on what it is, on how far the request came (`evidence`), and on whether
the request is idempotent. What it tells about the health of the server is another question, with an answer of its own: a POST
that was lost is not sent again, and counts as a failure all the same. That a body can be sent again is checked elsewhere.

Both families, and the libraries below them, name their exceptions alike: the table of exceptions goes by name.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from resilient.outcome import Health, Kind, Verdict
from resilient_integrations._http.evidence import Evidence, Sent
from resilient_integrations._http.hints import retry_after, should_retry

if TYPE_CHECKING:
    from resilient_integrations._http.call import Sending

__all__ = ("FIRST_ERROR", "MISDIRECTED", "error_verdict", "response_verdict")

_CONFLICT: Final = 409
MISDIRECTED: Final = 421
_THROTTLED: Final = 429
_UNAVAILABLE: Final = 503
FIRST_ERROR: Final = 400
_FIRST_FAILURE: Final = 500

_IF_IDEMPOTENT: Final = frozenset({408, 500, 502, 503, 504})
_ALWAYS: Final = frozenset({MISDIRECTED, 425, _THROTTLED})
"""Refusals before anything was done: whatever the method, the request may be sent again."""

_NO_ERROR: Final = 0
_ENHANCE_YOUR_CALM: Final = 11
_HTTP_1_1_REQUIRED: Final = 13
_PROXY_MAY_RECOVER: Final = ("502", "503", "504")
_FINAL_FINDINGS: Final = frozenset({"certificate_error", "unknown_host", "malformed_response"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What the type of an exception says.

    Attributes:
        reason: the code of the verdict.
        sent: how far the request came, where there is no better evidence.
        health: what it tells about the server.
        final: trying again cannot help.

    """

    reason: str
    sent: Sent = Sent.MAYBE
    health: Health = Health.UNHEALTHY
    final: bool = False


def _local(reason: str) -> Rule:
    """Something went wrong on our side."""
    return Rule(reason, Sent.NOT_SENT, Health.NEUTRAL, final=True)


_RULES: Final = {
    "UnsupportedProtocol": _local("unsupported_protocol"),
    "InvalidURL": _local("invalid_url"),
    "LocalProtocolError": _local("local_protocol_error"),
    "StreamError": _local("body_not_replayable"),
    "PoolTimeout": _local("pool_timeout"),  # we are overloaded ourselves: another request would queue, too
    "ConnectTimeout": Rule("connect_timeout", Sent.NOT_SENT),
    "ConnectError": Rule("connect_error", Sent.NOT_SENT),
    "ProxyError": Rule("proxy_error", Sent.NOT_SENT, Health.NEUTRAL),
    "ReadTimeout": Rule("read_timeout"),
    "WriteTimeout": Rule("write_timeout"),
    "ReadError": Rule("read_error"),
    "WriteError": Rule("write_error"),
    "RemoteProtocolError": Rule("remote_protocol_error"),
    "TransportError": Rule("transport_error"),
}
_OS_ERROR: Final = Rule("os_error")
"""Of a transport that does not translate it."""


def error_verdict(error: Exception, evidence: Evidence, *, idempotent: bool) -> Verdict | None:
    """The verdict on an attempt that raised; None for exceptions that are not of HTTP."""
    rule = next((_RULES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _RULES), None)
    if rule is None:
        if not isinstance(error, OSError):
            return None
        rule = _OS_ERROR
    sent = evidence.sent or rule.sent
    if evidence.finding == "goaway":
        return _goaway(evidence, sent, idempotent=idempotent)
    reason, final = rule.reason, rule.final
    if evidence.finding == "stream_reset":
        reason = "refused_stream" if sent is Sent.REFUSED else "stream_reset"
        final = evidence.code == _HTTP_1_1_REQUIRED  # this connection will not do, and another one would be HTTP/2 as well
    elif evidence.finding in _FINAL_FINDINGS:
        reason, final = evidence.finding, True
    elif rule.reason == "proxy_error":
        final = not str(error).startswith(_PROXY_MAY_RECOVER)
    may_resend = not final and (idempotent or sent is not Sent.MAYBE)
    return Verdict(
        Kind.RETRYABLE if may_resend else Kind.PERMANENT,
        Health.NEUTRAL if evidence.by_proxy else rule.health,  # not the fault of the one who was called
        reason,
        throttled=evidence.finding == "stream_reset" and evidence.code == _ENHANCE_YOUR_CALM,
    )


def _goaway(evidence: Evidence, sent: Sent, *, idempotent: bool) -> Verdict:
    """A connection that the server ends. Without an error it is a matter of routine: go on at once, on another one."""
    may_resend = idempotent or sent is not Sent.MAYBE
    routine = evidence.code == _NO_ERROR
    return Verdict(
        Kind.RETRYABLE if may_resend else Kind.PERMANENT,
        Health.NEUTRAL if routine else Health.UNHEALTHY,
        "goaway",
        transparent=may_resend and routine,
    )


def response_verdict(response: Any, sending: "Sending") -> Verdict:
    """The verdict on a response with an error status."""
    status: int = response.status_code
    headers = response.headers
    hint = retry_after(headers)
    said = should_retry(headers)
    if said is None:
        may_resend = (
            (status in _ALWAYS and sending.misdirected <= 1)
            or (status in _IF_IDEMPOTENT and sending.idempotent)
            or (status == _CONFLICT and sending.keyed)
            or (status == _UNAVAILABLE and hint is not None and sending.engine.retry_503)
        )
    else:
        may_resend = said and (status in _ALWAYS or sending.idempotent)
    health = Health.UNHEALTHY if status >= _FIRST_FAILURE else Health.NEUTRAL if status == _THROTTLED else Health.HEALTHY
    return Verdict(
        Kind.RETRYABLE if may_resend else Kind.PERMANENT, health, f"http_{status}", hint, throttled=status == _THROTTLED
    )
