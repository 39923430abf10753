"""The interface of ASGI, and how to read the header fields of a request."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

__all__ = ("App", "Key", "Message", "Receive", "Scope", "Send", "field_lines")

Scope = MutableMapping[str, Any]
"""What is known of a request before its body is read."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application, version 3. Each framework has types of its own for the three."""
Key = Callable[[Scope], str]
"""Says whom or what a request counts for."""


def field_lines(scope: Scope, name: bytes) -> list[str]:
    """The values of a header field, one for each line, in their order. `name` is in lower case."""
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]
