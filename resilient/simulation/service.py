"""A service that runs: requests come in, wait, are worked on, and are answered, whether anybody still wants the answer or not.

The machine is synchronous; timers of the event loop, which is on virtual time, end the work. Only a service that calls
another one needs a task for each request. All mutable state: how many workers are busy, the line of those that wait, how many
requests have succeeded, how many came at this moment, and the tally.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from random import Random
from typing import Final

from resilient import clock
from resilient.context import current_attempt
from resilient.outcome import Classifier, Health, Kind, Verdict, retry_on
from resilient.simulation.model import Condition, Service
from resilient.simulation.record import Tally

__all__ = ("ANSWER", "SIMULATED", "Endless", "Failed", "GaveUp", "Overloaded", "Server")

ANSWER: Final = object()
"""What a request that succeeds returns."""

OtherService = Callable[[], Awaitable[object]]


class Failed(ConnectionError):
    """A simulated service failed, or could not be reached."""


class Overloaded(Failed):
    """A simulated service has no room in its queue, and says so."""


class GaveUp(TimeoutError):
    """The simulated client library waited for as long as it does."""


class Endless(BaseException):
    """A service gets requests without end while no time passes. It is no failure that could be tried again."""


_AT_ONCE: Final = 1_000_000  # requests at one moment: no herd is as large
_RETRYABLE: Final = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "retryable_error")
_VERDICTS: Final[Mapping[type, Verdict]] = {
    Failed: _RETRYABLE,
    GaveUp: _RETRYABLE,
    Overloaded: Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "overloaded", throttled=True),
}

SIMULATED: Final = Classifier(lambda error: _VERDICTS.get(type(error))) | retry_on((ConnectionError, TimeoutError))
"""What the outcomes of simulated requests mean, in place of the classifier of a policy."""


class _Job:
    """A request, on its way through the service."""

    __slots__ = ("answer", "began", "seen")

    def __init__(self, answer: "asyncio.Future[object]") -> None:
        self.answer = answer
        self.began = 0.0
        self.seen = 0  # how many had succeeded when it began


class Server:
    """A running service.

    Args:
        service: what it is like.
        conditions: what goes wrong with it.
        random: where its chance comes from.
        tally: where it notes what it does.
        loop: the event loop, on virtual time.

    """

    __slots__ = (
        "_at_once",
        "_busy",
        "_conditions",
        "_last",
        "_line",
        "_loop",
        "_losses",
        "_random",
        "_service",
        "_succeeded",
        "_tally",
        "_tasks",
        "below",
    )

    def __init__(
        self,
        service: Service,
        conditions: Sequence[Condition],
        random: Random,
        tally: Tally,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._service = service
        self._conditions = conditions
        self._losses = [one for one in conditions if one.workers < 1]
        self._random = random
        self._tally = tally
        self._loop = loop
        self._busy = 0
        self._last = -1.0  # when the last request came ...
        self._at_once = 0  # ... and how many had come then
        self._line: deque[_Job] = deque()
        self._succeeded = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.below: OtherService | None = None  # how it calls the service that it needs

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._line)

    def close(self) -> None:
        """Nothing is worked on any more."""
        self._line.clear()  # the answers that were given up hold frames, and these hold the server

    async def request(self, patience: float) -> object:
        """Make a request. This is the callee that a policy protects.

        Raises:
            Failed: it failed, or was refused.
            GaveUp: there was no answer within `patience` seconds.

        """
        now = clock.now()
        self._at_once = self._at_once + 1 if now == self._last else 1
        self._last = now
        if self._at_once > _AT_ONCE:
            many = f"{_AT_ONCE:,} requests to {self._service.name!r} at second {now:g}"
            msg = f"{many}: does something try again without a wait, for ever?"
            raise Endless(msg)
        self._tally.attempt(now, current_attempt().kind)
        answer = self._loop.create_future()
        self._take(_Job(answer), now)
        timer = self._loop.call_at(now + patience, _give_up, answer, patience)
        try:
            return await answer
        finally:
            timer.cancel()
            del answer  # an exception that it holds would hold it, through the frames that it went through

    def _take(self, job: _Job, now: float) -> None:
        for condition in self._conditions:
            strength = condition.strength(now)
            if strength and condition.refuses and self._random.random() < condition.refuses * strength:
                job.answer.set_exception(Failed(f"{self._service.name} refuses connections"))
                return
            if strength and condition.hangs and self._random.random() < condition.hangs * strength:
                return
        self.catch_up(now)
        if self._busy < self._workers(now):
            self._begin(job, now)
        elif len(self._line) < self._service.queue:
            self._line.append(job)
        else:
            job.answer.set_exception(Overloaded(f"{self._service.name} is overloaded"))

    def _workers(self, now: float) -> float:
        workers: float = self._service.workers
        for loss in self._losses:
            workers *= 1 - (1 - loss.workers) * loss.strength(now)
        return workers

    def _begin(self, job: _Job, now: float) -> None:
        self._busy += 1
        job.began, job.seen = now, self._succeeded
        duration, fails = self._service.latency.draw(self._random), False
        for condition in self._conditions:
            strength = condition.strength(now)
            if strength:
                duration *= 1 + (condition.slow - 1) * strength
                fails = fails or (condition.errors > 0 and self._random.random() < condition.errors * strength)
        error = Failed(f"{self._service.name} failed") if fails else None
        self._loop.call_at(now + duration, self._end if self.below is None or error else self._go_below, job, error)

    def _go_below(self, job: _Job, _error: Exception | None) -> None:
        task = self._loop.create_task(self._ask_below(job), context=Context())  # another process: our caller is not its own
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask_below(self, job: _Job) -> None:
        error: Exception | None = None
        try:
            await self.below()  # type: ignore[misc]  # it is there
        except Exception as caught:  # noqa: BLE001  what comes from below is passed on as a failure of this service
            error = Failed(f"{self._service.name} failed: {caught}")
        self._end(job, error)

    def _end(self, job: _Job, error: Exception | None) -> None:
        """A piece of work is done: answer, and take the next one."""
        now = clock.now()
        self._busy -= 1
        if error is None and self._service.optimistic and job.seen != self._succeeded:
            error = Failed(f"{self._service.name}: somebody else was faster")
        self._tally.work(now, now - job.began, wasted=job.answer.done())
        if not job.answer.done():
            if error is None:
                self._succeeded += 1
                job.answer.set_result(ANSWER)
            else:
                job.answer.set_exception(error)
        self.catch_up(now)

    def catch_up(self, now: float) -> None:
        """Let workers that are free go on with those that wait. To be called now and then: workers may have come back."""
        while self._line and self._busy < self._workers(now):
            following = self._line.popleft() if self._service.discipline == "fifo" else self._line.pop()
            if not (self._service.notices and following.answer.done()):
                self._begin(following, now)


def _give_up(answer: "asyncio.Future[object]", patience: float) -> None:
    if not answer.done():
        answer.set_exception(GaveUp(f"no answer within {patience:g} s"))
