"""What is answered in place of the application: a status, `Retry-After`, and a body of `application/problem+json` (RFC 9457).

A websocket that is not accepted yet is answered with the same response where the server has the extension for it, else it is
closed with 1013, "try again later". Texts are fixed: what a stranger is told
is a reason code, and of a rate limiter its name.
"""

import json
import math
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from typing import Any, Final

from resilient.errors import Rejected, ResilienceError, TimeoutExceeded
from resilient.strategies.limiter import Limiter
from resilient_integrations._asgi.quota import Field, quota_fields
from resilient_integrations._asgi.types import Scope, Send

__all__ = ("Answer", "answer_to")

_IANA: Final = "https://iana.org/assignments/http-problem-types#"
_LATER: Final = 5
"""Seconds: who is told to come again, and nobody knows when, comes within so many."""
_SPREAD: Final = 0.1
"""So much is added to what is known, at most: those who were told the same time do not come in the same instant."""
_LONGEST: Final = 86_400.0
_TRY_AGAIN_LATER: Final = 1013


@dataclass(frozen=True, slots=True)
class Answer:
    """A response in place of that of the application.

    Attributes:
        status: of the response.
        body: what the problem is, as JSON will hold it.
        fields: header fields besides those of the body.

    """

    status: int
    body: dict[str, Any]
    fields: tuple[Field, ...]

    async def send(self, scope: Scope, send: Send) -> None:
        """Send it, before the body of the request is read."""
        body = json.dumps(self.body).encode()
        start = {
            "status": self.status,
            "headers": [
                (b"content-type", b"application/problem+json"),
                (b"content-length", b"%d" % len(body)),
                (b"cache-control", b"no-store"),
                *self.fields,
            ],
        }
        if scope["type"] == "http":
            await send({"type": "http.response.start", **start})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
            return
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await send({"type": "websocket.http.response.start", **start})
            await send({"type": "websocket.http.response.body", "body": body})
        else:
            await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": self.body["title"]})


def answer_to(error: ResilienceError, random: Random, limiter: Limiter | None = None) -> Answer | None:
    """What is answered for an error; None for one that is no refusal. `limiter` is the one that refused, where one did: 429."""
    if isinstance(error, TimeoutExceeded):
        return Answer(504, _problem(504, error.reason), ())
    if not isinstance(error, Rejected):
        return None
    later = _retry_after(error.retry_after, random)
    fields = ((b"retry-after", b"%d" % later),)
    if limiter is None:
        return Answer(503, _problem(503, error.reason, f"{_IANA}temporary-reduced-capacity", retry_after=later), fields)
    problem = _problem(429, error.reason, f"{_IANA}quota-exceeded", retry_after=later)
    problem["violated-policies"] = [limiter.name]
    return Answer(429, problem, (*fields, *quota_fields(limiter)))


def _problem(status: int, reason: str, kind: str = "about:blank", **more: Any) -> dict[str, Any]:
    return {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "reason": reason, **more}


def _retry_after(hint: float | None, random: Random) -> int:
    """Whole seconds, never shorter than what is known."""
    if hint is None or not math.isfinite(hint):
        return random.randint(1, _LATER)
    return max(1, math.ceil(min(hint, _LONGEST) * (1 + random.uniform(0.0, _SPREAD))))
