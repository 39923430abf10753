"""The decisions of one retried call.

A `RetryLoop` lives from the first failure of a call to its end. It is told each failed outcome and decides, without
awaiting: go on after a delay, or stop. It keeps a bounded record of what happened, which the surfacing exception
carries, and the permit of the budget that paid for the next attempt, which is given back where that attempt is not made.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from resilient import clock
from resilient.context import Attempt, begin_attempt, make_current, put_back, tell_attempt_finished, tell_call_finished, time_left
from resilient.errors import Rejected
from resilient.observe.events import AttemptFinished, AttemptKind, RetryScheduled, RetryStopped
from resilient.observe.listeners import Ends
from resilient.observe.text import name_of
from resilient.observe.timeline import Timeline, attach
from resilient.outcome import Kind, Verdict
from resilient.strategies.backoff import Backoff, ByVerdict, as_backoff
from resilient.strategies.lingering import Lingering

if TYPE_CHECKING:
    from resilient.strategies.base import Inside
    from resilient.strategies.budget import Spending
    from resilient.strategies.retry import Retry

__all__ = ("AttemptBlock", "AttemptLoop", "RetryLoop")

_RECORD_LIMIT: Final = 100
_NOTE: Final = "resilient: "

Source = Literal["backoff", "server", "none"]
_AT_ONCE: Final[tuple[float, Source]] = 0.0, "none"


class RetryLoop:
    """The state of one retried call: how many attempts count, the schedules of its backoffs, what paid for the next one."""

    __slots__ = (
        "_attempt_started",
        "_counted",
        "_inside",
        "_kind",
        "_last_error",
        "_record",
        "_retry",
        "_schedules",
        "_spending",
        "_started",
        "_stopped",
        "_was_transparent",
    )

    def __init__(self, retry: "Retry", inside: "Inside", started: float) -> None:
        self._retry = retry
        self._inside = inside
        self._started = started
        self._attempt_started = started
        self._counted = 0  # attempts that count towards `attempts`
        self._was_transparent = False  # the one transparent retry was made
        self._kind: AttemptKind = "retry"  # of the next attempt
        self._schedules: list[tuple[Backoff, Iterator[float]]] = []
        self._spending: Spending | None = None
        self._last_error: Exception | None = None  # the last one that is not a rejection
        self._record = Timeline(_RECORD_LIMIT)
        self._stopped: RetryStopped | None = None

    def decide(self, attempt: Attempt, verdict: Verdict, error: Exception | None) -> float | None:
        """Seconds to wait before the next attempt, or None to stop. Tells what was decided."""
        now = clock.now()
        self._note_attempt(attempt, verdict, error, now)
        left = time_left(attempt.deadline)
        source: Source
        reason, delay, source = self._next(attempt, verdict, now, left)
        if reason == "deadline" and left == -math.inf:
            return 0.0  # no deadline: the scope around is cancelled, and the wait will say so
        name = name_of(error)
        if reason:
            self._stop(
                attempt,
                RetryStopped(**self._about(attempt, now), attempts=attempt.number, reason=reason, verdict=verdict, error=name),
            )
            if error is not None and not isinstance(error, Rejected):
                self._last_error = error
            return None
        self._last_error = self._last_error if isinstance(error, Rejected) else error
        budget = None if self._retry.budget is None else attempt.sibling(self._retry.budget)
        event = RetryScheduled(
            **self._about(attempt, now),
            number=attempt.number,
            attempts=self._attempts(attempt),
            verdict=verdict,
            error=name,
            delay=delay,
            delay_source=source,
            time_left=left if left < math.inf else None,
            budget_left=None if budget is None else budget.left(now),
        )
        self._record(event)
        attempt.notify(event)
        attempt.forget_verdict()
        return delay

    def _next(  # noqa: PLR0911  one return for each reason to stop, in the order in which they are asked
        self, attempt: Attempt, verdict: Verdict, now: float, left: float
    ) -> tuple[str, float, Source]:
        """The reason to stop, or "" with the delay and where it comes from."""
        retry = self._retry
        if verdict.kind is Kind.ABORT:
            return "aborted", *_AT_ONCE
        if verdict.transparent and not self._was_transparent:
            self._was_transparent = True
            self._kind = "transparent_retry"
            return ("" if left > 0 else "deadline"), *_AT_ONCE
        self._kind = "retry"
        self._counted += 1
        if verdict.kind is not Kind.RETRYABLE:
            return "not_retryable", *_AT_ONCE
        attempts = self._attempts(attempt)
        if attempts is not None and self._counted >= attempts:
            return "attempts_exhausted", *_AT_ONCE
        delay, source = self._delay(verdict)
        if verdict.retry_after is not None and verdict.retry_after > retry.max_retry_after:  # type: ignore[operator]  # a float
            return "retry_after_too_long", delay, source
        if delay >= left:
            return "deadline", delay, source
        refused_by = self._refused_for(attempt, now, delay)
        if refused_by:
            return refused_by, delay, source
        if not self._pay(attempt, verdict, now):
            return "budget_exhausted", delay, source
        return "", delay, source

    def _attempts(self, attempt: Attempt) -> int | None:
        """How many there may be in total."""
        return self._retry.attempts if attempt.limit is None else attempt.limit

    def _delay(self, verdict: Verdict) -> tuple[float, Source]:
        backoff = as_backoff(self._retry.backoff)
        chosen = backoff.choose(verdict) if isinstance(backoff, ByVerdict) else backoff
        schedule = next((schedule for known, schedule in self._schedules if known == chosen), None)
        if schedule is None:
            schedule = chosen.delays(self._retry.random)
            self._schedules.append((chosen, schedule))
        delay = next(schedule)
        hint = verdict.retry_after
        if hint is None or hint < delay:
            return delay, "backoff"
        # One-sided jitter: all clients that were told the same time must not come back in the same instant.
        return hint + self._retry.random.uniform(0.0, min(0.1 * hint, 1.0)), "server"

    def _refused_for(self, attempt: Attempt, now: float, delay: float) -> str:
        """The reason why a gate inside would refuse the next attempt: it is not worth a wait, nor the outcome at hand."""
        for template in self._inside:
            gate = attempt.sibling(template)
            if gate.ready_in(now) > delay:
                return gate.refusal.reason
        return ""

    def _pay(self, attempt: Attempt, verdict: Verdict, now: float) -> bool:
        if self._retry.budget is None:
            return True
        self._spending = attempt.sibling(self._retry.budget).spend(now, attempt=attempt, throttled=verdict.throttled)
        return self._spending is not None

    def give_back(self) -> None:
        """The attempt that was paid for is not made, or what it sent was refused: refund the payment."""
        spending, self._spending = self._spending, None
        if spending is not None:
            spending.refund(clock.now())

    def attempt_ended(self, error: BaseException | None) -> None:
        """The attempt that was paid for has ended: the payment is refunded where what it sent was refused."""
        if isinstance(error, Rejected):
            self.give_back()
        elif self._spending is not None:
            self._spending.release(clock.now())
            self._spending = None

    def next_attempt(self, attempt: Attempt) -> Attempt:
        """The attempt that follows; its clock starts now."""
        self._attempt_started = clock.now()
        return attempt.again(self._kind)

    def succeed(self, attempt: Attempt, verdict: Verdict, value: Any) -> Any:
        """Hand out a value that came after failures; one that lingers takes their record along."""
        if isinstance(value, Lingering):
            self._note_attempt(attempt, verdict, None, clock.now())
        return self.hand_out(value)

    def surfacing(self, error: Exception | None) -> Exception | None:
        """The exception that surfaces, the callee's own, with its record; None where a value does."""
        if isinstance(error, Rejected) and self._last_error is not None:
            error = self._last_error
        self._last_error = None
        if error is not None:
            self._describe(error)
        return error

    def hand_out(self, value: Any) -> Any:
        """The value that the call returns. One that lingers takes the record along, others have no place for it."""
        if isinstance(value, Lingering):
            attach(value, self._record)
        return value

    def _describe(self, error: Exception) -> None:
        """Attach the record to an exception that surfaces, and the note where there is something to say."""
        attach(error, self._record)
        if self._stopped is None:
            return
        made = self._stopped.attempts
        reasons = itertools.groupby(event.verdict.reason for event in self._record.attempts)
        outcomes = ", ".join(f"{reason} ×{times}" if (times := len(list(run))) > 1 else reason for reason, run in reasons)
        note = (
            f"{_NOTE}{made} attempt{'' if made == 1 else 's'} in {round(self._stopped.at - self._started, 3):g} s "
            f"({outcomes}); stopped: {self._stopped.reason}"
        )
        with contextlib.suppress(Exception):  # one that refuses attributes (a frozen dataclass) surfaces without a note
            notes: list[str] = getattr(error, "__notes__", [])
            notes[:] = [other for other in notes if not other.startswith(_NOTE)]  # one note, also on an error raised again
            error.add_note(note)

    def _note_attempt(self, attempt: Attempt, verdict: Verdict, error: Exception | None, now: float) -> None:
        self._record(
            AttemptFinished(
                **self._about(attempt, now),
                number=attempt.number,
                kind=attempt.kind,
                started=self._attempt_started,
                verdict=verdict,
                error=name_of(error),
            )
        )

    def _stop(self, attempt: Attempt, event: RetryStopped) -> None:
        """Tell that the call gets no further attempt: not where the first one failed for good, which is no news."""
        if attempt.number == 1 and event.reason in {"not_retryable", "aborted"}:
            return
        self._stopped = event
        self._record(event)
        attempt.notify(event)

    @staticmethod
    def _about(attempt: Attempt, now: float) -> dict[str, Any]:
        return {"at": now, "key": attempt.key, "call_id": attempt.identify()}

    def end_block(self, attempt: Attempt, error: Exception) -> float | None:
        """The end of a `with attempt:` block that raised: the delay before the next one, or None where the error surfaces."""
        verdict = attempt.verdict(error, error=True, classifier=self._retry.classifier)
        delay = self.decide(attempt, verdict, error)
        if delay is None:
            self._describe(error)
        return delay


class AttemptLoop:
    """What `async for attempt in retry` walks: one block for each attempt. No generator: leaving the loop leaves nothing open."""

    __slots__ = ("_attempt", "_block", "_loop", "_started")

    def __init__(self, loop: RetryLoop, attempt: Attempt, started: float) -> None:
        self._loop = loop
        self._attempt = attempt  # the current one
        self._started = started
        self._block: AttemptBlock | None = None  # of the current attempt; None before the first

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "AttemptBlock":
        if self._block is not None:
            if self._block.delay is None:
                raise StopAsyncIteration
            try:
                await clock.sleep(self._block.delay)
            except BaseException:
                self._loop.give_back()
                raise
            self._attempt = self._loop.next_attempt(self._attempt)
        self._block = AttemptBlock(self._loop, self._attempt, self._started)
        return self._block


class AttemptBlock:
    """One attempt of `async for attempt in retry`: `with attempt:` holds the work that is tried.

    Attributes:
        number: 1 for the first attempt.
        kind: `"original"`, `"retry"` or `"transparent_retry"`.

    """

    __slots__ = ("_attempt", "_call_started", "_ends", "_loop", "_restore", "_started", "delay")

    def __init__(self, loop: RetryLoop, attempt: Attempt, call_started: float) -> None:
        self._loop = loop
        self._attempt = attempt
        self._call_started = call_started
        self._started = 0.0
        self._restore: Attempt | None = None
        self._ends: Ends = ()
        self.delay: float | None = None  # seconds before the next attempt; None where there is none

    @property
    def number(self) -> int:
        return self._attempt.number

    @property
    def kind(self) -> AttemptKind:
        return self._attempt.kind

    def __enter__(self) -> Self:
        attempt = self._attempt
        self._restore = make_current(attempt)
        self._started = clock.now()
        if attempt.watch is not None:
            self._ends = begin_attempt(attempt, attempt.watch)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        put_back(self._attempt, self._restore)
        attempt, watch, failed = self._attempt, self._attempt.watch, error is not None
        if watch is not None:
            tell_attempt_finished(attempt, watch, self._started, error, self._ends, failed=failed)
        self._loop.attempt_ended(error)
        if isinstance(error, Exception):
            self.delay = self._loop.end_block(attempt, error)
        if watch is not None and self.delay is None:
            tell_call_finished(attempt, watch, self._call_started, error, failed=failed)
        return self.delay is not None
