"""Fallback: something in place of a failed outcome.

It stands outermost as a rule. What it replaces is an exception that matches `on`, or a value that the classifier calls
retryable or unhealthy; cancellation passes through. The call is then marked as degraded, in its events and timeline.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

from resilient import clock
from resilient.context import Attempt
from resilient.observe.events import FallbackUsed
from resilient.observe.text import name_of
from resilient.outcome import Health, Kind, On, Outcome, checked_on, matches
from resilient.strategies.base import Step, Strategy
from resilient.strategies.lingering import Lingering

__all__ = ("Fallback",)

_ABSENT: Final[Any] = object()


class Fallback(Strategy):
    """Give something in place of a failed outcome.

    Args:
        value: what to give.
        function: makes it, from the `Outcome` that failed; sync or async. What it raises surfaces, with the failed error as
            its context.
        on: which exceptions to replace: a type, a tuple of them or a predicate. Default: every `Exception`, rejections
            included; never cancellation.

    Give either `value` or `function`.

    """

    __slots__ = ("function", "on", "value")

    def __init__(
        self,
        value: Any = _ABSENT,
        *,
        function: Callable[[Outcome[Any]], Any | Awaitable[Any]] | None = None,
        on: On | None = None,
    ) -> None:
        if (value is _ABSENT) == (function is None):
            msg = "give either a value, Fallback([]), or a function of the outcome, Fallback(function=from_cache)"
            raise TypeError(msg)
        if function is not None and not callable(function):
            msg = f"function={function!r}: expected a function of the outcome; a plain value goes first, Fallback({function!r})"
            raise TypeError(msg)
        self.value = value
        self.function = function
        self.on = None if on is None else checked_on("on", on)

    async def run(self, call: Step, attempt: Attempt) -> Any:
        error: Exception | None = None
        value: Any = None
        try:
            value = await call(attempt)
        except Exception as caught:
            if not self._replaces(caught):
                raise
            error = caught
        if error is None:
            verdict = attempt.verdict(value, error=False)
            if verdict.kind is not Kind.RETRYABLE and verdict.health is not Health.UNHEALTHY:
                return value
        else:
            verdict = attempt.verdict(error, error=True)
        if attempt.watch is not None:
            attempt.watch.degraded = True
        attempt.notify(
            FallbackUsed(
                at=clock.now(),
                key=attempt.key,
                call_id=attempt.identify(),
                verdict=verdict,
                error=name_of(error),
            )
        )
        return await self._instead(Outcome(value, error))

    def _replaces(self, error: Exception) -> bool:
        try:
            return self.on is None or matches(self.on, error)
        except Exception:  # noqa: BLE001  a broken predicate must not hide the error that it was asked about
            return False

    async def _instead(self, outcome: Outcome[Any]) -> Any:
        instead: Any = None
        try:
            instead = await self._make(outcome)
        except Exception as error:
            if error is not outcome.error and error.__context__ is None:
                error.__context__ = outcome.error
            raise
        finally:
            if isinstance(outcome.value, Lingering) and instead is not outcome.value:
                await outcome.value.discard()
        return instead

    async def _make(self, outcome: Outcome[Any]) -> Any:
        if self.function is None:
            return self.value
        made = self.function(outcome)
        return await made if inspect.isawaitable(made) else made

    def __repr__(self) -> str:
        return f"Fallback({self.function!r})" if self.function is not None else f"Fallback({self.value!r})"
