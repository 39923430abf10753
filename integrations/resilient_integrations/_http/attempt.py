"""One attempt: a copy of the request goes out, an exchange comes back, or an exception with a verdict on it.

Time limits that cut are cancel scopes around the attempt, never smaller read or write timeouts: over HTTP/2 those would end
every other request on the same connection. Only the time to get a connection is shortened, which is nobody else's affair.
"""

import inspect
import math
import sys
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import anyio

from resilient import clock
from resilient.context import Attempt, current_attempt
from resilient.errors import DeadlineExceeded, TimeoutExceeded
from resilient.observe.events import TimedOut
from resilient.outcome import Health, Kind, Verdict
from resilient_integrations._http.bodies import OneShotBody
from resilient_integrations._http.call import Sending
from resilient_integrations._http.classify import MISDIRECTED, error_verdict
from resilient_integrations._http.defects import as_it_should_be
from resilient_integrations._http.evidence import Evidence, Sent, Trace, examine, let_go
from resilient_integrations._http.exchange import Exchange
from resilient_integrations._http.failure import CUT, cut_off, remember
from resilient_integrations._http.options import seconds_of

__all__ = ("RESENDS", "send")

RESENDS: Final = "resilient.resend_count"
"""The key in the `extensions` of each copy: how many requests of the same call were sent before it."""

_HOOK_RAISED: Final = Verdict(Kind.PERMANENT, Health.NEUTRAL, "before_attempt_raised")
_MARGIN: Final = 0.05
"""Seconds, a tenth of the limit at most: so much before an attempt is cut each wait for its connection ends, as the timeout that
it is. A TLS handshake that is cancelled instead leaves its socket to the garbage collector: httpcore does not close it then."""


async def send(sending: Sending) -> Exchange:
    """Send the request once: the callee of the pipeline."""
    attempt, request = current_attempt(), sending.request
    if sending.transport.closed:
        sending.transport.check_open()
    outer = sys.exception()
    trace = Trace(request.method, request.extensions.get("trace"))
    copy = _copy(sending, trace)
    sending.attempts += 1
    sending.sends += 1
    if attempt.kind == "retry":
        sending.retries += 1
    if sending.engine.before_attempt is not None:
        await _prepare(sending, copy, attempt)
    response: Any = None
    is_limited = sending.options.attempt_timeout is not None or sending.cut < math.inf
    seconds, is_total = _time_for(sending) if is_limited else (math.inf, False)
    try:
        if not is_limited:
            response = await _deliver(sending, attempt, copy)
        else:
            response = await _in_time(sending, attempt, copy, seconds)
    except Exception as error:
        shown = as_it_should_be(error, sending.engine.family.package, request, written=trace.written)
        remember(shown, sending, error_verdict(shown, examine(error, trace, outer), idempotent=sending.idempotent))
        let_go(error, trace, outer)
        if shown is not error:
            raise shown from error
        raise
    finally:
        if isinstance(request.stream, OneShotBody):
            await _finish(sending, response)
    if response is None:
        raise _cut_off(sending, attempt, trace, is_total=is_total)
    if response.status_code == MISDIRECTED:
        sending.misdirected += 1
    return Exchange(response, sending)


async def _finish(sending: Sending, response: Any) -> None:
    """End the body of the request. Where that fails or is cancelled nobody gets the response: it is closed."""
    try:
        await sending.request.stream.finish()
    except BaseException:
        if response is not None:
            await Exchange(response, sending).discard()
        raise


def _copy(sending: Sending, trace: Trace) -> Any:
    """The request for one attempt: what a transport or an instrumentation changes in it does not reach the next one.

    It is made by hand: `copy.copy` goes the way of pickle, and loses the body.
    """
    request = sending.request
    headers = sending.engine.family.headers(request.headers)
    if sending.made_key is not None:
        headers["Idempotency-Key"] = sending.made_key
    extensions = {**request.extensions, "trace": trace.hear, RESENDS: sending.sends}
    attributes = request.__dict__.copy()
    attributes["headers"] = headers
    attributes["extensions"] = extensions
    copy: Any = object.__new__(request.__class__)
    copy.__dict__ = attributes
    return copy


async def _prepare(sending: Sending, copy: Any, attempt: Attempt) -> None:
    try:
        done = sending.engine.before_attempt(copy, attempt.number)  # type: ignore[misc]  # the caller has checked that there is one
        if inspect.isawaitable(done):
            await done
    except Exception as error:
        remember(error, sending, _HOOK_RAISED)
        raise


def _time_for(sending: Sending) -> tuple[float, bool]:
    """Seconds that the attempt may take, and whether it is the limit for everything that says so.

    Raises:
        DeadlineExceeded: nothing is left.

    """
    each, cut = seconds_of(sending.options.attempt_timeout), sending.cut
    if cut == math.inf:
        return each, False
    left = cut - clock.now()
    if left <= 0:
        raise DeadlineExceeded(sending.total)
    return min(each, left), left <= each


def _deliver(sending: Sending, attempt: Attempt, copy: Any) -> Awaitable[Any]:
    """Hand the request to the transport inside, or to the chaos that plays it."""
    deliver, chaos = sending.transport.inner.handle_async_request, sending.engine.chaos
    delivered: Awaitable[Any] = deliver(copy) if chaos is None else chaos.run(lambda _: deliver(copy), attempt)
    return delivered


async def _in_time(sending: Sending, attempt: Attempt, copy: Any, seconds: float) -> Any:
    """The response, or None where it did not come in time."""
    copy.extensions["timeout"] = _shortened(copy.extensions.get("timeout") or {}, seconds)
    with anyio.CancelScope(deadline=anyio.current_time() + seconds):
        return await _deliver(sending, attempt, copy)
    return None


def _shortened(timeouts: Mapping[str, float | None], seconds: float) -> dict[str, float | None]:
    """The family's own timeouts, where a connection cannot be waited for longer than the attempt may take."""
    most = seconds - min(_MARGIN, seconds / 10)
    connect, pool = timeouts.get("connect"), timeouts.get("pool")
    return {
        **timeouts,
        "connect": most if connect is None else min(connect, most),
        "pool": most if pool is None else min(pool, most),
    }


def _cut_off(sending: Sending, attempt: Attempt, trace: Trace, *, is_total: bool) -> TimeoutExceeded:
    """The exception for an attempt that took too long: of the phase in which it was, by the evidence."""
    options, package = sending.options, sending.engine.family.package
    limit = options.timeout if is_total else options.attempt_timeout
    seconds = sending.total if is_total else seconds_of(limit)
    sent, base = Sent.MAYBE, package.ReadTimeout
    if trace.seen and not trace.written:
        sent, base = Sent.NOT_SENT, package.ConnectTimeout
    elif not trace.seen and hasattr(sending.transport.inner, "_pool"):  # it tells what it does as soon as it has a connection
        sent, base = Sent.NOT_SENT, package.PoolTimeout
    error = cut_off(sending, limit, seconds, base)
    by_tables = error_verdict(error, Evidence(sent), idempotent=sending.idempotent)
    remember(error, sending, CUT if is_total else by_tables)
    attempt.notify(TimedOut(at=clock.now(), key=attempt.key, call_id=attempt.identify(), seconds=seconds))
    return error
