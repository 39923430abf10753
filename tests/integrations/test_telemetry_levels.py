"""Levels: what gauges show of everything that can be watched, and that they are read where that is safe."""

import logging
import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest

from helpers import Script
from resilient import (
    AdaptiveLimit,
    AdaptiveRate,
    Bulkhead,
    CircuitBreaker,
    Hedge,
    Keyed,
    LeakyBucket,
    Pipeline,
    Policy,
    Resilience,
    Retry,
    RetryBudget,
    SlidingWindow,
    Throttle,
    Timeout,
    TokenBucket,
    TokenBudget,
    UnlimitedBudget,
)
from resilient_integrations._telemetry.home import Home
from resilient_integrations._telemetry.instruments import Keys
from resilient_integrations._telemetry.levels import Level, Levels
from resilient_integrations.cache import ResilientCache
from resilient_integrations.httpx import ResilientTransport
from resilient_integrations.redis import RedisStore

SHOWN: list[tuple[Any, dict[str, float]]] = [
    (CircuitBreaker(), {"breaker.failure_ratio": 0.0, "breaker.slow_ratio": 0.0}),
    (Bulkhead(4), {"bulkhead.active": 0, "bulkhead.limit": 4, "bulkhead.queued": 0}),
    (AdaptiveLimit(), {"bulkhead.active": 0, "bulkhead.limit": 20, "bulkhead.queued": 0, "adaptive.limit": 20}),
    (TokenBucket(5), {"limiter.tokens": 5, "limiter.limit": 5, "limiter.queued": 0}),
    (SlidingWindow(6), {"limiter.tokens": 6, "limiter.limit": 6, "limiter.queued": 0}),
    (LeakyBucket(7), {"limiter.tokens": 7, "limiter.limit": 7, "limiter.queued": 0}),
    (AdaptiveRate(60, per=30), {"limiter.tokens": 1, "limiter.limit": 1, "limiter.queued": 0, "adaptive.rate": 2.0}),
    (Throttle(), {"throttle.probability": 0.0}),
    (RetryBudget(), {"retry.budget.available": 10.0}),
    (TokenBudget(3, refill=1), {"retry.budget.available": 3.0}),
    (UnlimitedBudget(), {}),
    (Hedge(0.5), {"hedge.delay": 0.5}),
    (Hedge(), {}),
    (Retry(on=OSError, budget=TokenBudget(3, refill=1)), {"retry.budget.available": 3.0}),
    (Retry(on=OSError), {}),
]


def make(most: int = 10) -> Levels:
    return Levels(Keys(most))


def places(levels: list[Level]) -> list[tuple[str, ...]]:
    """The labels of each gauge: once, not for each state of a breaker."""
    return list(dict.fromkeys(level.labels[:3] for level in levels))


@pytest.mark.parametrize(("thing", "shown"), SHOWN, ids=lambda value: type(value).__name__)
def test_each_strategy_shows_what_it_has(thing: Any, shown: dict[str, float]) -> None:
    """What is unlimited, or not known yet, is left out."""
    levels = make()
    levels.watch(thing, "it")

    values = {level.instrument.name: level.value for level in levels.read() if level.instrument.name != "breaker.state"}
    assert values == pytest.approx(shown)  # pyright: ignore[reportUnknownMemberType]  it takes anything


def test_a_breaker_is_in_one_state() -> None:
    """One for that, zero for the others."""
    levels = make()
    breaker = CircuitBreaker()
    levels.watch(breaker, "")
    breaker.isolate()

    states = {level.labels[3]: level.value for level in levels.read() if level.instrument.name == "breaker.state"}
    assert states == {"closed": 0, "open": 0, "half_open": 0, "isolated": 1, "disabled": 0, "monitor_only": 0}


def test_the_parts_of_a_pipeline_are_told_apart() -> None:
    """Those of one name by a number; pipelines inside count too, and budgets of retries."""
    levels = make()
    inner = Pipeline(Bulkhead(1), Timeout(1))
    levels.watch(Pipeline(Retry(on=OSError, budget=RetryBudget()), CircuitBreaker(name="db"), inner, Bulkhead(2)), "orders")

    assert places(levels.read()) == [
        ("orders", "", "retry_budget"),
        ("orders", "", "db"),
        ("orders", "", "bulkhead"),
        ("orders", "", "bulkhead_2"),
    ]


def test_keys_are_shown_one_by_one() -> None:
    """Of a `Keyed`, of a pipeline with keys, of a transport; a key that was not used has no level."""
    keyed, transport = Keyed(TokenBucket(5)), ResilientTransport(policy=Policy.http())
    pipeline = Pipeline(Hedge(), Bulkhead(1), key=str)
    levels = make()
    for thing, name in ((keyed, "keyed"), (pipeline, "pipeline"), (transport, "transport")):
        levels.watch(thing, name)
    empty = levels.read()
    assert pipeline.siblings is not None
    assert transport.pipeline.siblings is not None
    _ = keyed["alice"], pipeline.siblings["bob"], transport.pipeline.siblings["https://api.example.com:443"]

    assert empty == []
    assert places(levels.read()) == [
        ("keyed", "alice", "token_bucket"),
        ("pipeline", "bob", "bulkhead"),
        ("transport", "https://api.example.com:443", "circuit_breaker"),
        ("transport", "https://api.example.com:443", "retry_budget"),
    ]


def test_a_store_of_shared_limits_and_a_cache_show_their_breakers() -> None:
    """Whether the store answers, and the backend."""
    levels = make()
    levels.watch(RedisStore(), "store")
    levels.watch(ResilientCache(name="users"), "cache")

    assert places(levels.read()) == [
        ("store", "", "resilient:store"),
        ("cache", "", "users"),
        ("cache", "", "users_origin"),
    ]


@pytest.mark.anyio
async def test_an_executor_shows_each_key() -> None:
    """The strategies are called by the fields of the policy."""
    resilience = Resilience(policies={"users.Get": Policy(circuit_breaker=CircuitBreaker(), bulkhead=Bulkhead(1))})
    levels = make()
    levels.watch(resilience, "")
    await resilience.call("users.Get", Script("value"))

    assert places(levels.read()) == [("", "users.Get", "circuit_breaker"), ("", "users.Get", "bulkhead")]


def test_more_keys_than_there_may_be_have_no_levels() -> None:
    """Levels of several keys do not add up; so hostile keys make no series."""
    levels = make(2)
    keyed = Keyed(TokenBucket(5))
    levels.watch(keyed, "")
    for key in "abc":
        _ = keyed[key]

    assert places(levels.read()) == [("", "a", "token_bucket"), ("", "b", "token_bucket")]


def test_a_name_is_given_once_until_it_is_given_back() -> None:
    """Two things under one name would be one series with two values."""
    levels = make()
    levels.watch(Bulkhead(1), "")
    with pytest.raises(ValueError, match="name='' is taken: give each thing that is watched a name of its own"):
        levels.watch(Bulkhead(2), "")
    levels.unwatch("")
    levels.unwatch("never there")
    levels.watch(Bulkhead(2), "")

    assert [level.value for level in levels.read() if level.instrument.name == "bulkhead.limit"] == [2]


def test_what_has_nothing_to_show_is_refused() -> None:
    """At once, not at the first scrape."""
    with pytest.raises(TypeError, match="has no statistics: pass a strategy, a Keyed, a Pipeline, a Resilience, or a transport"):
        make().watch(Timeout(1), "")


def test_one_that_cannot_be_read_is_reported_once_and_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """A scrape shows what there is."""

    class Broken:
        def statistics(self) -> None:
            raise ZeroDivisionError

    levels = make()
    levels.watch(Broken(), "broken")
    levels.watch(Throttle(), "")
    with caplog.at_level(logging.ERROR):
        seen = [len(levels.read()) for _ in range(3)]

    assert seen == [1, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "'broken' cannot be read; this is reported once, the others are"
    ]


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
async def test_an_exporter_reads_in_the_thread_of_the_loop() -> None:
    """Strategies are not thread-safe; the exporter has a thread of its own."""
    home = Home()
    home.seen()

    assert await anyio.to_thread.run_sync(home.read, threading.get_ident) == threading.get_ident()
    assert home.read(threading.get_ident) == threading.get_ident()


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
async def test_what_is_raised_there_is_raised_in_the_exporter() -> None:
    """And not in the loop."""
    home = Home()
    home.seen()

    with pytest.raises(ZeroDivisionError):
        await anyio.to_thread.run_sync(home.read, lambda: 1 / 0)


@pytest.mark.anyio
@pytest.mark.usefixtures("real_backend")
async def test_a_loop_that_is_blocked_costs_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter does not wait for ever for a loop that waits for the exporter."""
    monkeypatch.setattr("resilient_integrations._telemetry.home._PATIENCE", 0.05)
    levels = make()
    levels.watch(Throttle(), "")
    seen: list[list[Level]] = []
    exporter = threading.Thread(target=lambda: seen.append(levels.read()))
    exporter.start()
    exporter.join()

    assert seen == [[]]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_is_over_is_not_waited_for(backend: str) -> None:
    """Whoever reads then is alone; and what is watched before any loop runs is read where one reads."""
    home = Home()
    assert home.read(threading.get_ident) == threading.get_ident()

    async def seen() -> None:
        home.seen()

    anyio.run(seen, backend=backend)
    home.seen()  # no loop runs here: the last one counts
    read: list[int | None] = []
    exporter = threading.Thread(target=lambda: read.append(home.read(threading.get_ident)))
    exporter.start()
    exporter.join()

    assert read == [exporter.ident]


def test_a_loop_is_looked_for_without_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not imported it does not use it."""
    monkeypatch.delitem(__import__("sys").modules, "trio")
    home = Home()
    home.seen()

    assert home.read(threading.get_ident) == threading.get_ident()
