"""The transport that both families' `ResilientTransport` are: the face of an engine, around an inner transport.

All mutable state: whether it is `closed`, and the engine's.
"""

import warnings
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ClassVar, Literal, NoReturn, Self, TypedDict, Unpack

from resilient.outcome import Classifier
from resilient.pipeline import Pipeline
from resilient.policy.schema import Policy
from resilient_integrations._http.engine import Engine
from resilient_integrations._http.family import Family
from resilient_integrations._http.options import Hold, Limit
from resilient_integrations._http.whole_writes import keep_writes_whole

__all__ = ("Settings", "Transport")


class Settings(TypedDict, total=False):
    """The settings of a transport, each described at `ResilientTransport`."""

    policy: Policy | None
    key: Callable[[Any], str] | None
    max_keys: int
    classifier: Classifier | None
    idempotency_key: Literal["auto"] | Callable[[Any], str | None] | None
    spool: int
    retry_503: bool
    hold: Hold
    timeout: Limit
    attempt_timeout: Limit
    before_attempt: Callable[[Any, int], Awaitable[object] | object] | None


class Transport:
    """A transport that survives what a careful engineer would want it to survive, and nothing else.

    Without any setting: three attempts for what may be sent again, with waits of 0.1 to 5 seconds that respect `Retry-After`,
    paid for by a budget, none more than 30 seconds after the request began; a circuit breaker for each origin. An attempt
    that runs is never cut off, nor is a body.

    Args:
        inner: the transport that does the sending (default: the family's `AsyncHTTPTransport()`).
        policy: which strategies, with which settings (default `Policy.http()`). Its `timeout` and `attempt_timeout` stand in
            for the settings below.
        key: a function from a request to the name of what is called, for state per key: of low cardinality, never an id.
            Default: the origin, `https://api.example.com:443`.
        max_keys: how many keys may have state of their own at a time, at least 1 (default 10 000).
        classifier: says what responses and exceptions mean, before the built-in tables are asked; None from it asks those.
        idempotency_key: `"auto"` adds an `Idempotency-Key` (a UUID) to requests whose method is not idempotent, the same one
            for all attempts, which lets them be retried: for servers that honour it. Or a function of the request that makes
            the value, or None for no key. Default: none is added.
        spool: bodies that can be read only once are read into memory up to so many bytes, so that they can be sent again
            (default 0: none is).
        retry_503: send also what is not idempotent again when it is answered 503 with a Retry-After (default False).
        hold: until when permits are held: the end of the `"body"` (the default), or the `"headers"`, for endless streams.
        timeout: seconds for everything, waits and body included; what still runs then is cut off (default: no limit).
        attempt_timeout: seconds for each attempt, up to the headers of its response (default: no limit).
        before_attempt: called with the copy of the request that is sent and the number of the attempt, sync or async: to sign
            it anew, say.

    A request has options of its own in `extensions={"resilient": {...}}`: `idempotent`, `timeout`, `attempt_timeout`, `retry`,
    `attempts`, `key`, `hedge`, `hold`.

    Attributes:
        inner: the transport that does the sending.
        engine: what sends requests in the way of the policy; the transports of one client share it.
        closed: whether it was closed: nothing is sent then, nor sent again.

    Raises:
        TypeError, ValueError: a setting is out of its range, the inner transport is not an asynchronous one of this family.
        CircuitOpen, BulkheadFull, RateLimited: from a request that was not sent. Each is a `TransportError` of the family as
            well, the last two a `PoolTimeout`.
        TimeoutExceeded: from a request whose limit was reached; it is a `TimeoutException` of the family as well.

    A request that is cancelled frees all that it held, and is not sent again.

    """

    family: ClassVar[Family]

    def __init__(self, inner: Any | None = None, **settings: Unpack[Settings]) -> None:
        self._set_up(Engine(self.family, **settings), self.family.package.AsyncHTTPTransport() if inner is None else inner)

    @classmethod
    def around(cls, engine: Engine, inner: Any) -> Self:
        """Another transport of the same engine."""
        transport = cls.__new__(cls)
        transport._set_up(engine, inner)  # noqa: SLF001  our own class
        return transport

    def _set_up(self, engine: Engine, inner: Any) -> None:
        self.family.check_transport(inner)
        keep_writes_whole(inner)
        self.inner = inner
        self.closed = False
        self.engine = engine
        if getattr(getattr(inner, "_pool", None), "_retries", 0):
            warnings.warn(
                f"{inner!r} was made with retries=: it retries connections by itself, below the policy, and the two multiply. "
                "Make it without",
                UserWarning,
                stacklevel=4,
            )

    @property
    def pipeline(self) -> Pipeline:
        """What the requests go through, with the state of each key."""
        return self.engine.pipeline

    def check_open(self) -> None:
        """Raise `RuntimeError` where the transport is closed."""
        if self.closed:
            msg = f"this {type(self).__name__} is closed: its client was closed, or its block has ended. Make a new one"
            raise RuntimeError(msg)

    async def aclose(self) -> None:
        """Close it and the inner transport. Calls that are in flight are not tried again."""
        self.closed = True
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        enter = getattr(self.inner, "__aenter__", None)
        if enter is not None:
            await enter()
        self.closed = False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self.closed = True
        leave = getattr(self.inner, "__aexit__", None)
        await (leave(kind, error, trace) if leave is not None else self.inner.aclose())

    def handle_request(self, request: Any) -> NoReturn:
        """Refuse a synchronous client.

        Raises:
            TypeError: always.

        """
        family = self.family.name
        msg = f"{type(self).__name__} is asynchronous: use it with {family}.AsyncClient, not with {family}.Client"
        raise TypeError(msg)

    def __enter__(self) -> NoReturn:
        self.handle_request(None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' (closed)' if self.closed else ''} of {self.inner!r}>"
