"""Async generators as calls: opened inside of the strategies, guarded until they end.

The call is the opening: it creates the generator and fetches its first item, so strategies see an outcome as soon as there
is one, and a retry opens it anew only before the consumer has seen anything. What the call returns is a `Stream`, a
lingering value: permits that linger are held until it is exhausted, fails, or is closed. Each further item is fetched in the
way of the `Timeout`s around, if any, inside of one step of the generator: no scope of ours is ever open while the consumer
works. All mutable state of a stream: its generator, the first item until it is handed out, and the timeouts of its items.
"""

import asyncio
import inspect
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial, update_wrapper
from typing import Any, Final, NoReturn

import anyio

from resilient.context import Attempt
from resilient.strategies.base import Step, Strategy
from resilient.strategies.lingering import Lingering

__all__ = ("Stream", "decorate_stream", "is_stream_function")

_PATIENCE: Final = 5.0
"""Seconds that the clean-up of a generator gets that nobody uses."""

_HOLDS_SCOPE: Final = (
    "{stream!r} keeps a cancel scope or a task group open across a `yield`, so a Timeout cannot bound its items: the two would "
    "be closed in the wrong order. Leave the scope before each `yield`, or take the Timeout off this generator and let its "
    "consumer keep the time: `with anyio.fail_after(5): item = await anext(stream)`"
)

_BOUND_TO_TASK: Final = (
    "{stream!r} keeps a cancel scope or a task group open across a `yield`, so it cannot be hedged: the scope belongs to the "
    "task that opened it. Leave the scope before each `yield`, or take the Hedge off this generator"
)


def is_stream_function(fn: Callable[..., Any]) -> bool:
    """Whether calling it makes an async generator: a function, a method, a partial of one, or an object with such a call."""
    return inspect.isasyncgenfunction(fn) or inspect.isasyncgenfunction(type(fn).__call__)


def decorate_stream(strategy: Strategy, fn: Callable[..., AsyncGenerator[Any, Any]]) -> Callable[..., AsyncGenerator[Any, Any]]:
    """The async generator function `fn`, opened in the way of `strategy`."""

    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        stream = await _call(strategy, fn, *args, **kwargs)
        async with aclosing(stream):
            step = stream.resume()
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    return
                try:
                    step = stream.resume((yield item))
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001  thrown in by the consumer: the generator shall hear it
                    step = stream.resume(thrown=error)

    return update_wrapper(wrapper, fn)


class Stream(Lingering):
    """An async generator that was opened by a call. It has ended when it is exhausted, has failed, or is closed.

    Attributes:
        first: the first item, until it is handed out; None where there is none. A classifier of values may look at it.

    """

    def __init__(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generator = generator
        self.first: Any = None
        self._holds_first = False
        self._holds_scope = False
        self._limiters: list[Strategy] = []
        self._attempt: Attempt | None = None  # what the limiters speak of; None without any

    async def fetch_first(self) -> None:
        """Open the generator: fetch its first item and keep it. A generator without items is then exhausted."""
        scope = _innermost_scope()
        try:
            self.first = await anext(self._generator)
            self._holds_first = True
        except StopAsyncIteration:
            self.ended()
        self._holds_scope = _innermost_scope() is not scope

    async def limit_items(self, limiter: Strategy, attempt: Attempt) -> None:
        """Let `limiter` (a `Timeout`) run each further step of the generator. Call it inside of its scope around the opening.

        Raises:
            RuntimeError: the generator holds a cancel scope or task group of its own; it was closed.

        """
        if self._holds_scope:
            await self._refuse_scope(_HOLDS_SCOPE)
        self._limiters.append(limiter)
        self._attempt = attempt

    async def resume(self, sent: Any = None, thrown: BaseException | None = None) -> Any:
        """The next item. The generator hears at its `yield` what is sent or thrown.

        Raises:
            StopAsyncIteration: there is none; the stream has ended.

        """
        if self._holds_first:
            item, self.first, self._holds_first = self.first, None, False
            return item
        try:
            if self._attempt is None:
                return await self._advance(sent, thrown)
            step: Step = partial(self._advance_within_limits, sent, thrown)
            for limiter in self._limiters:
                step = partial(limiter.run, step)
            return await step(self._attempt)
        except StopAsyncIteration:
            self.ended()
            raise
        except BaseException as error:
            self.ended(GeneratorExit() if error is thrown else error)  # the consumer's own error tells nothing of the callee
            raise

    def _advance(self, sent: Any, thrown: BaseException | None) -> Awaitable[Any]:
        return self._generator.asend(sent) if thrown is None else self._generator.athrow(thrown)

    async def _advance_within_limits(self, sent: Any, thrown: BaseException | None, _: Attempt) -> Any:
        scope = _innermost_scope()
        item = await self._advance(sent, thrown)
        if _innermost_scope() is not scope:
            await self._refuse_scope(_HOLDS_SCOPE)
        return item

    async def check_movable(self) -> None:
        """Call it in the task that opened the generator, before another one goes on with it.

        Raises:
            RuntimeError: the generator holds a cancel scope or task group of its own; it was closed.

        """
        if self._holds_scope:
            await self._refuse_scope(_BOUND_TO_TASK)

    async def _refuse_scope(self, message: str) -> NoReturn:
        """Close the generator where its scope is still the innermost one, which is the right order, and raise."""
        await self._close_unused()
        raise RuntimeError(message.format(stream=self))

    async def aclose(self) -> None:
        """Close the generator. The stream has then ended, even if the generator's clean-up fails or is cancelled."""
        try:
            await self._generator.aclose()
        finally:
            self.ended(GeneratorExit())

    async def discard(self) -> None:
        """Close a stream that nobody will use: shielded from cancellation, for at most 5 seconds. It raises no `Exception`."""
        try:
            if self._holds_scope:
                await self._close_unused()  # a shield around it would be closed in the wrong order
            else:
                with anyio.move_on_after(_PATIENCE, shield=True):
                    await self._close_unused()
        except Exception:  # there is nobody to handle it, and it must not hide how the call ended
            logging.getLogger("resilient").warning("%r was discarded, and raised while it was closed", self, exc_info=True)

    async def _close_unused(self) -> None:
        try:
            await self.aclose()
        except* GeneratorExit:  # a task group puts it into a group: it means no more than that it was closed
            pass

    def __repr__(self) -> str:
        return f"<Stream of {getattr(self._generator, '__qualname__', self._generator)}>"


async def _call(strategy: Strategy, fn: Callable[..., AsyncGenerator[Any, Any]], /, *args: Any, **kwargs: Any) -> Stream:
    """Open the stream in the way of `strategy`. Of all that were opened, only the one that is handed out stays open: others
    were retried away, were replaced, or were lost because the call was cut off after they were opened.
    """
    opened: list[Stream] = []
    handed_out: Stream | None = None
    try:
        handed_out = _as_stream(await strategy.call(partial(_open, opened, fn), *args, **kwargs))
        return handed_out
    finally:
        async with AsyncExitStack() as others:  # all of them, even if one is interrupted
            for stream in opened:
                if stream is not handed_out:
                    others.push_async_callback(stream.discard)


async def _open(opened: list[Stream], fn: Callable[..., AsyncGenerator[Any, Any]], /, *args: Any, **kwargs: Any) -> Stream:
    stream = Stream(fn(*args, **kwargs))
    await stream.fetch_first()
    opened.append(stream)
    return stream


def _as_stream(value: Any) -> Stream:
    """What the call gave, as a stream: a fallback may give any iterable of items in place of the generator."""
    if isinstance(value, Stream):
        return value
    if inspect.isasyncgen(value):
        return Stream(value)
    if hasattr(value, "__aiter__") or (hasattr(value, "__iter__") and not isinstance(value, (str, bytes))):
        return Stream(_items_of(value))
    msg = f"{value!r} stands in for an async generator: give an iterable of items, e.g. Fallback([item])"
    raise TypeError(msg)


async def _items_of(value: Any) -> AsyncGenerator[Any, None]:
    if hasattr(value, "__aiter__"):
        async for item in value:
            yield item
    else:
        for item in value:
            yield item


def _innermost_scope() -> object:
    """The cancel scope that this task is in. Neither backend says so in public: where a release keeps it elsewhere, this
    sees no difference, and a generator that holds a scope runs into the less clear error of the backend.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop of asyncio runs
        task = None
    if task is None:
        return getattr(sys.modules["trio"].lowlevel.current_task(), "_cancel_status", None)
    states = getattr(sys.modules.get("anyio._backends._asyncio"), "_task_states", {})  # loaded with the first scope
    return getattr(states.get(task), "cancel_scope", None)
