"""Policies over HTTP, from servers that may do anything: the last good policy stays, an event and a log line say why."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from integrations.families import BACKENDS, LEFT_BELOW, Family
from integrations.servers import Headers, Server, Step, answer, drip, hang_up, head, serve, stall
from resilient import clock
from resilient.errors import PolicyNotFound, ProviderError
from resilient.observe import listening
from resilient.observe.events import PolicyRefused, PolicyUnavailable
from resilient.policy.key import PolicyKey
from resilient.policy.providers.remote import RemoteProvider
from resilient.strategies.backoff import Constant

pytestmark = BACKENDS

OP = PolicyKey("svc", "Op")
JSON = (("Content-Type", "application/json; charset=utf-8"), ("ETag", '"v1"'))
GOOD = b'{"version": 7, "policies": {"svc.Op": {"timeout": "2s"}}}'


def document(body: bytes = GOOD, headers: Headers = JSON) -> Step:
    return answer(200, body, headers)


def provider_of(family: Family, client: Any, url: str, **settings: Any) -> RemoteProvider:
    """Every call asks again."""
    arguments: Any = {"ttl": 1e-9, "negative_ttl": 1e-9, "timeout": 0.5, "backoff": Constant(delay=0, jitter="none"), **settings}
    return RemoteProvider(family.resilient.policy_fetch(client, url), **arguments)


@asynccontextmanager
async def scene(
    family: Family, *script: Step, path: str = "/policies", **settings: Any
) -> AsyncGenerator[tuple[RemoteProvider, Server]]:
    async with serve(*script) as server, family.lib.AsyncClient(transport=family.inner()) as client:
        yield provider_of(family, client, server.url + path, **settings), server


async def test_a_document_is_fetched_and_asked_for_by_its_etag(family: Family) -> None:
    """304 leaves the policy as it is. Nothing is decompressed."""
    async with scene(family, document(), answer(304)) as (provider, server):
        policy = await provider.load(OP)
        again = await provider.load(OP)

    first, second = server.requests
    assert again is policy
    assert (first.target, first.header("accept-encoding"), first.header("if-none-match")) == ("/policies", "identity", None)
    assert second.header("if-none-match") == '"v1"'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/toml", b"[default]\ntimeout = 2"),
        ("text/x-yaml; charset=utf-8", b"default: {timeout: 2}"),
        ("Application/Vnd.Policies+JSON", b'{"default": {"timeout": 2}}'),
    ],
)
async def test_the_type_of_the_content_tells_the_format(family: Family, kind: str, body: bytes) -> None:
    """As servers name them."""
    async with scene(family, document(body, {"Content-Type": kind})) as (provider, _):
        assert (await provider.load(OP)).timeout is not None


async def test_each_key_has_a_url_of_its_own(family: Family) -> None:
    """What is in a key cannot leave its place in the path. 404 and 410 say that there is none."""
    hostile = PolicyKey("", "../x?y=/")
    script = [document(), answer(404), answer(410)]
    async with scene(family, *script, path="/of/{key}.json", per_key=True) as (provider, server):
        await provider.load(OP)
        for _ in range(2):
            with pytest.raises(PolicyNotFound):
                await provider.load(hostile)

    assert [request.target for request in server.requests] == ["/of/svc.Op.json", *["/of/...%2Fx%3Fy%3D%2F.json"] * 2]


async def test_a_redirect_within_the_origin_is_followed(family: Family) -> None:
    """Up to three; the last answer counts."""
    moved = answer(302, b"", {"Location": "/elsewhere"})
    async with scene(family, moved, moved, moved, document(), moved) as (provider, server):
        policy = await provider.load(OP)
        with pytest.raises(ProviderError, match="the source redirects more than 3 times"):
            await provider_of(family, family.lib.AsyncClient(transport=family.inner()), server.url).load(OP)

    assert policy.timeout is not None
    assert [request.target for request in server.requests[:4]] == ["/policies", *["/elsewhere"] * 3]


HOSTILE: list[tuple[str, Callable[[], Step], type, str]] = [
    (
        "truncated",
        lambda: hang_up(head(200, (*JSON, ("Content-Length", "900"))) + GOOD),
        PolicyUnavailable,
        "RemoteProtocolError",
    ),
    ("half a document", lambda: document(GOOD[:30]), PolicyRefused, "line 1: not JSON: "),
    (
        "wrong type",
        lambda: document(b"<html>", {"Content-Type": "text/html"}),
        PolicyUnavailable,
        "content of the type 'text/html'",
    ),
    ("no type", lambda: document(GOOD, ()), PolicyUnavailable, "content of the type ''"),
    ("10 MB", lambda: document(b" " * 10_000_000), PolicyUnavailable, "larger than 1000000 bytes"),
    (
        "slow drip",
        lambda: drip(head(200, (*JSON, ("Content-Length", "900"))) + b" " * 900),
        PolicyUnavailable,
        "no answer within",
    ),
    ("stall", stall, PolicyUnavailable, "no answer within"),
    ("compressed", lambda: document(GOOD, (*JSON, ("Content-Encoding", "gzip"))), PolicyUnavailable, "a compressed body"),
    (
        "elsewhere",
        lambda: answer(302, b"", {"Location": "http://evil.test/"}),
        PolicyUnavailable,
        "another origin, http://evil.test",
    ),
    ("downgrade", lambda: document(GOOD.replace(b"7", b"6")), PolicyRefused, "version: 6 is older, and 7 is in use"),
    ("wrong policy", lambda: document(GOOD.replace(b"2s", b"2x")), PolicyRefused, "timeout: '2x': expected seconds"),
    ("status", lambda: answer(500), PolicyUnavailable, "the source answers with the status 500"),
    ("no document", lambda: answer(404), PolicyUnavailable, "the source has no document"),
]


@LEFT_BELOW
@pytest.mark.parametrize(("step", "kind", "why"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
async def test_the_last_good_policy_stays_whatever_the_server_does(
    family: Family, step: Callable[[], Step], kind: type, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An event and a log line say why."""
    heard: list[Any] = []
    async with scene(family, document(), step()) as (provider, _):
        before = await provider.load(OP)
        started = clock.now()
        with listening(heard.append), caplog.at_level(logging.WARNING, "resilient"):
            after = await provider.load(OP)

    (event,) = heard
    assert (type(event), after.source, after.timeout) == (kind, "lkg", before.timeout)
    assert why in event.why
    lines = [record.getMessage() for record in caplog.records if record.name == "resilient"]
    assert [line.partition(" ")[0] for line in lines] == [
        "resilient.policy_refused" if kind is PolicyRefused else "resilient.policy_unavailable"
    ]
    assert clock.now() - started < 2.0


async def test_a_client_of_the_other_family_is_refused(family: Family) -> None:
    """And what is no client."""
    with pytest.raises(TypeError, match="expected an instance of"):
        family.resilient.policy_fetch(object(), "http://localhost")
