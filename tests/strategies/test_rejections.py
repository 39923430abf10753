"""An overload does not flood the log: the first refusal of a run is a line, the others are counted, and the number is told."""

import contextlib
import copy
import gc
import logging
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import anyio
import pytest

from helpers import Script
from resilient.errors import Rejected
from resilient.observe import listeners
from resilient.observe.events import CallFinished, CallRejected, Event, RejectionsEnded
from resilient.observe.listeners import listening
from resilient.pipeline import Pipeline
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.gate import Gate
from resilient.strategies.outbox import outboxes
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.sliding_window import SlidingWindow
from strategies.callers import through

pytestmark = pytest.mark.anyio


async def refused(gate: Gate, times: int = 1, how: str = "call") -> None:
    """So many refusals of a gate that has nothing to grant."""
    for _ in range(times):
        with pytest.raises(Rejected):
            await through(how, gate, Script(1))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines since it was asked last, without their prefix."""
    caplog.set_level(logging.DEBUG, logger="resilient")

    def lines() -> list[str]:
        found = [record.getMessage().removeprefix("resilient.").split(" call_id")[0] for record in caplog.records]
        caplog.clear()
        return found

    return lines


FIRST = "call_rejected strategy=token_bucket reason=rate_limited"


@pytest.mark.parametrize("how", ["call", "pipeline", "acquire", "acquire_nowait"])
async def test_a_run_of_refusals_is_its_first_and_their_number(how: str, told: Callable[[], list[str]]) -> None:
    """Told when a permit is granted again, in whatever way; after that a new run begins."""
    bucket = TokenBucket(1, per=2.0, max_wait=0)
    bucket.acquire_nowait()
    await refused(bucket, 1000, how)
    during = told()
    await anyio.sleep(2.0)
    await Pipeline(bucket).call(Script(1))
    after = told()
    await refused(bucket, 2, how)

    assert during == [f"{FIRST} retry_after=2.0"]
    assert after == ["rejections_ended strategy=token_bucket reason=rate_limited rejections=1000 seconds=2.0"]
    assert told() == [f"{FIRST} retry_after=2.0"]


async def test_a_single_refusal_is_a_single_line(told: Callable[[], list[str]]) -> None:
    """There is nothing more to tell when it is over."""
    bucket = TokenBucket(1, max_wait=0)
    bucket.acquire_nowait()
    await refused(bucket)
    await anyio.sleep(5.0)
    await bucket.call(Script(1))
    await anyio.sleep(5.0)
    bucket.acquire_nowait()

    assert told() == [f"{FIRST} retry_after=1.0"]
    assert bucket.outbox is None


@pytest.mark.parametrize("kind", ["bucket", "bulkhead", "window"])
async def test_a_block_ends_a_run_too(kind: str, told: Callable[[], list[str]]) -> None:
    """Also where it takes the short way in."""
    makers: dict[str, Any] = {
        "bucket": TokenBucket(1, max_wait=0),
        "bulkhead": Bulkhead(1),
        "window": SlidingWindow(1, max_wait=0, exact=True),
    }
    gate = makers[kind]
    async with gate:
        await refused(gate, 3)
    await anyio.sleep(1.0)
    async with gate:
        pass
    lines = [line.split()[0] for line in told()]

    assert lines == ["call_rejected", "rejections_ended"]


async def test_weighted_refusals_are_of_the_same_run(told: Callable[[], list[str]]) -> None:
    """Five tokens or one: it is one limiter."""
    bucket = TokenBucket(10, max_wait=0, name="api")
    bucket.acquire_nowait(9)
    for _ in range(10):
        with pytest.raises(Rejected):
            bucket.acquire_nowait(5)
    bucket.acquire_nowait()
    await refused(bucket, 10)
    await anyio.sleep(1.0)
    bucket.acquire_nowait(5)

    assert [line.split()[:2] for line in told()] == [["call_rejected", "strategy=api"], ["rejections_ended", "strategy=api"]]


async def test_where_grants_and_refusals_alternate_there_are_two_lines_a_second(told: Callable[[], list[str]]) -> None:
    """A limiter that works at its limit for ten seconds, with ten times as many calls as it lets through."""
    bucket = TokenBucket(10, burst=1, max_wait=0)
    for _ in range(1000):
        await anyio.sleep(0.01)
        with contextlib.suppress(Rejected):
            await bucket.call(Script(1))
    lines = told()
    counted = sum(int(line.split("rejections=")[1].split()[0]) for line in lines if "rejections=" in line)

    assert len(lines) <= 20
    assert 750 <= counted <= 900


async def test_where_nothing_is_granted_the_number_is_told_each_minute(told: Callable[[], list[str]]) -> None:
    """A bulkhead of calls that hang: a quiet log would look as if it were over."""
    bulkhead = Bulkhead(1, name="jobs")
    bulkhead.acquire_nowait()
    for _ in range(150):
        await refused(bulkhead)
        await anyio.sleep(1.0)
    first, ended = "call_rejected strategy=jobs reason=bulkhead_full", "rejections_ended strategy=jobs reason=bulkhead_full"

    assert told() == [first, *2 * [f"{ended} rejections=60 seconds=60.0", first]]


async def test_listeners_hear_each_refusal_and_its_number(told: Callable[[], list[str]]) -> None:
    """The log is the log; whoever counts wants all."""
    bucket, heard = TokenBucket(1, max_wait=0), list[Event]()
    bucket.acquire_nowait()
    with listening(heard.append):
        await refused(bucket, 5)
        await anyio.sleep(1.0)
        await bucket.call(Script(1))
    ended = [event for event in heard if isinstance(event, RejectionsEnded)]

    assert [(event.at, event.nth) for event in heard if isinstance(event, CallRejected)] == [(0.0, nth) for nth in range(1, 6)]
    assert [(event.at, event.strategy, event.reason, event.rejections, event.seconds) for event in ended] == [
        (1.0, "token_bucket", "rate_limited", 5, 1.0)
    ]
    assert len(told()) == 2


def test_what_nobody_hears_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log gets the first refusal of a run and no other one, also while somebody listens elsewhere: to another task, say."""
    logged: list[Event] = []
    monkeypatch.setattr(listeners, "notable", [logged.append])
    full = Bulkhead(1)
    full.acquire_nowait()

    def refused() -> None:
        with pytest.raises(Rejected):
            full.acquire_nowait()

    refused()
    refused()
    elsewhere, block = copy_context(), listening(lambda _: None)
    elsewhere.run(block.__enter__)
    refused()
    elsewhere.run(refused)
    elsewhere.run(block.__exit__, None, None, None)

    assert [event.nth for event in logged if isinstance(event, CallRejected)] == [1, 4]


def test_a_refusal_that_a_listener_brings_about_is_told_as_that_of_its_own_call() -> None:
    """It is heard after that of the call that is told of, in its place."""
    full, heard = Bulkhead(1), list[Event]()
    full.acquire_nowait()

    def call() -> None:
        with pytest.raises(Rejected):
            full.call(Script(1)).send(None)

    def calling(event: Event) -> None:
        if isinstance(event, CallRejected) and event.nth == 1:
            call()

    with listening(heard.append), listening(calling):
        call()
    refusals = [event.call_id for event in heard if isinstance(event, CallRejected)]
    inner, outer = (event.call_id for event in heard if isinstance(event, CallFinished))

    assert refusals == [outer, inner]
    assert inner != outer


async def test_each_key_has_runs_of_its_own(told: Callable[[], list[str]]) -> None:
    """And its lines say which key it is."""
    pipeline = Pipeline(TokenBucket(1, max_wait=0), key=str)
    for key in ("a", "b", "a", "b", "a"):
        with contextlib.suppress(Rejected):
            await pipeline.call(anything, key)
    await anyio.sleep(1.0)
    await pipeline.call(anything, "b")
    await pipeline.call(anything, "a")

    assert [line.split(" retry_after")[0] for line in told()] == [
        "call_rejected key=a strategy=token_bucket reason=rate_limited",
        "call_rejected key=b strategy=token_bucket reason=rate_limited",
        "rejections_ended key=a strategy=token_bucket reason=rate_limited rejections=2 seconds=1.0",
    ]


async def anything(_: str) -> None:
    """It is called."""


def test_a_copy_of_a_gate_takes_nothing_from_the_others() -> None:
    """Guards look for events where there are outboxes at all: a copy that is made and thrown away must not change the number."""
    gate = Bulkhead(1)
    gate.acquire_nowait()
    with pytest.raises(Rejected):
        gate.acquire_nowait()
    before = len(outboxes)
    copy.deepcopy(gate)
    gc.collect()

    assert gate.outbox is not None
    assert len(outboxes) == before
