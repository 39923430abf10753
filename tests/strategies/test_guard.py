"""How a call goes through gates: what is current meanwhile, who judges, what permits hear, and when events are told."""

import contextlib
from typing import Any, Self

import anyio
import pytest

from helpers import BUSY, RETRY, Failure, Fatal, Script, on_errors
from resilient.context import current, current_attempt
from resilient.observe.events import CallFinished, Event, Waited
from resilient.observe.listeners import listening
from resilient.observe.timeline import record_timeline
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.pipeline import Pipeline
from strategies.doors import Body, BrokenDoor, Door, LingeringDoor

pytestmark = pytest.mark.anyio

GONE = Verdict(Kind.PERMANENT, Health.UNHEALTHY, "gone")


class TellingDoor(Door):
    """One that has something to tell of each permit that it takes back."""

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        super().settle(verdict, latency, now)
        self.leave(Waited(at=now, strategy=self.name, seconds=0.0))


class LingeringTellingDoor(TellingDoor):
    lingers = True


class DatedDoor(Door):
    """One that writes down when its permit was settled."""

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self.log.append(f"{self.name} {latency:g} until {now:g}")


@pytest.mark.parametrize("outcome", [1, Failure()])
async def test_gates_see_the_attempt_that_goes_through_them_and_afterwards_it_is_gone(outcome: object) -> None:
    """One of a user's own may decide by the key. What was current before is so again, in a call around and outside of any."""
    seen: list[str | None] = []

    class Looking(Door):
        def admit(self, now: float) -> Self | None:
            seen.append(current_attempt().key)
            return super().admit(now)

    inner = Pipeline(Looking("door", []), key=lambda: "users")

    async def outer() -> None:
        before = current()
        with contextlib.suppress(Failure):
            await inner.call(Script(outcome))

        assert current() is before

    await outer()
    await Pipeline(RETRY, key=lambda: "orders").call(outer)

    assert seen == ["users", "users"]


async def test_permits_behind_one_that_raises_hear_of_the_same_times() -> None:
    """How long the call took, and when it was over."""
    log: list[str] = []
    await anyio.sleep(1)
    with pytest.raises(Fatal):
        await Pipeline(DatedDoor("a", log), BrokenDoor("broken", []), DatedDoor("b", log)).call(Script(1, seconds=2))
    del log[:2]

    assert log == ["b 2 until 3", "a 2 until 3"]


async def test_permits_that_linger_hear_when_the_value_has_ended_and_how_long_the_call_took() -> None:
    """A stream of an hour says nothing of latency."""
    log: list[str] = []
    slot, body = DatedDoor("slot", log), Body()
    slot.lingers = True
    await slot.call(Script(body, seconds=2))
    await anyio.sleep(3)
    body.ended()

    assert log == ["slot in", "slot 2 until 5"]


@pytest.mark.parametrize("kind", [Door, LingeringDoor])
@pytest.mark.parametrize(("value_is", "ends", "heard"), [(BUSY, None, "http_503"), (None, Failure(), "gone")])
async def test_a_value_that_lives_on_is_judged_by_the_gates_own_classifier(
    kind: type[Door], value_is: Verdict | None, ends: Exception | None, heard: str
) -> None:
    """What it is when it is returned, and for those that linger how it ends. The others go by what is known without one."""
    log: list[str] = []
    own, common = kind("own", log), LingeringDoor("common", log)
    own.classifier = Classifier(on_errors(GONE).errors, lambda value: value_is if isinstance(value, Body) else GONE)
    body = Body()
    await Pipeline(common, own).call(Script(body))
    body.ended(ends)
    at_return = "http_503" if value_is else "success"

    assert log[2:] == [f"own {heard if kind is LingeringDoor else at_return} 0", f"common {'error' if ends else 'success'} 0"]


@pytest.mark.parametrize("value", [1, Failure(), Body()])
async def test_events_are_told_when_all_permits_are_settled(value: object) -> None:
    """A listener that calls the pipeline finds all of its gates in order."""
    log: list[str] = []
    with listening(_writing_to(log)), contextlib.suppress(Failure):
        await Pipeline(Door("a", log), TellingDoor("b", log), TellingDoor("c", log)).call(Script(value))

    assert [line.split()[:2] for line in log[3:]] == [[name, _word(value)] for name in "cba"] + [["b", "told"], ["c", "told"]]


@pytest.mark.parametrize("value", [1, Body()])
@pytest.mark.parametrize("kind", [TellingDoor, LingeringTellingDoor])
async def test_events_are_told_also_where_a_permit_raises(kind: type[TellingDoor], value: object) -> None:
    """They are of this call, and are not left for the next one."""
    log: list[str] = []
    doors = [kind("a", log), BrokenDoor("broken", log), kind("b", log)]
    doors[1].lingers = kind.lingers

    async def walk() -> None:
        await Pipeline(*doors).call(Script(value))
        assert isinstance(value, Body)
        value.ended()

    with listening(_writing_to(log)), pytest.raises(Fatal):
        await walk()

    assert sorted(log[-2:]) == ["a told", "b told"]
    assert [door.outbox for door in doors] == [None] * 3


async def test_events_of_a_value_that_lives_on_are_of_its_call() -> None:
    """Those at its return and those at its end, however late that is: they have its number, and its key."""
    with record_timeline() as timeline:
        body = Body()
        await Pipeline(TellingDoor("short", []), LingeringTellingDoor("long", []), key=lambda: "users").call(Script(body))
    await anyio.sleep(5)
    body.ended()
    (call,) = (event for event in timeline.events if isinstance(event, CallFinished))
    told = [event for event in timeline.events if isinstance(event, Waited)]

    assert [(event.strategy, event.at, event.key, event.call_id) for event in told] == [
        ("short", 0.0, "users", call.call_id),
        ("long", 5.0, "users", call.call_id),
    ]


def _writing_to(log: list[str]) -> Any:
    def write(event: Event) -> None:
        if isinstance(event, Waited):
            log.append(f"{event.strategy} told")

    return write


def _word(value: object) -> str:
    return "error" if isinstance(value, Failure) else "success"
