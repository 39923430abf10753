"""`wrap()`: an existing client becomes resilient, and stays what it was."""

from typing import Any

import pytest

from integrations.families import BACKENDS, POLICY, Family
from integrations.servers import answer, serve
from resilient import CircuitBreaker, CircuitOpen, Policy

pytestmark = BACKENDS


async def test_an_existing_client_becomes_resilient_in_place(family: Family) -> None:
    """It is the same client, with its connection pool."""
    async with serve(answer(503), answer(200)) as server, family.lib.AsyncClient(transport=family.inner()) as client:
        assert family.resilient.wrap(client, policy=POLICY) is client

        assert (await client.get(server.url)).status_code == 200
        assert len(server.requests) == 2


async def test_the_proxy_of_a_client_is_kept(family: Family) -> None:
    """The mount that holds it is wrapped as well."""
    async with serve(answer(502), answer(200, b"by proxy")) as proxy:
        made = family.lib.AsyncClient(proxy=proxy.url, verify=False, trust_env=False)
        async with family.resilient.wrap(made, policy=POLICY) as client:
            response = await client.get("http://origin.test/path")

        assert response.content == b"by proxy"
        assert [request.target for request in proxy.requests] == ["http://origin.test/path"] * 2


async def test_proxies_of_the_environment_are_kept(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """And `NO_PROXY` with them."""
    async with serve(answer(502), answer(200, b"by proxy")) as proxy, serve(answer(503), answer(200, b"direct")) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        made = family.lib.AsyncClient(verify=False)
        async with family.resilient.wrap(made, policy=POLICY) as client:
            assert (await client.get("http://origin.test/")).content == b"by proxy"
            assert (await client.get(server.url)).content == b"direct"


async def test_mounts_share_one_engine(family: Family) -> None:
    """What is called has one breaker, whichever way it is reached."""
    policy = Policy.http().replace(retry=None, circuit_breaker=CircuitBreaker(consecutive_failures=1))
    mounts = {"all://*.mounted.test": family.mock(500)}
    made = family.lib.AsyncClient(transport=family.mock(500), mounts=mounts)

    def service(_request: Any) -> str:
        return "service"

    async with family.resilient.wrap(made, policy=policy, key=service) as client:
        assert (await client.get("https://a.mounted.test/")).status_code == 500
        with pytest.raises(CircuitOpen):
            await client.get("https://api.example.com/")


async def test_a_bare_transport_argument_is_bypassed_by_a_proxy(family: Family) -> None:
    """What the docs warn about: the client sends past its `transport=` where it has a `proxy=`."""
    async with serve(answer(503), answer(200)) as proxy:
        transport = family.resilient.ResilientTransport(family.mock(204), policy=POLICY)
        options = {"proxy": proxy.url, "verify": False, "trust_env": False}
        async with family.lib.AsyncClient(transport=transport, **options) as client:
            response = await client.get("http://origin.test/")

        assert (response.status_code, len(proxy.requests)) == (503, 1)


async def test_a_bare_transport_argument_drops_the_proxies_of_the_environment(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other half of that warning: they are silently not used."""
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with serve(answer(200)) as server, family.client() as client:
        assert (await client.get(server.url)).status_code == 200


async def test_a_client_is_wrapped_once(family: Family) -> None:
    """Twice would multiply attempts."""
    async with family.resilient.wrap(family.lib.AsyncClient(transport=family.mock(200))) as client:
        with pytest.raises(TypeError, match="resilient already"):
            family.resilient.wrap(client)


@pytest.mark.parametrize("kind", ["Client", "HTTPTransport"])
async def test_only_an_asynchronous_client_of_the_family_is_wrapped(family: Family, kind: str) -> None:
    """The message says what is expected."""
    with pytest.raises(TypeError, match=f"expected an instance of {family.name}.AsyncClient"):
        family.resilient.wrap(getattr(family.lib, kind)())
