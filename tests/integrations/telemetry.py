"""What the tests of telemetry share: a provider of spans that exports to memory."""

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from resilient_integrations.opentelemetry import Tracing

__all__ = ("Recorded", "attributes_of", "context_of", "traceparent")


class Recorded:
    """A provider of spans, and what it has exported."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(self.provider)
        self.tracer = self.provider.get_tracer("test")

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """What has ended, in that order."""
        return self.exporter.get_finished_spans()

    def the(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def tree(self) -> list[tuple[str, str]]:
        """Each span, and its parent, by name."""
        names = {span.context.span_id: span.name for span in self.spans if span.context}
        return [(names[span.parent.span_id] if span.parent else "", span.name) for span in self.spans]


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> SpanContext:
    """Its ids."""
    context = span.get_span_context()
    assert context is not None
    return context


def traceparent(span: ReadableSpan) -> str:
    """The header of W3C by which a request names the span."""
    context = context_of(span)
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
