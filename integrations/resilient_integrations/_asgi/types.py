"""The interface of ASGI, and how to read the header fields of a request."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

__all__ = ("App", "Key", "Message", "Receive", "Scope", "Send", "check_function", "field_lines")

Scope = MutableMapping[str, Any]
"""What is known of a request before its body is read."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application, version 3. Each framework has types of its own for the three."""
Key = Callable[[Scope], str]
"""Says whom or what a request counts for."""


def check_function(name: str, given: object, example: str) -> None:
    """Raise `TypeError` for what is not a function, or one that would have to be awaited."""
    if not callable(given) or inspect.iscoroutinefunction(given):
        msg = f"{name}={given!r}: expected a function that is not async, e.g. {example}"
        raise TypeError(msg)


def field_lines(scope: Scope, name: bytes) -> list[str]:
    """The values of a header field, one for each line, in their order. `name` is in lower case."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]
