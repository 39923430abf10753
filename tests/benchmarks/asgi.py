"""An ASGI request through the middleware, over an application that answers at once."""

from collections.abc import Iterable
from typing import Any, Final

from benchmarks.harness import Case, Group, Run
from resilient import Bulkhead, CircuitBreaker, Keyed, TokenBucket
from resilient_integrations.asgi import LoopLag, ResilientMiddleware, client_ip

BARE_APPLICATION: Final = "bare application"
SCOPE: Final = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"service")], "client": ("192.0.2.1", 4711)}


async def _answers(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def _nothing(*_: Any) -> Any:
    return None


def _asks(app: Any) -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            await app(SCOPE, _nothing, _nothing)

    return run


def own() -> Iterable[Case]:
    def case(name: str, **settings: Any) -> Case:
        return Case(f"resilient ResilientMiddleware, {name}", _asks(ResilientMiddleware(_answers, **settings)), ours=True)

    limits: dict[str, Any] = {
        "rate_limit": Keyed(TokenBucket(1e9)),
        "key": client_ip(),
        "bulkhead": Bulkhead(100),
        "circuit_breaker": CircuitBreaker(),
        "timeout": 10,
        "deadline_header": "Request-Timeout",
        "loop_lag": LoopLag(),
    }
    yield Case(BARE_APPLICATION, _asks(_answers))
    yield case("bulkhead and timeout", bulkhead=Bulkhead(100), timeout=10)
    yield case("everything", **limits)
    yield case("429", rate_limit=TokenBucket(1e-9, max_wait=0))


GROUPS = [Group("asgi", "ASGI: a request to an application that answers at once", own, base=BARE_APPLICATION)]
