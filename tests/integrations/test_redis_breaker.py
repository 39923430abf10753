"""The circuit breaker that tells others, against a real server."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from integrations.redis_servers import until
from resilient import CircuitBreaker, CircuitOpen, Policy, clock
from resilient_integrations.redis import RedisCircuitBreaker, RedisStore

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("real_backend"),
    pytest.mark.parametrize("anyio_backend", ["real-asyncio"], indirect=True),
]


def breaker_of(store: RedisStore, *, quorum: int = 1, open_for: float = 30) -> RedisCircuitBreaker:
    template = CircuitBreaker(name="api", consecutive_failures=1, open_for=open_for)
    return RedisCircuitBreaker(template, store, quorum=quorum, every=0.001)


async def fail() -> None:
    raise ConnectionResetError


async def trip(breaker: RedisCircuitBreaker) -> None:
    with pytest.raises(ConnectionResetError):
        await breaker.call(fail)


async def opens(breaker: RedisCircuitBreaker) -> CircuitOpen:
    """Use it until it refuses."""
    while True:
        try:
            await breaker.call(anyio.sleep, 0.002)
        except CircuitOpen as refused:
            return refused


async def test_a_trip_is_heard_by_others_and_told_no_further(store: RedisStore) -> None:
    """They open for as long; who has only heard it is no witness."""
    here, there, third = breaker_of(store), breaker_of(store, open_for=1), breaker_of(store, quorum=2)
    await trip(here)
    refused = await opens(there)
    for _ in range(5):
        await third.call(anyio.sleep, 0.002)

    assert refused.retry_after == pytest.approx(30, abs=7)
    assert here.is_fresh(clock.now()) is False
    assert third.state == "closed"


async def test_a_quorum_opens_the_rest(store: RedisStore) -> None:
    """Two have seen it themselves."""
    breakers = [breaker_of(store, quorum=2) for _ in range(3)]
    await trip(breakers[0])
    await trip(breakers[1])

    assert (await opens(breakers[2])).state == "open"


async def test_who_has_recovered_does_not_hear_the_same_opening_again(store: RedisStore) -> None:
    """Its own probe counts for more than what it heard before."""
    here, there = breaker_of(store), breaker_of(store)
    await trip(here)
    await opens(there)
    there.close()
    for _ in range(5):
        await there.call(anyio.sleep, 0.002)

    assert there.state == "closed"


async def test_an_opening_that_is_over_is_taken_back(store: RedisStore) -> None:
    """A probe has succeeded, or somebody has closed it by hand."""
    here, by_hand, there = breaker_of(store, open_for=0.01), breaker_of(store), breaker_of(store)
    await trip(here)
    await until(lambda: here.state == "half_open")
    await trip(here)  # the probe fails: it is told again
    await until(lambda: here.state == "half_open")
    await here.call(anyio.lowlevel.checkpoint)
    await trip(by_hand)
    by_hand.close()
    await store.aclose()
    for _ in range(5):
        await there.call(anyio.sleep, 0.002)

    assert [each.state for each in (here, by_hand, there)] == ["closed"] * 3


async def test_one_that_is_open_itself_only_takes_note(store: RedisStore) -> None:
    """It has its own time to be open."""
    here, there = breaker_of(store), breaker_of(store)
    await trip(there)
    await trip(here)
    await opens(there)
    await store.aclose()

    assert there.statistics().opened == 1


async def test_without_a_store_it_is_a_breaker_like_any_other() -> None:
    """No call fails for that, or waits."""
    async with RedisStore("redis://127.0.0.1:1") as store:
        breaker = breaker_of(store)
        for _ in range(5):
            await breaker.call(anyio.sleep, 0.002)
        await until(lambda: store.breaker.state == "open")
        await trip(breaker)

        assert (await opens(breaker)).state == "open"


async def test_it_stands_in_a_policy_and_is_copied(store: RedisStore) -> None:
    """Siblings tell under the same name."""
    breaker = breaker_of(store, quorum=2)
    await Policy(circuit_breaker=breaker).pipeline().call(anyio.lowlevel.checkpoint)

    assert breaker.sibling().where == breaker.where
    assert breaker.named("other").where != breaker.where
    assert breaker.retune(breaker_of(store, quorum=3))
    assert breaker.quorum == 3
    assert not breaker.retune(breaker.named("other"))
    assert repr(breaker).startswith("<RedisCircuitBreaker 'api'")


async def test_it_copies_a_breaker(store: RedisStore) -> None:
    """Anything else is refused."""
    wrong: Any = "api"
    with pytest.raises(TypeError, match="expected a CircuitBreaker"):
        RedisCircuitBreaker(wrong, store)
