"""The middleware: which limits a request passes, in which order, and what is answered where one refuses.

    time limit → rate limit → load → circuit breaker → bulkhead → application

All of it is decided before the body is read. What has begun to answer is never cut. What is refused, here or by a strategy
further in whose error the application lets through, is answered. All mutable state is in the strategies, and in the `Exchange`
of each request.
"""

import math
import re
from collections.abc import Callable
from random import Random
from typing import Any, Final

import anyio
import anyio.lowlevel

from resilient import clock
from resilient._arguments import Duration, seconds
from resilient.errors import DeadlineExceeded, ResilienceError, TimeoutExceeded
from resilient.keyed import Keyed
from resilient.observe.events import TimedOut
from resilient.observe.listeners import emit_notable, sink
from resilient.strategies.gate import Gate
from resilient.strategies.limiter import Limiter
from resilient_integrations._asgi.answers import answer_to
from resilient_integrations._asgi.exchange import Exchange
from resilient_integrations._asgi.keys import client_ip, header, path_template, user
from resilient_integrations._asgi.shedding import LoopLag, Shedder, fullness
from resilient_integrations._asgi.types import App, Key, Receive, Scope, Send, check_function, field_lines

__all__ = ("ResilientMiddleware",)

_random: Final = Random()  # noqa: S311  jitter, not a secret
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_REQUESTS: Final = frozenset({"http", "websocket"})
_MAKERS: Final[tuple[object, ...]] = (client_ip, header, path_template, user)
_EXPECTED: Final = {
    "rate_limit": "a limiter, TokenBucket(10) say (a limit of what runs at a time goes into bulkhead=)",
    "bulkhead": "a Bulkhead or an AdaptiveLimit (a limit of calls a second goes into rate_limit=)",
    "circuit_breaker": "a CircuitBreaker (a limit of calls a second goes into rate_limit=)",
}


class ResilientMiddleware:
    """Limits around an ASGI application: `ResilientMiddleware(app, bulkhead=Bulkhead(100), timeout=10)`.

    Each limit is a strategy of the core, or a `Keyed` of one, which has state for each `key`. A refusal is answered in place
    of the application, before the body is read: 429 by the rate limit, 504 where time is used up, else 503; 429 and 503 with
    `Retry-After`; all with a body of `application/problem+json`. A websocket is refused before it is accepted.

    Args:
        app: the application.
        rate_limit: a limiter: a `TokenBucket`, `SlidingWindow`, `LeakyBucket`, `AdaptiveRate`, or one that processes share. What
            is left of it is told in the fields `RateLimit` and `RateLimit-Policy`, on successes too. With `max_wait=0` it
            refuses at once.
        bulkhead: a `Bulkhead` or `AdaptiveLimit`. A slot is out until the response has been sent.
        circuit_breaker: a `CircuitBreaker` around the application. An exception is a failure, and so is a status from 500 on and
            the `timeout`; its own `classify=` is asked with the status where that judges values.
        key: from the scope of a request to a key, for those that are `Keyed`: `client_ip()`, `header()`, `user()`,
            `path_template()`, or a function of your own.
        timeout: seconds until the response must have begun, above 0 (default: none). A response that has begun is never cut.
        deadline_header: the name of a request header that may shorten `timeout`: `"Request-Timeout"`, in seconds, `2.5` say
            (default: none is read). What the application awaits knows of it: waits that could not end in time are not begun.
        loop_lag: sheds requests while the event loop is too busy.
        priority: from the scope to the load up to which such a request is taken: 1.0 (the default) until the process is full, 0.5
            until it is half full. The load is the lag of the loop by its limit, and below 1.0 also the share of slots that are
            out. `math.inf` exempts from the lag.
        random: the source of jitter, for tests.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range, at construction.

    A client that goes away while it waits in a queue is noticed when its turn has come: give queues a `queue_timeout`. Permits
    come back on every way out; cancellation is neutral.

    """

    def __init__(
        self,
        app: App,
        *,
        rate_limit: Limiter | Keyed[Any] | None = None,
        bulkhead: Gate | Keyed[Any] | None = None,
        circuit_breaker: Gate | Keyed[Any] | None = None,
        key: Key | None = None,
        timeout: Duration | None = None,
        deadline_header: str | None = None,
        loop_lag: LoopLag | None = None,
        priority: Callable[[Scope], float] | None = None,
        random: Random | None = None,
    ) -> None:
        parts = {"rate_limit": rate_limit, "bulkhead": bulkhead, "circuit_breaker": circuit_breaker}
        _check(parts, key)
        if timeout is None and getattr(_strategy(rate_limit), "max_wait", 0) is None:
            msg = (
                f"rate_limit={rate_limit!r} lets requests wait for their turn without end: give the limiter max_wait=0, so that "
                "they are answered 429 at once, or seconds to wait; or give timeout= as well"
            )
            raise ValueError(msg)
        if priority is not None:
            check_function("priority", priority, 'priority=lambda scope: 0.5 if scope["path"].startswith("/exports") else 1.0')
        if not isinstance(loop_lag, LoopLag | None):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass numbers
            msg = f"loop_lag={loop_lag!r}: expected a LoopLag, which all middlewares of a process share, e.g. LoopLag(0.1)"
            raise TypeError(msg)
        if deadline_header is not None and timeout is None:
            msg = f"deadline_header={deadline_header!r} needs timeout=, the longest that a caller may ask for, e.g. timeout=30"
            raise ValueError(msg)
        self.app = app
        self._rate_limit = rate_limit
        self._bulkhead = bulkhead
        self._circuit_breaker = circuit_breaker
        self._key = key
        self._timeout = math.inf if timeout is None else seconds("timeout", timeout, above=0.0)
        self._deadline_header = None if deadline_header is None else deadline_header.lower().encode()
        self._priority = priority
        self._shedder: Shedder | None = None
        if loop_lag is not None or priority is not None:
            self._shedder = Shedder(loop_lag)  # type: ignore[abstract]  # it is no template
        self._random = random or _random

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; what is neither HTTP nor a websocket goes to the application as it is."""
        if scope["type"] not in _REQUESTS:
            await self.app(scope, receive, send)
            return
        exchange = Exchange(receive, send, self._expiry(scope))
        try:
            await self._handle(exchange, scope)
        except ResilienceError as error:
            limiter = exchange.limiter if exchange.over_quota else None
            answer = None if exchange.started else answer_to(error, self._random, limiter)
            if answer is None:
                raise
        else:
            return
        await answer.send(scope, send)

    def _expiry(self, scope: Scope) -> TimeoutExceeded:
        """What ends the request where it takes too long: the limit of the server, or that of its caller if that is shorter."""
        if self._deadline_header is not None:
            told = [float(value) for value in field_lines(scope, self._deadline_header) if _SECONDS.fullmatch(value)]
            asked = min(told, default=math.inf)
            if asked < self._timeout:
                return DeadlineExceeded(asked)
        return TimeoutExceeded(self._timeout)

    async def _handle(self, exchange: Exchange, scope: Scope) -> None:
        limit = exchange.limit
        with limit:
            try:
                if exchange.expiry.seconds > 0:
                    await self._admit(exchange, scope)
                    await exchange.run(self.app, scope)
            except anyio.get_cancelled_exc_class():
                if limit.cancel_called:
                    await anyio.lowlevel.checkpoint()  # some libraries raise one of their own, which anyio does not know
                raise
        if not exchange.started and (limit.cancel_called or not exchange.expiry.seconds):
            emit_notable(sink(), TimedOut(at=clock.now(), seconds=exchange.expiry.seconds))
            raise exchange.expiry

    async def _admit(self, exchange: Exchange, scope: Scope) -> None:
        """Take a permit of each limit in order; where one refuses, the others get theirs back."""
        key = "" if self._key is None else _text(self._key(scope))
        limiter: Limiter | None = _of(self._rate_limit, key)
        breaker: Gate | None = _of(self._circuit_breaker, key)
        bulkhead: Gate | None = _of(self._bulkhead, key)
        exchange.limiter = limiter
        try:
            if limiter is not None:
                await self._count(exchange, limiter)
            if self._shedder is not None:
                share = 1.0 if self._priority is None else self._priority(scope)
                taken = 0.0 if bulkhead is None else fullness(getattr(bulkhead, "statistics")())  # noqa: B009  no gate must have it
                await self._shedder.check(share, taken)
            for gate in (breaker, bulkhead):
                if gate is not None:
                    exchange.leases.append((gate, await gate.acquire()))
        except BaseException as error:
            exchange.settle(error)
            raise
        if limiter is not None:
            exchange.leases.pop(0)[1].settle()  # it is spent, however the application ends

    async def _count(self, exchange: Exchange, limiter: Limiter) -> None:
        try:
            exchange.leases.append((limiter, await limiter.acquire()))
        except limiter.refusal:  # what else it refuses with, because its store does not answer say, is no matter of quota
            exchange.over_quota = True
            raise


def _of(part: Gate | Keyed[Any] | None, key: str) -> Any:
    """The strategy itself, or that of the key."""
    return part[key] if isinstance(part, Keyed) else part


def _strategy(part: Gate | Keyed[Any] | None) -> Any:
    """The strategy whose settings a limit has."""
    return part.template if isinstance(part, Keyed) else part


def _text(key: object) -> str:
    if not isinstance(key, str):
        msg = f"key= gave {key!r} for a request: expected a str, which says whom or what the request counts for"
        raise TypeError(msg)
    return key


def _check(parts: dict[str, Gate | Keyed[Any] | None], key: Key | None) -> None:
    for name, part in parts.items():
        strategy = _strategy(part)
        if strategy is not None and (not isinstance(strategy, Gate) or isinstance(strategy, Limiter) != (name == "rate_limit")):
            msg = f"{name}={part!r}: expected {_EXPECTED[name]}, or a Keyed of one"
            raise TypeError(msg)
    keyed = [name for name, part in parts.items() if isinstance(part, Keyed)]
    if keyed and key is None:
        msg = f"{keyed[0]}= is Keyed and needs key=: say what has state of its own, e.g. key=client_ip()"
        raise ValueError(msg)
    if key is not None and not keyed:
        msg = f"key={key!r} has no effect: give a limit that has state for each key, e.g. circuit_breaker=Keyed(CircuitBreaker())"
        raise ValueError(msg)
    if key in _MAKERS:
        msg = f"key={key!r} makes a key function and is none itself: call it, e.g. key=client_ip()"
        raise TypeError(msg)
    if key is not None:
        check_function("key", key, "key=client_ip(), or a function from the scope to a str")
