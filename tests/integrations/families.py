"""Both families of clients under one face, and the check that nothing is left behind.

A test that takes the fixture `family` runs on httpx and on httpx2; `BACKENDS` runs it in real time on asyncio and trio.
`family.client()` is a resilient client over a real transport, with retries that do not wait. When its block ends well, no
connection may be active or queued in the pool below it, and every permit must be back.
"""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest

from resilient import Bulkhead, Constant, Gate, Policy, Retry

BACKENDS: Final = [
    pytest.mark.anyio,
    pytest.mark.usefixtures("real_backend"),
    pytest.mark.parametrize("anyio_backend", ["real-plain", "real-trio"], indirect=True),
]
"""The marks of a module whose tests use sockets."""

LEFT_BELOW: Final = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
"""For tests in which the libraries below leave a generator behind, as they do without us: trio says so."""

AT_ONCE: Final = Constant(delay=0.0)
POLICY: Final = Policy.http().replace(retry=Retry(attempts=3, backoff=AT_ONCE, timeout=30.0), bulkhead=Bulkhead(8))
"""The defaults, without waits and without a budget that table tests would use up."""

_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it trusts nobody, and costs no reading of certificates


@dataclass(frozen=True)
class Family:
    """One of the two packages.

    Attributes:
        lib: the package, `httpx` or `httpx2`.
        resilient: its integration.

    """

    lib: Any
    resilient: Any

    @property
    def name(self) -> str:
        return str(self.lib.__name__)

    def inner(self, **options: Any) -> Any:
        """A real transport of this family."""
        return self.lib.AsyncHTTPTransport(**{"verify": _NO_TLS, **options})

    def inner_h2(self) -> Any:
        """A real transport that speaks HTTP/2 only, with prior knowledge."""
        return self.inner(http1=False, http2=True)

    def mock(self, *script: Any) -> Any:
        """A transport without sockets that answers with these statuses, responses and exceptions; the last one repeats.

        Its attribute `requests` lists what was sent, as it was then.
        """
        steps, requests = list(script), list[Any]()

        async def handler(request: Any) -> Any:
            requests.append(request)
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, int):
                return self.lib.Response(step)
            status, headers = step
            return self.lib.Response(status, headers=headers)

        transport = self.lib.MockTransport(handler)
        transport.requests = requests
        return transport

    @asynccontextmanager
    async def client(self, inner: Any = None, *, client: dict[str, Any] | None = None, **settings: Any) -> AsyncGenerator[Any]:
        """A resilient client; `settings` are those of the transport, `client` those of the client."""
        inner = inner or self.inner()
        transport = self.resilient.ResilientTransport(inner, **{"policy": POLICY, **settings})
        async with self.lib.AsyncClient(transport=transport, **{"timeout": 5.0, **(client or {})}) as made:
            yield made

            assert_nothing_is_left(transport, inner)


def assert_nothing_is_left(transport: Any, inner: Any) -> None:
    """No connection is in use, nobody waits for one, and no permit is out."""
    pool = repr(getattr(inner, "_pool", "0 active, 0 queued"))
    permits = [gate.statistics() for gate in gates(transport)]
    out = [each for each in permits for name in ("active", "queued", "in_flight", "probes_out") if getattr(each, name, 0)]

    assert "0 active, 0 queued" in pool
    assert out == []


def gates(transport: Any, key: str | None = None) -> list[Any]:
    """The breakers and bulkheads of a transport, of all keys or of one."""
    siblings = transport.pipeline.siblings
    keys = list(siblings) if key is None else [key]
    return [part for each in keys for part in siblings[each] if isinstance(part, Gate)]


def failures(client: Any) -> float:
    """What the only breaker of a client has counted."""
    breaker, _bulkhead = gates(client._transport)
    return float(breaker.statistics().failures)
