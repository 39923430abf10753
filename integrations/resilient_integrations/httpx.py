"""Resilience for `httpx.AsyncClient`.

    async with httpx.AsyncClient(transport=ResilientTransport()) as client:
        response = await client.get("https://api.example.com/users/42")

`ResilientTransport` goes between a client and its transport; `wrap()` puts it into a client that exists already. The same for
httpx2 is in `resilient_integrations.httpx2`. What is promised of retries, bodies, time limits and exceptions stands in the page
on HTTP semantics.
"""

from typing import TYPE_CHECKING, Final, TypeVar, Unpack

try:
    import httpx
except ModuleNotFoundError as error:
    _MISSING: Final = "the transport is one of httpx: pip install 'resilient-anyio[httpx]'"
    raise ModuleNotFoundError(_MISSING, name=error.name) from error

from resilient_integrations._http.family import Family
from resilient_integrations._http.transport import Settings, Transport
from resilient_integrations._http.wrap import wrap_client

__all__ = ("ResilientTransport", "policy_fetch", "wrap")

if TYPE_CHECKING:
    from resilient.policy.providers.remote import Fetch

C = TypeVar("C", bound=httpx.AsyncClient)


class ResilientTransport(Transport, httpx.AsyncBaseTransport):  # noqa: D101  it has the docstring of its base
    __doc__ = Transport.__doc__

    family = Family(httpx)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the client calls it."""
        response: httpx.Response = await self.engine.handle(request, self)
        return response


def wrap(client: C, **settings: Unpack[Settings]) -> C:
    """Make an existing client resilient in place: its proxies, mounts, TLS settings and limits are kept.

    Args:
        client: an `httpx.AsyncClient`.
        settings: those of `ResilientTransport`.

    Returns:
        The same client.

    Raises:
        TypeError: it is not an `httpx.AsyncClient`, or it is resilient already.

    """
    return wrap_client(ResilientTransport, client, **settings)


def policy_fetch(client: httpx.AsyncClient, url: str) -> "Fetch":
    """How a `RemoteProvider` gets policies over HTTP: `RemoteProvider(policy_fetch(client, "https://example.com/p.json"))`.

    A body is read up to 1 000 000 bytes and never decompressed; redirects are followed within the origin only, up to three;
    only JSON, TOML and YAML are read, by their content type. 304 means that nothing has changed, 404 and 410 that there is no
    document. Needs the extra `config`.

    Args:
        client: its headers, authentication and TLS settings hold. It is not closed.
        url: where the document is; `{key}` in it stands for the key, escaped, for a provider with `per_key=True`.

    Raises:
        TypeError: it is not an `httpx.AsyncClient`.
        ModuleNotFoundError: the extra `config` is not installed.

    """
    from resilient_integrations._http.policy_fetch import HttpFetch  # noqa: PLC0415  it needs the extra `config`

    return HttpFetch(ResilientTransport.family, client, url)
