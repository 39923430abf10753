"""Old values: given while they are refreshed, or in place of a load that failed."""

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from helpers import Failure, Fatal, Script
from integrations.cache_scenes import Remote, cache_of, counted
from resilient import (
    BulkheadFull,
    CircuitBreaker,
    Pipeline,
    Rejected,
    Retry,
    Timeout,
    current_attempt,
    listening,
    record_timeline,
)
from resilient.observe.events import FallbackUsed
from resilient_integrations.cache import MISSING, MemoryBackend, ResilientCache

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[MemoryBackend, Remote], ids=["objects", "bytes"])
def backend(request: pytest.FixtureRequest) -> Any:
    """One that keeps objects, and one that keeps bytes."""
    make: Callable[[], Any] = request.param
    return make()


async def after(seconds: float, cache: ResilientCache, loader: Any) -> Any:
    """What a lookup gives so many seconds later; an exception is given too."""
    await anyio.sleep(seconds)
    try:
        return await cache.get_or_load("1", loader)
    except Exception as error:  # noqa: BLE001  that is what it gives
        return error


async def test_an_old_value_stands_in_for_a_load_that_failed(backend: Any) -> None:
    """For so long after it went stale; an answer of the loader takes its place as ever."""
    failure = Failure()
    cache = cache_of(backend, ttl=10, stale_if_error=50)
    loader = Script("old", failure, failure, "new", failure, failure)
    got = [await after(seconds, cache, loader) for seconds in (0, 11, 40, 1, 59, 1)]

    assert got == ["old", "old", "old", "new", "new", failure]
    assert counted(cache).items() >= {"stale": 3, "misses": 3, "loads": 6, "load_errors": 4}.items()


async def test_an_old_value_in_place_of_an_error_is_told() -> None:
    """An operator must see that the origin fails, though nobody else does."""
    cache, loader = cache_of(ttl=10, stale_if_error=50, name="users"), Script("old", Failure())
    await after(0, cache, loader)
    with record_timeline() as timeline:
        await after(11, cache, loader)
    told = [event for event in timeline.events if isinstance(event, FallbackUsed)]

    assert [(event.key, event.error) for event in told] == [("users", "Failure")]
    assert [call.degraded for call in timeline.calls if call.degraded] == [True]


def is_failure(error: Exception) -> bool:
    return isinstance(error, Failure)


@pytest.mark.parametrize("stale_on", [Failure, (Failure, OSError), is_failure])
async def test_an_error_that_old_values_must_not_hide_ends_them(stale_on: Any) -> None:
    """What is gone is gone: the error surfaces, for the next one who asks too."""
    gone = Fatal()
    cache = cache_of(ttl=10, stale_if_error=50, stale_on=stale_on)
    loader = Script("old", Failure(), gone, Failure())
    got = [await after(seconds, cache, loader) for seconds in (0, 11, 1)]

    assert got == ["old", "old", gone]
    assert isinstance(await after(1, cache, loader), Failure)


async def test_a_refusal_on_the_way_to_the_origin_is_an_error_too() -> None:
    """By default; a type hides rejections only where it names one."""
    cache = cache_of(ttl=10, stale_if_error=50, origin=CircuitBreaker(initial="isolated"))
    strict = cache_of(cache.backend, ttl=10, stale_if_error=50, stale_on=Exception, origin=CircuitBreaker(initial="isolated"))
    await cache.set("1", "old")

    assert await after(11, cache, Script("new")) == "old"
    assert isinstance(await after(0, strict, Script("new")), Rejected)


async def test_an_origin_that_is_down_is_not_asked_each_time() -> None:
    """With a breaker around it old values are given at once."""
    protection = Pipeline(CircuitBreaker(consecutive_failures=2), Timeout(1))
    cache, loader = cache_of(ttl=10, stale_if_error=100, origin=protection), Script("never", seconds=5)
    await cache.set("1", "old")
    got = [await after(11 if number == 0 else 0, cache, loader) for number in range(5)]

    assert got == ["old"] * 5
    assert loader.at == pytest.approx([11, 12])


async def test_the_first_who_finds_an_old_value_refreshes_it_outside_of_a_block() -> None:
    """It waits for that; the others are given the old value at once."""
    cache, loader = cache_of(Remote(), ttl=10, stale_while_revalidate=50), Script("old", "new", seconds=1)
    got: list[tuple[str, float]] = []

    async def ask() -> None:
        value = await cache.get_or_load("1", loader)
        got.append((value, anyio.current_time()))

    await ask()
    await anyio.sleep(11)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
    await ask()

    assert [value for value, _ in got] == ["old", "old", "old", "new", "new"]
    assert [at - got[0][1] for _, at in got] == pytest.approx([0, 11, 11, 12, 12])
    assert counted(cache).items() >= {"misses": 2, "coalesced": 2, "hits": 1}.items()


async def test_an_old_value_is_refreshed_in_the_background_of_a_block(backend: Any) -> None:
    """Nobody waits: all get the old value, until the new one is there; one load is under way at a time."""
    cache, loader = cache_of(backend, ttl=10, stale_while_revalidate=50), Script("old", "new", seconds=1)
    async with cache:
        got = [await after(seconds, cache, loader) for seconds in (0, 11, 0.5, 0.6)]

    assert got == ["old", "old", "old", "new"]
    assert loader.calls == 2
    assert counted(cache).items() >= {"refreshes": 1, "stale": 1, "coalesced": 1, "hits": 1}.items()


async def test_a_value_that_is_too_old_is_not_given_while_it_is_refreshed() -> None:
    """Then all wait for the new one; the old one may still stand in for an error."""
    cache = cache_of(ttl=10, stale_while_revalidate=5, stale_if_error=50)
    loader = Script("old", "new", Failure())
    async with cache:
        got = [await after(seconds, cache, loader) for seconds in (0, 16, 16)]

    assert got == ["old", "new", "new"]
    assert cache.statistics().refreshes == 0


async def test_a_refresh_that_fails_in_the_background_breaks_nothing() -> None:
    """The old value is given on, and each lookup tries again; an error that it must not hide ends it."""
    cache = cache_of(ttl=10, stale_while_revalidate=50, stale_on=Failure)
    loader = Script("old", Failure(), Fatal(), "new")
    async with cache:
        got = [await after(seconds, cache, loader) for seconds in (0, 11, 1, 1)]

    assert got == ["old", "old", "old", "new"]
    assert counted(cache).items() >= {"refreshes": 2, "load_errors": 2, "stale": 2}.items()


async def test_a_refresh_ends_with_its_block() -> None:
    """It is cancelled, and the key is free."""
    cache, loader = cache_of(ttl=10, stale_while_revalidate=50), Script("old", "new", seconds=1)
    async with cache:
        await after(0, cache, loader)
        await after(11, cache, loader)
        await anyio.lowlevel.checkpoint()

    assert cache.statistics().in_flight == 0
    assert await after(0, cache, loader) == "new"


async def test_a_refresh_does_not_have_the_deadline_of_who_found_the_old_value() -> None:
    """Nor is it an attempt of that one's call; whoever listens to the block hears it."""
    cache = cache_of(ttl=10, stale_while_revalidate=50)
    numbers: list[int] = []

    async def load() -> str:
        numbers.append(current_attempt().number)
        await anyio.sleep(1)
        return "value"

    async def ask() -> None:
        await after(0, cache, load)
        if current_attempt().number == 1:
            raise Failure

    async with cache:
        await after(0, cache, load)
        await anyio.sleep(11)
        with listening(lambda _: None):
            await Retry(on=Failure, timeout=0.5, backoff=[0.1]).call(ask)
        await anyio.sleep(1)

    assert numbers == [1, 1]
    assert await cache.get("1") == "value"


async def test_the_error_of_a_block_surfaces_as_it_is() -> None:
    """It is not wrapped in a group."""
    with pytest.raises(Failure):
        async with cache_of():
            raise Failure


async def test_a_block_can_be_cancelled() -> None:
    """As any other code."""
    with anyio.move_on_after(1) as scope:
        async with cache_of():
            await anyio.sleep(5)

    assert scope.cancelled_caught


async def test_a_cache_is_in_one_block_at_a_time() -> None:
    """And in another one after it."""
    async with cache_of() as cache:
        with pytest.raises(RuntimeError, match="is in a block already"):
            await cache.__aenter__()
    async with cache:
        pass


async def test_to_be_asked_for_only_fresh_values_is_the_rule() -> None:
    """`get` gives none that is stale."""
    cache = cache_of(ttl=10, stale_if_error=50)
    await cache.set("1", "old")
    await anyio.sleep(11)

    assert await cache.get("1") is MISSING


async def test_nothing_takes_the_place_of_an_old_value(backend: Any) -> None:
    """Where `None` is not stored, what there was before must not come back when the loader fails."""
    cache = cache_of(backend, ttl=10, stale_if_error=50, negative_ttl=0)
    failure = Failure()
    got = [
        await after(seconds, cache, loader) for seconds, loader in ((0, Script("old")), (11, Script(None)), (1, Script(failure)))
    ]

    assert got == ["old", None, failure]


async def test_what_is_set_while_an_old_value_is_refreshed_stays() -> None:
    """Whether the refresh brings a value or an error that ends old ones."""
    for outcome in ("loaded", Fatal()):
        cache = cache_of(Remote(), ttl=10, stale_while_revalidate=50, stale_on=Failure)
        loader = Script("old", outcome, seconds=1)
        async with cache:
            await after(0, cache, loader)
            await after(11, cache, loader)
            await anyio.sleep(0.5)
            await cache.set("1", "by hand")
            await anyio.sleep(1)

        assert await cache.get("1") == "by hand"


async def test_a_full_bulkhead_gives_old_values() -> None:
    """Load on the origin is bounded, and who is refused need not go away with nothing."""
    cache = cache_of(ttl=10, stale_if_error=50)
    got: list[Any] = []

    async def ask(number: int) -> None:
        try:
            got.append(await cache.get_or_load(str(number), Script("new", seconds=1)))
        except BulkheadFull:
            got.append("refused")

    for number in range(400):
        await cache.set(str(number), "old")
    await anyio.sleep(11)
    async with anyio.create_task_group() as group:
        for number in range(400):
            group.start_soon(ask, number)

    assert (got.count("new"), got.count("old"), got.count("refused")) == (64 + 256, 400 - 64 - 256, 0)
