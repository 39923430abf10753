"""Make an existing client resilient in place.

A client that is given a `transport=` drops its other settings without a word: `proxy=`, `http2=`, `verify=`, `limits=`, and the
proxies of the environment. So the transports that it has already made of them are wrapped, the default one and every mount.
They share one engine: what is called has one breaker, whichever way it is reached.
"""

from typing import Any, TypeVar, Unpack, cast

from resilient_integrations._http.engine import Engine
from resilient_integrations._http.transport import Settings, Transport

__all__ = ("wrap_client",)

C = TypeVar("C")


def wrap_client(kind: type[Transport], client: C, **settings: Unpack[Settings]) -> C:
    """Put a transport of `kind` around each transport of the client; returns the client.

    Raises:
        TypeError: it is not an asynchronous client of that family, or it is resilient already.

    """
    family, name = kind.family, kind.family.name
    family.refuse_other("client", client)
    if not isinstance(client, family.package.AsyncClient):
        msg = f"client={client!r}: expected an instance of {name}.AsyncClient"
        raise TypeError(msg)
    # Both attributes are private and have been the same for years; instrumentations wrap them, too.
    insides = cast("Any", client)
    if any(isinstance(transport, Transport) for transport in (insides._transport, *insides._mounts.values())):  # noqa: SLF001
        msg = f"client={client!r} is resilient already: wrap it once"
        raise TypeError(msg)
    engine = Engine(family, **settings)
    for pattern, inner in insides._mounts.items():  # noqa: SLF001
        if inner is not None:  # None sends what matches the default way
            insides._mounts[pattern] = kind.around(engine, inner)  # noqa: SLF001
    insides._transport = kind.around(engine, insides._transport)  # noqa: SLF001
    return client
