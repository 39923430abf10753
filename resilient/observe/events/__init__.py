"""The events: typed records of something that happened.

An event is made after the fact, outside of every critical section, and handed to listeners (`resilient.observe.listeners`).
*Notable* ones (a retry, a rejection, a change of state, ...) are what an operator must see and are always made;
*routine* ones (`CallStarted`, `AttemptFinished`, `CallFinished`) are made only while somebody listens: a success costs nothing.
Times are seconds on the clock of `resilient.clock`. Texts never hold a query, a credential, a header or a body.
"""

from resilient.observe.events.attempts import (
    AttemptFinished,
    AttemptKind,
    BudgetDecision,
    HedgeFinished,
    HedgeResult,
    HedgeStarted,
    RetryScheduled,
    RetryStopped,
)
from resilient.observe.events.calls import CallFinished, CallStarted, FallbackUsed, TimedOut
from resilient.observe.events.event import Event
from resilient.observe.events.gates import BreakerStateChanged, CallRejected, ChaosInjected, LimitChanged, RejectionsEnded, Waited
from resilient.observe.events.policies import PolicyApplied, PolicyRefused, PolicyReloaded, PolicyUnavailable

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
    "Waited",
)
