"""What a server says about coming back: the trailer `grpc-retry-pushback-ms`, and `google.rpc.RetryInfo`.

The trailer is that of the retry design of gRPC (proposal A6). `RetryInfo` is a detail of `google.rpc.Status`, which travels in
the trailer `grpc-status-details-bin`. Of these messages three fields are read, by the wire format of protocol buffers, so
that no generated code is needed. Whatever is malformed there is no hint.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

__all__ = ("PUSHBACK", "pushback", "retry_info")

PUSHBACK: Final = "grpc-retry-pushback-ms"
"""The trailer: milliseconds to wait, as a decimal; negative where the call must not be tried again."""

_DETAILS: Final = "grpc-status-details-bin"
_RETRY_INFO: Final = b"/google.rpc.RetryInfo"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS: Final = {_FIXED64: 8, _FIXED32: 4}
_LONGEST: Final = 10
"""Bytes of a varint."""
_MOST: Final = 2**31 - 1
"""The trailer is a signed number of 32 bits."""
_DIGITS: Final = len(str(_MOST))


def pushback(trailers: Any) -> float | None:
    """Seconds that the trailer asks for: negative where it forbids to try again, or cannot be read; None without one."""
    values = _values(trailers, PUSHBACK)
    if not values:
        return None
    text = str(values[-1])
    readable = text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) <= _MOST
    return int(text) / 1000 if readable else -1.0


def retry_info(trailers: Any) -> float | None:
    """Seconds that `RetryInfo` asks for, or None where there is none."""
    for status in _values(trailers, _DETAILS):
        if isinstance(status, bytes):
            try:
                return _delay(status)
            except (IndexError, ValueError):
                continue
    return None


def _values(trailers: Any, name: str) -> list[Any]:
    pairs: Iterable[tuple[str, Any]] = trailers or ()
    return [value for key, value in pairs if key == name]


def _delay(status: bytes) -> float | None:
    """From `Status.details[].value` to `RetryInfo.retry_delay`, a `Duration` of seconds and nanoseconds."""
    for detail in _messages(status, 3):
        if any(url.endswith(_RETRY_INFO) for url in _messages(detail, 1)):
            for duration in (part for info in _messages(detail, 2) for part in _messages(info, 1)):
                numbers = {number: value for number, value in _fields(duration) if isinstance(value, int)}
                seconds = numbers.get(1, 0) + numbers.get(2, 0) / 1e9
                return seconds if seconds < 2**62 else None  # a negative number has its highest bit set
    return None


def _messages(message: bytes, wanted: int) -> Iterator[bytes]:
    return (value for number, value in _fields(message) if number == wanted and isinstance(value, bytes))


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: their numbers, with an integer or the bytes.

    Raises:
        IndexError, ValueError: it is no message.

    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        width = _WIDTHS.get(kind)
        if width is None:
            if kind != _BYTES:
                msg = f"a field of the unknown kind {kind}"
                raise ValueError(msg)
            width, at = _varint(message, at)
        if at + width > len(message):
            msg = "a field is cut short"
            raise ValueError(msg)
        yield tag >> 3, message[at : at + width]
        at += width


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST):
        byte = message[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004  the last byte has no highest bit
            return value, at + place + 1
    msg = "a number is too long"
    raise ValueError(msg)
