"""What becomes of the attempts of a call: each execution of the callee, what follows it, and who pays for that."""

from dataclasses import dataclass
from typing import Literal

from resilient.observe.events.event import Event
from resilient.outcome import Verdict

__all__ = (
    "AttemptFinished",
    "AttemptKind",
    "BudgetDecision",
    "HedgeFinished",
    "HedgeResult",
    "HedgeStarted",
    "RetryScheduled",
    "RetryStopped",
)

AttemptKind = Literal["original", "retry", "hedge", "transparent_retry"]
HedgeResult = Literal["won", "lost", "failed", "denied", "suppressed"]


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
