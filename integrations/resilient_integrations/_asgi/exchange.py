"""One request on its way through the limits: what it holds, and how far its response has come.

What the application sends passes here, so that three things are known: when the response has begun (nothing is cut from then
on, and a half-open breaker has its answer), when it has ended (then the permits are given back, whatever the application still
does), and whether the client went away, which tells nothing about the application.

All mutable state: the `leases` held, the limiter that is asked or that refused, the time limit, whether the response has
`started`, and whether the client is `gone`.
"""

import math
from typing import Final

import anyio
import anyio.lowlevel

from resilient.errors import TimeoutExceeded
from resilient.outcome import CANCELLED, SUCCESS, Health, Kind, Verdict, judge
from resilient.strategies.gate import Gate, Lease
from resilient.strategies.limiter import Limiter
from resilient_integrations._asgi.quota import quota_fields
from resilient_integrations._asgi.types import App, Message, Receive, Scope, Send

__all__ = ("Exchange",)

_STARTS: Final = {
    "http.response.start": 200,
    "websocket.accept": 101,
    "websocket.close": 403,
    "websocket.http.response.start": 403,
}
"""Messages that begin a response, with the status where they have none."""
_ENDS: Final = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend", "websocket.close"})
_GONE: Final = frozenset({"http.disconnect", "websocket.disconnect"})
_FIRST_FAILURE: Final = 500
_NO_RESPONSE: Final = Verdict(Kind.PERMANENT, Health.UNHEALTHY, "no_response")


class Exchange:
    """One request.

    Attributes:
        expiry: what it ends with where its time is used up before the response has begun.
        limit: the scope that holds that time.
        limiter: the rate limiter that it counts for, or None.
        over_quota: whether that one has refused it.
        leases: what it holds, and of whom.
        started: whether the response has begun.
        gone: whether the client went away.

    """

    __slots__ = ("_receive", "_send", "expiry", "gone", "leases", "limit", "limiter", "over_quota", "started")

    def __init__(self, receive: Receive, send: Send, expiry: TimeoutExceeded) -> None:
        self._receive = receive
        self._send = send
        self.expiry = expiry
        self.limit = anyio.CancelScope(deadline=anyio.current_time() + expiry.seconds)
        self.limiter: Limiter | None = None
        self.over_quota = False
        self.leases: list[tuple[Gate, Lease]] = []
        self.started = False
        self.gone = False

    async def run(self, app: App, scope: Scope) -> None:
        """Run the application; what is held is given back on every way out."""
        try:
            await app(scope, self.receive, self.send)
        except BaseException as error:
            is_cut = self.limit.cancel_called and not isinstance(error, Exception)
            self.settle(self.expiry if is_cut else error, verdict=CANCELLED if self.gone else None)
            raise
        self.settle(verdict=None if self.started else CANCELLED if self.gone else _NO_RESPONSE)

    async def receive(self) -> Message:
        """What the application reads."""
        message = await self._receive()
        if message["type"] in _GONE:
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        """What the application sends."""
        kind = message["type"]
        if not self.started:
            if self.limit.cancel_called:
                await anyio.lowlevel.checkpoint()
                return  # too late, and shielded from being told so: something else is answered
            if kind in _STARTS:
                message = self._start(message)
        try:
            await self._send(message)
        except OSError:
            self.gone = True
            raise
        if kind in _ENDS and not message.get("more_body", False):
            self.settle()

    def _start(self, message: Message) -> Message:
        """Nothing is cut from now on. Returns the message with what the limiter has to tell."""
        self.started = True
        self.limit.deadline = math.inf
        kind = message["type"]
        status = message.get("status", _STARTS[kind])
        for gate, lease in self.leases:
            lease.returned(_verdict(gate, status))
        if self.limiter is None or kind != "http.response.start":
            return message
        return {**message, "headers": [*message.get("headers", ()), *quota_fields(self.limiter)]}

    def settle(self, error: BaseException | None = None, *, verdict: Verdict | None = None) -> None:
        """Give back what is held. See `Lease.settle`."""
        while self.leases:
            _, lease = self.leases.pop()
            lease.settle(error, verdict=verdict)


def _verdict(gate: Gate, status: int) -> Verdict:
    """What a status means to a gate: its own classifier is asked with it, if that has an opinion on values."""
    if gate.classifier is not None and gate.classifier.values is not None:
        return judge(gate.classifier, status, error=False)
    if status >= _FIRST_FAILURE:
        return Verdict(Kind.PERMANENT, Health.UNHEALTHY, f"http_{status}")
    return SUCCESS
