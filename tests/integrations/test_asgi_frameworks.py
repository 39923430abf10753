"""The frameworks: each takes the middleware in its own way."""

import threading
from typing import Annotated, Any

import anyio
import fastapi
import litestar
import pytest
import starlette.middleware
import starlette.routing
from starlette.applications import Starlette
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from integrations.asgi_client import Request as Asked
from integrations.asgi_client import get, scope_of
from resilient import Bulkhead, CircuitOpen, Keyed, TokenBucket
from resilient_integrations.asgi import HealthEndpoints, ResilientMiddleware, client_ip, user

pytestmark = pytest.mark.anyio


def limits() -> dict[str, Any]:
    return {"rate_limit": Keyed(TokenBucket(2, max_wait=0)), "key": client_ip(), "bulkhead": Bulkhead(10), "timeout": 5}


async def _ok(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _refused(_: Request) -> Response:
    raise CircuitOpen("users", 3.0)


def in_starlette() -> Any:
    routes = [starlette.routing.Route("/", _ok), starlette.routing.Route("/refused", _refused)]
    middleware = [
        starlette.middleware.Middleware(HealthEndpoints),
        starlette.middleware.Middleware(ResilientMiddleware, **limits()),
    ]
    return Starlette(routes=routes, middleware=middleware)


def in_fastapi() -> Any:
    app = fastapi.FastAPI()
    app.add_middleware(ResilientMiddleware, **limits())
    app.add_middleware(HealthEndpoints)

    async def ok(limit: Annotated[int, fastapi.Query()] = 1) -> str:
        return "ok" * limit

    async def refused() -> None:
        raise CircuitOpen("users", 3.0)

    app.get("/")(ok)
    app.get("/refused")(refused)
    return app


def in_litestar() -> Any:
    @litestar.get("/")
    async def ok() -> str:
        return "ok"

    @litestar.get("/refused", exception_handlers={Exception: _surface})
    async def refused() -> str:
        raise CircuitOpen("users", 3.0)

    limited = litestar.Litestar([ok, refused], exception_handlers={CircuitOpen: _surface})
    return HealthEndpoints(ResilientMiddleware(limited, **limits()))


def _surface(_: Any, error: Exception) -> litestar.Response[str]:
    """Litestar answers every exception itself; this one asks it to leave that to the middleware."""
    raise error


@pytest.mark.parametrize("make", [in_starlette, in_fastapi, in_litestar])
async def test_a_framework_with_limits(make: Any) -> None:
    """Success, the refusal of a dependency, 429, and health."""
    app = make()
    good, dependency, refused, live = [await get(app, path, query_string=b"") for path in ("/", "/refused", "/", "/livez")]

    assert [good.status, dependency.status, refused.status, live.status] == [200, 503, 429, 200]
    assert good.fields["ratelimit"] == '"token_bucket";r=1;t=1'
    assert dependency.json["reason"] == "circuit_open"


async def test_a_user_of_starlette_has_a_limit_of_their_own() -> None:
    """Where the middleware stands inside of the one that knows who it is."""
    from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser  # noqa: PLC0415  it is for this test

    class ByHeader(AuthenticationBackend):
        async def authenticate(self, conn: Any) -> tuple[AuthCredentials, SimpleUser] | None:
            name = conn.headers.get("x-user")
            return (AuthCredentials(["yes"]), SimpleUser(name)) if name else None

    limited = ResilientMiddleware(
        Starlette(routes=[starlette.routing.Route("/", _ok)]),
        rate_limit=Keyed(TokenBucket(1, max_wait=0)),
        key=user(client_ip()),
    )
    app = AuthenticationMiddleware(limited, backend=ByHeader())
    names = ["ada", "bob", "ada", "", ""]
    answers = [await get(app, headers=[("x-user", name)] if name else None, query_string=b"") for name in names]

    assert [answer.status for answer in answers] == [200, 200, 429, 200, 429]


@pytest.mark.usefixtures("real_backend")
async def test_a_handler_in_a_thread_is_answered_late() -> None:
    """A thread cannot be cancelled: its slot is taken until it is back, and what it gives then is too late."""
    back = threading.Event()
    bulkhead = Bulkhead(1)

    def hangs(_: Request) -> Response:
        back.wait(5)
        return PlainTextResponse("late")

    limited = starlette.middleware.Middleware(ResilientMiddleware, bulkhead=bulkhead, timeout=0.05)
    app = Starlette(routes=[starlette.routing.Route("/", hangs)], middleware=[limited])
    request = Asked(scope_of(query_string=b""))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request.run, app)
        await anyio.sleep(0.2)

        assert (request.sent, bulkhead.statistics().active) == ([], 1)

        back.set()

    assert request.status == 504
    assert bulkhead.statistics().active == 0
