"""A streaming client of an LLM's API: server-sent events, token by token.

What such a client needs: a busy server is asked again when it says so, until the first token has come, and not after it;
an answer that takes minutes is never cut, while a server that does not even begin is; the number of answers in progress is
bounded, and a stream that is closed early gives its place back at once.

The server is a stand-in inside of this process: it is busy for two requests, then answers slowly.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing

import httpx

from resilient import Bulkhead, Policy
from resilient_integrations.httpx import ResilientTransport

POLICY = Policy.http().replace(
    bulkhead=Bulkhead(4, max_queue=100),  # four answers at a time; each holds its place until its stream has ended
    attempt_timeout=20.0,  # up to the headers of a response: the stream itself may take as long as it likes
)


async def ask(client: httpx.AsyncClient, prompt: str) -> AsyncGenerator[str]:
    """The tokens of the answer, as they come."""
    question = {"model": "example", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    async with client.stream("POST", "/v1/chat/completions", json=question) as response:
        if response.is_error:
            await response.aread()  # the error's own words
        response.raise_for_status()
        async for data in events(response):
            if data == "[DONE]":
                return
            yield json.loads(data)["token"]


async def events(response: httpx.Response) -> AsyncIterator[str]:
    """The data of each server-sent event."""
    lines: list[str] = []
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and lines:  # an empty line ends an event
            yield "\n".join(lines)
            lines.clear()


async def main() -> None:
    """Ask a question; then another one, and stop listening after one token."""
    async with httpx.AsyncClient(
        transport=ResilientTransport(httpx.MockTransport(model()), policy=POLICY),
        base_url="https://llm.example.com",
        timeout=httpx.Timeout(10.0, read=60.0),  # a minute between two tokens
    ) as client:
        async with aclosing(ask(client, "What is resilience?")) as answer:
            async for token in answer:
                print(token, end=" ", flush=True)
        print()

        async with aclosing(ask(client, "And in one word?")) as answer:
            async for token in answer:
                print(token, "... that will do")
                break  # the end of the block closes the stream, and gives its place back


def model() -> Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]:
    """The stand-in: it is busy, twice, then it answers."""
    busy = iter([True, True])

    async def tokens() -> AsyncGenerator[bytes]:
        for word in ("To", "bend,", "to", "wait,", "to", "try", "once", "more,", "and", "to", "know", "when", "not", "to."):
            await asyncio.sleep(0.02)
            yield f"data: {json.dumps({'token': word})}\n\n".encode()
        yield b"data: [DONE]\n\n"

    async def handle(_request: httpx.Request) -> httpx.Response:
        if next(busy, False):
            return httpx.Response(429, headers={"retry-after-ms": "50"}, json={"error": "busy"})
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=tokens())

    return handle


if __name__ == "__main__":
    asyncio.run(main())
