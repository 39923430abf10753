"""A Starlette service that calls an upstream through a resilient client.

The client lives as long as the application: its breakers and budgets remember what happened before. Where the upstream is
refused or keeps failing, the service answers 502 or 503, and passes on when asking again may help.

Run it under any ASGI server, for example `hypercorn examples/service_starlette:app`. As a script it drives itself in this
process, against an upstream that fails every other request.
"""

import asyncio
import contextlib
import itertools
import math
from collections.abc import AsyncGenerator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resilient import Rejected, record_timeline
from resilient_integrations.httpx import ResilientTransport


async def show_user(request: Request) -> Response:
    """Ask the upstream for a user."""
    client: httpx.AsyncClient = request.app.state.upstream
    try:
        answer = await client.get(f"/users/{request.path_params['user_id']}")
        answer.raise_for_status()
    except Rejected as refusal:  # an open breaker, say: nothing was sent
        headers = {} if refusal.retry_after is None else {"Retry-After": str(math.ceil(refusal.retry_after))}
        return JSONResponse({"error": refusal.reason}, status_code=503, headers=headers)
    except httpx.HTTPError as error:
        return JSONResponse({"error": type(error).__name__}, status_code=502)
    return JSONResponse(answer.json())


def service(upstream: httpx.AsyncBaseTransport | None = None) -> Starlette:
    """The application. `upstream` is the transport underneath: that of httpx, where none is given."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        transport = ResilientTransport(upstream)
        async with httpx.AsyncClient(transport=transport, base_url="https://users.example.com") as app.state.upstream:
            yield

    return Starlette(routes=[Route("/users/{user_id:int}", show_user)], lifespan=lifespan)


app = service()


async def main() -> None:
    """Ask the service for a few users, while its upstream fails every other request."""
    requests = itertools.count()

    def flaky(request: httpx.Request) -> httpx.Response:
        if next(requests) % 2 == 0:
            return httpx.Response(503)
        return httpx.Response(200, json={"path": request.url.path})

    driven = service(httpx.MockTransport(flaky))
    async with (
        driven.router.lifespan_context(driven),
        httpx.AsyncClient(transport=httpx.ASGITransport(driven), base_url="http://service") as browser,
    ):
        for user_id in range(3):
            with record_timeline() as timeline:
                answer = await browser.get(f"/users/{user_id}")
            print(answer.status_code, answer.json(), f"after {len(timeline.attempts)} attempts")


if __name__ == "__main__":
    asyncio.run(main())
