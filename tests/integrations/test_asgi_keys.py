"""Whom a request counts for."""

from types import SimpleNamespace
from typing import Any

import pytest

from integrations.asgi_client import scope_of
from resilient_integrations.asgi import client_ip, header, path_template, user

PROXIES = ["10.0.0.0/8", "2001:db8:ffff::/48"]


def forwarded(*lines: str, peer: str | None = "10.0.0.1") -> dict[str, Any]:
    return scope_of(headers=[("X-Forwarded-For", line) for line in lines], client=peer and (peer, 1234))


@pytest.mark.parametrize(
    ("trusted", "scope", "client"),
    [
        # Nobody is trusted: what a caller says of itself counts for nothing.
        (0, forwarded("192.0.2.7", peer="203.0.113.9"), "203.0.113.9"),
        ([], forwarded("192.0.2.7", peer="203.0.113.9"), "203.0.113.9"),
        (PROXIES, forwarded("192.0.2.7", peer="203.0.113.9"), "203.0.113.9"),
        # So many proxies: from the right, whatever stands to the left.
        (1, forwarded("198.51.100.1, 192.0.2.7"), "192.0.2.7"),
        (2, forwarded("198.51.100.1, 192.0.2.7, 10.0.0.2"), "192.0.2.7"),
        (2, forwarded("198.51.100.1", "192.0.2.7", "10.0.0.2"), "192.0.2.7"),
        # Fewer addresses than proxies: the farthest that is known.
        (3, forwarded("192.0.2.7, 10.0.0.2"), "192.0.2.7"),
        (1, forwarded(), "10.0.0.1"),
        # Named proxies: as far as they are trusted.
        (PROXIES, forwarded("198.51.100.1, 192.0.2.7, 10.0.0.3, 10.0.0.2"), "192.0.2.7"),
        (PROXIES, forwarded("10.0.0.4, 10.0.0.3"), "10.0.0.4"),
        (["10.0.0.1"], forwarded("192.0.2.7, 10.0.0.2"), "10.0.0.2"),
        # What is no address ends the walk.
        (PROXIES, forwarded("192.0.2.7, unknown, 10.0.0.2"), "10.0.0.2"),
        (1, forwarded("_hidden"), "10.0.0.1"),
        (1, forwarded("1" * 1000), "10.0.0.1"),
        (1, forwarded(""), "10.0.0.1"),
        # Ports, IPv6 (a customer has 64 bits), and IPv4 in IPv6.
        (1, forwarded("192.0.2.7:4711"), "192.0.2.7"),
        (1, forwarded("[2001:db8:1:2:3:4:5:6]:4711"), "2001:db8:1:2::/64"),
        (1, forwarded("[2001:db8:1:2::9]"), "2001:db8:1:2::/64"),
        (0, forwarded(peer="2001:db8:1:2:a:b:c:d"), "2001:db8:1:2::/64"),
        (0, forwarded(peer="::ffff:192.0.2.7"), "192.0.2.7"),
        (["10.0.0.0/8"], forwarded("192.0.2.7", peer="::ffff:10.0.0.1"), "192.0.2.7"),
        (PROXIES, forwarded("192.0.2.7", peer="2001:db8:ffff::1"), "192.0.2.7"),
        # A Unix socket: whoever connects there is a proxy of ours.
        (0, forwarded(peer=None), "local"),
        (1, forwarded("192.0.2.7", peer=None), "192.0.2.7"),
        (PROXIES, forwarded("192.0.2.7", peer=None), "192.0.2.7"),
        (0, forwarded(peer="testclient"), "local"),
    ],
)
def test_the_address_of_the_client_is_read_from_the_right_as_far_as_trust_goes(
    trusted: Any, scope: dict[str, Any], client: str
) -> None:
    """A caller can write anything into the left part of `X-Forwarded-For`."""
    assert client_ip(trusted)(scope) == client


def test_a_header_of_thousands_of_addresses_is_read_to_a_bound() -> None:
    """It costs no more than fifty."""
    scope = forwarded(", ".join(["192.0.2.7", *["10.0.0.2"] * 1000]))

    assert client_ip(PROXIES)(scope) == "10.0.0.2"


@pytest.mark.parametrize("trusted", [-1, True, "10.0.0.0/8", ["ten"]])
def test_who_is_trusted_is_checked_at_construction(trusted: Any) -> None:
    """A mistake there would let callers choose their key."""
    with pytest.raises((TypeError, ValueError), match=r"trusted|ten"):
        client_ip(trusted)


def test_a_header_is_a_key_that_does_not_keep_it() -> None:
    """Two values are two keys, all who have none share one, and no secret is kept."""
    key = header("X-Api-Key")
    one, same, other = (key(scope_of(headers=[("x-api-key", value)])) for value in ("secret" * 100, "secret" * 100, "other"))

    assert one == same != other
    assert "secret" not in one
    assert len(one) == 32
    assert key(scope_of()) == "anonymous"


class Unnamed:
    """A user as Starlette's base class has it, where only `display_name` is written."""

    is_authenticated = True
    display_name = "ada"

    @property
    def identity(self) -> str:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("somebody", "expected"),
    [
        ({"user": SimpleNamespace(is_authenticated=True, identity=42)}, "user:42"),
        ({"user": Unnamed()}, "user:ada"),
        ({"user": SimpleNamespace(is_authenticated=False)}, "192.0.2.1"),
        ({}, "192.0.2.1"),
    ],
)
def test_who_is_logged_in_is_a_key(somebody: dict[str, Any], expected: str) -> None:
    """Others are known by what else there is."""
    assert user(client_ip())(scope_of(**somebody)) == expected


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/users/42", "", "/users/{id}"),
        ("/api/users/42", "/api", "/users/{id}"),
        ("/users/42/", "", "other"),
        ("/users/", "", "other"),
        ("/users/me", "", "/users/me"),
        ("/files/a/b.txt", "", "/files/{name:path}"),
        ("/v1.0", "", "/v1.0"),
        ("/v1x0", "", "other"),
        ("/users/4/orders/5", "", "/users/{id}/orders/{order}"),
    ],
)
def test_a_path_is_known_by_its_template(path: str, root: str, expected: str) -> None:
    """The first that fits; all others share one key, so that paths that somebody makes up cost nothing."""
    key = path_template("/users/me", "/users/{id}", "/users/{id}/orders/{order}", "/files/{name:path}", "/v1.0")

    assert key(scope_of(path, root_path=root)) == expected
