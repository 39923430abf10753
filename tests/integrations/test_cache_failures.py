"""The backend is down, slow or wrong: what a lookup gets, how long it takes, and what is told."""

import logging
from typing import Any

import anyio
import pytest

from helpers import Failure, Script, cancelled_after
from integrations.cache_scenes import Remote, cache_of, counted
from resilient import BreakerStatistics, CircuitOpen, TimeoutExceeded, listening
from resilient.observe.events import BreakerStateChanged, CallRejected, Event, RetryScheduled
from resilient_integrations.cache import MISSING, MemoryBackend, Stored

pytestmark = pytest.mark.anyio


def breaker_of(cache: Any) -> BreakerStatistics:
    statistics: BreakerStatistics = cache.statistics().breaker
    return statistics


async def test_a_backend_that_is_down_fails_nobody_whom_the_loader_can_answer() -> None:
    """Not at first, when it is tried, and not later, when the breaker is open."""
    backend = Remote(error=ConnectionError())
    cache, loader = cache_of(backend), Script("value")
    got = [await cache.get_or_load("1", loader) for _ in range(20)]

    assert got == ["value"] * 20
    assert loader.calls == 20
    assert breaker_of(cache).state == "open"
    assert len(backend.asked) == 5
    assert counted(cache).items() >= {"misses": 20, "bypassed": 20, "loads": 20}.items()


async def test_operations_are_tried_again() -> None:
    """A connection that was reset costs some milliseconds, and no value."""
    cache = cache_of(backend := Remote())
    await cache.set("1", "value")
    backend.error = ConnectionResetError()
    heard: list[Event] = []
    values: list[Any] = []
    start = anyio.current_time()
    async with anyio.create_task_group() as group:
        backend.seconds = 0.001
        group.start_soon(_recover_at, backend, 0.0015)
        with listening(heard.append):
            values.append(await cache.get("1"))

    assert values == ["value"]
    assert anyio.current_time() - start < 0.02
    assert [event.key for event in heard if isinstance(event, RetryScheduled)] == ["cache"]
    assert cache.statistics().success_rate == 1.0


async def _recover_at(backend: Remote, seconds: float) -> None:
    await anyio.sleep(seconds)
    backend.error = None


async def test_a_black_hole_costs_one_timeout_for_each_operation() -> None:
    """A timeout is not tried again, and trips the breaker: after that nobody waits."""
    cache, loader = cache_of(Remote(seconds=3600), timeout=0.1), Script("value")
    waits: list[float] = []
    for _ in range(5):
        start = anyio.current_time()
        await cache.get_or_load("1", loader)
        waits.append(anyio.current_time() - start)

    assert waits == pytest.approx([0.2, 0.2, 0.1, 0, 0])  # it is read, and written
    assert breaker_of(cache).total_timeouts == 5


async def test_a_backend_that_is_up_again_is_used_again() -> None:
    """When the breaker lets a probe through and that succeeds."""
    backend = Remote(error=ConnectionError())
    cache, loader = cache_of(backend), Script("value")
    for _ in range(5):
        await cache.get_or_load("1", loader)
    backend.error = None
    await anyio.sleep(5)
    for _ in range(3):
        await cache.get_or_load("1", loader)

    assert breaker_of(cache).state == "closed"
    assert loader.calls == 6


async def test_a_cache_that_must_not_be_passed_by_sheds() -> None:
    """While the breaker is open: the origin could not bear it. A single failure still goes to the loader."""
    backend = Remote(error=ConnectionError())
    cache, loader = cache_of(backend, on_open="shed"), Script("value", seconds=0.001)
    got: list[Any] = []

    async def ask() -> None:
        try:
            got.append(await cache.get_or_load("1", loader))
        except CircuitOpen as refusal:
            got.append(refusal.state)

    for _ in range(2):  # each reads, and the first writes: the fifth failure opens the breaker
        await ask()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)

    assert got == ["value", "value", "open", "open", "open"]
    assert loader.calls == 2
    assert cache.statistics().shed == 3


async def test_a_write_that_fails_keeps_nobody_from_the_value() -> None:
    """It is counted; what is there is read as ever."""
    backend = Remote(error=OSError("out of memory"))
    backend.fails = {"set"}
    cache, loader = cache_of(backend), Script("value")
    value = await cache.get_or_load("1", loader)

    assert value == "value"
    assert counted(cache).items() >= {"misses": 1, "operations": 2, "errors": 1}.items()
    assert cache.statistics().success_rate == 0.5


@pytest.mark.parametrize("operation", ["get", "set", "delete"])
async def test_an_operation_by_hand_says_that_it_failed(operation: str) -> None:
    """The backend's own error after the last attempt; then that the breaker is open."""
    error = ConnectionError("refused")
    cache = cache_of(Remote(error=error))
    arguments = ("1", "value") if operation == "set" else ("1",)
    got: list[BaseException] = []
    for _ in range(4):
        with pytest.raises((ConnectionError, CircuitOpen)) as caught:
            await getattr(cache, operation)(*arguments)
        got.append(caught.value)

    assert got[:3] == [error] * 3
    assert isinstance(got[3], CircuitOpen)
    assert counted(cache).items() >= {"operations": 3, "errors": 3}.items()
    assert "hits" not in counted(cache)


async def test_an_operation_that_takes_too_long_says_so() -> None:
    """After `timeout`."""
    cache = cache_of(Remote(seconds=1), timeout=0.05)

    with pytest.raises(TimeoutExceeded):
        await cache.get("1")


async def test_a_cancelled_operation_tells_the_breaker_nothing() -> None:
    """Nor is it an error."""
    cache = cache_of(Remote(seconds=0.09))
    async with cancelled_after(0.05):
        await cache.get("1")

    assert counted(cache) == {}
    assert breaker_of(cache).total_calls == 0


async def test_what_an_operator_must_see_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """That the breaker opened, and which cache it is; not each lookup that goes on without the backend."""
    cache, loader = cache_of(Remote(error=ConnectionError()), name="users"), Script("value")
    heard: list[Event] = []
    with listening(heard.append), caplog.at_level("WARNING"):
        for _ in range(100):
            await cache.get_or_load("1", loader)
    changes = [event for event in heard if isinstance(event, BreakerStateChanged)]

    assert [(change.strategy, change.key, change.new) for change in changes] == [("users", "users", "open")]
    assert sum(isinstance(event, CallRejected) for event in heard) > 190
    assert len(caplog.records) < 15


@pytest.mark.parametrize("data", [b"", b"garbage", b"1 60.0 {", b"2 60.0 1", b"1 nan 1", b"1 -1 1", "text", None])
async def test_an_entry_that_cannot_be_read_is_a_miss(data: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Of another version, of somebody else, cut off: it is loaded anew. That is reported once, without its text."""
    backend = Remote()
    cache, loader = cache_of(backend), Script("value")
    for key in "12":
        await MemoryBackend.set(backend, key, data, 60)
    before = await cache.get("1")
    value = await cache.get_or_load("2", loader)

    assert before is MISSING
    assert value == await cache.get("2") == "value"
    assert cache.statistics().unreadable == 2
    assert breaker_of(cache).total_failures == 0
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 1
    assert "garbage" not in caplog.text


async def test_a_value_that_cannot_be_written_is_given_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """It is not stored, and that is reported; by hand it is an error."""
    cache, value = cache_of(Remote()), object()
    with caplog.at_level(logging.ERROR):
        got = [await cache.get_or_load("1", Script(value)) for _ in range(2)]

    assert got == [value, value]
    assert cache.statistics().unreadable == 2
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1
    with pytest.raises(TypeError, match="not JSON serializable"):
        await cache.set("1", value)


async def test_a_serializer_that_gives_no_bytes_is_an_error() -> None:
    """Whose fault it is stands in the message."""
    cache = cache_of(Remote(), serializer=(str, str))

    with pytest.raises(TypeError, match="the serializer gave str: expected bytes"):
        await cache.set("1", "value")


async def test_a_backend_that_answers_nonsense_is_no_reason_to_fail() -> None:
    """Whatever is wrong with it, the loader answers."""

    class Nonsense(Remote):
        async def get(self, key: str, /) -> Stored | None:
            return 42  # type: ignore[return-value]  # that is what is tested

    cache = cache_of(Nonsense())

    assert await cache.get_or_load("1", Script("value")) == "value"


async def test_the_error_of_a_load_surfaces_when_the_backend_is_down_too() -> None:
    """It is the loader's own."""
    failure = Failure()
    cache = cache_of(Remote(error=ConnectionError()))

    with pytest.raises(Failure) as caught:
        await cache.get_or_load("1", Script(failure))

    assert caught.value is failure
    assert caught.value.__context__ is None


async def test_a_herd_does_not_reach_the_origin_while_the_backend_is_down() -> None:
    """One load for each key at a time, and a bounded number of keys."""
    cache = cache_of(Remote(error=ConnectionError()))
    cache.breaker.isolate()
    loader = Script("value", seconds=1)
    async with anyio.create_task_group() as group:
        for number in range(1000):
            group.start_soon(cache.get_or_load, str(number % 10), loader)

    assert loader.calls == 10
    assert cache.statistics().coalesced == 990
