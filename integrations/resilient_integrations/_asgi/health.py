"""Whether the process lives, and whether it is ready: `/livez` and `/readyz`.

Live is a process that answers. Ready is one that is started and has room. An open breaker of a dependency changes neither: a
process that is taken out of service for it helps nobody, and one sick dependency would take them all out at once. It is
*degraded*, which the answer shows in detail. Nothing is kept here: states are read when somebody asks.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from resilient import clock
from resilient.keyed import Keyed
from resilient.strategies.gate import Gate
from resilient_integrations._asgi.shedding import LoopLag, fullness
from resilient_integrations._asgi.types import App, Receive, Scope, Send

__all__ = ("HealthEndpoints",)

State = Literal["ok", "degraded", "full"]

_METHODS: Final = ("GET", "HEAD")


class HealthEndpoints:
    """Answer `/livez` and `/readyz`; everything else goes to the application. Put it outside of the limits.

    Args:
        app: the application.
        parts: breakers, limiters, bulkheads and throttles by name, or a `Keyed` of them: whatever calls to others go through.
            What they say is shown, and never makes the process unready.
        capacity: what the process itself is limited by: the bulkhead of its middleware, a `LoopLag`. Where one is full, it is not
            ready.
        ready: asked each time; False while it starts or is being shut down (default: always ready).
        live_path: where to ask whether it lives (default `/livez`). That never depends on anything.
        ready_path: where to ask whether it is ready (default `/readyz`): 200 or 503, with the detail as JSON.

    The detail names no keys, which may be addresses of clients: of a `Keyed` it tells how many states there are of each kind.

    """

    def __init__(
        self,
        app: App,
        *,
        parts: Mapping[str, Any] | None = None,
        capacity: Mapping[str, Any] | None = None,
        ready: Callable[[], bool] | None = None,
        live_path: str = "/livez",
        ready_path: str = "/readyz",
    ) -> None:
        for name, part in {**(parts or {}), **(capacity or {})}.items():
            if not isinstance(part, (Gate, Keyed, LoopLag)):
                msg = f"{name!r}: {part!r} has no state to show: pass a breaker, limiter, bulkhead, LoopLag, or a Keyed"
                raise TypeError(msg)
        self.app = app
        self._parts = dict(parts or {})
        self._capacity = dict(capacity or {})
        self._ready = ready
        self._answers: dict[str, Callable[[], tuple[int, dict[str, Any]]]] = {live_path: _live, ready_path: self._readiness}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        answer = self._answers.get(scope["path"]) if scope["type"] == "http" and scope["method"] in _METHODS else None
        if answer is None:
            await self.app(scope, receive, send)
            return
        status, detail = answer()
        body = json.dumps(detail, allow_nan=False).encode()
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _readiness(self) -> tuple[int, dict[str, Any]]:
        started = self._ready is None or self._ready()
        capacity = {name: _detail(part) for name, part in self._capacity.items()}
        parts = {name: _detail(part) for name, part in self._parts.items()}
        is_ready = started and all(part["status"] != "full" for part in capacity.values())
        is_well = all(part["status"] == "ok" for part in (*capacity.values(), *parts.values()))
        status = "unready" if not is_ready else "ok" if is_well else "degraded"
        return 200 if is_ready else 503, {"status": status, "ready": started, "capacity": capacity, "parts": parts}


def _live() -> tuple[int, dict[str, Any]]:
    return 200, {"status": "ok"}


def _detail(part: Any) -> dict[str, Any]:
    if isinstance(part, Keyed):
        states = [_state_of(part[key]) for key in part]
        worst: State = "degraded" if set(states) - {"ok"} else "ok"
        return {"status": worst, "keys": len(states), **{state: states.count(state) for state in ("degraded", "full")}}
    return {"status": _state_of(part), "kind": type(part).__name__, **_plain(part.statistics())}


def _state_of(part: Any) -> State:
    statistics = part.statistics()
    if isinstance(part, LoopLag):
        return "full" if part.load >= 1 else "ok"
    if fullness(statistics) >= 1 and getattr(statistics, "queued", 0) >= getattr(statistics, "max_queue", 0):
        return "full"
    refuses = part.ready_in(clock.now()) > 0 or getattr(statistics, "probability", 0.0) > 0
    return "ok" if getattr(statistics, "is_healthy", True) and not refuses else "degraded"


def _plain(statistics: Any) -> dict[str, Any]:
    """As JSON can hold it: what is infinite is null."""
    fields = dataclasses.asdict(statistics)
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()}
