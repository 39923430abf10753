"""Spans of calls and attempts, live, and what is told in them; trace ids in log lines; trace context over the wire."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
import structlog
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import LogCapture

from helpers import RETRY, SECOND, Fatal, Script, cancelled_after
from integrations.telemetry import Recorded, attributes_of, context_of
from resilient import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Event,
    Fallback,
    Hedge,
    Pipeline,
    Policy,
    Resilience,
    Retry,
    RetryBudget,
    Timeout,
    TimeoutExceeded,
    listening,
)
from resilient_integrations.opentelemetry import Tracing, add_trace_ids, continue_trace

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Spans of the calls of the test, exported to memory."""
    made = Recorded()
    before = context.get_current()
    with listening(made.tracing):
        yield made

    assert context.get_current() == before
    assert not made.tracing._spans  # pyright: ignore[reportPrivateUsage]  a leak is not seen from outside
    assert not made.tracing._facts  # pyright: ignore[reportPrivateUsage]  see above


def events_of(span: ReadableSpan) -> list[tuple[str, Mapping[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


async def test_a_call_is_a_span_and_each_attempt_a_child(recorded: Recorded) -> None:
    """Both are INTERNAL; the attempts say their number and kind, and the failed one why."""
    pipeline = Pipeline(Retry(on=ConnectionError, backoff=SECOND), key=lambda: "users")
    await pipeline.call(Script(ConnectionError("secret"), "value"))

    assert recorded.tree() == [("resilience users", "resilience attempt")] * 2 + [("", "resilience users")]
    assert {span.kind for span in recorded.spans} == {SpanKind.INTERNAL}
    first, second, call = recorded.spans
    assert attributes_of(first) == {
        "resilience.key": "users",
        "resilience.attempt.number": 1,
        "resilience.attempt.kind": "original",
        "resilience.reason": "retryable_error",
        "resilience.health": "unhealthy",
        "error.type": "ConnectionError",
    }
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "retryable_error")
    assert (attributes_of(second)["resilience.attempt.number"], attributes_of(second)["resilience.attempt.kind"]) == (2, "retry")
    assert second.status.status_code is StatusCode.UNSET
    assert attributes_of(call) == {
        "resilience.key": "users",
        "resilience.outcome": "success",
        "resilience.reason": "success",
        "resilience.attempts": 2,
    }
    assert call.status.status_code is StatusCode.UNSET


async def test_what_the_callee_traces_is_inside_of_its_attempt(recorded: Recorded) -> None:
    """The span of the attempt is the current one while it runs, and the caller's is their parent."""

    async def query() -> None:
        with recorded.tracer.start_as_current_span("SELECT"):
            await anyio.sleep(1)

    with recorded.tracer.start_as_current_span("handler"):
        await RETRY.call(query)

    assert recorded.tree() == [
        ("resilience attempt", "SELECT"),
        ("resilience call", "resilience attempt"),
        ("handler", "resilience call"),
        ("", "handler"),
    ]


async def test_a_retry_is_an_event_of_the_span_of_its_call(recorded: Recorded) -> None:
    """It has the fields of the log line, and no message of an exception."""
    await Retry(on=ConnectionError, backoff=SECOND, budget=RetryBudget()).call(Script(ConnectionError("secret"), "value"))

    ((name, attributes),) = events_of(recorded.spans[-1])
    assert name == "resilience.retry_scheduled"
    assert attributes["resilience.number"] == 1
    assert attributes["resilience.reason"] == "retryable_error"
    assert (attributes["resilience.delay"], attributes["resilience.delay_source"]) == (1.0, "backoff")
    assert attributes["error.type"] == "ConnectionError"
    assert "secret" not in "".join(span.to_json() for span in recorded.spans)


async def test_a_call_that_fails_is_an_error(recorded: Recorded) -> None:
    """With the type of the exception and the reason code."""
    with pytest.raises(Fatal):
        await RETRY.call(Script(Fatal()))

    call = recorded.the("resilience call")
    assert (call.status.status_code, call.status.description) == (StatusCode.ERROR, "error")
    assert attributes_of(call)["error.type"] == "Fatal"
    assert attributes_of(call)["resilience.outcome"] == "failure"


async def test_a_cancelled_call_is_no_error(recorded: Recorded) -> None:
    """Nor is its attempt: somebody had no more use for it."""
    async with cancelled_after(1):
        await RETRY.call(anyio.sleep, 10)

    assert {span.status.status_code for span in recorded.spans} == {StatusCode.UNSET}
    assert attributes_of(recorded.the("resilience call"))["resilience.outcome"] == "cancelled"


async def test_a_fallback_makes_a_call_degraded(recorded: Recorded) -> None:
    """It is no error, and an event says what was replaced."""
    await Pipeline(Fallback("stale", on=Fatal)).call(Script(Fatal()))

    call = recorded.the("resilience call")
    assert attributes_of(call)["resilience.outcome"] == "degraded"
    assert call.status.status_code is StatusCode.UNSET
    assert [name for name, _ in events_of(call)] == ["resilience.fallback_used"]


async def test_changes_of_state_and_refusals_are_events(recorded: Recorded) -> None:
    """The call that opened the breaker says so, and the one that it refused."""
    breaker = CircuitBreaker(consecutive_failures=1)
    with pytest.raises(Fatal):
        await breaker.call(Script(Fatal()))
    with pytest.raises(CircuitOpen):
        await breaker.call(Script("value"))

    _attempt, opening, refused = recorded.spans
    ((changed, change),) = events_of(opening)
    assert (changed, change["resilience.old"], change["resilience.new"]) == ("resilience.breaker_state_changed", "closed", "open")
    ((rejected, refusal),) = events_of(refused)
    assert (rejected, refusal["resilience.reason"]) == ("resilience.call_rejected", "circuit_open")
    assert attributes_of(refused)["error.type"] == "CircuitOpen"


async def test_a_timeout_is_an_event(recorded: Recorded) -> None:
    """Of the call that it cut off."""
    with pytest.raises(TimeoutExceeded):
        await Timeout(1).call(anyio.sleep, 10)

    assert events_of(recorded.the("resilience call")) == [("resilience.timed_out", {"resilience.seconds": 1.0})]


async def test_a_hedge_is_a_sibling_of_what_it_doubles(recorded: Recorded) -> None:
    """Both legs are children of the call; the one that lost is no error."""
    calls = 0

    async def slow_at_first() -> str:
        nonlocal calls
        calls += 1
        await anyio.sleep(10 if calls == 1 else 0.5)
        return "value"

    await Pipeline(Hedge(1)).call(slow_at_first)

    hedge, original, call = recorded.spans
    assert recorded.tree() == [("resilience call", "resilience attempt")] * 2 + [("", "resilience call")]
    assert (attributes_of(hedge)["resilience.attempt.kind"], attributes_of(hedge)["resilience.attempt.hedge"]) == ("hedge", 1)
    assert attributes_of(original)["resilience.reason"] == "cancelled"
    assert original.status.status_code is StatusCode.UNSET
    assert [name for name, _ in events_of(call)] == ["resilience.hedge_started", "resilience.hedge_finished"]


async def test_the_policy_that_applies_is_told(recorded: Recorded) -> None:
    """The span of a call by key says which one, and where it comes from."""
    resilience = Resilience(policies={"users.Get": Policy(id="v7")})
    await resilience.call("users.Get", Script("value"))

    told = attributes_of(recorded.the("resilience users.Get"))
    assert (told["resilience.policy_id"], told["resilience.policy_source"]) == ("v7", "static")


async def test_an_executor_can_have_it_for_itself() -> None:
    """As one of its listeners, beside nobody else."""
    recorded = Recorded()
    resilience = Resilience(policies={"users.Get": Policy()}, listeners=[recorded.tracing])
    await resilience.call("users.Get", Script("value"))
    await RETRY.call(Script("value"))

    assert recorded.tree() == [("resilience users.Get", "resilience attempt"), ("", "resilience users.Get")]


async def test_the_blocks_of_a_loop_are_spans_in_that_of_their_caller(recorded: Recorded) -> None:
    """A loop has no span of its own: what is decided there is told in the caller's."""
    script = Script(ConnectionError(), "value")
    with recorded.tracer.start_as_current_span("handler"):
        async for attempt in Retry(on=ConnectionError, backoff=SECOND):
            with attempt:
                await script()

    assert recorded.tree() == [("handler", "resilience attempt")] * 2 + [("", "handler")]
    assert [name for name, _ in events_of(recorded.the("handler"))] == ["resilience.retry_scheduled"]


async def test_a_gate_that_is_used_by_hand_tells_the_span_around(recorded: Recorded) -> None:
    """And where there is none, nobody."""
    bulkhead = Bulkhead(1)
    with bulkhead.acquire_nowait(), recorded.tracer.start_as_current_span("handler"), pytest.raises(BulkheadFull):
        bulkhead.acquire_nowait()
    with bulkhead.acquire_nowait(), pytest.raises(BulkheadFull):
        bulkhead.acquire_nowait()

    assert [name for name, _ in events_of(recorded.the("handler"))] == ["resilience.call_rejected"]


async def test_calls_inside_of_calls_nest(recorded: Recorded) -> None:
    """Each has a span of its own."""
    await RETRY.call(lambda: Timeout(1).call(Script("value")))

    assert recorded.tree() == [
        ("resilience call", "resilience attempt"),
        ("resilience attempt", "resilience call"),
        ("resilience call", "resilience attempt"),
        ("", "resilience call"),
    ]


async def test_attempts_need_not_have_spans() -> None:
    """The callee is then inside of the call."""
    recorded = Recorded()
    inside: list[trace.Span] = []

    async def look() -> None:
        inside.append(trace.get_current_span())

    with listening(Tracing(recorded.provider, attempt_spans=False)):
        await RETRY.call(look)

    assert recorded.tree() == [("", "resilience call")]
    assert [span.get_span_context().span_id for span in inside] == [context_of(recorded.spans[0]).span_id]


async def test_what_is_not_sampled_costs_no_description_and_stays_so_inside() -> None:
    """The decision of the sampler reaches the callee, and nothing is exported."""
    recorded = Recorded(sampler=ALWAYS_OFF)
    inside: list[bool] = []

    async def look() -> None:
        inside.append(trace.get_current_span().get_span_context().is_valid)
        with recorded.tracer.start_as_current_span("inner") as span:
            inside.append(span.is_recording())

    with listening(recorded.tracing):
        await RETRY.call(look)
        async for attempt in RETRY:
            with attempt:
                await look()

    assert inside == [True, False] * 2
    assert recorded.spans == ()


async def test_a_key_with_credentials_is_shown_without() -> None:
    """A span holds no secret, whatever the key was made of."""
    recorded = Recorded()
    with listening(recorded.tracing):
        await Pipeline(RETRY, key=lambda: "https://user:secret@example.com/?token=secret").call(Script("value"))

    assert recorded.spans[-1].name == "resilience https://example.com/"
    assert "secret" not in "".join(span.to_json() for span in recorded.spans)


async def test_log_lines_have_the_ids_of_the_trace(recorded: Recorded) -> None:
    """Those of the library as well as those of the callee; outside of a span there are none."""
    capture = LogCapture()
    structlog.configure(processors=[add_trace_ids, capture])
    try:
        structlog.get_logger().info("outside")
        await Retry(on=ConnectionError, backoff=SECOND).call(Script(ConnectionError(), "value"))
    finally:
        structlog.reset_defaults()

    outside, retried = capture.entries
    call = context_of(recorded.the("resilience call"))
    assert "trace_id" not in outside
    assert retried["event"] == "resilient.retry_scheduled"
    assert retried["trace_id"] == f"{call.trace_id:032x}"
    assert retried["span_id"] == f"{call.span_id:016x}"


async def test_a_trace_goes_on_from_the_headers_of_a_request(recorded: Recorded) -> None:
    """And the baggage with it; after the block all is as before."""
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "tenant=acme"}
    with continue_trace(headers):
        tenant = baggage.get_baggage("tenant")
        await RETRY.call(Script("value"))
    await RETRY.call(Script("value"))

    _, inside, _, outside = recorded.spans
    assert tenant == "acme"
    assert baggage.get_baggage("tenant") is None
    assert inside.parent is not None
    assert (inside.parent.trace_id, inside.parent.span_id) == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)
    assert outside.parent is None


async def test_without_an_sdk_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    """The API alone makes no spans, and harms nobody."""
    with listening(Tracing()), caplog.at_level(logging.WARNING):
        values = [await Retry(on=ConnectionError, backoff=SECOND).call(Script("value"))]

    assert values == ["value"]
    assert not caplog.records


async def test_an_attribute_is_a_plain_value(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """What OpenTelemetry cannot keep is left out, instead of a warning for each event."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Spilled(Event):
        litres: float
        of: object

    with recorded.tracer.start_as_current_span("handler"), caplog.at_level(logging.WARNING):
        recorded.tracing(Spilled(at=0.0, litres=1.5, of=object()))

    assert events_of(recorded.the("handler")) == [("resilience.spilled", {"resilience.litres": 1.5})]
    assert not caplog.records
