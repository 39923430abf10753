"""What the tests of the circuit breaker share."""

import contextlib
from random import Random
from typing import Any

import anyio

from resilient.errors import CircuitOpen
from resilient.observe.events import BreakerStateChanged, Event
from resilient.outcome import ABANDONED, CANCELLED, SUCCESS, Classifier, Health, Kind, Verdict
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.gate import Permit

GOOD = SUCCESS
BAD = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503")
NOTHING = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", throttled=True)
REJECTED = Verdict(Kind.PERMANENT, Health.NEUTRAL, "bulkhead_full", rejected=True)

__all__ = (
    "ABANDONED",
    "BAD",
    "CANCELLED",
    "GOOD",
    "NOTHING",
    "REJECTED",
    "UNWELL_IF_503",
    "Down",
    "Highest",
    "Lowest",
    "breaker",
    "changes",
    "down",
    "drive",
    "fail",
    "good",
    "granted",
    "hang",
    "open_breaker",
    "opened",
    "refused",
    "told",
)


class Highest(Random):
    """Randomness that always draws the highest number: an open breaker stays open for exactly `open_for`."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(Random):
    """Randomness that always draws the lowest number."""

    def uniform(self, a: float, b: float) -> float:
        return a


def breaker(**settings: Any) -> CircuitBreaker:
    """A breaker without jitter."""
    with_defaults: dict[str, Any] = {"random": Highest(), **settings}
    return CircuitBreaker(**with_defaults)


def granted(machine: CircuitBreaker, now: float) -> Permit:
    """The permit of a call that is let through."""
    permit = machine.admit(now)
    assert permit is not None
    return permit


def refused(machine: CircuitBreaker, now: float) -> CircuitOpen:
    """The rejection of a call that is refused."""
    try:
        machine.admit(now)
    except CircuitOpen as rejection:
        return rejection
    msg = f"{machine!r} let a call through"
    raise AssertionError(msg)


def drive(machine: CircuitBreaker, now: float, *verdicts: Verdict, latency: float = 0.0) -> None:
    """One call after the other, all in one instant."""
    for verdict in verdicts:
        granted(machine, now).settle(verdict, latency, now)


def open_breaker(now: float = 0.0, **settings: Any) -> CircuitBreaker:
    """One that has just opened, for five seconds if nothing else is said, and has told of it."""
    machine = breaker(consecutive_failures=1, **settings)
    drive(machine, now, BAD)
    told(machine)
    return machine


def told(machine: CircuitBreaker) -> list[Event]:
    """What lies in the outbox; it is empty then."""
    happened, machine.outbox = machine.outbox, None
    return list(happened.events) if happened is not None else []


def changes(events: list[Event]) -> list[tuple[str, str, str]]:
    """The changes of state among the events: old, new, why."""
    return [(event.old, event.new, event.why) for event in events if isinstance(event, BreakerStateChanged)]


class Down(Exception):
    """What a callee raises that is unwell."""


async def good() -> str:
    return "good"


async def down() -> str:
    raise Down


async def hang() -> None:
    await anyio.sleep_forever()


async def fail(strategy: CircuitBreaker, times: int = 1) -> None:
    """Call a callee that is down, so many times."""
    for _ in range(times):
        with contextlib.suppress(Down):
            await strategy.call(down)


async def opened(**settings: Any) -> CircuitBreaker:
    """One that opened just now."""
    gate = breaker(consecutive_failures=1, **settings)
    await fail(gate)
    return gate


UNWELL_IF_503 = Classifier(errors=lambda _: None, values=lambda value: BAD if value == 503 else None)
