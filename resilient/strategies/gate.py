"""Admission: gates, the permits that they grant, and the one guard that settles them.

A `Gate` is a strategy that admits or refuses; its decisions are synchronous and are made by a state machine that is told the
time. The hard contracts live in one place, `guarded()`: permits are taken in order and settled in reverse, on every way out
(value, exception, cancellation), once. Events that a machine left in its outbox are told after that, never inside.
A permit taken by hand is a `Lease`. All mutable state of a gate, as far as it is of no machine: its outbox.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, ParamSpec, Protocol, Self, TypeVar

from resilient import _switch, clock
from resilient.context import Attempt, Plain, attempt_of, current, invoke, make_current, put_back
from resilient.errors import Rejected
from resilient.observe.events import CallRejected, Event
from resilient.observe.listeners import ears, emit_notable, sink
from resilient.outcome import ABANDONED, SUCCESS, Classifier, Health, Verdict, judge
from resilient.strategies.base import Step, Strategy
from resilient.strategies.lingering import Lingering
from resilient.strategies.outbox import Outbox, outboxes

__all__ = ("Gate", "Lease", "Permit", "PermitBlock", "announce", "guarded", "leave_rejection")

P = ParamSpec("P")
T = TypeVar("T")


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


async def guarded(  # noqa: C901, PLR0912, PLR0915  the hard contracts, in one place
    gates: Sequence[Gate],
    judged: bool,  # noqa: FBT001  steps are called by position
    call: Step,
    attempt: Any,  # an Attempt, or Plain
) -> Any:
    """Enter the gates in order, run the call, settle in reverse on every way out. See the top of this module.

    `judged` says that a gate has a classifier of its own. An attempt that has something to say is current from here on: the
    callee needs no frame of its own for that.
    """
    held: list[Permit] = []
    outcome: Any = None
    outer: Any = attempt
    classifier: Classifier | None = None
    failed = False
    started = clock.now()
    if type(attempt) is Attempt:
        classifier = attempt.classifier
        if not attempt.plain:
            outer = make_current(attempt)
    try:
        for gate in gates:
            permit = gate.admit(started)
            if permit is None:
                held = [each.kept(granted, started) for each, granted in zip(gates, held, strict=False)]
                permit = await _wait(gate, attempt_of(attempt))
                started = clock.now()
            held.append(permit)
            if outboxes and gate.outbox:
                announce(gate, attempt_of(attempt), granted=True)
        outcome = await call(attempt)
        return outcome  # noqa: TRY300  permits are settled in `finally`, once for every way out
    except BaseException as error:
        failed, outcome = True, error
        if len(held) < len(gates) and isinstance(error, Rejected):
            leave_rejection(gates[len(held)], error, attempt)
        raise
    finally:
        now = clock.now()
        latency = now - started
        if outer is not attempt:
            put_back(attempt, outer)
        if isinstance(outcome, Lingering) and not outcome.has_ended:
            _settle_at_end(gates, held, attempt_of(attempt), outcome, latency, now)
        verdict: Verdict | None = SUCCESS
        if held and (failed or judged or (classifier is not None and classifier.values is not None)):
            verdict = None  # it is asked for where a gate has no classifier of its own
            if type(attempt) is not Attempt:
                attempt = attempt_of(attempt)
        while held:
            permit = held.pop()
            own = gates[len(held)].classifier if judged else None
            if own is not None:
                permit.settle(attempt.verdict(outcome, error=failed, classifier=own), latency, now)
            else:
                verdict = common = verdict or attempt.verdict(outcome, error=failed)
                permit.settle(common, latency, now)
        if outboxes:
            for gate in gates:
                if gate.outbox:
                    announce(gate, attempt_of(attempt))
        del outcome  # an exception refers to its frames: no cycle


def _wait(gate: Gate, attempt: Attempt) -> Coroutine[Any, Any, Permit]:
    """Wait for a permit; a hedge stands in no line."""
    return (gate.at_once if attempt.kind == "hedge" else gate.wait)(attempt.deadline)


def _settle_at_end(
    gates: Sequence[Gate], held: list[Permit], attempt: Attempt, value: Lingering, latency: float, now: float
) -> None:
    """Settle what does not linger now, and see that the rest is settled when the value has ended. Empties `held`."""
    lingering: list[tuple[Gate, Permit, Verdict]] = []
    while held:
        permit = held.pop()
        gate = gates[len(held)]
        verdict = attempt.verdict(value, error=False, classifier=gate.classifier)
        if permit.lingers:
            lingering.append((gate, permit, verdict))
        else:
            rest = permit.settle(verdict, latency, now)
            if rest is not None:
                lingering.append((gate, rest, verdict))
            announce(gate, attempt)

    def settle_lingering(error: BaseException | None) -> None:
        now = clock.now()
        for gate, permit, verdict in lingering:
            permit.settle(_verdict_at_end(gate, attempt, verdict, error), latency, now)
        for gate, _, _ in lingering:
            announce(gate, attempt)

    if lingering:
        value.on_end(settle_lingering)


def _verdict_at_end(gate: Gate, attempt: Attempt, at_return: Verdict, error: BaseException | None) -> Verdict:
    if error is None or at_return.health is Health.UNHEALTHY:
        return at_return  # what was bad when it was returned is not better for having been thrown away
    if isinstance(error, GeneratorExit):
        return ABANDONED
    return attempt.verdict(error, error=True, classifier=gate.classifier)


def announce(gate: Gate, attempt: Attempt | None = None, *, granted: bool = False) -> None:
    """Tell what happened inside a gate, after it is over: a listener that calls the gate finds it in order.

    What a listener brings about in the same gate is told in its turn: everyone hears the events in the order of their making.
    `granted` says that a permit was granted just now.
    """
    outbox = gate.outbox
    if outbox is None or outbox.telling:
        return
    if granted:
        outbox.end_run(gate.name, clock.now())
    outbox.telling = True
    try:
        for event in outbox.events:  # it may grow meanwhile
            if attempt is None:
                emit_notable(sink(), event)
            else:
                attempt.notify(event if event.call_id else replace(event, key=attempt.key, call_id=attempt.identify()))
    finally:
        outbox.telling = False
        outbox.events.clear()
        if not outbox.rejections:
            gate.outbox = None


def leave_rejection(gate: Gate, rejection: Rejected, call: Attempt | Plain | None = None) -> None:
    """Put the rejection into the outbox of the gate that refused; not that of a hedge, which its race tells of."""
    key = None
    if isinstance(call, Attempt):
        if call.kind == "hedge":
            return
        key = call.key
    rejection.key = key
    now = clock.now()
    nth = getattr(rejection, "rejections", 0)  # a breaker counts by itself, and tells when it closes
    if not nth:
        if gate.outbox is None:
            gate.outbox = Outbox()
        nth = gate.outbox.count(gate.name, rejection.reason, now)
    if nth > 1 and not (ears and sink()):
        return  # only the first refusal of a run is what an operator must see
    event = CallRejected(
        at=now,
        key=key,
        call_id=attempt_of(call).identify() if call is not None else 0,
        strategy=gate.name,
        reason=rejection.reason,
        retry_after=rejection.retry_after,
        nth=nth,
    )
    gate.leave(event)
