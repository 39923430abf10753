"""Under mocks: the tools that users test with leave our transport in place, and give no evidence but the type of an exception."""

import importlib
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import respx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from integrations.families import Family
from resilient import Classifier, Health, Kind, Verdict, record_timeline

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]  # loops have no say

URL = "https://api.example.com/users"
BELOW = {"httpx": "httpcore", "httpx2": "httpcore2"}
"""What is to be patched: the layer below our transport. `using="httpx"` would patch above it."""


@pytest.fixture
def router(family: Family) -> Iterator[Any]:
    """respx, and for httpx2 the mocker that pytest-httpx2 adds to it."""
    importlib.import_module("pytest_httpx2")
    with respx.mock(using=BELOW[family.name], assert_all_called=False) as mocked:
        yield mocked


def below(family: Family, name: str) -> Exception:
    """An exception of the layer that is mocked."""
    error: Exception = getattr(importlib.import_module(BELOW[family.name]), name)("mocked")
    return error


async def test_a_mocked_server_sees_every_attempt(family: Family, router: Any) -> None:
    """The transport is above the mock."""
    route = router.get(URL).mock(side_effect=[respx.MockResponse(503), respx.MockResponse(200, text="hello")])
    async with family.client() as client:
        response = await client.get(URL)

        assert (response.text, route.call_count) == ("hello", 2)


@pytest.mark.parametrize(
    ("name", "method", "calls"),
    [
        pytest.param("ReadTimeout", "POST", 1, id="a read timeout of a POST is not retried"),
        pytest.param("ReadTimeout", "GET", 2, id="a read timeout of a GET is"),
        pytest.param("ReadError", "POST", 1, id="a read error of a POST is not retried"),
        pytest.param("RemoteProtocolError", "POST", 1, id="a lost answer to a POST is not retried"),
        pytest.param("ConnectError", "POST", 2, id="a failed connection of a POST is retried"),
        pytest.param("ConnectTimeout", "POST", 2, id="a connect timeout of a POST is retried"),
        pytest.param("PoolTimeout", "GET", 1, id="a pool timeout is never retried"),
    ],
)
async def test_a_mocked_failure_is_judged_by_its_type(family: Family, router: Any, name: str, method: str, calls: int) -> None:
    """Mocks tell nothing of how far a request came: what may have arrived is taken to have arrived."""
    route = router.request(method, URL).mock(side_effect=[below(family, name), respx.MockResponse(200)])
    async with family.client() as client:
        if calls == 1:
            with pytest.raises(getattr(family.lib, name)):
                await client.request(method, URL)
        else:
            assert (await client.request(method, URL)).status_code == 200

        assert route.call_count == calls


@pytest.mark.parametrize("family", ["httpx"], indirect=True)  # respx has no such mode for httpx2
async def test_a_mock_of_the_client_itself_bypasses_the_transport(family: Family) -> None:
    """Respx's default for httpx: no attempt is made, so nothing is tested. The docs warn about it."""
    with respx.mock(using="httpx") as mocked:
        route = mocked.get(URL).mock(side_effect=[respx.MockResponse(503), respx.MockResponse(200)])
        async with family.client() as client:
            with record_timeline() as timeline:
                response = await client.get(URL)

    assert (response.status_code, route.call_count, timeline.attempts) == (503, 1, [])


@pytest.mark.parametrize("family", ["httpx2"], indirect=True)
async def test_the_fixture_of_pytest_httpx2_leaves_the_transport_in_place(family: Family, httpx2_mock: Any) -> None:
    """It mocks httpcore2."""
    route = httpx2_mock.get(URL).mock(side_effect=[respx.MockResponse(503), respx.MockResponse(200)])
    async with family.client() as client:
        response = await client.get(URL)

    assert (response.status_code, route.call_count) == (200, 2)


async def test_an_asgi_application_is_called_through_the_transport(family: Family) -> None:
    """`ASGITransport` as the inner one: the service under test runs in the same process."""
    answers = [503, 200]

    async def users(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{await request.body()!r}", status_code=answers.pop(0))

    app = Starlette(routes=[Route("/users", users, methods=["PUT"])])
    async with family.client(family.lib.ASGITransport(app=app)) as client:
        response = await client.put(URL, content=b"abc")

        assert (response.status_code, response.text) == (200, "b'abc'")


# -- types, where there is nothing else ----------------------------------------------------------------------------------

SICK, NEUTRAL = Health.UNHEALTHY, Health.NEUTRAL
BOTH, IDEMPOTENT, NONE = ("GET", "POST"), ("GET",), ()

TYPES = [
    ("UnsupportedProtocol", "", NONE, NEUTRAL),
    ("LocalProtocolError", "", NONE, NEUTRAL),
    ("PoolTimeout", "", NONE, NEUTRAL),
    ("ConnectTimeout", "", BOTH, SICK),
    ("ConnectError", "", BOTH, SICK),
    ("ProxyError", "502 Bad Gateway", BOTH, NEUTRAL),
    ("ProxyError", "407 Proxy Authentication Required", NONE, NEUTRAL),
    ("ReadTimeout", "", IDEMPOTENT, SICK),
    ("WriteTimeout", "", IDEMPOTENT, SICK),
    ("ReadError", "", IDEMPOTENT, SICK),
    ("WriteError", "", IDEMPOTENT, SICK),
    ("RemoteProtocolError", "", IDEMPOTENT, SICK),
    ("StreamConsumed", None, NONE, NEUTRAL),
    ("StreamClosed", None, NONE, NEUTRAL),
]


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize(("name", "message", "resent", "health"), TYPES)
async def test_the_type_of_an_exception_is_the_last_witness(
    family: Family, name: str, message: str | None, resent: tuple[str, ...], health: Health, method: str
) -> None:
    """The table of exceptions, where neither trace nor frame says more."""
    kind = getattr(family.lib, name)
    inner = family.mock(kind() if message is None else kind(message), 200)
    async with family.client(inner) as client:
        with record_timeline() as timeline:
            try:
                await client.request(method, URL)
            except kind:
                assert method not in resent
            else:
                assert method in resent

        assert timeline.attempts[0].verdict.health is health
        assert len(inner.requests) == (2 if method in resent else 1)


@pytest.mark.parametrize(("method", "calls"), [("GET", 2), ("POST", 1)])
async def test_an_os_error_that_a_transport_does_not_translate_may_have_come_after_the_request(
    family: Family, method: str, calls: int
) -> None:
    """Transports of others raise what they like."""
    inner = family.mock(ConnectionResetError("mocked"), 200)
    async with family.client(inner) as client:
        if calls == 1:
            with pytest.raises(ConnectionResetError):
                await client.request(method, URL)
        else:
            await client.request(method, URL)

        assert len(inner.requests) == calls


async def test_an_exception_that_nobody_knows_is_not_retried(family: Family) -> None:
    """A bug does not go away."""
    inner = family.mock(ZeroDivisionError("mocked"), 200)
    async with family.client(inner) as client:
        with pytest.raises(ZeroDivisionError):
            await client.get(URL)

        assert len(inner.requests) == 1


async def test_users_say_what_they_know_better(family: Family) -> None:
    """`classifier=` is asked first, of responses and of exceptions; what cannot be resent is not, all the same."""
    again = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "my_reason")
    own = Classifier(
        lambda error: again if isinstance(error, ZeroDivisionError) else None,
        lambda response: again if response.status_code == 202 else None,
    )
    inner = family.mock(ZeroDivisionError("mocked"), 202, 200)
    async with family.client(inner, classifier=own) as client:
        assert (await client.post(URL)).status_code == 200

    async def body() -> Any:
        yield b"a"
        await anyio.lowlevel.checkpoint()

    inner = family.mock(202, 200)
    async with family.client(inner, classifier=own) as client:
        assert (await client.put(URL, content=body())).status_code == 202


async def test_a_classifier_that_raises_does_not_hide_the_response(family: Family) -> None:
    """It ends the call, with what the server said."""

    def broken(response: Any) -> Verdict:
        raise KeyError(response.headers["missing"])

    own = Classifier(lambda _error: None, broken)
    inner = family.mock(503, 200)
    async with family.client(inner, classifier=own) as client:
        with record_timeline() as timeline:
            response = await client.get(URL)

        assert (response.status_code, len(inner.requests)) == (503, 1)
        assert timeline.attempts[0].verdict.reason == "classifier_raised"
