"""Metrics for OpenTelemetry: what events count, and what the gauges show."""

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from helpers import SECOND, Script
from resilient import CircuitBreaker, Pipeline, Retry, listening
from resilient_integrations.opentelemetry import Metrics

pytestmark = pytest.mark.anyio


class Recorded:
    """Metrics in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.metrics = Metrics(MeterProvider([self.reader], shutdown_on_exit=False))

    def collect(self) -> dict[str, Any]:
        """The metrics that there are, by name."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The values of a counter or a gauge, each with its attributes."""
        return [(dict(point.attributes), point.value) for point in self.collect()[name].data.data_points]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


async def test_calls_and_attempts_are_counted_and_timed(recorded: Recorded) -> None:
    """Durations are in seconds, on the clock of the library."""
    with listening(recorded.metrics):
        pipeline = Pipeline(Retry(on=ConnectionError, backoff=SECOND), key=lambda: "users")
        await pipeline.call(Script(ConnectionError(), "value", seconds=0.25))

    (call,) = recorded.collect()["resilience.call.duration"].data.data_points
    assert dict(call.attributes) == {"resilience.key": "users", "resilience.outcome": "success"}
    assert (call.count, call.sum, call.explicit_bounds[0]) == (1, 1.5, 0.005)
    assert recorded.collect()["resilience.call.duration"].unit == "s"
    assert recorded.points("resilience.calls") == [
        ({"resilience.key": "users", "resilience.outcome": "success", "resilience.reason": "success"}, 1)
    ]
    attempts = recorded.collect()["resilience.attempt.duration"].data.data_points
    assert [(point.attributes["resilience.kind"], point.sum) for point in attempts] == [("original", 0.25), ("retry", 0.25)]
    assert [attributes["resilience.reason"] for attributes, _ in recorded.points("resilience.attempts")] == [
        "retryable_error",
        "success",
    ]


async def test_what_strategies_decide_is_counted(recorded: Recorded) -> None:
    """An attribute that has nothing to say is left out."""
    with listening(recorded.metrics):
        await Retry(on=ConnectionError, backoff=SECOND).call(Script(ConnectionError(), ConnectionError(), "value"))

    assert recorded.points("resilience.events") == [
        ({"resilience.strategy": "retry", "resilience.event": "retry_scheduled", "resilience.reason": "retryable_error"}, 2)
    ]


async def test_gauges_show_the_levels_at_each_collection(recorded: Recorded) -> None:
    """A breaker that has opened since is open."""
    breaker = recorded.metrics.watch(CircuitBreaker(name="db"), "orders")
    before = recorded.points("resilience.breaker.state")
    breaker.isolate()
    after = recorded.points("resilience.breaker.state")

    assert before[0] == (
        {"resilience.name": "orders", "resilience.strategy": "db", "resilience.state": "closed"},
        1.0,
    )
    assert [attributes["resilience.state"] for attributes, value in after if value] == ["isolated"]


async def test_the_gauges_of_one_collection_share_one_reading(recorded: Recorded) -> None:
    """However many gauges there are."""

    class Counted:
        read = 0
        name = "counted"

        def statistics(self) -> None:
            self.read += 1

    counted = recorded.metrics.watch(Counted())
    recorded.collect()
    first = counted.read
    recorded.collect()

    assert (first, counted.read) == (1, 2)


async def test_without_an_sdk_nothing_happens() -> None:
    """The API alone counts nothing, and harms nobody."""
    with listening(Metrics()):
        assert await Retry(on=ConnectionError, backoff=SECOND).call(Script(ConnectionError(), "value")) == "value"
