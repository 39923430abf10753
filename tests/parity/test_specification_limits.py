"""What the Go resilience specification asks of rate limiters, timeouts and bulkheads, written with this library."""

import contextlib
from contextvars import ContextVar

import anyio
import pytest

from helpers import Failure, Script
from resilient import (
    AdaptiveLimit,
    Bulkhead,
    BulkheadFull,
    Event,
    Keyed,
    LeakyBucket,
    Pipeline,
    RateLimited,
    Retry,
    SlidingWindow,
    Timeout,
    TimeoutExceeded,
    TokenBucket,
    deadline,
    listening,
)
from resilient.observe.events import (
    CallRejected,
    TimedOut,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]


# 3 Rate limiter


async def test_allow_wait_and_take_per_key() -> None:
    """`Allow` and `Take` do not wait, `Wait` does; each key has a bucket of its own."""
    limiter = Keyed(TokenBucket(100, burst=150), max_keys=1000)

    def allow(key: str, tokens: int = 1) -> bool:
        try:
            limiter[key].acquire_nowait(tokens)
        except RateLimited:
            return False
        return True

    assert allow("user123")  # Allow
    assert allow("user123", tokens=149)  # Take
    assert not allow("user123")
    assert allow("user456")
    await limiter["user123"].acquire()  # Wait
    assert anyio.current_time() == pytest.approx(0.01)


user_id: ContextVar[str] = ContextVar("user_id")


async def test_the_key_may_come_from_the_context() -> None:
    """`KeyFunc`: a function of the call; what is in context variables is there too."""
    pipeline = Pipeline(TokenBucket(1, max_wait=0), key=lambda *_, **__: user_id.get())
    user_id.set("alice")
    await pipeline.call(Script("value"))
    with pytest.raises(RateLimited):
        await pipeline.call(Script("value"))
    user_id.set("bob")

    assert await pipeline.call(Script("value")) == "value"


async def test_a_limit_that_is_reached_is_told() -> None:
    """`OnLimit(key)`: an event with the key, the reason, and when to come back."""
    told: list[Event] = []
    pipeline = Pipeline(TokenBucket(1, max_wait=0), key=lambda: "tenant")
    await pipeline.call(Script("value"))
    with listening(told.append), pytest.raises(RateLimited):
        await pipeline.call(Script("value"))
    (rejected,) = (event for event in told if isinstance(event, CallRejected))

    assert (rejected.key, rejected.reason, rejected.retry_after) == ("tenant", "rate_limited", 1.0)


@pytest.mark.parametrize(
    "limiter",
    [SlidingWindow(5, exact=True, max_wait=0), SlidingWindow(5, max_wait=0), LeakyBucket(5)],
    ids=["log", "counter", "leaky"],
)
async def test_there_are_other_limiters(limiter: SlidingWindow | LeakyBucket) -> None:
    """A sliding log, a sliding window, a leaky bucket: five a second, and the sixth is refused."""
    for _ in range(5):
        await limiter.call(Script("value"))
    with pytest.raises(RateLimited) as refused:
        await limiter.call(Script("value"))

    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after < 2


async def test_a_limit_follows_what_the_service_takes() -> None:
    """Adaptive: a service that fails beyond ten calls at a time gets fewer, and nobody had to guess the number."""
    limit = AdaptiveLimit(40, max_queue=100)

    async def overloaded() -> None:
        await anyio.sleep(0.1)
        if limit.statistics().active > 10:
            raise Failure

    async def work() -> None:
        for _ in range(50):
            with contextlib.suppress(Failure):
                await limit.call(overloaded)

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(work)

    assert limit.statistics().limit < 20


async def test_hostile_keys_do_not_grow_memory() -> None:
    """The specification keeps a bucket for each key that ever came."""
    limiter = Keyed(TokenBucket(10_000), max_keys=10)
    for number in range(1000):
        limiter[f"user{number}"].acquire_nowait()

    assert len(limiter) == 10


# 4 Timeout


async def test_each_operation_may_have_a_timeout_of_its_own() -> None:
    """A default, and another one where it is given."""

    async def fetch_data() -> None:
        await anyio.sleep(3)

    default = Timeout(5)
    await default.call(fetch_data)
    with pytest.raises(TimeoutExceeded) as raised:
        await Timeout(2).call(fetch_data)

    assert raised.value.seconds == 2
    assert isinstance(raised.value, TimeoutError)


async def test_a_deadline_reaches_everything_inside() -> None:
    """Deadline propagation: the wait of a retry further in is not even begun."""
    callee = Script(Failure("real"))
    with deadline(3), pytest.raises(Failure, match="real"):
        await Retry(on=Failure, backoff=[5]).call(callee)

    assert anyio.current_time() == 0


async def test_a_timeout_can_call_back() -> None:
    """`OnTimeout`: a callback, an event, and a log line."""
    called: list[str] = []
    told: list[Event] = []
    with listening(told.append), pytest.raises(TimeoutExceeded):
        await Timeout(2, on_timeout=lambda: called.append("cleaned up")).call(anyio.sleep_forever)

    assert called == ["cleaned up"]
    assert [event.seconds for event in told if isinstance(event, TimedOut)] == [2]


# 5 Bulkhead


async def test_a_bulkhead_bounds_its_queue_and_the_wait_in_it() -> None:
    """`MaxConcurrent`, `MaxQueue`, `QueueTimeout`."""
    bulkhead = Bulkhead(1, max_queue=1, queue_timeout=2)
    async with bulkhead, anyio.create_task_group() as tasks:
        tasks.start_soon(_refused_after, bulkhead, 2.0)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(_refused_after, bulkhead, 0.0)


async def _refused_after(bulkhead: Bulkhead, seconds: float) -> None:
    with pytest.raises(BulkheadFull) as refused:
        await bulkhead.call(Script("value"))

    assert refused.value.waited == seconds


async def test_each_resource_has_a_bulkhead_of_its_own() -> None:
    """Per-resource isolation."""
    bulkheads = Keyed(Bulkhead(1), max_keys=100)
    async with bulkheads["database"]:
        assert await bulkheads["search"].call(Script("value")) == "value"


async def test_a_bulkhead_shows_how_full_it_is() -> None:
    """Utilisation, and an event for each refusal (`OnRejected`)."""
    told: list[Event] = []
    bulkhead = Bulkhead(1, name="database")
    async with bulkhead:
        active = bulkhead.statistics().active
        with listening(told.append), pytest.raises(BulkheadFull):
            await bulkhead.call(Script("value"))
    rejected = [(event.strategy, event.reason) for event in told if isinstance(event, CallRejected)]

    assert (active, bulkhead.statistics().active) == (1, 0)
    assert rejected == [("database", "bulkhead_full")]
