"""Writes to an HTTP/2 connection that cancellation cannot lose.

A connection writes for all who share it: whoever writes next takes along what the others have left. httpcore (1.0, and httpcore2
2.16) forgets these bytes when that task is cancelled in between. Without TLS the server then decodes the headers of later
requests wrongly, for their compression refers to what was lost, and answers one request with the body of another; with TLS the
connection breaks. So a write is whole, or the connection is over: below the pool of each inner transport that speaks HTTP/2.
"""

import math
from typing import Any, Final

import anyio

__all__ = ("keep_writes_whole",)

_GRACE: Final = 0.25
"""Seconds that a task which is cancelled already gets to write."""


def keep_writes_whole(inner: Any) -> None:
    """See to it that all connections that this transport makes from now on write in this way."""
    pool: Any = getattr(inner, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if getattr(pool, "_http2", False) and backend is not None and not isinstance(backend, _Backend):
        pool._network_backend = _Backend(backend)  # noqa: SLF001  it can be given to a pool, but not to a transport


class _Backend:
    """It connects, and wraps what it gets."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> "_Stream":
        return _Stream(await self._backend.connect_tcp(*args, **kwargs))

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> "_Stream":
        return _Stream(await self._backend.connect_unix_socket(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _Stream:
    """A connection whose writes are whole. All else is the connection's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.read = stream.read

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  httpcore's signature
        is_late = anyio.current_effective_deadline() == -math.inf
        until = anyio.current_time() + _GRACE if is_late else math.inf
        with anyio.CancelScope(shield=is_late, deadline=until):
            try:
                await self._stream.write(buffer, timeout)
            except anyio.get_cancelled_exc_class():  # how much of it went out, nobody knows
                with anyio.CancelScope(shield=True):
                    await self._stream.aclose()
                raise

    async def start_tls(self, *args: Any, **kwargs: Any) -> "_Stream":
        return _Stream(await self._stream.start_tls(*args, **kwargs))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
