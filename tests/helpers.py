"""What several test files share: a callee that plays a script, and errors that only it raises."""

from typing import Any

import anyio

from resilient import clock


class Failure(Exception):
    """An error of the callee that is retried."""


class Fatal(Exception):
    """An error of the callee that is not."""


class Script:
    """A callee that plays its outcomes in order, the last one for ever: exceptions are raised, all else is returned.

    Attributes:
        at: when it was called, in seconds on the library's clock.

    """

    def __init__(self, *outcomes: Any, seconds: float = 0.0) -> None:
        self.outcomes = outcomes
        self.seconds = seconds  # that each call takes
        self.at: list[float] = []

    @property
    def calls(self) -> int:
        return len(self.at)

    async def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        outcome = self.outcomes[min(self.calls, len(self.outcomes) - 1)]
        self.at.append(clock.now())
        await anyio.sleep(self.seconds)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
