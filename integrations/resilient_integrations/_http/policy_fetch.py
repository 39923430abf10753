"""The fetch of a `RemoteProvider` over HTTP, for both families of clients.

It is meant for a source that may be anything: a body is read up to a cap and never decompressed, redirects are followed within
the origin only, and what is no document by its content type is not read at all. The provider bounds the time in all.
"""

import re
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import quote

from resilient.errors import ProviderError
from resilient.policy.formats import Format
from resilient.policy.providers.remote import NOT_MODIFIED, Fetched, NotModified
from resilient.policy.providers.snapshot import LARGEST
from resilient_integrations._http.family import Family

__all__ = ("HttpFetch",)

_REDIRECTS: Final = 3
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({404, 410})
_OK: Final = 200
_NOT_MODIFIED: Final = 304
_TYPE: Final = re.compile(r"(?:application|text)/(?:[\w.-]+\+|x-)?(json|toml|yaml)", re.IGNORECASE)
_ACCEPT: Final = "application/json, application/toml;q=0.9, application/yaml;q=0.9"


class HttpFetch:
    """Fetches documents of policies.

    Args:
        family: that of the client.
        client: an `AsyncClient`; its headers, authentication and TLS settings hold. It is not closed.
        url: where the document is; `{key}` in it stands for the key, escaped, for a provider with `per_key=True`.

    """

    def __init__(self, family: Family, client: Any, url: str) -> None:
        family.refuse_other("client", client)
        if not isinstance(client, family.package.AsyncClient):
            msg = f"client={client!r}: expected an instance of {family.name}.AsyncClient"
            raise TypeError(msg)
        self._client = client
        self._url = url

    async def __call__(self, key: str, etag: str) -> Fetched | NotModified | None:
        """The document of a key, if it is another one than `etag` names.

        Raises:
            ProviderError: the source gave something else than a document.

        """
        headers = {"Accept": _ACCEPT, "Accept-Encoding": "identity", **({"If-None-Match": etag} if etag else {})}
        url = self._client.build_request("GET", self._url.replace("{key}", quote(key, safe=""))).url
        for _ in range(_REDIRECTS + 1):
            request = self._client.build_request("GET", url, headers=headers)
            response = await self._client.send(request, stream=True, follow_redirects=False)
            try:
                if response.status_code not in _MOVED:
                    return await _document(response, key)
                url = _within_origin(response, key)
            finally:
                await response.aclose()
        raise ProviderError(key, f"the source redirects more than {_REDIRECTS} times")


async def _document(response: Any, key: str) -> Fetched | NotModified | None:
    if response.status_code == _NOT_MODIFIED:
        return NOT_MODIFIED
    if response.status_code in _GONE:
        return None
    if response.status_code != _OK:
        raise ProviderError(key, f"the source answers with the status {response.status_code}")
    format = _format(response, key)  # noqa: A001  the word that users know
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProviderError(key, "the source sends a compressed body, which was not asked for")
    body = bytearray()
    async with aclosing(response.aiter_raw()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > LARGEST:
                raise ProviderError(key, f"the document of the source is larger than {LARGEST} bytes")
    return Fetched(bytes(body), format, response.headers.get("etag", ""))


def _format(response: Any, key: str) -> Format:
    given = response.headers.get("content-type", "")
    found = _TYPE.fullmatch(given.partition(";")[0].strip())
    if found is None:
        raise ProviderError(key, f"the source sends content of the type {given[:60]!r}: expected JSON, TOML or YAML")
    format: Format = found[1].lower()  # type: ignore[assignment]  # one of the three  # noqa: A001  see _document
    return format


def _within_origin(response: Any, key: str) -> Any:
    before = response.request.url
    after = before.join(response.headers.get("location", ""))
    if (after.scheme, after.host, after.port) != (before.scheme, before.host, before.port):
        raise ProviderError(key, f"the source redirects to another origin, {after.scheme}://{after.host}")
    return after
