"""The running call: its attempts, and the time that remains.

An `Attempt` is one execution of the callee, as every strategy around it sees it. Control flow (a retry, a hedge) makes
its own with `again()`; an attempt is never shared. It is the *current* one (`current_attempt()`) while the callee runs,
where it has something to say: a repetition, a key, a deadline, a listener, or another current attempt around it.

A call that has nothing to say is not even an `Attempt`: it is `Plain`, a list of the callee and its arguments, which becomes
one (`attempt_of`) as soon as there is something to tell of it. Making an attempt takes as long as two gates.

Time that remains is asked for only on paths that wait: `time_left()` is the least of the attempt's own deadline, that of
the call around it, and anyio's effective deadline. Mutable state: the context variable `_current`, the counter `_ids`.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, Final, TypeVar, cast

import anyio

from resilient import clock
from resilient._arguments import Duration
from resilient._arguments import seconds as check_seconds
from resilient.errors import DeadlineExceeded
from resilient.observe.events import AttemptFinished, AttemptKind, CallFinished, Event
from resilient.observe.listeners import Ends, LiveListener, Sink, begin, emit, emit_notable, end
from resilient.outcome import SUCCESS, Classifier, Verdict, judge

__all__ = (
    "Attempt",
    "Plain",
    "attempt_of",
    "call_time_left",
    "current",
    "current_attempt",
    "deadline",
    "invoke",
    "make_current",
    "put_back",
    "time_left",
)

T = TypeVar("T")

Plain = list[Any]
"""A call that has nothing to say: the callee, its arguments, its keyword arguments, and its attempt, once it has one."""

_ids: Final = itertools.count(1)
_VERDICT: Final = "__resilient_verdict__"
"""The attribute of an exception that keeps what was said of it last: of which attempt, by which classifier, and the verdict."""
_current: ContextVar["Attempt | None"] = ContextVar("resilient_attempt", default=None)
current = _current.get
"""The attempt that was made current, or None: for strategies, which want it fast. Others ask `current_attempt()`."""
_set_current = _current.set


class Watch:
    """What is kept of a call while somebody listens: shared by all of its attempts."""

    __slots__ = ("attempts", "classifier", "degraded", "listeners", "live")

    def __init__(self, listeners: Sink) -> None:
        self.listeners = listeners
        self.live = tuple([listener for listener in listeners if isinstance(listener, LiveListener)])
        self.attempts = 0
        self.degraded = False
        self.classifier: Classifier | None = None  # that of the retry, for events of attempts, where the call has none


class Attempt:
    """One execution of the callee.

    Attributes:
        fn: the callee, with its `args` and `kwargs`.
        number: 1 for the first attempt of a call.
        kind: `"original"`, `"retry"`, `"hedge"` or `"transparent_retry"`.
        hedge: 1, 2, ... for the hedges of an attempt, which share its number; 0 for all others.
        key: the key of the call, or None.
        deadline: when the call must be done, on the clock of `resilient.clock`; infinity where it has no such limit.
        limit: how many attempts a `Retry` may make for this call, in place of its own `attempts`; None for those.
        classifier: says what outcomes mean where a strategy has no classifier of its own, or None.
        siblings: for each keyed pipeline around, its templates and what takes their places for this call's key.
        earned: the budget that heard of this call's first attempt already: those who share it do not tell it twice.

    """

    __slots__ = (
        "_judged",
        "args",
        "call_id",
        "classifier",
        "deadline",
        "earned",
        "fn",
        "hedge",
        "key",
        "kind",
        "kwargs",
        "limit",
        "number",
        "plain",
        "siblings",
        "watch",
    )

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> None:
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.number = 1
        self.kind: AttemptKind = "original"
        self.hedge = 0
        self.key: str | None = None
        self.deadline = math.inf
        self.limit: int | None = None
        self.classifier: Classifier | None = None
        self.siblings: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...] = ()
        self.earned: object = None
        self.watch: Watch | None = None
        self.call_id = 0
        self.plain = True  # it has nothing to say, so it need not be the current one
        self._judged: tuple[object, Classifier | None, Verdict] | None = None

    def again(self, kind: AttemptKind = "retry") -> "Attempt":
        """Another attempt of the same call."""
        other = Attempt(self.fn, self.args, self.kwargs)
        other.number = self.number + 1
        other.kind = kind
        other.key = self.key
        other.deadline = self.deadline
        other.limit = self.limit
        other.classifier = self.classifier
        other.siblings = self.siblings
        other.watch = self.watch
        other.call_id = self.identify()  # both are of one call, whichever is asked first
        other.plain = False
        return other

    def verdict(self, outcome: object, *, error: bool, classifier: Classifier | None = None) -> Verdict:
        """What the outcome means. It is classified once per attempt and classifier, whoever asks first."""
        judge_by = classifier or self.classifier
        if not error and (judge_by is None or judge_by.values is None):
            return SUCCESS
        if error and isinstance(outcome, Exception):
            return self._verdict_on(outcome, judge_by)
        judged = self._judged
        if judged is not None and judged[0] is outcome and judged[1] is judge_by:
            return judged[2]
        verdict = judge(judge_by, outcome, error=error)
        self._judged = (outcome, judge_by, verdict)
        return verdict

    def _verdict_on(self, error: Exception, judge_by: Classifier | None) -> Verdict:
        """The exception keeps its verdict: kept here, where its frames refer to, only the garbage collector could free it.

        One that refuses attributes (a frozen dataclass) is asked about again.
        """
        mark = (self.identify(), self.number, id(judge_by))
        kept = getattr(error, _VERDICT, None)
        if kept is not None and kept[0] == mark:
            return cast("Verdict", kept[1])
        verdict = judge(judge_by, error, error=True)
        with contextlib.suppress(Exception):
            setattr(error, _VERDICT, (mark, verdict))
        return verdict

    def sibling(self, template: T) -> T:
        """What to use in place of `template`: that of this call's key, where the pipeline is keyed."""
        for templates, siblings in self.siblings:
            for place, other in enumerate(templates):
                if other is template:
                    found: T = siblings[place]
                    return found
        return template

    def identify(self) -> int:
        """The number of the call, given when it is first needed."""
        if not self.call_id:
            self.call_id = next(_ids)
        return self.call_id

    def notify(self, event: Event) -> None:
        """Tell an event that an operator must see."""
        watch = self.watch
        emit_notable(watch.listeners if watch is not None else (), event)

    def adopt_verdict(self, other: "Attempt") -> None:
        """What another attempt ended with is what this one ends with: it was judged already."""
        self._judged = other._judged  # noqa: SLF001  our own class

    def forget_verdict(self) -> None:
        """Let go of the value that was judged last."""
        self._judged = None

    def __repr__(self) -> str:
        key = f" for {self.key!r}" if self.key is not None else ""
        nth = f" {self.hedge}" if self.hedge else ""
        return f"<Attempt {self.number} ({self.kind}{nth}){key}>"


def attempt_of(call: Attempt | Plain) -> Attempt:
    """The attempt that a call is. A plain one becomes its first attempt, the same one for everybody who asks."""
    if isinstance(call, Attempt):
        return call
    if call[3] is None:
        call[3] = Attempt(*call[:3])
    attempt: Attempt = call[3]
    return attempt


def make_current(attempt: Attempt | None) -> Attempt | None:
    """Make an attempt the current one; returns the one that was, for `put_back`. It has no more time than that one."""
    outer = current()
    if outer is not None and attempt is not None and outer.deadline < attempt.deadline:
        attempt.deadline = outer.deadline
    _set_current(attempt)
    return outer


def put_back(attempt: Attempt, outer: Attempt | None) -> None:
    """Make the one that was current before `attempt` current again.

    A call that was given up may be closed in anybody's context, by the garbage collector: there is nothing of ours in it.
    """
    if current() is attempt:
        _set_current(outer)  # two sets are cheaper than a set and a reset


def _no_call() -> None:  # pragma: no cover  it stands for "outside of any call" and is never called
    pass


_OUTSIDE: Final = Attempt(_no_call)


def current_attempt() -> Attempt:
    """The attempt that runs now. Outside of any call: a first, original one without key or deadline.

    Read `number`, `kind` and `key` of it, in a log line of your own or to send the number along as a header.
    """
    return current() or _OUTSIDE


def invoke(call: Attempt | Plain) -> Any:
    """Call the callee: the innermost step of everything. What it returns is to be awaited."""
    if type(call) is list:
        fn, args, kwargs, _ = call
    elif type(call) is Attempt and call.watch is None and current() is (None if call.plain else call):
        fn, args, kwargs = call.fn, call.args, call.kwargs
    else:
        return _invoke_as_current(attempt_of(call))
    return fn(*args, **kwargs) if kwargs else fn(*args)


async def _invoke_as_current(attempt: Attempt) -> Any:
    kwargs, watch = attempt.kwargs, attempt.watch
    started, ends = (0.0, ()) if watch is None else (clock.now(), begin_attempt(attempt, watch))
    outer = make_current(attempt)
    try:
        value = await (attempt.fn(*attempt.args, **kwargs) if kwargs else attempt.fn(*attempt.args))
    except BaseException as error:
        if watch is not None:
            tell_attempt_finished(attempt, watch, started, error, ends, failed=True)
        raise
    finally:
        put_back(attempt, outer)
    if watch is not None:
        tell_attempt_finished(attempt, watch, started, value, ends, failed=False)
    return value


def begin_attempt(attempt: Attempt, watch: Watch) -> Ends:
    """Tell live listeners that the callee is called now."""
    return begin(watch.live, "on_attempt_begins", attempt) if watch.live else ()


def tell_attempt_finished(attempt: Attempt, watch: Watch, started: float, outcome: object, ends: Ends, *, failed: bool) -> None:
    """Tell the end of an attempt of a call that somebody listens to."""
    watch.attempts += 1
    event = AttemptFinished(
        at=clock.now(),
        key=attempt.key,
        call_id=attempt.identify(),
        number=attempt.number,
        kind=attempt.kind,
        hedge=attempt.hedge,
        started=started,
        verdict=attempt.verdict(outcome, error=failed, classifier=attempt.classifier or watch.classifier),
        error=type(outcome).__name__ if failed else "",
    )
    emit(watch.listeners, event)
    end(ends, event)


def tell_call_finished(attempt: Attempt, watch: Watch, started: float, outcome: object, ends: Ends = (), *, failed: bool) -> None:
    """Tell the end of a call that somebody listens to. `attempt` is one of its attempts."""
    event = CallFinished(
        at=clock.now(),
        key=attempt.key,
        call_id=attempt.identify(),
        started=started,
        reason=attempt.verdict(outcome, error=failed).reason,
        error=type(outcome).__name__ if failed else "",
        attempts=watch.attempts,
        degraded=watch.degraded,
    )
    emit(watch.listeners, event)
    end(ends, event)


def time_left(limit: float = math.inf) -> float:
    """Seconds that remain for a wait: until `limit` (on the library's clock), the deadline of the call around, or
    anyio's effective deadline, whichever comes first. Infinity where nothing limits it; it may be negative.
    """
    left = anyio.current_effective_deadline()
    if left < math.inf:
        left -= anyio.current_time()
    return min(left, call_time_left(limit))


def call_time_left(limit: float = math.inf) -> float:
    """As `time_left()`, without anyio's deadlines: for a wait that these cut off by themselves."""
    enclosing = current()
    if enclosing is not None and enclosing.deadline < limit:
        limit = enclosing.deadline
    return limit - clock.now() if limit < math.inf else math.inf


@contextlib.contextmanager
def deadline(seconds: Duration) -> Generator[anyio.CancelScope]:
    """Give all calls in a block one budget of time.

    What still runs when it is used up is cancelled; every wait of a strategy inside (backoff, queue, tokens) gives up
    at once where it could not finish in time. A nested deadline can only shorten the outer one.

    Args:
        seconds: how long the block may take, in seconds (float or `timedelta`), at least 0.

    Yields:
        The cancel scope that holds the deadline.

    Raises:
        DeadlineExceeded: the block was cut off. A cancellation from outside passes through untouched.

    """
    limit = check_seconds("seconds", seconds)
    with anyio.CancelScope(deadline=anyio.current_time() + limit) as scope:
        yield scope
    if scope.cancelled_caught:
        raise DeadlineExceeded(limit)
