"""The SDK of a language model over the resilient transport: one line, and it is used as before. So is `AsyncAnthropic`.

What is refused is asked again when the server says, and not before; what the server says of its rate limit is kept; a stream
holds its place until it ends. The vendor is a stand-in inside of this process: it is overloaded first, then it answers, and
says that this was all for now.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine

import httpx2
from openai import APITimeoutError, AsyncOpenAI, DefaultAsyncHttpxClient

from resilient import AdaptiveRate, Bulkhead, record_timeline
from resilient_integrations.llm import POLICY, wrap

PACED = POLICY.replace(
    rate_limit=AdaptiveRate(50, max_wait=10.0),  # 50 calls a second, fewer as soon as the server says so
    bulkhead=Bulkhead(8, max_queue=100),  # answers in progress at a time
)


async def main() -> None:
    """Ask, and listen; then ask once more than the vendor takes."""
    vendor = DefaultAsyncHttpxClient(transport=httpx2.MockTransport(model()))  # leave it out, and the SDK makes its own
    async with wrap(AsyncOpenAI(api_key="...", http_client=vendor), policy=PACED) as client:
        with record_timeline() as timeline:
            async with await client.responses.create(model="gpt-5", input="Why?", stream=True) as stream:
                async for event in stream:  # a stream that is left early gives its place back
                    if event.type == "response.output_text.delta":
                        print(event.delta, end=" ", flush=True)
        print()
        print(timeline.render())
        try:
            await client.responses.create(model="gpt-5", input="And why is that?")
        except APITimeoutError as error:
            print(f"not sent: {error.__cause__}")


def model() -> Callable[[httpx2.Request], Coroutine[None, None, httpx2.Response]]:
    """The stand-in."""
    overloaded = iter([True])

    async def tokens() -> AsyncGenerator[bytes]:
        for word in ("Because", "it", "was", "asked", "again."):
            await asyncio.sleep(0.02)
            event = {"type": "response.output_text.delta", "delta": word}
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()

    async def handle(_request: httpx2.Request) -> httpx2.Response:
        if next(overloaded, False):
            return httpx2.Response(503, headers={"retry-after-ms": "50"}, json={"error": {"message": "overloaded"}})
        spent = {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "1h0m0s",
        }
        return httpx2.Response(200, headers={"content-type": "text/event-stream", **spent}, content=tokens())

    return handle


if __name__ == "__main__":
    asyncio.run(main())
