"""The executor of the whole process: `resilient.call(key, fn, ...)` and its like.

It is made when it is first needed, with the defaults, and can be replaced at any time: the next call goes to the new one, also of
what was decorated before. All mutable state: the default executor.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from resilient.observe.timeline import Timeline
from resilient.outcome import Outcome
from resilient.policy.executor import Protected, Resilience

__all__ = ("call", "call_with_timeline", "configure", "default", "protect")

P = ParamSpec("P")
T = TypeVar("T")

_default: Resilience | None = None


def default() -> Resilience:
    """The executor that `resilient.call` uses; made on its first use."""
    return _default if _default is not None else configure()


def configure(executor: Resilience | None = None, /, **settings: Any) -> Resilience:
    """Replace the executor that `resilient.call` uses, from the next call on. Calls that run stay with theirs.

    Args:
        executor: the new one.
        settings: those of a new `Resilience`, in its place: `configure(policies={...})`; without any it has the defaults.

    """
    global _default  # noqa: PLW0603  the one of the process
    if executor is not None and settings:
        msg = "give an executor, or the settings of a new one"
        raise TypeError(msg)
    _default = executor = Resilience(**settings) if executor is None else executor
    return executor


def call(key: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
    """Call `fn(*args, **kwargs)` under the policy of the key: see `Resilience.call`."""
    return default().call(key, fn, *args, **kwargs)


def protect(key: str) -> Protected:
    """Decorate an async function, or an async generator function, to run under the policy of the key."""
    return Protected(default, key)


def call_with_timeline(
    key: str, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, tuple[Outcome[T], Timeline]]:
    """As `call`, and gives what happened too: see `Resilience.call_with_timeline`."""
    return default().call_with_timeline(key, fn, *args, **kwargs)
