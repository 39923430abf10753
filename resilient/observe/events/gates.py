"""What strategies do at the gate of the callee: they refuse, change their state, move their limits, or play a fault."""

from dataclasses import dataclass
from typing import Literal

from resilient.observe.events.event import Event

__all__ = (
    "BreakerStateChanged",
    "CallRejected",
    "ChaosInjected",
    "LimitChanged",
    "RejectionsEnded",
    "Waited",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRejected(Event):
    """A strategy refused to run the callee.

    Attributes:
        strategy: its name.
        reason: the stable code, e.g. `circuit_open`.
        retry_after: seconds until asking again may succeed, or None.
        nth: which refusal of its run this is: only the first one, 1, is logged. See `RejectionsEnded`; of a breaker, the calls
            that it refused since it opened.

    """

    strategy: str
    reason: str
    retry_after: float | None = None
    nth: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionsEnded(Event):
    """A strategy that refused calls lets one through again (or has refused all for a minute): how many it refused meanwhile.

    A run lasts for a second at least: where grants and refusals alternate they are one run. It is made where a run had more than
    the one refusal that was logged; a breaker tells in `BreakerStateChanged` instead.

    Attributes:
        strategy: its name.
        reason: the code of the first refusal.
        rejections: how many there were, the first one included.
        seconds: how long the run lasted.

    """

    strategy: str
    reason: str
    rejections: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStateChanged(Event):
    """A circuit breaker changed its state.

    Attributes:
        strategy: its name.
        old: the state before.
        new: the state now.
        why: `failure_rate`, `slow_rate`, `consecutive_failures`, `trip`, `open_elapsed`, `probes_succeeded`, `probe_failed`,
            `probe_slow`, or `by_hand`.
        open_for: seconds that it will stay open, where it opens; else None.
        rejections: calls refused since it opened, where it lets all calls through again; else 0.
        monitor_only: it only watches: this is what would have happened, no call is refused.

    """

    strategy: str
    old: str
    new: str
    why: str
    open_for: float | None = None
    rejections: int = 0
    monitor_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited(Event):
    """A caller has waited for its permit and has it. It is routine: made only while somebody listens.

    Who is refused in the end is told of by `CallRejected`.

    Attributes:
        strategy: the name of the limiter or the bulkhead.
        seconds: how long it waited.

    """

    strategy: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChanged(Event):
    """An adaptive limit or rate has moved. It is routine: made only while somebody listens.

    Attributes:
        strategy: its name.
        old: the limit before: calls at a time, or calls in the `per` of a rate.
        new: the limit now.
        why: `room` (it has grown), `slower`, `drops`, `probe`, `probe_over`, or `throttled`.

    """

    strategy: str
    old: float
    new: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosInjected(Event):
    """Chaos hit a call: what follows is not the callee's own doing.

    Attributes:
        strategy: its name.
        kind: what was injected.
        seconds: how long the call is made to wait, where that is what was injected; else 0.0.
        error: the type of the injected exception, or "".
        nth: which injection of this strategy it is.

    """

    strategy: str
    kind: Literal["fault", "latency", "outcome"]
    seconds: float = 0.0
    error: str = ""
    nth: int = 1
