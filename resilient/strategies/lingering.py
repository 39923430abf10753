"""Values that live on: still in use after the call returned, a streamed response say.

One small protocol serves all strategies. Permits that *linger* are settled when the value has ended; what nobody will use
(it was retried away, it lost) is discarded. All mutable state: who wants to hear of the end, and whether it has come.
"""

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ("Lingering", "dispose_of")


class Lingering:
    """A value that is still in use after the call returned, and tells when it has ended.

    A subclass calls `ended()` when that is so, and writes `discard()`, which ends a value that nobody will use.

    Attributes:
        has_ended: whether it has ended.

    """

    _then: list[Callable[[BaseException | None], None]] | None = None
    has_ended: bool = False

    def on_end(self, then: Callable[[BaseException | None], None]) -> None:
        """Call `then(error)` when the value has ended; at once where it has already."""
        if self.has_ended:
            then(None)
        elif self._then is None:
            self._then = [then]
        else:
            self._then.append(then)

    def ended(self, error: BaseException | None = None) -> None:
        """Say that it has ended: with an exception, with `GeneratorExit` where it was abandoned, or well. Heard once."""
        if self.has_ended:
            return
        self.has_ended = True
        callbacks, self._then = self._then, None
        for then in callbacks or ():  # the innermost registered first
            then(error)

    async def discard(self) -> None:
        """End a value that nobody will use. It must be shielded from cancellation and bounded in time."""
        self.ended(GeneratorExit())


async def dispose_of(value: Any, dispose: Callable[[Any], object] | None) -> None:
    """Throw away a value that nobody will use: the user's own way, if there is one; one that lingers is discarded anyway."""
    try:
        if dispose is not None:
            done = dispose(value)
            if inspect.isawaitable(done):
                await done
    finally:
        if isinstance(value, Lingering):
            await value.discard()
