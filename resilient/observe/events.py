"""The events: typed records of something that happened.

An event is made after the fact, outside of every critical section, and handed to listeners (`resilient.observe.listeners`).
*Notable* ones (a retry, a rejection, a change of state, ...) are what an operator must see and are always made;
*routine* ones (`CallStarted`, `AttemptFinished`, `CallFinished`) are made only while somebody listens: a success costs nothing.
Times are seconds on the clock of `resilient.clock`. Texts never hold a query, a credential, a header or a body.
"""

import functools
import re
from dataclasses import dataclass, field
from typing import Final, Literal

from resilient.outcome import Verdict

__all__ = (
    "AttemptFinished",
    "AttemptKind",
    "BreakerStateChanged",
    "BudgetDecision",
    "CallFinished",
    "CallRejected",
    "CallStarted",
    "ChaosInjected",
    "Event",
    "FallbackUsed",
    "HedgeFinished",
    "HedgeResult",
    "HedgeStarted",
    "LimitChanged",
    "PolicyApplied",
    "PolicyRefused",
    "PolicyReloaded",
    "PolicyUnavailable",
    "RejectionsEnded",
    "RetryScheduled",
    "RetryStopped",
    "TimedOut",
)

AttemptKind = Literal["original", "retry", "hedge", "transparent_retry"]
HedgeResult = Literal["won", "lost", "failed", "denied", "suppressed"]

_CAMEL: Final = re.compile(r"(?<!^)(?=[A-Z])")


@functools.cache
def _snake_case(name: str) -> str:
    return _CAMEL.sub("_", name).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events.

    Attributes:
        at: when, in seconds on the clock of `resilient.clock`.
        key: the key of the call, or None.
        call_id: which call: a number that all events of one call share; 0 for what belongs to no call.

    """

    at: float
    key: str | None = None
    call_id: int = 0

    @property
    def name(self) -> str:
        """What it is called in logs, in metrics, and by a `Dispatch`: `retry_scheduled`, say."""
        return _snake_case(type(self).__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished(Event):
    """An execution of the callee has ended.

    Attributes:
        number: 1 for the first attempt of the call.
        kind: why it was made.
        hedge: 1, 2, ... for the hedges of an attempt, which share its number; else 0.
        started: when it began, in seconds on the clock.
        verdict: what its outcome means.
        error: the type of the exception, or "" where it returned.

    """

    number: int
    kind: AttemptKind
    started: float
    verdict: Verdict
    error: str = ""
    hedge: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryScheduled(Event):
    """An attempt failed and another one follows after a delay.

    Attributes:
        number: the attempt that failed.
        attempts: how many are allowed in total, or None where only the deadline bounds them.
        verdict: why it is tried again.
        error: the type of the exception, or "" where a value asks for the retry.
        delay: seconds of wait before the next attempt.
        delay_source: who chose the delay: "backoff", or "server" (a Retry-After, say), or "none" (a transparent retry).
        time_left: seconds that remain on the deadline, or None where there is none.
        budget_left: retries that the budget would still pay for, or None where there is none.

    """

    number: int
    attempts: int | None
    verdict: Verdict
    error: str
    delay: float
    delay_source: Literal["backoff", "server", "none"]
    time_left: float | None = None
    budget_left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryStopped(Event):
    """A call whose attempts failed gets no further one: its last outcome surfaces.

    Attributes:
        attempts: how many were made.
        reason: `attempts_exhausted`, `budget_exhausted`, `deadline`, `retry_after_too_long`, `not_retryable`, `aborted`,
            or `not_replayable`.
        verdict: what the last outcome means.
        error: the type of the last exception, or "".

    """

    attempts: int
    reason: str
    verdict: Verdict
    error: str = ""


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
class HedgeStarted(Event):
    """A further attempt was started while those before it were still out, or as soon as one had failed.

    Attributes:
        number: that of the attempt which it doubles.
        hedge: which hedge of that attempt: 1, 2, ...
        why: `delay`, or the reason code of the leg that failed.
        after: seconds since the attempt began.
        delay: seconds to wait for a leg before the next one.

    """

    number: int
    hedge: int
    why: str
    after: float
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeFinished(Event):
    """A hedge that was due has come to its end.

    Attributes:
        number: that of the attempt which it doubles.
        hedge: which hedge of that attempt: 1, 2, ...
        started: when it began, or would have begun, in seconds on the clock.
        result: `won`; `lost`: another leg came first, or the call was cancelled; `failed`: as the callee said; `denied`: the
            budget did not pay for it; `suppressed`: nothing was sent, because a gate had no permit at once, a breaker was not
            closed, or the time was over.
        why: the reason code of its outcome, or of what spoke against it; of one that lost `original_won`, `hedge_won` or
            `cancelled`.

    """

    number: int
    hedge: int
    started: float
    result: HedgeResult
    why: str


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
class TimedOut(Event):
    """A `Timeout` cut an attempt or a call off.

    Attributes:
        seconds: its limit.

    """

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackUsed(Event):
    """A fallback took the place of a failed outcome: the call is degraded.

    Attributes:
        verdict: what the outcome meant that was replaced.
        error: the type of its exception, or "".

    """

    verdict: Verdict
    error: str = ""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetDecision(Event):
    """A budget was asked for a retry or a hedge.

    Attributes:
        allowed: its answer.
        cost: what the attempt costs.
        left: what remains, in retries.
        budget: its name.
        number: the attempt that it follows: 1 for the first one of the call.
        kind: what it pays for: `"retry"` or `"hedge"`.
        mode: `standard`, or how a budget is made up for that nobody has registered: `allow`, `allow_unsafe`.
        reason: `allowed` or `budget_denied`.

    """

    allowed: bool
    cost: float
    left: float
    budget: str = ""
    number: int = 1
    kind: AttemptKind = "retry"
    mode: str = "standard"
    reason: str = "allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReloaded(Event):
    """A provider has other policies than before. What it has first is not told.

    Attributes:
        provider: `"file"` or `"remote"`.
        origin: which file, or for which key; "" for the document of a remote source.
        source: where they come from: `"file"`, `"remote"`, or `"lkg"`, the last ones known to be good.
        version: the number of the document, or None.
        policies: how many there are, the default among them.
        clamped: how many of their values were brought into bounds.

    """

    provider: str
    origin: str
    source: str
    version: int | None = None
    policies: int = 0
    clamped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRefused(Event):
    """A document is not used; the last good one stays. It is told once, until something else happens.

    Attributes:
        provider: as in `PolicyReloaded`; `"lkg"` where what is on disk is not used.
        origin: as in `PolicyReloaded`.
        why: what is wrong with it: the first problem.
        problems: how many there are.

    """

    provider: str
    origin: str
    why: str
    problems: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyUnavailable(Event):
    """A source of policies cannot be reached. It is told once, until something else happens.

    Attributes:
        provider: as in `PolicyReloaded`.
        origin: as in `PolicyReloaded`.
        why: what went wrong.
        serving: what calls get in the meantime: `"lkg"`, the last policies known to be good, or `"none"`.
        retry_in: seconds until it is asked again, at the earliest.

    """

    provider: str
    origin: str
    why: str
    serving: Literal["lkg", "none"]
    retry_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(Event):
    """An executor begins a call. It says which policy applies, and why.

    Attributes:
        policy_id: the `id` of the policy.
        policy_source: where it comes from: `code`, `static`, `file`, `remote`, `lkg`, `default` or `override`.
        policy_error: why the provider gave none, or "": `policy_not_found`, `provider_unavailable`, `policy_fetch_failed`,
            or `provider_raised`.
        missing_policy_mode: what was done then, or "": `fallback`, `allow` or `deny`.
        clamped_fields: the fields that were brought into bounds.
        missing: what the policy names and nobody has registered: the kind, its name, and what was done.

    """

    policy_id: str = ""
    policy_source: str = ""
    policy_error: str = ""
    missing_policy_mode: str = ""
    clamped_fields: tuple[str, ...] = ()
    missing: tuple[tuple[str, str, str], ...] = ()

    @property
    def attributes(self) -> dict[str, str]:
        """As texts by name, for a span or a log: those that have something to say."""
        told = {
            "policy_id": self.policy_id,
            "policy_source": self.policy_source,
            "policy_error": self.policy_error,
            "missing_policy_mode": self.missing_policy_mode,
            "policy_normalized": "true" if self.clamped_fields else "",
            "policy_clamped_fields": ",".join(self.clamped_fields),
        }
        for kind, name, mode in self.missing:
            told |= {f"{kind}_name": name, f"{kind}_error": f"{kind}_not_found", f"missing_{kind}_mode": mode}
        return {name: text for name, text in told.items() if text}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApplied(Event):
    """An executor has taken up another policy for a key, while somebody listens.

    Attributes:
        policy_id: its `id`.
        policy_source: where it comes from.
        kept: the parts that went on with their state, under new settings.
        made: the parts that began afresh.

    """

    policy_id: str
    policy_source: str
    kept: tuple[str, ...] = ()
    made: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(Event):
    """A call has ended as its user sees it.

    Attributes:
        started: when it began, in seconds on the clock.
        reason: the reason code of its final outcome.
        error: the type of the exception that surfaced, or "".
        attempts: how many attempts were made.
        degraded: whether a fallback stands in for the outcome.

    """

    started: float
    reason: str
    error: str = ""
    attempts: int = 1
    degraded: bool = field(default=False)
