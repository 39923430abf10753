"""Retry: try again what may work if tried again.

`Retry` is a frozen setting without state of its own: each call has its own `RetryLoop`, made at the first failure. The
loop decides synchronously (`decide`: from a verdict to "wait so long" or "stop, because"), the coroutine then acts:
it sleeps and runs the next attempt outside of any `except` block. The same loop drives `async for attempt in retry`.
"""

import math
from collections.abc import Callable, Coroutine
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, Final, Self

from resilient import _switch, clock
from resilient._arguments import Duration, integer, seconds
from resilient.chance import source as _random
from resilient.context import Attempt, Plain, Watch, attempt_of, current, invoke
from resilient.observe.listeners import ears, sink
from resilient.outcome import Classifier, Kind, On, retry_on
from resilient.strategies.backoff import BackoffLike, Exponential, as_backoff
from resilient.strategies.base import Inside, Step, Strategy
from resilient.strategies.budget import Budget
from resilient.strategies.lingering import dispose_of
from resilient.strategies.retry_loop import AttemptLoop, RetryLoop

__all__ = ("Retry",)

_EXPONENTIAL: Final = Exponential()
_NOBODY_SAYS: Final = (
    "this Retry does not know what to retry: say Retry(on=(ConnectionError, TimeoutError)), "
    "or use it in a pipeline with a classifier, Pipeline(Retry(), classify=my_classifier)"
)


@dataclass(frozen=True, slots=True)
class Retry(Strategy):
    """Try again what may work if tried again.

    After the last attempt the callee's own exception surfaces, the same object, with a note of its attempts; a value
    that asks for a retry (a 503 response) is returned as it is. Cancellation is never retried and always propagates.

    Args:
        on: what to retry: a type of exception, a tuple of them, or a predicate on the exception. It has no default on
            purpose. `Exception` does not match rejections (`CircuitOpen`, ...); naming their type does.
        never: what not to retry; it beats `on`.
        classify: a classifier of outcomes, in place of `on`; needed to retry on values.
        attempts: how many in total, at least 1 (default 3); None where only the deadline bounds them.
        backoff: the wait between attempts (default `Exponential()`: full jitter from 0.1 s to 5 s); also a function of the
            retry's number, a list of seconds, or `ByVerdict`.
        timeout: seconds for all attempts and waits together, after which none is started (default none). It does not cut
            an attempt that runs: put a `Timeout` around for that.
        budget: pays for retries, so that they cannot become a storm: `RetryBudget()`, or another one (default none).
        max_retry_after: the longest wait that a server may ask for, in seconds (default 60); a longer one ends the call
            at once. A hint is never shortened.
        dispose: called with a value that is retried away, sync or async; values that linger are discarded anyway.
        random: the source of jitter, for tests.

    Raises:
        TypeError, ValueError: an argument is out of range, at construction; neither `on` nor a classifier, at the first use.

    """

    _: KW_ONLY
    on: On | None = None
    never: On | None = None
    classify: Classifier | None = None
    attempts: int | None = 3
    backoff: BackoffLike = _EXPONENTIAL
    timeout: Duration | None = None
    budget: Budget | None = None
    max_retry_after: Duration = 60.0
    dispose: Callable[[Any], object] | None = None
    random: Random = field(default=_random, repr=False, compare=False)
    classifier: Classifier | None = field(init=False, repr=False, compare=False)
    plain: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.on is not None and self.classify is not None:
            msg = "on= and classify= both say what to retry: give one of them"
            raise TypeError(msg)
        if self.on is None and self.never is not None:
            msg = "never= needs on=: say what to retry, e.g. Retry(on=OSError, never=PermissionError)"
            raise TypeError(msg)
        if self.attempts is not None:
            integer("attempts", self.attempts)
        settle = partial(object.__setattr__, self)
        settle("backoff", as_backoff(self.backoff))
        settle("timeout", None if self.timeout is None else seconds("timeout", self.timeout))
        settle("max_retry_after", seconds("max_retry_after", self.max_retry_after))
        settle("plain", self.timeout is None and self.budget is None)
        settle("classifier", self.classify if self.on is None else retry_on(self.on, self.never))

    @property
    def needs_classifier(self) -> bool:
        """Whether it relies on the classifier of a pipeline."""
        return self.classifier is None

    def replace(self, **changes: Any) -> Self:
        """A copy with other settings: `retry.replace(attempts=5)`."""
        return replace(self, **changes)

    def fold(self, inner: Step, inside: Inside = ()) -> Step:
        return partial(self._run, inner, inside)

    def begin(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        if not self.plain or current() or (ears and sink()):
            return Strategy.begin(self, fn, args, kwargs)
        return self._run(invoke, (), [fn, args, kwargs, None])

    def run(self, call: Step, attempt: Attempt | Plain) -> Coroutine[Any, Any, Any]:
        return self._run(call, (), attempt)

    async def _run(self, call: Step, inside: Inside, attempt: Any) -> Any:
        """The first attempt (an `Attempt`, or `Plain`); what follows a failed one is `_go_on`."""
        classifier = self.classifier
        started = clock.now()
        deadline = math.inf
        if type(attempt) is Attempt:
            deadline = attempt.deadline
            classifier = classifier or attempt.classifier
            if not self.plain:
                self._enter(attempt, started)
            if attempt.watch is not None:
                attempt.watch.classifier = classifier
        if classifier is None:
            raise TypeError(_NOBODY_SAYS)
        value = error = None
        try:
            try:
                value = await call(attempt)
            except Exception as caught:  # noqa: BLE001  the verdict says what it is; cancellation is no Exception
                error = caught
            if error is None and classifier.values is None:
                return value
            if type(attempt) is not Attempt:
                attempt = attempt_of(attempt)
            if error is None and attempt.verdict(value, error=False, classifier=self.classifier).kind is Kind.SUCCESS:
                return value
            rest = self._go_on(call, inside, attempt, value, error, started)
            del value, error  # an exception keeps its frames, and they what they hold: not across a wait
            return await rest
        finally:
            if self.timeout is not None and type(attempt) is Attempt:
                attempt.deadline = deadline  # our window is none of a retry's around us

    async def _go_on(
        self, call: Step, inside: Inside, attempt: Attempt, value: Any, error: Exception | None, started: float
    ) -> Any:
        """Decide after each attempt, and act: hand out its outcome, or wait and make the next one."""
        loop: RetryLoop | None = None
        while True:
            outcome = value if error is None else error
            verdict = attempt.verdict(outcome, error=error is not None, classifier=self.classifier)
            if verdict.kind is Kind.SUCCESS:
                return value if loop is None else loop.succeed(attempt, verdict, value)
            loop = loop or RetryLoop(self, inside, started)
            delay = loop.decide(attempt, verdict, error)
            if delay is None:
                break
            try:
                if error is None:
                    await dispose_of(value, self.dispose)
                value = error = outcome = None
                await clock.sleep(delay)
            except BaseException:
                loop.give_back()
                raise
            attempt = loop.next_attempt(attempt)
            try:
                value = await call(attempt)
            except Exception as caught:  # noqa: BLE001  as above
                error = caught
            except BaseException:
                loop.attempt_ended(None)
                raise
            loop.attempt_ended(error)
        error = loop.surfacing(error)
        if error is None:
            return loop.hand_out(value)
        try:
            raise error
        finally:
            del error, outcome  # an exception refers to its frames: no cycle

    def _enter(self, attempt: Attempt, now: float) -> None:
        """A call begins: its window for attempts, and what it earns for the budget."""
        if self.timeout is not None:
            attempt.deadline = min(attempt.deadline, now + self.timeout)  # type: ignore[operator]  # a float
            attempt.plain = False
        if self.budget is not None:
            attempt.earned = budget = attempt.sibling(self.budget)
            budget.deposit(now)

    def __aiter__(self) -> AttemptLoop:
        """`async for attempt in retry: with attempt: ...` tries the block again until it raises nothing to be retried.

        An exception that is to be retried ends at the `with`; the last one surfaces from it.
        """
        if self.classifier is None:
            raise TypeError(_NOBODY_SAYS)
        attempt = Attempt(_block)
        attempt.plain = False
        listeners = sink()
        if listeners:
            attempt.watch = Watch(listeners)
            attempt.watch.classifier = self.classifier
        started = clock.now()
        retry = self if _switch.enabled else self.replace(attempts=1, budget=None, timeout=None)
        retry._enter(attempt, started)  # noqa: SLF001  our own class
        return AttemptLoop(RetryLoop(retry, (), started), attempt, started)


def _block() -> None:  # pragma: no cover  it names the callee of a `with attempt:` block and is never called
    pass
