"""Admission: gates, and the permits that they grant.

A `Gate` is a strategy that admits or refuses; its decisions are synchronous and are made by a state machine that is told the
time. Calls go through `guarded()`, which keeps the hard contracts; a permit taken by hand is a `Lease`, which is settled once.
All mutable state of a gate, as far as it is of no machine: its outbox.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Protocol, Self

from resilient import _switch, clock
from resilient.context import Attempt, Plain, current, invoke
from resilient.errors import Rejected
from resilient.observe.events import Event
from resilient.observe.listeners import ears, sink
from resilient.outcome import SUCCESS, Classifier, Health, Verdict, judge
from resilient.strategies.base import Step, Strategy
from resilient.strategies.guard import guarded
from resilient.strategies.outbox import Outbox, announce, leave_rejection

__all__ = ("Gate", "Lease", "Permit", "PermitBlock")


class Permit(Protocol):
    """Leave to proceed. Whoever must hear how it ended: it is settled exactly once by `guarded()` and `Lease`."""

    @property
    def lingers(self) -> bool:
        """Whether it is settled only when a lingering value has ended, not when it is returned."""
        ...

    def settle(self, verdict: Verdict, latency: float, now: float) -> "Permit | None":
        """Hear how it ended. `latency` is in seconds, from the admission to the return of the value.

        A permit that does not linger may hand back one that does: it hears how the rest of a lingering value went.
        """
        ...


class _Uncounted:
    """The permit that a gate hands out by hand while the strategies are disabled."""

    lingers = False

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        pass


_UNCOUNTED: Final = _Uncounted()


class Gate(Strategy):
    """An admission strategy: it grants a permit, asks the caller to wait, or refuses.

    Subclasses write `admit`, `refuse`, `sibling`, `is_fresh`, and `wait` where callers can wait.
    """

    __slots__ = ("name", "outbox")

    plain = True

    classifier: Classifier | None = None
    """Says what outcomes mean to this gate; None where that of the call does."""

    refusal: type[Rejected] = Rejected
    """What it refuses with."""

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.outbox: Outbox | None = None  # what happened inside, told by whoever drives the machine

    def leave(self, event: Event) -> None:
        """Put an event into the outbox, to be told when what goes on is over."""
        if self.outbox is None:
            self.outbox = Outbox()
        self.outbox.events.append(event)

    @abstractmethod
    def admit(self, now: float) -> Permit | None:
        """Grant a permit, or return None where the caller must wait. Raises `Rejected`. Never awaits."""

    @abstractmethod
    def sibling(self) -> Self:
        """A new gate with the same settings and fresh state."""

    def for_key(self, key: str) -> Self:
        """A sibling for the state of a key. One whose state lies outside of the process has it there under the key.

        The default is a sibling like any other: an instance is a state.
        """
        return self.sibling()

    @abstractmethod
    def is_fresh(self, now: float) -> bool:
        """Whether its state equals that of a new sibling, so that nothing is lost when it is forgotten."""

    def retune(self, template: Any) -> bool:
        """Take over the settings of `template`, a gate of the same class, and keep the state: what a reload asks for.

        False, and nothing is changed, where the state would mean something else; a sibling of the template then takes its place.
        The default is False.
        """
        return False

    def ready_in(self, now: float) -> float:
        """Seconds for which it is known to refuse every call: an open breaker does. Where callers may wait: 0.0.

        A retry asks before it waits, so as not to wait for a refusal. Asking changes nothing.
        """
        return 0.0

    def is_calm(self, now: float) -> bool:
        """Whether it is wise to send a hedge through: a breaker that is not closed says no. Asking changes nothing."""
        return True

    def refuse(self, now: float) -> Rejected:
        """The rejection for a caller that will not wait. `now` is the time of the decision."""
        raise NotImplementedError

    def kept(self, permit: Permit, now: float) -> Permit:
        """The permit that it granted at `now`, for a call that waits for another gate before it goes on: `settle` will not be
        told of that time. The default is the same one.
        """
        return permit

    async def wait(self, deadline: float) -> Permit:
        """Wait for a permit. Raises `Rejected` as soon as it cannot come in time.

        `deadline` is that of the attempt, on the clock of `resilient.clock`; infinity where it has none. The deadline of a call
        around it counts too, and so do anyio's: see `time_left()` and `call_time_left()` in `resilient.context`.
        """
        raise NotImplementedError

    async def at_once(self, deadline: float) -> Permit:
        """A permit for a hedge, which never waits in line: what it doubles is on its way. Raises `Rejected`. See `wait`.

        Called where `admit` has none. The default refuses; a gate that must ask outside of the process does, for a round trip
        is no line.
        """
        raise self.refuse(clock.now())

    def begin(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        if current() or (ears and sink()):
            return super().begin(fn, args, kwargs)
        return guarded((self,), self.classifier is not None, invoke, [fn, args, kwargs, None])

    def run(self, call: Step, attempt: Attempt | Plain) -> Coroutine[Any, Any, Any]:
        return guarded((self,), self.classifier is not None, call, attempt)

    async def acquire(self) -> "Lease":
        """Take a permit by hand, waiting where the strategy allows it: `with await gate.acquire(): ...`.

        Raises:
            Rejected: there is no permit, or none in time (the deadline around counts).

        """
        if not _switch.enabled:
            return Lease(self, _UNCOUNTED, clock.now())
        now, granted = clock.now(), False
        try:
            permit = self.admit(now)
            if permit is None:
                permit = await self.wait(math.inf)
                now = clock.now()
            granted = True
        except Rejected as rejection:
            leave_rejection(self, rejection)
            raise
        finally:
            announce(self, granted=granted)
        return Lease(self, permit, now)

    def acquire_nowait(self) -> "Lease":
        """Take a permit by hand, at once.

        Raises:
            Rejected: there is no permit now.

        """
        if not _switch.enabled:
            return Lease(self, _UNCOUNTED, clock.now())
        now, granted = clock.now(), False
        try:
            permit = self.admit(now)
            if permit is None:
                raise self.refuse(now)
            granted = True
        except Rejected as rejection:
            leave_rejection(self, rejection)
            raise
        finally:
            announce(self, granted=granted)
        return Lease(self, permit, now)

    def permit(self) -> "PermitBlock":
        """An async block that holds a permit: `async with gate.permit(): ...`."""
        return PermitBlock(self)


class Lease:
    """A permit that is held by hand. It is settled once: at the end of its `with` block, or by `settle()`."""

    __slots__ = ("_gate", "_permit", "_returned", "_started")

    def __init__(self, gate: Gate, permit: Permit, started: float) -> None:
        self._gate = gate
        self._permit: Permit | None = permit
        self._started = started  # when it was granted
        self._returned: tuple[Verdict, float] | None = None

    def returned(self, verdict: Verdict = SUCCESS) -> None:
        """Say that the work has given a value which is still in use: the head of a response whose body follows.

        What decides by the return (a half-open probe) is settled now, the rest when `settle()` tells that the value has
        ended: with this verdict, and with the latency until now.
        """
        permit = self._permit
        if permit is None or self._returned is not None:
            return
        now = clock.now()
        self._returned = verdict, now - self._started
        if not permit.lingers:
            self._permit = permit.settle(verdict, now - self._started, now)
            announce(self._gate)

    def settle(self, error: BaseException | None = None, *, verdict: Verdict | None = None) -> None:
        """Give the permit back. Later calls do nothing.

        Args:
            error: what the work ended with; None for success.
            verdict: what that means (default: as the gate judges the error).

        """
        permit, self._permit = self._permit, None
        if permit is None:
            return
        now = clock.now()
        at_return, latency = self._returned or (SUCCESS, now - self._started)
        if at_return.health is Health.UNHEALTHY or (error is None and verdict is None):
            verdict = at_return  # what was bad when it was returned is not better for how it ended
        elif verdict is None:
            verdict = judge(self._gate.classifier, error, error=True)
        permit.settle(verdict, latency, now)
        announce(self._gate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.settle(error)


class PermitBlock:
    """`async with gate.permit():` holds a permit while the block runs. Each use needs its own."""

    __slots__ = ("_gate", "_lease")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._lease: Lease | None = None

    async def __aenter__(self) -> Lease:
        self._lease = lease = await self._gate.acquire()
        return lease

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.settle(error)
