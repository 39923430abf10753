"""Whom a request counts for: functions from the scope of a request to a key.

An address is only as good as who tells it. The peer of the connection is known; what a proxy says of those before it stands in
`X-Forwarded-For`, to whose *right* end each proxy adds the address it was called from. Everything further to the left than the
proxies that are trusted may be invented by the caller, so it is read from the right, and no further than trust goes.
"""

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from resilient._arguments import integer
from resilient_integrations._asgi.types import Key, Scope, field_lines

__all__ = ("client_ip", "header", "path_template", "user")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORWARDED: Final = b"x-forwarded-for"
_LONGEST: Final = 64
"""No address takes more signs than that, its port included."""
_HOPS: Final = 50
"""So many addresses are looked at, from the right."""
_WITH_PORT: Final = re.compile(r"\[([^]]*)](?::[0-9]+)?|([0-9.]+):[0-9]+")
_IPV6: Final = 6
_SUBNET: Final = 64
_LOCAL: Final = "local"
_NOBODY: Final = "anonymous"
_OTHER: Final = "other"
_PARAMETER: Final = re.compile(r"\{[^{}]*\}")


def client_ip(trusted: int | Iterable[str] = 0) -> Key:
    """By the address of the client. Of an IPv6 address the network of 64 bits counts, which is what one customer has.

    Args:
        trusted: how many proxies stand in front (each adds one address to `X-Forwarded-For`), at least 0; or the addresses and
            networks of those that are trusted: `["10.0.0.0/8"]`. Default 0: the peer of the connection is the client. A number is
            right only where nobody can reach the server past those proxies. Where the server itself reads the header already, as
            uvicorn does with `proxy_headers`, it has changed the peer, and 0 is right.

    A peer without an address, of a Unix socket, counts as a trusted proxy. What cannot be read as an address ends the walk: the
    proxy that told it is the key then.

    Raises:
        ValueError: a number below 0, or an address that is none.

    """
    if isinstance(trusted, str):
        msg = f"trusted={trusted!r}: expected a number of proxies, or a list of addresses and networks, e.g. [{trusted!r}]"
        raise TypeError(msg)
    trusts = _first(integer("trusted", trusted, at_least=0)) if isinstance(trusted, int) else _among(trusted)

    def key(scope: Scope) -> str:
        peer = scope.get("client")
        client = _address(peer[0]) if peer else None
        if peer and (client is None or not trusts(client, 0)):
            return _shown(client)
        told = ",".join(field_lines(scope, _FORWARDED)).split(",")[-_HOPS:]
        for hop, text in enumerate(reversed(told), start=1):
            address = _address(text)
            if address is None:
                break
            client = address
            if not trusts(address, hop):
                break
        return _shown(client)

    return key


def header(name: str) -> Key:
    """By a header field, an API key say: a digest of it, so that no secret is kept. All who have none share one key."""
    wanted = name.lower().encode()

    def key(scope: Scope) -> str:
        values = field_lines(scope, wanted)
        return hashlib.blake2b("\0".join(values).encode(), digest_size=16).hexdigest() if values else _NOBODY

    return key


def user(otherwise: Key) -> Key:
    """By who is logged in, as an authentication middleware around has put it into `scope["user"]`.

    Args:
        otherwise: the key of those who are not, `client_ip(1)` say.

    A user has `is_authenticated`, and an `identity` or, where that is not written, a `display_name`, as those of Starlette have.

    """

    def key(scope: Scope) -> str:
        somebody = scope.get("user")
        if somebody is None or not getattr(somebody, "is_authenticated", False):
            return otherwise(scope)
        return f"user:{_identity(somebody)}"

    return key


def path_template(*templates: str) -> Key:
    """By the first of these templates that the path fits: `path_template("/users/{id}", "/orders/{id}/lines")`; else `"other"`.

    What stands in braces is one part of the path, or with `{name:path}` all of the rest: the key never holds an id.
    """
    patterns = [(template, re.compile(_pattern(template))) for template in templates]

    def key(scope: Scope) -> str:
        path: str = scope["path"]
        path = path.removeprefix(scope.get("root_path", ""))
        return next((template for template, pattern in patterns if pattern.fullmatch(path)), _OTHER)

    return key


def _pattern(template: str) -> str:
    texts = _PARAMETER.split(template)
    parameters = [".*" if found.endswith(":path}") else "[^/]+" for found in _PARAMETER.findall(template)]
    return "".join(re.escape(text) + parameter for text, parameter in zip(texts, [*parameters, ""], strict=True))


def _first(count: int) -> Callable[[_Address, int], bool]:
    return lambda _, hop: hop < count


def _among(trusted: Iterable[str]) -> Callable[[_Address, int], bool]:
    networks: Sequence[_Network] = [ipaddress.ip_network(text) for text in trusted]
    return lambda address, _: any(address in network for network in networks)


def _address(text: str) -> _Address | None:
    return _read(text) if len(text) <= _LONGEST else None


@lru_cache(4096)  # who asks asks again, and to read an address takes as long as all the rest
def _read(text: str) -> _Address | None:
    found = _WITH_PORT.fullmatch(text := text.strip())
    try:
        address = ipaddress.ip_address((found[1] or found[2]) if found else text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _shown(address: _Address | None) -> str:
    if address is None:
        return _LOCAL
    if address.version == _IPV6:
        return str(ipaddress.ip_network((int(address), _SUBNET), strict=False))
    return str(address)


def _identity(somebody: Any) -> str:
    try:
        return str(somebody.identity)
    except (AttributeError, NotImplementedError):
        return str(somebody.display_name)
