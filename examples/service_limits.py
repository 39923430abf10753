"""A Starlette service that says no in time: limits for each client, for the whole process, and the caller's own deadline.

Run it under any ASGI server, for example `hypercorn examples/service_limits:app`. As a script it drives itself in this process:
a client that asks too often, one that is in a hurry, a rush, and what `/readyz` says of it.
"""

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from resilient import Bulkhead, Keyed, TokenBucket, configure_logging
from resilient_integrations.asgi import HealthEndpoints, LoopLag, ResilientMiddleware, client_ip
from resilient_integrations.httpx import ResilientTransport


def busy(_: httpx.Request) -> httpx.Response:
    """The upstream: it asks for a pause."""
    return httpx.Response(503, headers={"Retry-After": "20"})


transport = ResilientTransport(httpx.MockTransport(busy))
upstream = httpx.AsyncClient(transport=transport, base_url="https://users.example.com")


async def report(_: Request) -> Response:
    """Work that takes a while."""
    await asyncio.sleep(0.05)
    return PlainTextResponse("ok")


async def user(_: Request) -> Response:
    """Ask the upstream, within the time that the caller has: a wait that is too long for it is not begun."""
    answer = await upstream.get("/users/42")
    return PlainTextResponse("upstream is busy", status_code=answer.status_code)


slots = Bulkhead(10)
loop_lag = LoopLag(0.1)
health = Middleware(HealthEndpoints, parts={"users-api": transport}, capacity={"requests": slots, "loop": loop_lag})
limits = Middleware(
    ResilientMiddleware,
    rate_limit=Keyed(TokenBucket(5, per=60, max_wait=0)),
    key=client_ip(trusted=1),
    bulkhead=slots,
    loop_lag=loop_lag,
    priority=lambda scope: 0.5 if scope["path"] == "/bulk" else 1.0,
    timeout=30,
    deadline_header="Request-Timeout",
)
app = Starlette(
    routes=[Route("/report", report), Route("/bulk", report), Route("/user", user)],
    middleware=[health, limits],  # the first one is the outermost
)


async def main() -> None:
    """Ask the service in some ways that it must bear."""
    configure_logging(enabled=False)  # what is refused is printed here

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as browser:

        async def ask(path: str, client: int, **fields: str) -> httpx.Response:
            return await browser.get(path, headers={"X-Forwarded-For": f"192.0.2.{client}", **fields})

        answers = [await ask("/report", 1) for _ in range(6)]
        print("a client that asks too often:", [answer.status_code for answer in answers], answers[-1].json()["title"])
        print("    come again in", answers[-1].headers["Retry-After"], "s;", answers[-1].headers["RateLimit-Policy"])

        hurried = await ask("/user", 2, **{"Request-Timeout": "2"})
        print("one in a hurry:", hurried.status_code, hurried.text)
        print("    left of its quota:", hurried.headers["RateLimit"])

        rush = [ask("/bulk" if client % 2 else "/report", client) for client in range(3, 33)]
        *answers, ready = await asyncio.gather(*rush, browser.get("/readyz"))
        for path in ("/bulk", "/report"):
            served = [answer.status_code for answer in answers if answer.url.path == path].count(200)
            print(f"a rush of 15 for {path}: {served} served")
        print("    meanwhile:", ready.status_code, ready.json()["status"])
        afterwards = (await browser.get("/readyz")).json()
        print("    afterwards:", afterwards["status"])
        for part in afterwards["parts"]["users-api"]["parts"]:
            print("   ", part["key"], part["name"], part["status"])


if __name__ == "__main__":
    asyncio.run(main())
