"""One request on its way through the strategies, and what it hands on to the next one of the same call.

Redirects and authentication happen above a transport: to it each hop is a request of its own, a `Sending`. What the hops of
one call share (one window, one counter, one idempotency key) is handed on in a `Rest`. It travels inside of
`request.extensions`, which clients copy from hop to hop, and is there only after a response that another request follows: one
that is sent again later begins anew.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from resilient import clock
from resilient_integrations._http.bodies import OneShotBody, of_bytes
from resilient_integrations._http.options import Options, seconds_of

if TYPE_CHECKING:
    from resilient_integrations._http.engine import Engine
    from resilient_integrations._http.transport import Transport

__all__ = ("FIRST_REDIRECT", "IDEMPOTENT", "KEY_HEADERS", "Sending", "origin_of")

FIRST_REDIRECT: Final = 300
_REST: Final = "resilient.rest"
"""The key of the `Rest` in a request's `extensions`."""

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""RFC 9110 section 9.2.2, and QUERY (RFC 10008)."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
"""RFC 9110 section 9.2.1, and QUERY: they change nothing on the server, so twice at the same time does no harm."""
KEY_HEADERS: Final = ("idempotency-key", "x-idempotency-key")
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_CREDENTIALS_WANTED: Final = (401, 407)


class Rest:
    """What a hop leaves to the one that follows it. It can be taken once.

    Attributes:
        of: the id of the request that must not follow: the one that was redirected; 0 where any may.

    """

    def __init__(self, sending: "Sending", of: int) -> None:
        self.of = of
        self.taken = False
        self.total = sending.total
        self.cut = sending.cut
        self.window = sending.window
        self.sends = sending.sends
        self.retries = sending.retries
        self.key = sending.key


class Sending:
    """One request on its way through the strategies.

    Attributes:
        request: the client's own; each attempt sends a copy.
        transport: the one that it came in by, of the `engine`.
        options: what is said for it.
        attempts: how often it was sent.
        misdirected: how often it was answered 421.
        made_key: the idempotency key that each copy gets, or None.
        follows: whether it is a hop after another one, with which it shares the following.
        total: the limit in seconds for everything; infinity where there is none.
        cut: when it is reached, on the clock of `resilient.clock`.
        window: until when waits and new attempts are made, on the same clock.
        sends: requests that were sent so far.
        retries: how many of them were retries.
        key: an origin, and the idempotency key that was made for it, or None.

    """

    # Defaults live on the class: an ordinary request sets only what is its own.
    attempts: int = 0
    misdirected: int = 0
    made_key: str | None = None
    follows: bool = False
    total: float = math.inf
    cut: float = math.inf
    window: float
    sends: int = 0
    retries: int = 0
    key: tuple[str, str] | None = None

    def __init__(self, engine: "Engine", transport: "Transport", request: Any, options: Options) -> None:
        self.engine = engine
        self.transport = transport
        self.request = request
        self.options = options
        rest: Rest | None = request.extensions.get(_REST)
        if rest is None or rest.taken or rest.of == id(request):
            now = clock.now()
            self.window = now + engine.window
            if options.timeout is not None:
                self.total = seconds_of(options.timeout)
                self.cut = now + self.total
        else:
            self._go_on(rest)

    def _go_on(self, rest: Rest) -> None:
        rest.taken = True
        self.follows = True
        self.total, self.cut, self.window = rest.total, rest.cut, rest.window
        self.sends, self.retries, self.key = rest.sends, rest.retries, rest.key

    def hand_on(self, response: Any) -> None:
        """Leave the rest to the request that follows this response, if one does: after a redirect it is another one."""
        if response.status_code in _CREDENTIALS_WANTED:
            self.request.extensions[_REST] = Rest(self, 0)
        elif response.has_redirect_location:
            self.request.extensions[_REST] = Rest(self, id(self.request))

    def make_key(self, make: Callable[[Any], str | None]) -> None:
        """Have an idempotency key, that of the call: for its origin. Another origin gets one of its own."""
        origin = origin_of(self.request.url)
        if self.key is None or self.key[0] != origin:
            made = make(self.request)
            self.key = None if made is None else (origin, made)
        self.made_key = None if self.key is None else self.key[1]

    @property
    def has_idempotent_method(self) -> bool:
        """Whether its method says that it may be sent twice."""
        return self.request.method in IDEMPOTENT

    @property
    def keyed(self) -> bool:
        """Whether it carries an idempotency key."""
        return self.made_key is not None or any(name in self.request.headers for name in KEY_HEADERS)

    @property
    def idempotent(self) -> bool:
        """Whether it may be sent twice."""
        said = self.options.idempotent
        return (self.has_idempotent_method or self.keyed) if said is None else said

    @property
    def can_race(self) -> bool:
        """Whether two attempts of it may be out at the same time: that does no harm, and each sends a body of its own."""
        options = self.options
        harmless = self.request.method in _SAFE if options.hedge is None else options.hedge
        if not harmless or not options.retry or options.attempts == 1:
            return False
        body = self.request.stream
        return isinstance(body, self.engine.family.byte_stream) or of_bytes(body)

    @property
    def can_resend(self) -> bool:
        """Whether it can be sent again at all."""
        body = self.request.stream
        return not self.transport.closed and not (isinstance(body, OneShotBody) and body.begun)


def origin_of(url: Any) -> str:
    """Scheme, host and port: `https://api.example.com:443`."""
    scheme, host = url.scheme, url.host
    if ":" in host:
        host = f"[{host}]"
    return f"{scheme}://{host}:{url.port or _PORTS.get(scheme, 0)}"
