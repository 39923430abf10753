"""Spans of HTTP requests: beside OpenTelemetry's own instrumentation of httpx, and without it."""

from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest
import respx
from opentelemetry.instrumentation.httpx import (
    AsyncOpenTelemetryTransport,
    HTTPX2ClientInstrumentor,
    HTTPXClientInstrumentor,
)
from opentelemetry.trace import SpanKind

from integrations.families import POLICY, Family
from integrations.telemetry import Recorded, attributes_of, traceparent
from resilient import listening
from resilient_integrations.httpx import ResilientTransport
from resilient_integrations.opentelemetry import inject_trace, resend_count

pytestmark = pytest.mark.anyio

URL: Final = "https://api.example.com/users/42"
KEY: Final = "resilience https://api.example.com:443"
CALL: Final = [(KEY, "resilience attempt"), (KEY, "resilience attempt"), ("", KEY)]
"""The spans of a call with one retry, and their parents, where nothing else makes any."""


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    made = Recorded()
    with listening(made.tracing):
        yield made


@pytest.fixture
def instrumented(recorded: Recorded) -> Iterator[None]:
    """Both families are instrumented, in the whole process, with our hook."""
    instrumentors: list[Any] = [HTTPXClientInstrumentor(), HTTPX2ClientInstrumentor()]
    for each in instrumentors:
        each.instrument(tracer_provider=recorded.provider, async_request_hook=resend_count, skip_dep_check=True)
    yield
    for each in instrumentors:
        each.uninstrument()


@pytest.fixture
def server(family: Family) -> Iterator[Any]:
    """Below the real transport: a server that is busy for a request, and then answers."""
    core = "httpcore" if family.name == "httpx" else "httpcore2"
    mock: Any = respx.mock(using=core)
    with mock as router:
        yield router.get(URL).mock(side_effect=[httpx.Response(503), httpx.Response(200)])


async def test_without_instrumentation_each_attempt_is_a_span_of_ours(recorded: Recorded, family: Family) -> None:
    """With the reason of the one that failed: the status."""
    async with family.client(family.mock(503, 200)) as client:
        await client.get(URL)

    assert recorded.tree() == CALL
    assert [attributes_of(span)["resilience.reason"] for span in recorded.spans] == ["http_503", "success", "success"]
    assert attributes_of(recorded.spans[0])["error.type"] == "http_503"


@pytest.mark.usefixtures("instrumented", "server")
async def test_with_instrumentation_each_attempt_is_its_client_span(recorded: Recorded, family: Family) -> None:
    """Ours is the call around them. The second one says that it is a repetition."""
    async with family.client() as client:
        await client.get(URL)

    first, second, call = recorded.spans
    assert recorded.tree() == [(KEY, "GET"), (KEY, "GET"), ("", KEY)]
    assert [span.kind for span in recorded.spans] == [SpanKind.CLIENT, SpanKind.CLIENT, SpanKind.INTERNAL]
    assert "http.request.resend_count" not in attributes_of(first)
    assert attributes_of(second)["http.request.resend_count"] == 1
    assert attributes_of(call)["resilience.attempts"] == 2


@pytest.mark.usefixtures("instrumented")
async def test_each_attempt_names_its_own_span_to_the_server(recorded: Recorded, family: Family, server: Any) -> None:
    """The trace goes on there, from the span of the attempt."""
    async with family.client() as client:
        await client.get(URL)

    sent = [call.request.headers["traceparent"] for call in server.calls]
    assert sent == [traceparent(span) for span in recorded.spans[:2]]


@pytest.mark.usefixtures("instrumented", "server")
async def test_spans_of_attempts_can_be_had_beside(recorded: Recorded, family: Family) -> None:
    """Whoever asks for them gets both."""
    recorded.tracing._attempt_spans = True  # pyright: ignore[reportPrivateUsage]  instead of a second provider
    async with family.client() as client:
        await client.get(URL)

    assert recorded.tree()[:2] == [("resilience attempt", "GET"), (KEY, "resilience attempt")]


@pytest.mark.usefixtures("instrumented")
async def test_a_transport_that_nobody_instruments_has_spans_of_ours(recorded: Recorded, family: Family) -> None:
    """The instrumentation is of the real transports: one that plays the server has none."""
    async with family.client(family.mock(503, 200)) as client:
        await client.get(URL)

    assert recorded.tree() == CALL


async def test_a_transport_of_opentelemetry_inside_makes_the_spans_of_attempts(recorded: Recorded) -> None:
    """As the instrumentation of the whole process does."""
    answers = iter([503, 200])
    inner = AsyncOpenTelemetryTransport(
        httpx.MockTransport(lambda _: httpx.Response(next(answers))), tracer_provider=recorded.provider
    )
    async with httpx.AsyncClient(transport=ResilientTransport(inner, policy=POLICY)) as client:
        await client.get(URL)

    assert recorded.tree() == [(KEY, "GET"), (KEY, "GET"), ("", KEY)]


async def test_a_client_that_is_instrumented_by_itself_is_one_span_around(recorded: Recorded) -> None:
    """It goes outside of us, so the attempts are ours to show."""
    answers = iter([503, 200])
    inner = httpx.MockTransport(lambda _: httpx.Response(next(answers)))
    async with httpx.AsyncClient(transport=ResilientTransport(inner, policy=POLICY)) as client:
        HTTPXClientInstrumentor.instrument_client(client, tracer_provider=recorded.provider)
        await client.get(URL)

    assert recorded.tree() == [*CALL[:2], ("GET", KEY), ("", "GET")]


async def test_a_transport_writes_the_trace_into_each_request(recorded: Recorded, family: Family) -> None:
    """Where there is no instrumentation that does it."""
    inner = family.mock(503, 200)
    async with family.client(inner, before_attempt=inject_trace) as client:
        await client.get(URL)

    assert [request.headers["traceparent"] for request in inner.requests] == [traceparent(span) for span in recorded.spans[:2]]


async def test_nothing_of_a_query_or_an_error_is_in_a_span(recorded: Recorded, family: Family) -> None:
    """Neither in names nor in attributes nor in events."""
    inner = family.mock(family.lib.ConnectError("secret"), 200)
    async with family.client(inner, attempt_timeout=1.0) as client:
        await client.get(URL + "?token=secret", headers={"Authorization": "secret"})

    assert "secret" not in "".join(span.to_json() for span in recorded.spans)
