"""OpenTelemetry: a call as a tree of spans, the dependency's own inside of its attempts.

Run it: python examples/opentelemetry_spans.py
"""

import asyncio
import logging

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilient import CircuitBreaker, Pipeline, Retry, Timeout, listening
from resilient_integrations.opentelemetry import Tracing

logging.getLogger("resilient").setLevel(logging.ERROR)  # the spans show it

exporter = InMemorySpanExporter()  # in a program: an OTLP exporter in a BatchSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("example")

fails = iter([True, False])


async def query(user_id: int) -> str:
    """A dependency that traces itself."""
    with tracer.start_as_current_span("SELECT users", attributes={"user": user_id}):
        await asyncio.sleep(0.01)
        if next(fails):
            msg = "reset by peer"
            raise ConnectionError(msg)
        return "Ada"


def name_of(_user_id: int) -> str:
    """What is called: never an id."""
    return "users.Get"


def show(parent: int | None = None, depth: int = 0) -> None:
    """Print the spans inside of one, in the order of their beginning, with their events."""
    inside: list[ReadableSpan] = [
        span for span in exporter.get_finished_spans() if (span.parent.span_id if span.parent else None) == parent
    ]
    for span in sorted(inside, key=lambda each: each.start_time or 0):
        reason = (span.attributes or {}).get("resilience.reason", "")
        print(f"{'  ' * depth}{span.name}  {reason}")
        for event in span.events:
            if event.name.startswith("resilience."):
                print(f"{'  ' * depth}  · {event.name}")
        if span.context is not None:
            show(span.context.span_id, depth + 1)


async def main() -> None:
    """One call whose first attempt fails."""
    pipeline = Pipeline(
        Timeout(10),
        Retry(on=ConnectionError, backoff=[0.05]),
        CircuitBreaker(),
        key=name_of,
    )
    with listening(Tracing(provider)):  # in a program: add_listener(Tracing())
        await pipeline.call(query, 42)
    show()


asyncio.run(main())
