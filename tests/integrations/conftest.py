"""What the tests share: both HTTP families, and certificates; servers of Redis."""

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import httpx2
import pytest
import trustme

import resilient_integrations.httpx
import resilient_integrations.httpx2
from integrations.families import Family
from integrations.redis_servers import RedisServer
from integrations.scenes import Stage
from resilient_integrations.redis import RedisStore

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


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A real server, alone."""
    server = RedisServer(tmp_path)
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """A store of shared limits on that server."""
    async with RedisStore(redis_server.url, timeout=3) as store:  # a busy machine is no failure of the store
        yield store


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}"
