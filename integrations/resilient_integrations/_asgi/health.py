"""Whether the process lives, and whether it is ready: `/livez` and `/readyz`.

Live is a process that answers. Ready is one that is started and has room. An open breaker of a dependency changes neither: a
process that is taken out of service for it helps nobody, and one sick dependency would take them all out at once. It is
*degraded*, which the answer shows in detail. What is shown of many is bounded: how many there are of each kind, and the first
ones, those that are not well before all others. Nothing is kept here: states are read when somebody asks.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from resilient import Gate, Keyed, Part, clock, parts_of
from resilient_integrations._asgi.shedding import LoopLag, fullness
from resilient_integrations._asgi.types import App, Receive, Scope, Send, check_function

__all__ = ("HealthEndpoints",)

State = Literal["ok", "degraded", "full", "unknown"]

_METHODS: Final = ("GET", "HEAD")
_SHOWN: Final = 20
"""So many parts of one thing are told in detail."""


class HealthEndpoints:
    """Answer `/livez` and `/readyz`; everything else goes to the application. Put it outside of the limits.

    Args:
        app: the application.
        parts: what calls to others go through, by name: breakers, limiters, bulkheads, a `Pipeline`, a `Resilience`, a
            `ResilientTransport`, a cache, whatever `parts_of` can read. What they say is shown, and never makes the process
            unready.
        capacity: what the process itself is limited by: the bulkhead of its middleware, a `LoopLag`. Where one is full, it is not
            ready.
        ready: asked each time; False while it starts or is being shut down (default: always ready).
        live_path: where to ask whether it lives (default `/livez`). That never depends on anything.
        ready_path: where to ask whether it is ready (default `/readyz`): 200 or 503, with the detail as JSON.

    Raises:
        TypeError: `parts` or `capacity` is no mapping, one of them has no statistics, `ready` is async.

    Of what has many parts it tells how many there are, how many of them are degraded or full, and at most 20 in detail: those
    that are not well come first. The keys of a `Keyed` are never named, for they may be addresses of clients.

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
        if ready is not None:
            check_function("ready", ready, "ready=lambda: started")
        self.app = app
        self._parts = _checked("parts", parts)
        self._capacity = _checked("capacity", capacity)
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
        capacity = {name: _readable_detail(part) for name, part in self._capacity.items()}
        parts = {name: _readable_detail(part) for name, part in self._parts.items()}
        is_ready = started and all(part["status"] != "full" for part in capacity.values())
        is_well = all(part["status"] == "ok" for part in (*capacity.values(), *parts.values()))
        status = "unready" if not is_ready else "ok" if is_well else "degraded"
        return 200 if is_ready else 503, {"status": status, "ready": started, "capacity": capacity, "parts": parts}


def _checked(name: str, things: Mapping[str, Any] | None) -> dict[str, Any]:
    if not isinstance(things, Mapping | None):
        msg = f'{name}={things!r}: expected a mapping from names, e.g. {{"users-api": breaker}}'
        raise TypeError(msg)
    for label, thing in (things or {}).items():
        try:
            parts_of(thing)
        except TypeError as error:
            msg = f"{name}[{label!r}]: {error}"
            raise TypeError(msg) from None
    return dict(things or {})


def _live() -> tuple[int, dict[str, Any]]:
    return 200, {"status": "ok"}


def _readable_detail(thing: Any) -> dict[str, Any]:
    """What is told of one thing. One that cannot be read must not take the process out of service."""
    try:
        return _detail(thing)
    except Exception as error:  # noqa: BLE001  it is told
        return {"status": "unknown", "error": type(error).__name__}


def _detail(thing: Any) -> dict[str, Any]:
    """What is told of one thing: its statistics, or those of its parts."""
    parts = [(_state_of(part.state), part) for part in parts_of(thing)]
    states = [state for state, _ in parts]
    if len(parts) == 1 and parts[0][1].state is thing:
        return {"status": states[0], **_told(thing)}
    worst: State = "degraded" if set(states) - {"ok"} else "ok"
    keys = len({part.key for _, part in parts} - {""})
    told: dict[str, Any] = {"status": worst, "keys": keys, **{state: states.count(state) for state in ("degraded", "full")}}
    if not isinstance(thing, Keyed):
        parts.sort(key=lambda pair: pair[0] == "ok")
        told["parts"] = [_named(part) | {"status": state} | _told(part.state) for state, part in parts[:_SHOWN]]
    return told


def _named(part: Part) -> dict[str, Any]:
    return {"key": part.key, "name": part.name} if part.key else {"name": part.name}


def _told(part: Any) -> dict[str, Any]:
    """The statistics as JSON can hold them: what is infinite is null."""
    fields = dataclasses.asdict(part.statistics())
    plain = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in fields.items()}
    return {"kind": type(part).__name__, **plain}


def _state_of(part: Any) -> State:
    if isinstance(part, LoopLag):
        return "full" if part.load >= 1 else "ok"
    statistics = part.statistics()
    if fullness(statistics) >= 1 and getattr(statistics, "queued", 0) >= getattr(statistics, "max_queue", 0):
        return "full"
    refuses = isinstance(part, Gate) and (part.ready_in(clock.now()) > 0 or getattr(statistics, "probability", 0.0) > 0)
    return "ok" if getattr(statistics, "is_healthy", True) and not refuses else "degraded"
