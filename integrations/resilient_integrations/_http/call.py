"""One call of a user, and each request that its client makes for it.

Redirects and authentication happen above a transport: to it each hop is a request of its own. What the hops of one call share
(one window, one counter, one idempotency key) is a `Call`. It travels inside of `request.extensions`, which clients copy from
hop to hop, and it is closed as soon as a response ends the call, so that a request that is sent again later begins anew.
A `Sending` is one hop: a request on its way through the strategies.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from resilient_integrations._http.bodies import OneShotBody
from resilient_integrations._http.options import Options

if TYPE_CHECKING:
    from resilient_integrations._http.engine import Engine
    from resilient_integrations._http.transport import Transport

__all__ = ("CALL", "Call", "Sending", "origin_of")

CALL: Final = "resilient.call"
"""The key of the `Call` in a request's `extensions`."""

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""The idempotent methods: RFC 9110 section 9.2.2, and QUERY (RFC 10008)."""
_KEY_HEADERS: Final = ("idempotency-key", "x-idempotency-key")
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_CREDENTIALS_WANTED: Final = (401, 407)
_ANYTHING: Final = 0


class Call:
    """What the hops of one call share.

    Attributes:
        total: the limit in seconds for everything; infinity where there is none.
        cut: when it is reached, on the clock of `resilient.clock`.
        window: until when waits and new attempts are made, on the same clock.
        sends: requests that were sent so far.
        retries: how many of them were retries.

    """

    __slots__ = ("_followed_by", "_key", "cut", "retries", "sends", "total", "window")

    def __init__(self, now: float, window: float, total: float) -> None:
        self.total = total
        self.cut = now + total
        self.window = now + window
        self.sends = 0
        self.retries = 0
        self._key: tuple[str, str] | None = None  # an origin, and the idempotency key that was made for it
        self._followed_by: int | None = None  # None: by nothing. Else by any request but the one with this id

    def takes(self, request: Any) -> bool:
        """Whether this request is a hop of the call. The next one is one only if its response says so."""
        followed_by, self._followed_by = self._followed_by, None
        return followed_by is not None and followed_by != id(request)

    def goes_on_after(self, request: Any, response: Any) -> None:
        """Hear the response to a hop: after a redirect comes another request, after a demand for credentials any."""
        if response.status_code in _CREDENTIALS_WANTED:
            self._followed_by = _ANYTHING
        elif response.has_redirect_location:
            self._followed_by = id(request)

    def key_for(self, origin: str, make: Callable[[], str | None]) -> str | None:
        """The idempotency key of this call for an origin, made where there is none yet: another origin gets its own."""
        if self._key is None or self._key[0] != origin:
            made = make()
            self._key = None if made is None else (origin, made)
        return None if self._key is None else self._key[1]


class Sending:
    """One request on its way through the strategies.

    Attributes:
        request: the client's own; each attempt sends a copy.
        call: what it shares with other hops.
        options: what is said for it.
        transport: the one that it came in by.
        made_key: the idempotency key that each copy gets, or None.
        attempts: how often it was sent.
        misdirected: how often it was answered 421.

    """

    __slots__ = ("attempts", "call", "engine", "made_key", "misdirected", "options", "request", "transport")

    def __init__(self, engine: "Engine", transport: "Transport", request: Any, call: Call, options: Options) -> None:
        self.engine = engine
        self.transport = transport
        self.request = request
        self.call = call
        self.options = options
        self.made_key: str | None = None
        self.attempts = 0
        self.misdirected = 0

    @property
    def has_idempotent_method(self) -> bool:
        """Whether its method says that it may be sent twice."""
        return self.request.method in _IDEMPOTENT

    @property
    def keyed(self) -> bool:
        """Whether it carries an idempotency key."""
        return self.made_key is not None or any(name in self.request.headers for name in _KEY_HEADERS)

    @property
    def idempotent(self) -> bool:
        """Whether it may be sent twice."""
        said = self.options.idempotent
        return (self.has_idempotent_method or self.keyed) if said is None else said

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
