"""A callee for tests of hedging: each call of it takes its own time and has its own outcome. And what is told of hedges."""

from typing import Any

import anyio

from resilient import clock
from resilient.context import current_attempt
from resilient.observe.events import HedgeFinished
from resilient.observe.timeline import Timeline


class Abrupt(BaseException):
    """As a KeyboardInterrupt is."""


class Legs:
    """Each call plays the next leg, the last one for ever: `(seconds, outcome)`; exceptions are raised, all else is returned.

    Attributes:
        at: when each leg was started.
        cancelled: which legs were cancelled, by their number: 0, 1, ...
        active: how many run now.
        attempts: kind, number and hedge of each leg.

    """

    def __init__(self, *legs: tuple[float, Any]) -> None:
        self.legs = legs
        self.at: list[float] = []
        self.cancelled: list[int] = []
        self.active = 0
        self.attempts: list[tuple[str, int, int]] = []

    async def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        nth = len(self.at)
        seconds, outcome = self.legs[min(nth, len(self.legs) - 1)]
        attempt = current_attempt()
        self.attempts.append((attempt.kind, attempt.number, attempt.hedge))
        self.at.append(clock.now())
        self.active += 1
        try:
            await anyio.sleep(seconds)
        except BaseException:
            self.cancelled.append(nth)
            raise
        finally:
            self.active -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Stubborn(Legs):
    """Its legs finish whatever happens: they are shielded from cancellation."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with anyio.CancelScope(shield=True):
            return await super().__call__(*args, **kwargs)


def told(timeline: Timeline) -> list[str]:
    """What came of each hedge, in order."""
    return [f"{event.result}: {event.why}" for event in timeline.events if isinstance(event, HedgeFinished)]
