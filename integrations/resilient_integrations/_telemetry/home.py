"""Where strategies may be read: in the thread of their event loop, and nowhere else.

Strategies are not thread-safe, and reading one may expire a window. Exporters of metrics have threads of their own, so what is
to be read is handed to the loop, and the exporter waits for it, a second at most: a loop that is blocked costs a gap in
the gauges, and one that stands still because it waits for the exporter to shut down is not waited for in return for long.

All mutable state: the loop that was seen last, and its thread.
"""

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

__all__ = ("Home",)

T = TypeVar("T")

_PATIENCE: Final = 1.0
"""Seconds that an exporter waits for the loop."""


class Home:
    """The event loop in which the strategies live."""

    def __init__(self) -> None:
        self._thread = 0
        self._post: Callable[[Callable[[], object]], object] | None = None

    def seen(self) -> None:
        """Somebody is here: call it wherever the loop may be running."""
        post = _post()
        if post is not None:
            self._thread, self._post = threading.get_ident(), post

    def read(self, function: Callable[[], T]) -> T | None:
        """What the function gives, called in the loop's thread; None where the loop does not answer."""
        if self._post is None or self._thread == threading.get_ident():
            return function()
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def answered() -> None:
            try:
                answer.set_result(function())
            except BaseException as error:  # noqa: BLE001  it is the exporter's
                answer.set_exception(error)

        try:
            self._post(answered)
        except RuntimeError:  # the loop was closed: nobody else reads now
            return function()
        with contextlib.suppress(concurrent.futures.TimeoutError):
            return answer.result(_PATIENCE)
        return None


def _post() -> Callable[[Callable[[], object]], object] | None:
    """How to have something called in the loop that runs here; None where none does."""
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop().call_soon_threadsafe
    trio: Any = sys.modules.get("trio")
    if trio is not None:
        with contextlib.suppress(RuntimeError):
            post: Callable[[Callable[[], object]], object] = trio.lowlevel.current_trio_token().run_sync_soon
            return post
    return None
