"""What the HTTP tests share: both families, and certificates."""

import ssl

import httpx
import httpx2
import pytest
import trustme

import resilient_integrations.httpx
import resilient_integrations.httpx2
from integrations.families import Family
from integrations.scenes import Stage

_FAMILIES = {
    "httpx": Family(httpx, resilient_integrations.httpx),
    "httpx2": Family(httpx2, resilient_integrations.httpx2),
}


@pytest.fixture(params=_FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    """Run the test with httpx and with httpx2."""
    return _FAMILIES[request.param]


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs the certificates of the tests' servers."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """The TLS side of a server on the loopback interface."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]  its PyOpenSSL half is untyped
    return context


@pytest.fixture(scope="session")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """A client that trusts those servers."""
    context = ssl.create_default_context()
    authority.configure_trust(context)  # pyright: ignore[reportUnknownMemberType]  see server_tls
    return context


@pytest.fixture
def stage(family: Family, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(family, server_tls, client_tls, monkeypatch)
