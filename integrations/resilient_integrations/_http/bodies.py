"""Request bodies: which of them can be sent twice.

Sending a body again that cannot be read again is mostly no error but silent corruption: an iterator that is exhausted, a file
that was read to its end, give an empty body, and the server answers 200. So a body is sent again only where its kind is known
to give the same bytes, or where its first send never began.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Any, Final

import anyio

__all__ = ("OneShotBody", "close_iterator", "of_bytes", "replayable", "spooled")

_FINISH_SECONDS: Final = 1.0


def replayable(stream: Any) -> bool:
    """Whether a request's stream gives the same bytes when it is read again. (One of bytes does: it need not be asked for.)

    Multipart forms do, where each file is bytes or can seek to its start, and async iterables that make a new iterator each
    time. Iterators, generators, objects with a `read` or `aread`, and streams of unknown classes do not.
    """
    files = _files_of(stream)
    if files is not None:
        return all(map(_can_rewind, files))
    if type(stream).__name__ == "AsyncIteratorByteStream":  # what `content=` makes of an async iterable
        source = getattr(stream, "_stream", None)
        return hasattr(source, "__aiter__") and not any(hasattr(source, name) for name in ("__anext__", "read", "aread"))
    return False


def of_bytes(stream: Any) -> bool:
    """Whether it is a multipart form without files that are read: it can be sent twice at the same time. A file has one place
    at which it is read, for all who read it.
    """
    files = _files_of(stream)
    return files is not None and all(isinstance(file, (str, bytes)) for file in files)


def _files_of(stream: Any) -> list[Any] | None:
    """The contents of a multipart form's files; None where it is none."""
    fields = getattr(stream, "fields", None)
    if fields is None or type(stream).__name__ != "MultipartStream":
        return None
    return [field.file for field in fields if hasattr(field, "file")]


def _can_rewind(file: Any) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    seekable = getattr(file, "seekable", None)
    return callable(seekable) and bool(seekable())


async def spooled(stream: Any, limit: int) -> bytes | AsyncIterator[bytes]:
    """Read a body of at most `limit` bytes into memory. A longer one comes back as an iterator that can be used once."""
    parts: list[bytes] = []
    size = 0
    rest: AsyncIterator[bytes] = aiter(stream)
    async for part in rest:
        parts.append(part)
        size += len(part)
        if size > limit:
            return _joined(b"".join(parts), rest)
    return b"".join(parts)


async def _joined(beginning: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield beginning
    async for part in rest:
        yield part


class OneShotBody:
    """A body that can be sent once, in place of a request's own stream. It remembers whether that was begun: until then it may
    be sent again, whatever its kind. A family's `AsyncByteStream` is mixed in.
    """

    def __init__(self, stream: Any) -> None:
        self.begun = False
        self._stream = stream
        self._parts: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        self._parts = aiter(self._stream)
        return self._parts

    async def finish(self) -> None:
        """End what was begun: httpcore 1 leaves a half-sent generator to the garbage collector, which trio complains about."""
        if self.begun:
            with anyio.move_on_after(_FINISH_SECONDS, shield=True):
                await close_iterator(self._parts)
                await close_iterator(getattr(self._stream, "_stream", None))


async def close_iterator(parts: Any) -> None:
    """Close it, where it can be closed."""
    if isinstance(parts, AsyncGenerator):
        with suppress(RuntimeError):  # another task reads it at this moment, and will end by itself
            await parts.aclose()
