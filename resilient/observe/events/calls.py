"""What becomes of a call: it begins, it ends, it is cut off, another outcome stands in."""

from dataclasses import dataclass, field

from resilient.observe.events.event import Event
from resilient.outcome import Verdict

__all__ = (
    "CallFinished",
    "CallStarted",
    "FallbackUsed",
    "TimedOut",
)


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
