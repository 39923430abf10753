"""What is known of a failed attempt travels with its exception.

Strategies see an exception and ask what it means; the answer needs the request and the evidence, which only the engine has.
So the engine leaves its verdict on the exception, and takes it off again before the exception surfaces.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from resilient.errors import TimeoutExceeded
from resilient.outcome import Health, Kind, Verdict
from resilient_integrations._http.errors import adopt

if TYPE_CHECKING:
    from resilient_integrations._http.call import Sending
    from resilient_integrations._http.options import Limit

__all__ = ("CUT", "Failure", "cut_off", "failure_of", "forget", "remember")

CUT: Final = Verdict(Kind.ABORT, Health.NEUTRAL, "timeout")
"""The caller's own limit for everything was reached: that is the end, and tells nothing about the server."""

_ATTRIBUTE: Final = "__resilient_failure__"


class Failure:
    """A failed attempt: which request it was, and what the failure means (None: the engine does not know)."""

    __slots__ = ("sending", "verdict")

    def __init__(self, sending: "Sending", verdict: Verdict | None) -> None:
        self.sending = sending
        self.verdict = verdict


def remember(error: BaseException, sending: "Sending", verdict: Verdict | None) -> None:
    """Leave a verdict on an exception."""
    with suppress(AttributeError):  # a class with __slots__ has no place for it: the core judges it by itself
        setattr(error, _ATTRIBUTE, Failure(sending, verdict))


def failure_of(error: BaseException) -> Failure | None:
    """What was left on it, or None: it comes from a strategy."""
    found: Any = getattr(error, _ATTRIBUTE, None)
    return found if isinstance(found, Failure) else None


def forget(error: BaseException) -> None:
    """Take it off: the exception surfaces."""
    with suppress(AttributeError):
        delattr(error, _ATTRIBUTE)


def cut_off(sending: "Sending", limit: "Limit", seconds: float, base: type) -> TimeoutExceeded:
    """The exception for a limit of `seconds` that was reached, as an instance of the family's `base` as well."""
    on_timeout = getattr(limit, "on_timeout", None)
    if on_timeout is not None:
        on_timeout()
    return adopt(TimeoutExceeded(seconds), sending.engine.family.package, sending.request, base)
