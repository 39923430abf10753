"""The state machine of the circuit breaker: a table, the states, and a small engine. No clock, no await, no logging inside.

              tripped                elapsed
    closed ────────────▶ open ─────────────────▶ half_open
       ▲                   ▲       refuted           │
       │                   └─────────────────────────┤         by hand, from every state:
       └─────────────────────────────────────────────┘         closed, isolated, disabled
                            proven

The states are themselves the permits, and so the generation: `Closed` is the permit of all calls that it let through, each
half-open `Probe` is its own. A permit of a state that is not the current one any more is *stale*: what it is told changes
nothing. From open to half-open leads the first call after the time is over; there is no timer.

All mutable state: of the machine, the current state, the window of counts, what it remembers of its past, and whether it only
watches; of `Closed`, how many calls it has out and how many failed in a row; of `HalfOpen`, its probes.
"""

import math
from typing import TYPE_CHECKING, ClassVar, Final, Literal, final

from resilient.errors import CircuitOpen
from resilient.observe.events import BreakerStateChanged
from resilient.outcome import Health, Verdict
from resilient.strategies.gate import Gate, Permit
from resilient.strategies.windows import CountWindow, RingCounts, TimeCounts

if TYPE_CHECKING:
    from resilient.strategies.circuit_breaker import BreakerSettings

__all__ = ("TRANSITIONS", "BreakerMachine", "BreakerState", "Closed", "HalfOpen", "Open", "Probe")

State = Literal["closed", "open", "half_open", "isolated", "disabled"]
BreakerState = State | Literal["monitor_only"]
"""The state as it is seen from outside. In monitor-only the machine runs as ever, but its refusals are not carried out."""
Happening = Literal["tripped", "elapsed", "proven", "refuted"]
Order = Literal["close", "isolate", "disable"]

_STATES: Final[tuple[State, ...]] = ("closed", "open", "half_open", "isolated", "disabled")
_BY_HAND: Final[dict[Order, State]] = {"close": "closed", "isolate": "isolated", "disable": "disabled"}

TRANSITIONS: Final[dict[tuple[State, Happening | Order], State]] = {
    ("closed", "tripped"): "open",
    ("open", "elapsed"): "half_open",
    ("half_open", "proven"): "closed",
    ("half_open", "refuted"): "open",
    **{(state, order): target for state in _STATES for order, target in _BY_HAND.items()},
}
"""Where each event leads. What is not in the table does not happen."""

_HEALTHY: Final = Health.HEALTHY
_UNHEALTHY: Final = Health.UNHEALTHY
_JITTER: Final = 0.2
"""Up to this share is taken off the time that it stays open, so that many instances do not probe in the same instant."""


def _weigh(verdict: Verdict, latency: float, slow_call: float) -> tuple[bool, bool] | None:
    """Whether a call failed, and whether it was slow; None where it tells nothing.

    One that was cancelled still tells how long it took: a callee that hangs must be able to trip the breaker.
    """
    slow = latency >= slow_call and not verdict.rejected
    if verdict.health is Health.NEUTRAL and not slow:
        return None
    return verdict.health is _UNHEALTHY, slow


class _State:
    """What most states have in common."""

    __slots__ = ()

    def ready_in(self, now: float) -> float:
        """Seconds for which it is known that no call passes."""
        return 0.0


@final
class Closed(_State):
    """Calls pass and are counted. It is the permit of all of them."""

    __slots__ = ("consecutive", "machine", "out")
    name: ClassVar[State] = "closed"
    lingers = True

    def __init__(self, machine: "BreakerMachine") -> None:
        self.machine = machine
        self.consecutive = 0  # failures in a row
        self.out = 0  # calls in flight

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self.out -= 1
        machine = self.machine
        if machine.current is not self:
            return
        if verdict.health is _HEALTHY and latency < machine.settings.slow_call:
            self.consecutive = 0
            (machine.window or machine.make_window()).record(now)
        else:
            self.count(verdict, latency, now)

    def count(self, verdict: Verdict, latency: float, now: float) -> None:
        """Count a call that may be bad, and trip where that is one too many. A good call never trips."""
        machine = self.machine
        seen = _weigh(verdict, latency, machine.settings.slow_call)
        if seen is None:
            return
        failed, slow = seen
        if failed:
            self.consecutive += 1
            machine.remember().note_failure(verdict, now)
        elif verdict.health is _HEALTHY:
            self.consecutive = 0
        window = machine.window or machine.make_window()
        window.record(now, 1, failed, slow)
        why = self._reason_to_trip(window)
        if why and machine.current is self:  # a predicate of the user's ran in between
            machine.move("tripped", now, why, verdict)

    def _reason_to_trip(self, window: TimeCounts | RingCounts) -> str:
        settings, calls = self.machine.settings, window.calls
        if self.consecutive >= settings.consecutive_failures:
            return "consecutive_failures"
        if calls >= settings.minimum_calls:
            if window.failures / calls >= settings.failure_rate:
                return "failure_rate"
            if window.slow / calls >= settings.slow_rate:
                return "slow_rate"
        return "trip" if settings.trip is not None and settings.trip(window, self.consecutive) else ""


class Open(_State):
    """No call passes until the time is over; the first one after that is a probe."""

    __slots__ = ("machine", "until")
    name: ClassVar[State] = "open"

    def __init__(self, machine: "BreakerMachine", until: float) -> None:
        self.machine = machine
        self.until = until

    def admit(self, now: float) -> Permit | None:
        if now < self.until:
            return None
        self.machine.move("elapsed", now, "open_elapsed")
        return self.machine.admit(now)

    def ready_in(self, now: float) -> float:
        return max(0.0, self.until - now)


class HalfOpen(_State):
    """A few calls pass at a time, to find out whether the callee is well again."""

    __slots__ = ("machine", "passed", "probes")
    name: ClassVar[State] = "half_open"

    def __init__(self, machine: "BreakerMachine") -> None:
        self.machine = machine
        self.passed = 0  # probes that succeeded
        self.probes: list[Probe] = []  # those that are out, oldest first

    def admit(self, now: float) -> Permit | None:
        settings, probes = self.machine.settings, self.probes
        while probes and probes[0].expires <= now:  # it hangs, or was lost: its place is free, and it is stale
            probes.pop(0)
        wanted = max(settings.half_open_calls, settings.half_open_successes) - self.passed
        if len(probes) >= min(settings.half_open_calls, wanted):
            return None
        probe = Probe(self, now + settings.probe_lease)
        probes.append(probe)
        return probe


class Probe:
    """The permit of a half-open call: a place that it holds on lease. It is decided when the value is returned."""

    __slots__ = ("expires", "state")
    lingers = False

    def __init__(self, state: HalfOpen, expires: float) -> None:
        self.state = state
        self.expires = expires

    def settle(self, verdict: Verdict, latency: float, now: float) -> Permit | None:
        state = self.state
        machine = state.machine
        if machine.current is not state or self not in state.probes:
            return None
        state.probes.remove(self)
        seen = _weigh(verdict, latency, machine.settings.slow_call)
        if now >= self.expires or seen is None:
            return None
        failed, slow = seen
        past = machine.remember()
        past.calls += 1
        if failed:
            past.note_failure(verdict, now)
        if failed or slow:
            machine.move("refuted", now, "probe_failed" if failed else "probe_slow", verdict)
            return None
        state.passed += 1
        if state.passed >= machine.settings.half_open_successes:
            machine.move("proven", now, "probes_succeeded")
        return _Rest(machine)


class _Rest:
    """What comes after a probe's value was returned: an error while it is used is one more failure, if it closed meanwhile."""

    __slots__ = ("_machine",)
    lingers = True

    def __init__(self, machine: "BreakerMachine") -> None:
        self._machine = machine

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        state = self._machine.current
        if isinstance(state, Closed) and verdict.health is _UNHEALTHY:
            state.count(verdict, 0.0, now)


class Isolated(_State):
    """No call passes until somebody says otherwise."""

    __slots__ = ()
    name: ClassVar[State] = "isolated"

    def admit(self, now: float) -> Permit | None:
        return None

    def ready_in(self, now: float) -> float:
        return math.inf


class Disabled(_State):
    """Calls pass and are not counted. It is the permit of all of them."""

    __slots__ = ()
    name: ClassVar[State] = "disabled"
    lingers = False

    def admit(self, now: float) -> Permit | None:
        return self

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        pass


_ISOLATED: Final = Isolated()
_DISABLED: Final = Disabled()


class Past:
    """What a machine remembers longer than a state lasts. It is made when there is something to remember."""

    __slots__ = (
        "calls",
        "closed_at",
        "failures",
        "last_failure",
        "last_failure_at",
        "next_open",
        "opened",
        "rejected",
        "rejections",
        "timeouts",
    )

    def __init__(self, open_for: float) -> None:
        self.next_open = open_for  # how long it will stay open the next time, before jitter
        self.closed_at = -math.inf  # since when it has been closed; infinity while it is not
        self.opened = 0
        self.rejections = 0  # calls refused since it last let all calls through
        self.rejected = 0  # calls refused in all
        self.last_failure: str | None = None  # its reason code
        self.last_failure_at = -math.inf
        self.calls: float = 0  # with a result, of probes and of windows that are gone
        self.failures = 0  # in all
        self.timeouts = 0  # how many of them were timeouts

    def note_failure(self, verdict: Verdict, now: float) -> None:
        self.last_failure = verdict.reason
        self.last_failure_at = now
        self.failures += 1
        self.timeouts += verdict.reason.endswith("timeout")

    def is_calm(self, now: float) -> bool:
        """Whether it has been closed for as long as it would open the next time: growth is then forgotten."""
        return now - self.closed_at >= self.next_open


class BreakerMachine(Gate):
    """The engine: it asks the table where an event leads, enters that state, and leaves word of it in the outbox."""

    __slots__ = ("classifier", "current", "monitoring", "past", "settings", "window")

    def __init__(self, settings: "BreakerSettings") -> None:
        super().__init__(settings.name)
        self.settings: BreakerSettings = settings
        self.classifier = settings.classifier
        self.monitoring = settings.initial == "monitor_only"  # it only watches
        self.window: TimeCounts | RingCounts | None = None
        self.past: Past | None = None
        self.current: Closed | Open | HalfOpen | Isolated | Disabled
        self._enter("closed" if settings.initial == "monitor_only" else settings.initial, 0.0)

    def admit(self, now: float) -> Permit | None:
        state = self.current
        if type(state) is Closed:  # nearly always
            state.out += 1
            return state
        permit = state.admit(now)
        if permit is not None:
            return permit
        past = self.remember()
        past.rejections += 1
        past.rejected += 1
        if self.monitoring:
            return _DISABLED
        raise self.refuse(now)

    def refuse(self, now: float) -> CircuitOpen:
        wait = self.current.ready_in(now)
        retry_after = wait if 0.0 < wait < math.inf else None
        return CircuitOpen(self.name, retry_after, self.current.name, self.remember().rejections)

    def ready_in(self, now: float) -> float:
        """Seconds for which it is known to refuse every call: infinity while it is isolated, 0.0 where a call may pass."""
        return 0.0 if self.monitoring else self.current.ready_in(now)

    def is_calm(self, now: float) -> bool:
        """Whether hedging is wise: while calls are refused, or a few are let through as probes, it is not."""
        return self.monitoring or isinstance(self.current, (Closed, Disabled))

    def is_fresh(self, now: float) -> bool:
        """Whether it decides as a new one would: no permit is out, nothing is counted, `open_for` has not grown, and nobody
        has set it to another state.
        """
        state, settings, past = self.current, self.settings, self.past
        if settings.initial != ("monitor_only" if self.monitoring else state.name):
            return False
        if not isinstance(state, Closed):
            return not self.monitoring
        return (
            not state.out
            and (self.window is None or self.window.is_fresh(now))
            and (not state.consecutive or (settings.consecutive_failures == math.inf and settings.trip is None))
            and (past is None or past.next_open == settings.open_for or past.is_calm(now))
        )

    def move(self, event: Happening, now: float, why: str, verdict: Verdict | None = None) -> None:
        """Do what follows from an event. `verdict` is that of the call which brought it about."""
        old, new = self.current.name, TRANSITIONS[self.current.name, event]
        open_for = self._open_for(now, verdict) if new == "open" else None
        rejections = self._enter(new, now, open_for or 0.0)
        self.leave(
            BreakerStateChanged(
                at=now,
                strategy=self.name,
                old=old,
                new=new,
                why=why,
                open_for=open_for,
                rejections=rejections,
                monitor_only=self.monitoring,
            )
        )

    def obey(self, order: Order, now: float, *, monitoring: bool = False) -> None:
        """Do what somebody asks for by hand, in any state. What was counted, and what has grown, is forgotten."""
        old: BreakerState = "monitor_only" if self.monitoring else self.current.name
        self.monitoring = monitoring
        if self.past is not None:
            self.past.next_open = self.settings.open_for
        rejections = self._enter(TRANSITIONS[self.current.name, order], now)
        new = self.state_at(now)
        if new != old:
            self.leave(BreakerStateChanged(at=now, strategy=self.name, old=old, new=new, why="by_hand", rejections=rejections))

    def state_at(self, now: float) -> BreakerState:
        """The state as it is seen from outside."""
        return "monitor_only" if self.monitoring else self.would_be(now)

    def would_be(self, now: float) -> State:
        """The state, were the machine not only watching. Once the time is over it is half-open, though no call came yet."""
        state = self.current
        return "half_open" if isinstance(state, Open) and now >= state.until else state.name

    def make_window(self) -> TimeCounts | RingCounts:
        window = self.settings.window
        self.window = made = RingCounts(window.size) if isinstance(window, CountWindow) else TimeCounts(window)
        return made

    def count_anew(self) -> None:
        """Begin with an empty window. The totals stay."""
        window = self.window
        if window is not None:
            self.remember().calls += window.calls + window.forgotten
            self.window = None

    def remember(self) -> Past:
        past = self.past
        if past is None:
            self.past = past = Past(self.settings.open_for)
        return past

    def _open_for(self, now: float, verdict: Verdict | None) -> float:
        """How long to stay open: longer each time until it was calm for a while, and not shorter than a server asked for."""
        settings, past = self.settings, self.remember()
        length = settings.open_for if past.is_calm(now) else past.next_open
        past.next_open = min(length * settings.open_for_factor, settings.open_for_max)
        length = settings.random.uniform(length * (1 - _JITTER), length)
        hint = verdict.retry_after if verdict is not None and verdict.health is _UNHEALTHY else None
        if hint is None or not hint > 0:
            return length
        hint = min(hint, settings.open_for_max)
        # One-sided jitter: those who were told the same time must not come back in the same instant, nor earlier.
        return max(length, hint + settings.random.uniform(0.0, min(0.1 * hint, 1.0)))

    def _enter(self, name: State, now: float, open_for: float = 0.0) -> int:
        """Begin a state. Returns how many calls were refused before, where it lets all calls through again; else 0."""
        past = self.past
        if past is not None:
            past.closed_at = now if name == "closed" else math.inf
        if name == "open":
            self.remember().opened += 1
            self.current = Open(self, now + open_for)
        elif name == "half_open":
            self.current = HalfOpen(self)
        elif name == "isolated":
            self.current = _ISOLATED
        else:
            self.count_anew()
            self.current = Closed(self) if name == "closed" else _DISABLED
            if past is not None:
                rejections, past.rejections = past.rejections, 0
                return rejections
        return 0
