"""Metrics for Prometheus: what events count, what the gauges show, and that the series stay few."""

import importlib
import sys
from typing import Any

import anyio
import anyio.to_thread
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from helpers import SECOND, Fatal, Script, cancelled_after
from resilient import (
    Bulkhead,
    Chaos,
    CircuitBreaker,
    CircuitOpen,
    Fallback,
    Hedge,
    Pipeline,
    Policy,
    Resilience,
    Retry,
    RetryBudget,
    Timeout,
    TimeoutExceeded,
    TokenBucket,
    TokenBudget,
    listening,
)
from resilient.observe.events import Event, PolicyRefused, PolicyReloaded, PolicyUnavailable, RejectionsEnded
from resilient_integrations.prometheus import Metrics


class Scraped:
    """A registry of its own, and what a scrape of it gives."""

    def __init__(self, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, **options)

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        """The series of a metric: the values of its labels, in the order of their names, and its own."""
        families = text_string_to_metric_families(generate_latest(self.registry).decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(value for _, value in sorted(sample.labels.items())): sample.value for sample in samples}

    def events(self) -> dict[tuple[str, ...], float]:
        """How often what happened: event, key, reason, strategy."""
        return self.series("resilience_events_total")


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


@pytest.mark.anyio
async def test_calls_are_counted_by_outcome_and_reason(scraped: Scraped) -> None:
    """Cancelled and degraded ones are no failures."""
    with listening(scraped.metrics):
        await Timeout(1).call(Script("value"))
        await Fallback("stale", on=Fatal).call(Script(Fatal()))
        with pytest.raises(Fatal):
            await Timeout(1).call(Script(Fatal()))
        async with cancelled_after(1):
            await Timeout(9).call(anyio.sleep, 5)

    assert scraped.series("resilience_calls_total") == {
        ("", "success", "success"): 1,
        ("", "degraded", "success"): 1,
        ("", "failure", "error"): 1,
        ("", "cancelled", "cancelled"): 1,
    }


@pytest.mark.anyio
async def test_attempts_are_counted_and_all_is_timed_in_seconds(scraped: Scraped) -> None:
    """On the clock of the library, by key."""
    pipeline = Pipeline(Retry(on=ConnectionError, backoff=SECOND), key=lambda: "users")
    with listening(scraped.metrics):
        await pipeline.call(Script(ConnectionError(), "value", seconds=0.25))

    assert scraped.series("resilience_call_duration_seconds_sum") == {("users", "success"): 1.5}
    assert scraped.series("resilience_attempt_duration_seconds_sum") == {
        ("unhealthy", "users", "original"): 0.25,
        ("healthy", "users", "retry"): 0.25,
    }
    assert scraped.series("resilience_attempts_total") == {
        ("unhealthy", "users", "original", "retryable_error"): 1,
        ("healthy", "users", "retry", "success"): 1,
    }


@pytest.mark.anyio
async def test_time_in_queues_is_measured_where_there_was_some(scraped: Scraped) -> None:
    """By key and strategy; who did not wait does not count."""
    pipeline = Pipeline(TokenBucket(2, burst=1), key=lambda: "users")
    with listening(scraped.metrics):
        for _ in range(3):
            await pipeline.call(Script("value"))

    assert scraped.series("resilience_wait_duration_seconds_sum") == {("users", "token_bucket"): 1.0}
    assert scraped.series("resilience_wait_duration_seconds_count") == {("users", "token_bucket"): 2}
    assert "waited" not in {event for event, *_ in scraped.events()}


@pytest.mark.anyio
async def test_retries_and_budgets_are_counted(scraped: Scraped) -> None:
    """A budget by its name, and what it denied."""
    retry = Retry(on=ConnectionError, backoff=SECOND, attempts=9, budget=TokenBudget(1, refill=0.001))
    with listening(scraped.metrics), pytest.raises(ConnectionError):
        await retry.call(Script(ConnectionError()))

    assert scraped.events() == {
        ("budget_allowed", "", "retry", "token_budget"): 1,
        ("retry_scheduled", "", "retryable_error", "retry"): 1,
        ("budget_denied", "", "retry", "token_budget"): 1,
        ("retry_stopped", "", "budget_exhausted", "retry"): 1,
    }


@pytest.mark.anyio
async def test_changes_of_state_and_every_refusal_are_counted(scraped: Scraped) -> None:
    """A change by the new state; refusals each, though only the first of a run is logged."""
    breaker = CircuitBreaker(consecutive_failures=1, name="db")
    with listening(scraped.metrics):
        with pytest.raises(Fatal):
            await breaker.call(Script(Fatal()))
        for _ in range(3):
            with pytest.raises(CircuitOpen):
                await breaker.call(Script("value"))

    assert scraped.events() == {
        ("breaker_open", "", "consecutive_failures", "db"): 1,
        ("call_rejected", "", "circuit_open", "db"): 3,
    }


@pytest.mark.anyio
async def test_a_breaker_that_only_watches_would_open(scraped: Scraped) -> None:
    """It must raise no alarm."""
    breaker = CircuitBreaker(consecutive_failures=1)
    breaker.monitor()
    with listening(scraped.metrics), pytest.raises(Fatal):
        await breaker.call(Script(Fatal()))

    assert list(scraped.events()) == [("breaker_would_be_open", "", "consecutive_failures", "circuit_breaker")]


@pytest.mark.anyio
async def test_timeouts_fallbacks_hedges_and_chaos_are_counted(scraped: Scraped) -> None:
    """Each under the name of its strategy."""
    calls = 0

    async def slow_at_first() -> None:
        nonlocal calls
        calls += 1
        await anyio.sleep(10 if calls == 1 else 0)

    with listening(scraped.metrics):
        with pytest.raises(TimeoutExceeded):
            await Timeout(1).call(anyio.sleep, 5)
        await Fallback("stale", on=Fatal).call(Script(Fatal()))
        await Hedge(1).call(slow_at_first)
        await Chaos(latency=1.0, latency_rate=1.0, enabled=True).call(Script("value"))

    assert scraped.events() == {
        ("timed_out", "", "", "timeout"): 1,
        ("fallback_used", "", "error", "fallback"): 1,
        ("hedge_started", "", "delay", "hedge"): 1,
        ("hedge_won", "", "success", "hedge"): 1,
        ("chaos_injected", "", "latency", "chaos"): 1,
    }


def test_documents_of_policies_are_counted_by_what_became_of_them(scraped: Scraped) -> None:
    """And are no events of a key."""
    about: dict[str, Any] = {"at": 0.0, "provider": "file", "origin": "policies.toml"}
    for event in (
        PolicyReloaded(**about, source="file"),
        PolicyRefused(**about, why="no such field"),
        PolicyUnavailable(**about, why="gone", serving="lkg", retry_in=1.0),
    ):
        scraped.metrics(event)

    assert scraped.events() == {}
    assert scraped.series("resilience_policy_reloads_total") == {
        ("file", "reloaded"): 1,
        ("file", "refused"): 1,
        ("file", "unavailable"): 1,
    }


@pytest.mark.anyio
async def test_what_is_counted_elsewhere_is_not_counted_twice(scraped: Scraped) -> None:
    """The beginning of a call, and the end of a run of refusals."""
    with listening(scraped.metrics):
        await Resilience(policies={"users.Get": Policy()}).call("users.Get", Script("value"))
    scraped.metrics(RejectionsEnded(at=1.0, strategy="bulkhead", reason="bulkhead_full", rejections=9, seconds=2.0))

    assert scraped.events() == {}


def test_an_event_that_nobody_has_heard_of_is_counted_by_its_name(scraped: Scraped) -> None:
    """Strategies of others tell events of their own."""

    class LeaseLost(Event):
        strategy = "shared_bulkhead"
        why = "expired"

    class CacheLookup(Event):
        cache = "users"
        result = "hit"

    for event in (LeaseLost(at=0.0), CacheLookup(at=0.0)):
        scraped.metrics(event)

    assert scraped.events() == {
        ("lease_lost", "", "expired", "shared_bulkhead"): 1,
        ("cache_lookup", "", "hit", "users"): 1,
    }


def test_more_keys_than_there_may_be_share_one_label() -> None:
    """Keys that come from outside must not grow the memory of Prometheus."""
    scraped = Scraped(max_keys=2)
    for key in "abcde":
        scraped.metrics(PolicyReloaded(at=0.0, provider="file", origin="", source="file", key=key))
        scraped.metrics(Event(at=0.0, key=key))

    assert scraped.events() == {
        ("event", "a", "", ""): 1,
        ("event", "b", "", ""): 1,
        ("event", "(others)", "", ""): 3,
    }


@pytest.mark.anyio
async def test_gauges_are_read_at_the_scrape(scraped: Scraped) -> None:
    """With the name under which a thing is watched, its key and its strategy."""
    bulkhead = scraped.metrics.watch(Bulkhead(4), "db")
    before = scraped.series("resilience_bulkhead_active")
    async with bulkhead, bulkhead:
        during = scraped.series("resilience_bulkhead_active")
    scraped.metrics.unwatch("db")

    assert (before, during) == ({("", "db", "bulkhead"): 0}, {("", "db", "bulkhead"): 2})
    assert scraped.series("resilience_bulkhead_active") == {}


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
async def test_a_scrape_may_come_from_another_thread(scraped: Scraped) -> None:
    """As those of the client's own server do."""
    scraped.metrics.watch(RetryBudget())

    assert await anyio.to_thread.run_sync(scraped.series, "resilience_retry_budget_available") == {("", "", "retry_budget"): 10}


def test_the_names_are_registered_once() -> None:
    """The registry knows the gauges before the first scrape, so a second instance is refused."""
    registry = CollectorRegistry(auto_describe=True)
    Metrics(registry)

    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Metrics(registry)


def test_it_can_be_registered_nowhere() -> None:
    """And collected by hand."""
    metrics = Metrics(None)
    metrics.watch(RetryBudget())

    (budget,) = [family for family in metrics.collect() if family.name == "resilience_retry_budget_available"]
    assert [sample.value for sample in budget.samples] == [10.0]


def test_arguments_are_checked() -> None:
    """The error names the parameter."""
    with pytest.raises(ValueError, match="max_keys=0 is out of range: expected a whole number of at least 1"):
        Metrics(CollectorRegistry(), max_keys=0)


@pytest.mark.parametrize(("module", "library"), [("prometheus", "prometheus_client"), ("opentelemetry", "opentelemetry")])
def test_a_missing_extra_says_which_one_to_install(monkeypatch: pytest.MonkeyPatch, module: str, library: str) -> None:
    """Whoever imports an integration without its library reads what to do."""
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"resilient_integrations.{module}", raising=False)

    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'resilient-anyio\[{module}\]'"):
        importlib.import_module(f"resilient_integrations.{module}")
