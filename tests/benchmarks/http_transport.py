"""HTTP transports over one that answers at once, for both families."""

from collections.abc import Iterable
from typing import Any, Final

from benchmarks.harness import Case, Group, Run, Target, peer

URL: Final = "https://api.example.com/users/42"
BARE_TRANSPORT: Final = "bare MockTransport"


def mock(family: Any) -> Any:
    def answer(_: object) -> Any:
        return family.Response(200, content=b"ok")

    return family.MockTransport(answer)


def sends(family: Any, transport: Any) -> Run:
    """Send a request and read the answer, without a client around."""
    send = transport.handle_async_request
    request = family.Request("GET", URL)

    async def run(n: int) -> None:
        for _ in range(n):
            response = await send(request)
            await response.aread()

    return run


def gets(family: Any, transport: Any) -> Run:
    client = family.AsyncClient(transport=transport)

    async def run(n: int) -> None:
        for _ in range(n):
            await client.get(URL)

    return run


def own(name: str) -> Iterable[Case]:
    family, integration = peer(name), peer(f"resilient_integrations.{name}")
    resilient = integration.ResilientTransport(mock(family))
    yield Case(BARE_TRANSPORT, sends(family, mock(family)))
    yield Case("resilient ResilientTransport", sends(family, resilient), ours=True, targets=(Target(15.0),))
    yield Case(f"{name}.AsyncClient.get, bare", gets(family, mock(family)))
    yield Case(f"{name}.AsyncClient.get, resilient", gets(family, integration.ResilientTransport(mock(family))), ours=True)


def httpx_retries() -> Iterable[Case]:
    httpx = peer("httpx")
    transport = peer("httpx_retries").RetryTransport(transport=mock(httpx))
    without = "a breaker, a budget, deadlines, evidence of what was sent, permits until the body ends, trio"
    yield Case("httpx-retries RetryTransport", sends(httpx, transport), without=without)


def clientwright(name: str) -> Iterable[Case]:
    family, module = peer(name), peer("clientwright")
    client = module.build(name, module.ClientConfig("benchmark"))
    transport = client._transport  # it is made for real connections: there is no public way to give it another transport
    transport._inner = mock(family)
    yield Case("clientwright, its defaults", sends(family, transport), without="permits until the body ends, trio")


GROUPS = [
    Group(
        "httpx",
        "HTTP: a transport over one that answers at once, httpx",
        lambda: own("httpx"),
        {"httpx-retries": httpx_retries, "clientwright": lambda: clientwright("httpx")},
        base=BARE_TRANSPORT,
    ),
    Group(
        "httpx2",
        "HTTP: a transport over one that answers at once, httpx2",
        lambda: own("httpx2"),
        {"clientwright": lambda: clientwright("httpx2")},
        base=BARE_TRANSPORT,
    ),
]
