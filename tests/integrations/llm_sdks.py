"""The two SDKs of language models under one face: a question, its answer whole and as a stream, and their rate limits.

An SDK takes seconds to import, so that is done by the fixture of the tests that use it, and not by whoever collects them.
"""

import importlib
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from integrations.families import AT_ONCE, assert_nothing_is_left
from integrations.servers import Server, Step, answer, head
from resilient import Bulkhead, Policy, Retry
from resilient_integrations import llm

QUICK: Final = llm.POLICY.replace(retry=Retry(attempts=3, backoff=AT_ONCE, timeout=30.0), bulkhead=Bulkhead(8))
"""The policy of the integration, without waits and without a budget that tests would use up."""

NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it trusts nobody, and costs no reading of certificates
_STREAM: Final = {"Content-Type": "text/event-stream", "Connection": "close"}
_QUESTION: Final = [{"role": "user", "content": "Why?"}]
_CHAT: Final = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
_MESSAGE: Final = {
    "id": "1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@dataclass
class Sdk:
    """One of the SDKs.

    Attributes:
        name: of its package.
        maker: of the class of its asynchronous client.
        body: the answer "because", whole.
        events: the same as events of a stream.
        headers: that of its rate limit by requests: how many there are, how many are left, and when they are whole again.

    """

    name: str
    maker: str
    body: bytes
    events: tuple[bytes, ...]
    headers: tuple[str, str, str]

    @cached_property
    def lib(self) -> Any:
        """Its package."""
        return importlib.import_module(self.name)

    @property
    def is_openai(self) -> bool:
        return self.name == "openai"

    def whole(self, headers: dict[str, str] | None = None) -> Step:
        """A server's answer, whole."""
        return answer(200, self.body, {"Content-Type": "application/json", **(headers or {})})

    def streamed(self, *, events: int | None = None, last: bytes = b"", then: Any = "close") -> Step:
        """A server's answer as a stream, or the first events of it, and how it ends."""
        return Step((head(200, _STREAM) + b"".join(self.events[:events]) + last,), then)

    def limits(self, limit: int, remaining: int, reset: str) -> dict[str, str]:
        """What a server says of its rate limit."""
        return dict(zip(self.headers, (str(limit), str(remaining), reset), strict=True))

    def make(self, url: str, patience: float = 5.0) -> Any:
        """A client of the SDK, as it is."""
        http = self.lib.DefaultAsyncHttpxClient(verify=NO_TLS, timeout=patience)
        return getattr(self.lib, self.maker)(api_key="k", base_url=url, http_client=http)

    @asynccontextmanager
    async def connected(self, url: str, *, policy: Policy = QUICK, patience: float = 5.0, **settings: Any) -> AsyncGenerator[Any]:
        """A resilient client. When the block ends well, no permit is out and no connection in use."""
        async with llm.wrap(self.make(url, patience), policy=policy, **settings) as client:
            yield client

            transport = transport_of(client)
            assert_nothing_is_left(transport, transport.inner)

    async def ask(self, client: Any, **options: Any) -> str:
        """A question, and its answer."""
        if self.is_openai:
            done = await client.chat.completions.create(model="m", messages=_QUESTION, **options)
            return str(done.choices[0].message.content)
        done = await client.messages.create(model="m", max_tokens=9, messages=_QUESTION, **options)
        return str(done.content[0].text)

    async def stream(self, client: Any) -> Any:
        """The same question, and a stream."""
        if self.is_openai:
            return await client.chat.completions.create(model="m", messages=_QUESTION, stream=True)
        return await client.messages.create(model="m", max_tokens=9, messages=_QUESTION, stream=True)

    def text(self, event: Any) -> str:
        """What an event of a stream adds to the answer."""
        if self.is_openai:
            return str(event.choices[0].delta.content)
        return str(event.delta.text) if event.type == "content_block_delta" else ""


def _event(data: dict[str, Any], name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(data)}\n\n".encode()


def _chunk(text: str) -> bytes:
    return _event({**_CHAT, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]})


def _delta(text: str) -> bytes:
    kind = "content_block_delta"
    return _event({"type": kind, "index": 0, "delta": {"type": "text_delta", "text": text}}, kind)


OPENAI: Final = Sdk(
    "openai",
    "AsyncOpenAI",
    json.dumps({**_CHAT, "choices": [{"index": 0, "message": {"role": "assistant", "content": "because"}}]}).encode(),
    (_chunk("be"), _chunk("cause"), b"data: [DONE]\n\n"),
    ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
)
ANTHROPIC: Final = Sdk(
    "anthropic",
    "AsyncAnthropic",
    json.dumps({**_MESSAGE, "content": [{"type": "text", "text": "because"}]}).encode(),
    (_delta("be"), _delta("cause"), _event({"type": "message_stop"}, "message_stop")),
    ("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
)


def keys(server: Server) -> list[str | None]:
    """The idempotency keys of the requests that arrived."""
    return [request.header("Idempotency-Key") for request in server.requests]


def transport_of(client: Any) -> Any:
    """The transport of an SDK's client."""
    return client._client._transport
