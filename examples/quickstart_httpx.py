"""An httpx client that survives a bad moment of its server, and shows what happened.

The server is a stand-in inside of this process: it is overloaded at first, and asks to come back in 0.2 seconds. Against a
real one it is `ResilientTransport()`, without arguments.
"""

import asyncio

import httpx

from resilient import record_timeline
from resilient_integrations.httpx import ResilientTransport

answers = iter(
    [
        httpx.Response(503, headers={"retry-after-ms": "200"}),
        httpx.Response(502),
        httpx.Response(200, json={"id": 42, "name": "Ada"}),
        httpx.Response(503),
    ]
)


async def main() -> None:
    """Read a user, who comes at the third attempt; then create one, which is not tried twice."""
    transport = ResilientTransport(httpx.MockTransport(lambda _request: next(answers)))
    async with httpx.AsyncClient(transport=transport, base_url="https://api.example.com") as client:
        with record_timeline() as timeline:
            response = await client.get("/users/42")
        print(response.json(), "after", response.extensions["resilient.attempts"], "attempts")
        print(timeline.render())

        response = await client.post("/users", json={"name": "Grace"})
        print("POST:", response.status_code, "after", response.extensions["resilient.attempts"], "attempt")


if __name__ == "__main__":
    asyncio.run(main())
