"""Telemetry: what it costs over the same call that nobody listens to. Nearly all of that is the SDK's."""

from collections.abc import Iterable

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import CollectorRegistry

from benchmarks.harness import Case, Group, Run, called, fn
from resilient import CircuitBreaker, Listener, Pipeline, Retry, listening
from resilient_integrations import opentelemetry, prometheus

SILENT = "resilient retry, breaker: nobody listens"


def own() -> Iterable[Case]:
    pipeline = Pipeline(Retry(on=OSError), CircuitBreaker())
    silent = called(SILENT, lambda value: pipeline.call(fn, value), ours=True)

    def heard(name: str, listener: Listener) -> Case:
        return Case(f"resilient: {name}", _heard(silent.run, listener), ours=True)

    yield silent
    yield heard("a listener that does nothing", lambda _: None)
    yield heard("prometheus.Metrics", prometheus.Metrics(CollectorRegistry()))
    yield heard("opentelemetry.Metrics", opentelemetry.Metrics(MeterProvider([InMemoryMetricReader()])))
    yield heard("opentelemetry.Tracing, not sampled", opentelemetry.Tracing(TracerProvider(sampler=ALWAYS_OFF)))
    yield heard("opentelemetry.Tracing, spans of calls only", opentelemetry.Tracing(TracerProvider(), attempt_spans=False))
    yield heard("opentelemetry.Tracing", opentelemetry.Tracing(TracerProvider()))


def _heard(run: Run, listener: Listener) -> Run:
    async def heard(n: int) -> None:
        with listening(listener):
            await run(n)

    return heard


GROUPS = [Group("telemetry", "Telemetry: over the same call that nobody listens to", own, base=SILENT)]
