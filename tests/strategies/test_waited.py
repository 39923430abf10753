"""A wait for a permit is told when it is over, to those who listen."""

from typing import Any

import anyio
import pytest

from helpers import Script
from resilient import (
    AdaptiveLimit,
    AdaptiveRate,
    Bulkhead,
    BulkheadFull,
    LeakyBucket,
    Pipeline,
    SlidingWindow,
    TokenBucket,
    listening,
)
from resilient.observe.events import AttemptFinished, CallFinished, Event, Waited
from resilient.strategies.gate import Gate
from strategies.callers import tasks, through

pytestmark = pytest.mark.anyio

LIMITERS = [
    TokenBucket(1),
    SlidingWindow(1, exact=True),
    LeakyBucket(1, shape=True),
    AdaptiveRate(1),
]


@pytest.mark.parametrize("template", LIMITERS, ids=lambda limiter: type(limiter).__name__)
async def test_who_waited_for_a_token_is_told_of_before_its_attempt(template: Gate) -> None:
    """With the key and the number of its call; who had one at once is not."""
    heard: list[Event] = []
    pipeline, script = Pipeline(template.sibling(), key=lambda: "users"), Script("value")
    with listening(heard.append):
        await pipeline.call(script)
        await anyio.sleep(0.25)
        await pipeline.call(script)

    assert [type(event) for event in heard] == [AttemptFinished, CallFinished, Waited, AttemptFinished, CallFinished]
    waited, last = heard[2], heard[4]
    assert isinstance(waited, Waited)
    assert (waited.strategy, waited.key, waited.call_id) == (template.name, "users", last.call_id)
    assert (round(waited.seconds, 6), round(waited.at, 6)) == (0.75, 1.0)


@pytest.mark.parametrize("bulkhead", [Bulkhead(1, max_queue=1, queue_timeout=2), AdaptiveLimit(1, max_queue=1, queue_timeout=2)])
@pytest.mark.parametrize("face", ["block", "permit", "acquire", "call"])
async def test_who_waited_for_a_slot_is_told_of_by_every_face(bulkhead: Any, face: str) -> None:
    """And whoever waited in vain by its refusal."""
    heard: list[Event] = []
    bulkhead = bulkhead.sibling()
    with listening(heard.append):
        async with tasks() as group:
            group.start_soon(bulkhead.call, anyio.sleep, 1.5)
            await anyio.sleep(0.5)
            await through(face, bulkhead, Script("value"))
        lease = bulkhead.acquire_nowait()
        with pytest.raises(BulkheadFull):
            await bulkhead.acquire()
        lease.settle()

    assert [(event.strategy, event.seconds) for event in heard if isinstance(event, Waited)] == [(bulkhead.name, 1.0)]


async def test_where_nobody_listens_nothing_is_left() -> None:
    """The gate has no outbox: who comes next need not look into it."""
    bucket = TokenBucket(1)
    await bucket.acquire()
    await bucket.acquire()

    assert bucket.outbox is None
