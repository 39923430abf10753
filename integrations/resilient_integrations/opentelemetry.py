"""Spans, metrics, trace context and trace ids for OpenTelemetry.

    add_listener(Tracing())     # a span for each call, and one for each attempt where nothing else makes one
    add_listener(Metrics())     # counters, histograms, gauges
    HTTPXClientInstrumentor().instrument(async_request_hook=resend_count)

`Tracing` goes along with each call: its spans are current while the callee runs, so that what the callee traces are their
children. No span, no event and no metric holds the message of an exception, a query, a header or a body. Needs the extra
`opentelemetry`.

All mutable state: the spans of the calls that run, and what is known of a call before its span begins.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Iterable, Mapping, MutableMapping
from typing import Any, Final

from resilient import Attempt, Event, Kind, LiveListener, Verdict
from resilient.observe.events import AttemptFinished, CallFinished, CallStarted
from resilient.observe.text import safe_text
from resilient_integrations._telemetry.instruments import BUCKETS, INSTRUMENTS, Instrument
from resilient_integrations._telemetry.levels import Level
from resilient_integrations._telemetry.recorder import Recorder, outcome_of

try:
    from opentelemetry import context, metrics, propagate, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, Status, StatusCode, TracerProvider
except ModuleNotFoundError as error:
    _MISSING: Final = "spans and metrics need OpenTelemetry: pip install 'resilient-anyio[opentelemetry]'"
    raise ModuleNotFoundError(_MISSING, name=error.name) from error

__all__ = ("Metrics", "Tracing", "add_trace_ids", "continue_trace", "inject_trace", "resend_count")

_SCOPE: Final = "resilient"
_RESENDS: Final = "resilient.resend_count"
"""The key in a request's `extensions` by which the transport tells how many were sent before it."""

Attributes = dict[str, Any]


class Tracing(LiveListener):
    """Makes spans of calls and attempts.

    A call is an INTERNAL span `resilience <key>`, its attempts are children of it, named `resilience attempt`. What strategies
    decide (retries, hedges, refusals, changes of state, ...) are events of the call's span, or of the span that is current where
    that has none: a gate that is used by hand, or a loop `async for attempt in retry`.

    Args:
        tracer_provider: who makes the spans (default: the global one).
        attempt_spans: whether attempts have spans. None (the default): all but those that are sent by an HTTP transport which
            makes a span for each request by itself, because OpenTelemetry's instrumentation of httpx is active.

    A span ends when its call returns; the body of a streamed response is read later.

    """

    def __init__(self, tracer_provider: TracerProvider | None = None, *, attempt_spans: bool | None = None) -> None:
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._attempt_spans = attempt_spans
        self._spans: dict[int, Span] = {}
        self._facts: dict[int, Attributes] = {}

    # What runs

    def on_call_begins(self, attempt: Attempt) -> Callable[[CallFinished], None]:
        call_id = attempt.call_id
        span = self._tracer.start_span(_name(attempt.key), attributes=self._facts.pop(call_id, None))
        self._spans[call_id] = span
        leave = _enter(span)

        def ended(event: CallFinished) -> None:
            leave()
            self._spans.pop(call_id, None)
            if span.is_recording():
                _describe_call(span, event)
            span.end()

        return ended

    def on_attempt_begins(self, attempt: Attempt) -> Callable[[AttemptFinished], None] | None:
        call, wanted = self._spans.get(attempt.call_id), self._attempt_spans
        if wanted is False or (wanted is None and _is_instrumented(attempt)):
            return None
        if call is not None and not call.is_recording():
            return None  # it is not sampled, so nothing inside of it is
        span = self._tracer.start_span("resilience attempt")
        leave = _enter(span)

        def ended(event: AttemptFinished) -> None:
            leave()
            if span.is_recording():
                _describe_attempt(span, event)
            span.end()

        return ended

    # What happens meanwhile

    def on_call_started(self, event: CallStarted) -> None:
        self._facts[event.call_id] = {
            f"resilience.{name}": text for name, text in event.attributes.items()
        }  # it begins in a moment

    def on_event(self, event: Event) -> None:
        span = self._spans.get(event.call_id) or trace.get_current_span()
        if span.is_recording():
            span.add_event(f"resilience.{event.name}", _attributes(event))

    def on_attempt_finished(self, event: Event) -> None:
        """Nothing: what is no decision about this call, or is the end of a span, is no event of its span."""

    on_budget_decision = on_call_finished = on_limit_changed = on_rejections_ended = on_attempt_finished
    on_policy_applied = on_policy_reloaded = on_policy_refused = on_policy_unavailable = on_attempt_finished


def _name(key: str | None) -> str:
    return "resilience call" if key is None else f"resilience {safe_text(key)}"


def _enter(span: Span) -> Callable[[], None]:
    """Make a span the current one; gives what puts the one before it back."""
    return functools.partial(context.detach, context.attach(trace.set_span_in_context(span)))


def _is_instrumented(attempt: Attempt) -> bool:
    """Whether the transport that sends this attempt makes a span by itself."""
    sending: Any = attempt.args[0] if attempt.args else None
    if not type(sending).__module__.startswith("resilient_integrations._http."):
        return False
    inner = sending.transport.inner
    return hasattr(inner.handle_async_request, "__wrapped__") or type(inner).__module__.startswith("opentelemetry.")


def _describe_call(span: Span, event: CallFinished) -> None:
    outcome = outcome_of(event)
    span.update_name(_name(event.key))  # a pipeline finds the key only when the call has begun
    span.set_attributes(
        _filled(
            {
                "resilience.key": event.key and safe_text(event.key),
                "resilience.outcome": outcome,
                "resilience.reason": event.reason,
                "resilience.attempts": event.attempts,
            }
        )
    )
    if outcome == "failure":
        _fail(span, event.error, event.reason)


def _describe_attempt(span: Span, event: AttemptFinished) -> None:
    verdict = event.verdict
    span.set_attributes(
        _filled(
            {
                "resilience.key": event.key and safe_text(event.key),
                "resilience.attempt.number": event.number,
                "resilience.attempt.kind": event.kind,
                "resilience.attempt.hedge": event.hedge or None,
                "resilience.reason": verdict.reason,
                "resilience.health": verdict.health.value,
            }
        )
    )
    if verdict.kind is not Kind.SUCCESS and verdict.reason != "cancelled":
        _fail(span, event.error, verdict.reason)


def _fail(span: Span, error: str, reason: str) -> None:
    span.set_attribute("error.type", safe_text(error) or reason)
    span.set_status(Status(StatusCode.ERROR, reason))


def _attributes(event: Event) -> Attributes:
    """What an event says, as attributes."""
    told: Attributes = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if field.name in {"at", "call_id"}:
            continue
        if isinstance(value, Verdict):
            told["resilience.reason"] = value.reason
        elif value is None or isinstance(value, str | float | int):
            told["error.type" if field.name == "error" else f"resilience.{field.name}"] = value
    return _filled(told)


def _filled(attributes: Attributes) -> Attributes:
    """Those that have something to say, made safe."""
    return {
        name: safe_text(value) if isinstance(value, str) else value
        for name, value in attributes.items()
        if value is not None and value != ""
    }


class Metrics(Recorder):
    """A listener that counts for OpenTelemetry; its gauges are read whenever a reader collects.

    Args:
        meter_provider: who makes the instruments (default: the global one).
        max_keys: how many keys are attributes of their own, at least 1 (default 200); all others share `(others)`, and have no
            gauges.

    Raises:
        TypeError, ValueError: an argument is out of its range.

    """

    def __init__(self, meter_provider: MeterProvider | None = None, *, max_keys: int = 200) -> None:
        super().__init__(max_keys)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._shown: list[Level] = []
        self._readers: set[Instrument] = set()  # the gauges that have had what was read last
        self._add_to: dict[Instrument, Callable[..., None]] = {}
        self._record_in: dict[Instrument, Callable[..., None]] = {}
        for each in INSTRUMENTS:
            name = f"resilience.{each.name}"
            if each.kind == "counter":
                self._add_to[each] = meter.create_counter(name, each.unit, each.text).add
            elif each.kind == "histogram":
                histogram = meter.create_histogram(name, each.unit, each.text, explicit_bucket_boundaries_advisory=BUCKETS)
                self._record_in[each] = histogram.record
            else:
                self._readers.add(each)
                meter.create_observable_gauge(name, [functools.partial(self._observe, each)], each.unit, each.text)

    def _add(self, instrument: Instrument, labels: tuple[str, ...]) -> None:
        self._add_to[instrument](1, _labels(instrument, labels))

    def _record(self, instrument: Instrument, value: float, labels: tuple[str, ...]) -> None:
        self._record_in[instrument](value, _labels(instrument, labels))

    def _observe(self, instrument: Instrument, _options: CallbackOptions) -> Iterable[Observation]:
        """What a gauge shows. The gauges of one collection share one reading: each is given it once."""
        if instrument in self._readers:
            self._shown = self._read()
            self._readers.clear()
        self._readers.add(instrument)
        return [Observation(value, _labels(instrument, labels)) for each, value, labels in self._shown if each is instrument]


@functools.cache  # there are few, and each event asks
def _labels(instrument: Instrument, values: tuple[str, ...]) -> Mapping[str, str]:
    return {f"resilience.{label}": value for label, value in zip(instrument.labels, values, strict=True) if value}


async def resend_count(span: Span, request: Any) -> None:
    """The hook that tells repeated requests: `HTTPXClientInstrumentor().instrument(async_request_hook=resend_count)`.

    It sets `http.request.resend_count` on the span of each request that the resilient transport sends again.
    """
    extensions: Mapping[str, Any] = request.extensions or {}
    count = extensions.get(_RESENDS)
    if count:
        span.set_attribute("http.request.resend_count", count)


def inject_trace(request: Any, _number: int = 1) -> None:
    """Write the current trace context and baggage into the headers of a request.

    For clients whose requests no instrumentation traces: `ResilientTransport(before_attempt=inject_trace)`. Which headers are
    written is OpenTelemetry's global setting: the `traceparent`, `tracestate` and `baggage` of W3C, if nobody says otherwise.
    Each attempt names its own span.
    """
    propagate.inject(request.headers)


@contextlib.contextmanager
def continue_trace(headers: Mapping[str, str]) -> Generator[None]:
    """A block that goes on with the trace and the baggage which the headers of a request or a message name."""
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def add_trace_ids(_logger: Any, _method: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: `trace_id` and `span_id` of the current span, in hexadecimal, into each line."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event_dict["trace_id"] = trace.format_trace_id(span.trace_id)
        event_dict["span_id"] = trace.format_span_id(span.span_id)
    return event_dict
