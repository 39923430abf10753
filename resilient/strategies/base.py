"""What all strategies share: how one is run, called, and used as a decorator.

A `Strategy` wraps an async callable. `run(call, attempt)` is the one method that composition needs: `call` is a *step*, what
stands inside; it takes an attempt and is awaited. A call asks once whether anybody listens; where nobody does, nothing is
made for observers, and where a strategy is content with that, not even an attempt.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from resilient import _switch, clock
from resilient.context import Attempt, Watch, current, invoke, tell_call_finished
from resilient.observe.listeners import begin, ears, sink

if TYPE_CHECKING:
    from resilient.strategies.gate import Gate

__all__ = ("Inside", "Step", "Strategy")

P = ParamSpec("P")
T = TypeVar("T")

Step = Callable[[Any], Coroutine[Any, Any, Any]]
"""What is inside of a strategy: it takes an attempt (or a call that is `Plain`) and gives a coroutine."""

Inside = tuple["Gate", ...]
"""The gates that a step will enter, outermost first."""


class Strategy:
    """One building block that wraps an async callable. Implement `run`; the rest follows from it."""

    __slots__ = ()

    plain: bool = False
    """Whether `run` takes calls that are `Plain`, too: it then asks for `attempt_of()` such a call when it needs it."""

    @property
    def gates(self) -> Inside:
        """The gates that a call enters in here, outermost first, as far as they are the same for all calls."""
        return ()

    @abstractmethod
    def run(self, call: Step, attempt: Any) -> Coroutine[Any, Any, Any]:
        """Run `call(attempt)` in the way of this strategy. `call` may be called again, with `attempt.again()`."""
        raise NotImplementedError

    def fold(self, inner: Step, inside: Inside = ()) -> Step:
        """This strategy around `inner`, as one step. `inside` are the gates that `inner` will enter."""
        return partial(self.run, inner)

    def start(self, attempt: Any) -> Coroutine[Any, Any, Any]:
        """Run a new call in the way of this strategy."""
        return self.run(invoke, attempt)

    def begin(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        """Make a new call of a callee and its arguments, and start it."""
        if ears and sink():
            return watched(self, Attempt(fn, args, kwargs))
        return self.start([fn, args, kwargs, None] if self.plain and current() is None else Attempt(fn, args, kwargs))

    def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Call `fn(*args, **kwargs)` in the way of this strategy: `await strategy.call(fn, 1, name="x")`."""
        return self.begin(fn, args, kwargs)

    @overload
    def __call__(self, fn: Callable[P, AsyncIterator[T]], /) -> Callable[P, AsyncGenerator[T]]: ...

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __call__(self, fn: Callable[..., Any], /) -> Callable[..., Any]:
        """Decorate an async function or an async generator function; its signature is kept."""
        from resilient.strategies.streams import decorate_stream, is_stream_function  # noqa: PLC0415  it builds on this module

        if type(fn) in {classmethod, staticmethod} or not callable(fn):
            msg = f"cannot wrap {fn!r}: put @{type(fn).__name__} above the strategy, so that it wraps a function"
            raise TypeError(msg)
        if is_stream_function(fn):
            streamed: Callable[..., Any] = decorate_stream(self, fn)
            return streamed

        begin = self.begin

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await begin(fn, args, kwargs)

        update_wrapper(wrapper, fn)
        return wrapper


async def watched(strategy: Strategy, attempt: Attempt) -> Any:
    """A new call that somebody listens to."""
    attempt.plain = False
    attempt.watch = watch = Watch(sink())
    attempt.identify()
    started = clock.now()
    ends = begin(watch.live, "on_call_begins", attempt)
    outcome: object = None
    failed = True
    try:
        outcome = value = await (strategy.start(attempt) if _switch.enabled else invoke(attempt))
        failed = False
    except BaseException as error:
        outcome = error
        raise
    finally:
        tell_call_finished(attempt, watch, started, outcome, ends, failed=failed)
        del outcome
    return value
