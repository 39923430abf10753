"""The guard that all gates share, on a gate of a user's own, and values that live on."""

from typing import Self

import anyio
import pytest

from helpers import BUSY, RETRY, Failure, Fatal, Script, cancelled_after, on_errors
from resilient import clock
from resilient.errors import BulkheadFull, Rejected
from resilient.observe.events import CallRejected
from resilient.observe.timeline import record_timeline
from resilient.outcome import CANCELLED, SUCCESS, Verdict
from resilient.pipeline import Pipeline
from resilient.strategies.gate import Gate
from resilient.strategies.timeout import Timeout
from strategies.doors import Body, BrokenDoor, Door, LingeringDoor

pytestmark = pytest.mark.anyio


class WaitingDoor(Door):
    """One that makes its callers wait, and does not say how."""

    def admit(self, now: float) -> Self | None:
        return None

    refuse = Gate.refuse


async def test_permits_are_settled_in_reverse_with_the_verdict_and_the_latency() -> None:
    """A value, an error, a rejection from within, a cancellation."""
    log: list[str] = []
    pipeline = Pipeline(Door("a", log), Door("b", log))
    await pipeline.call(Script(1, seconds=1))
    with pytest.raises(Failure):
        await pipeline.call(Script(Failure(), seconds=2))
    with pytest.raises(BulkheadFull):
        await pipeline.call(Script(BulkheadFull()))
    async with cancelled_after(0.5):
        await pipeline.call(anyio.sleep, 5)

    entered = ["a in", "b in"]
    assert log == [
        *entered, "b success 1", "a success 1",
        *entered, "b error 2", "a error 2",
        *entered, "b bulkhead_full 0", "a bulkhead_full 0",
        *entered, "b cancelled 0.5", "a cancelled 0.5",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [Door, LingeringDoor])
@pytest.mark.parametrize(
    ("outcome", "heard"),
    [
        pytest.param(1, ["success"] * 4, id="value"),
        pytest.param(Failure(), ["error", "error", "error", "http_503"], id="error"),
        pytest.param("lingers", ["success"] * 4, id="at the return"),
        pytest.param("ends", ["success"] * 4, id="at the end"),
    ],
)
async def test_a_permit_that_raises_does_not_keep_those_further_out(kind: type[Door], outcome: object, heard: list[str]) -> None:
    """Its error surfaces; all others have heard how it ended, once each, by a classifier of their own where they have one."""
    log: list[str] = []
    doors = [kind("a", log), kind("b", log), BrokenDoor("broken", log), kind("c", log)]
    doors[2].lingers = outcome == "ends"
    doors[0].classifier = on_errors(BUSY)
    value = Body() if isinstance(outcome, str) else outcome
    if outcome == "lingers" and kind is LingeringDoor:
        heard = ["abandoned", *heard[1:]]  # the innermost had let the value pass, and nobody gets it

    async def walk() -> None:
        await Pipeline(*doors).call(Script(value, seconds=1))
        assert isinstance(value, Body)
        value.ended()

    with pytest.raises(Fatal):
        await walk()
    del log[:4]

    assert sorted(log) == sorted(f"{name} {reason} 1" for name, reason in zip(("c", "broken", "b", "a"), heard, strict=True))


async def test_what_was_entered_before_a_refusal_is_left_again() -> None:
    """The rejection carries the key, and one event tells who refused."""
    log: list[str] = []
    open_door, closed = Door("open", log), Door("closed", log)
    pipeline = Pipeline(open_door, closed, key=str)
    closed.open = False
    closed.sibling = lambda: closed  # type: ignore[method-assign]  # pyright: ignore[reportAttributeAccessIssue]
    with record_timeline() as timeline, pytest.raises(Rejected, match="closed for 'users'") as caught:
        await pipeline.call(anyio.sleep, "users")  # type: ignore[arg-type]  # it is not called

    assert log == ["open in", "open rejected 0"]
    assert (caught.value.key, caught.value.retry_after) == ("users", 1.0)
    refusals = [event for event in timeline.events if isinstance(event, CallRejected)]
    assert [(event.strategy, event.key, event.retry_after) for event in refusals] == [("closed", "users", 1.0)]


async def test_a_gate_by_hand_is_settled_once_with_what_the_work_ended_with() -> None:
    """Its own classifier judges."""
    log: list[str] = []
    door = Door("door", log)
    door.classifier = on_errors(BUSY)
    with pytest.raises(Failure), await door.acquire():
        await Script(Failure(), seconds=1)()
    lease = door.acquire_nowait()
    lease.settle()
    lease.settle(Fatal())
    with pytest.raises(Failure):
        async with door.permit() as lease:
            raise Failure
    lease.settle()

    assert log == ["door in", "door http_503 1", "door in", "door success 0", "door in", "door http_503 0"]


async def test_a_permit_by_hand_hears_of_a_value_that_lives_on() -> None:
    """What lingers is kept until the value has ended; verdict and latency are those of the return."""
    log: list[str] = []
    lingering, plain = LingeringDoor("slot", log).acquire_nowait(), Door("probe", log).acquire_nowait()
    await anyio.sleep(1)
    for lease in (lingering, plain):
        lease.returned()
        lease.returned(BUSY)
    await anyio.sleep(9)
    for lease in (lingering, plain):
        lease.settle()
        lease.settle(Failure())
        lease.returned()

    assert log == ["slot in", "probe in", "probe success 1", "slot success 1"]


@pytest.mark.parametrize(("at_return", "reason"), [(SUCCESS, "cancelled"), (BUSY, "http_503")])
async def test_a_permit_by_hand_is_told_what_an_end_means(at_return: Verdict, reason: str) -> None:
    """A verdict may be given with the end; what was bad when it was returned stays bad."""
    log: list[str] = []
    lease = LingeringDoor("slot", log).acquire_nowait()
    lease.returned(at_return)
    lease.settle(Failure(), verdict=CANCELLED)

    assert log == ["slot in", f"slot {reason} 0"]


async def test_a_permit_block_that_was_never_entered_can_be_left() -> None:
    """Nothing was taken."""
    log: list[str] = []
    await Door("door", log).permit().__aexit__(None, None, None)

    assert log == []


async def test_a_gate_that_refuses_by_hand_is_told() -> None:
    """As one in a call, without a key."""
    door = Door("door", [])
    door.open = False
    with record_timeline() as timeline:
        with pytest.raises(Rejected):
            await door.acquire()
        with pytest.raises(Rejected):
            door.acquire_nowait()

    assert [(event.key, event.call_id) for event in timeline.events] == [(None, 0), (None, 0)]


async def test_a_gate_that_does_not_say_how_to_wait_or_refuse_says_so() -> None:
    """It is unfinished."""
    door = WaitingDoor("door", [])
    with pytest.raises(NotImplementedError):
        await door.call(Script(1))
    with pytest.raises(NotImplementedError):
        door.acquire_nowait()


async def test_a_retry_does_not_wait_for_a_gate_that_is_known_to_refuse() -> None:
    """It asks the gates inside of it first, wherever they stand."""

    class Shut(Door):
        def ready_in(self, now: float) -> float:
            return 30.0

    callee = Script(Failure())
    with pytest.raises(Failure):
        await Pipeline(RETRY, Timeout(5), Shut("shut", [])).call(callee)

    assert (callee.calls, clock.now()) == (1, 0)


async def test_permits_that_linger_are_settled_when_the_value_has_ended() -> None:
    """The others when it is returned; how it ended is told to those that still listen."""
    log: list[str] = []
    pipeline = Pipeline(Door("short", log), LingeringDoor("long", log))
    ends = [(None, "success"), (Failure(), "error"), (GeneratorExit(), "abandoned")]
    for error, reason in ends:
        body = Body()
        await pipeline.call(Script(body))
        await anyio.sleep(1)
        body.ended(error)
        body.ended(Fatal())

        assert log == ["short in", "long in", "short success 0", f"long {reason} 0"]
        log.clear()


async def test_a_value_that_has_ended_already_is_settled_at_once() -> None:
    """Nobody would tell its end any more."""
    log: list[str] = []
    body = Body()
    body.ended()
    await LingeringDoor("long", log).call(Script(body))

    assert log == ["long in", "long success 0"]


async def test_everyone_who_waits_for_the_end_of_a_value_hears_of_it() -> None:
    """In the order in which they asked, and once; who asks afterwards hears it at once."""
    heard: list[tuple[int, BaseException | None]] = []
    body, error = Body(), Failure()
    for number in range(3):
        body.on_end(lambda error, number=number: heard.append((number, error)))  # type: ignore[misc]
    await body.discard()
    body.ended(error)
    body.on_end(lambda error: heard.append((3, error)))

    assert [number for number, _ in heard] == [0, 1, 2, 3]
    assert all(isinstance(error, GeneratorExit) for _, error in heard[:3])


async def test_gates_apart_from_each_other_both_hear_of_the_end() -> None:
    """The innermost first."""
    log: list[str] = []
    body = Body()
    await Pipeline(LingeringDoor("outer", log), Timeout(5), LingeringDoor("inner", log)).call(Script(body))
    body.ended()

    assert log == ["outer in", "inner in", "inner success 0", "outer success 0"]
