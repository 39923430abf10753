"""A callee that plays a script: values, exceptions and latencies in order, and a record of its calls.

All mutable state: the list of calls.
"""

import inspect
import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import anyio

from resilient import _arguments, clock
from resilient._arguments import Duration
from resilient.context import current_attempt

__all__ = ("After", "ScriptEnded", "ScriptedCall", "ScriptedCallee")

Then = Literal["last", "repeat", "raise"]
_THEN: Final = ("last", "repeat", "raise")


@dataclass(frozen=True, slots=True)
class After:
    """An outcome that takes its time: `After(0.2, 503)` returns 503 after 0.2 seconds, `After(60, OSError())` raises then.

    Attributes:
        seconds: how long it takes, at least 0 (a `timedelta` becomes seconds); `math.inf` hangs until it is cancelled.
        outcome: what comes then, None if nothing else is said.

    """

    seconds: Duration
    outcome: Any = None

    def __post_init__(self) -> None:
        if self.seconds != math.inf:
            object.__setattr__(self, "seconds", _arguments.seconds("seconds", self.seconds))


class ScriptEnded(AssertionError):
    """A callee was called more often than its script has outcomes, and `then="raise"`."""


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A call of a scripted callee.

    Attributes:
        at: when it began, in seconds on the library's clock.
        attempt: the number of the attempt within the call around it: 1 for the first, and where there is none.
        kind: why the attempt was made: `"original"`, `"retry"`, `"hedge"` or `"transparent_retry"`.
        args: the positional arguments.
        kwargs: the keyword arguments.

    """

    at: float
    attempt: int
    kind: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])


class ScriptedCallee:
    """An async callable that plays its outcomes in order: `ScriptedCallee(503, ConnectionError("reset"), After(0.2, 200))`.

    Exceptions (and classes of exceptions) are raised, all else is returned. It takes any arguments, and is a checkpoint.

    Args:
        outcomes: at least one.
        then: what follows after the last one: that again (`"last"`, the default), all from the first on (`"repeat"`), or a
            `ScriptEnded` (`"raise"`).
        seconds: that each call takes, in addition to what an `After` says, at least 0 (default 0).

    Attributes:
        received: the calls, in order. One that is cancelled has been received too.

    Raises:
        ValueError: no outcome, or an argument out of range.

    """

    def __init__(self, *outcomes: Any, then: Then = "last", seconds: Duration = 0.0) -> None:
        if not outcomes:
            msg = 'a script has at least one outcome: ScriptedCallee(503, ConnectionError("reset"), 200)'
            raise ValueError(msg)
        if then not in _THEN:
            msg = f"then={then!r}: expected 'last', 'repeat' or 'raise'"
            raise ValueError(msg)
        self._outcomes = outcomes
        self._then = then
        self._seconds = _arguments.seconds("seconds", seconds)
        self.received: list[ScriptedCall] = []

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self.received)

    @property
    def at(self) -> list[float]:
        """When it was called, in seconds on the library's clock."""
        return [call.at for call in self.received]

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        attempt, place = current_attempt(), self.calls
        self.received.append(ScriptedCall(clock.now(), attempt.number, attempt.kind, args, kwargs))
        outcome = self._outcome(place)
        wait = self._seconds
        if isinstance(outcome, After):
            wait, outcome = wait + cast("float", outcome.seconds), outcome.outcome
        await anyio.sleep(wait)
        if isinstance(outcome, BaseException):
            raise outcome.with_traceback(None)  # one object may be raised many times
        if inspect.isclass(outcome) and issubclass(outcome, BaseException):
            raise outcome
        return outcome

    def _outcome(self, place: int) -> Any:
        count = len(self._outcomes)
        if place >= count and self._then == "raise":
            msg = (
                f"call {place + 1} of a callee whose script has {count} outcomes: {self._outcomes!r}. "
                "Add an outcome, or see who calls so often: its `received` tells the attempts"
            )
            raise ScriptEnded(msg)
        return self._outcomes[place % count if self._then == "repeat" else min(place, count - 1)]

    def __repr__(self) -> str:
        return f"<ScriptedCallee: {len(self._outcomes)} outcomes, {self.calls} calls>"
