"""Resilience for `httpx2.AsyncClient`.

    async with httpx2.AsyncClient(transport=ResilientTransport()) as client:
        response = await client.get("https://api.example.com/users/42")

`ResilientTransport` goes between a client and its transport; `wrap()` puts it into a client that exists already. The same for
httpx is in `resilient_integrations.httpx`. What is promised of retries, bodies, time limits and exceptions stands in the page
on HTTP semantics.
"""

from typing import TypeVar, Unpack

import httpx2

from resilient_integrations._http.family import Family
from resilient_integrations._http.transport import Settings, Transport
from resilient_integrations._http.wrap import wrap_client

__all__ = ("ResilientTransport", "wrap")

C = TypeVar("C", bound=httpx2.AsyncClient)


class ResilientTransport(Transport, httpx2.AsyncBaseTransport):  # noqa: D101  it has the docstring of its base
    __doc__ = Transport.__doc__

    family = Family(httpx2)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the client calls it."""
        response: httpx2.Response = await self.engine.handle(request, self)
        return response


def wrap(client: C, **settings: Unpack[Settings]) -> C:
    """Make an existing client resilient in place: its proxies, mounts, TLS settings and limits are kept.

    Args:
        client: an `httpx2.AsyncClient`.
        settings: those of `ResilientTransport`.

    Returns:
        The same client.

    Raises:
        TypeError: it is not an `httpx2.AsyncClient`, or it is resilient already.

    """
    return wrap_client(ResilientTransport, client, **settings)
