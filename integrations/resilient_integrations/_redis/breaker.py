"""The circuit breaker that tells others, and hears from them.

It decides by itself, as every `CircuitBreaker` does, and never waits for the store. When it trips, it leaves word there; while
it is used it looks now and then, in the background, whether others are open. Where enough of them are, it opens, too.
Without an answer it is a breaker like any other. All mutable state besides that of a breaker: when it looks next, and until when
the latest opening that it has heard of lasts.
"""

import contextlib
import math
import secrets
from typing import Any, Self

from resilient import CircuitBreaker, Health, Kind, Permit, Verdict, clock
from resilient._arguments import Duration, integer, seconds
from resilient.strategies.breaker_states import BreakerMachine, Closed, Happening, Order
from resilient.strategies.outbox import announce
from resilient_integrations._redis.scripts import PEERS, RELEASE, TRIP
from resilient_integrations._redis.sharing import Shared, SharedGate, shared
from resilient_integrations._redis.store import RedisStore, Reply, microseconds

__all__ = ("RedisCircuitBreaker",)


class RedisCircuitBreaker(SharedGate, CircuitBreaker):
    """A circuit breaker whose trips are heard by others of the same name, and which hears theirs.

    It opens also where `quorum` others are open; then for as long as they are, or as it would, if that is longer, and with the
    reason `peers`. Only what a breaker has seen itself is told, so word does not go in circles. States set by hand stay local.
    A failure of the store changes nothing for any call.

    Args:
        breaker: the settings: `CircuitBreaker(name="users", failure_rate=0.3)`. It is only copied. Its name is that in the store.
        store: where word is left.
        quorum: how many others must be open, at least 1 (default 2: one process whose own network is broken stops nobody else).
        every: seconds between two looks, above 0 (default 1).

    Raises:
        TypeError, ValueError: an argument is wrong, at construction.
        CircuitOpen: from a call, where it refuses.
        RuntimeError: trio runs.

    """

    __slots__ = ("_heard_until", "_id", "_look_at", "every", "quorum", "where")

    def __init__(self, breaker: CircuitBreaker, store: RedisStore, *, quorum: int = 2, every: Duration = 1.0) -> None:
        if not isinstance(breaker, CircuitBreaker):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass other things
            msg = f"breaker={breaker!r}: expected a CircuitBreaker, whose settings are copied"
            raise TypeError(msg)
        self.where: Shared
        self.quorum: int
        self.every: float
        self._id: str
        self._look_at: float  # on the clock
        self._heard_until: int  # on the clock of the server
        self._set_up(shared(store, "breaker", breaker.name), integer("quorum", quorum), seconds("every", every, above=0.0))
        BreakerMachine.__init__(self, breaker.settings)

    def sibling(self) -> Self:
        """Another one that tells and hears under the same name."""
        other = super().sibling()
        other._set_up(self.where, self.quorum, self.every)  # noqa: SLF001  our own class
        return other

    def retune(self, template: Any) -> bool:
        if not super().retune(template):
            return False
        self.quorum, self.every = template.quorum, template.every
        return True

    def admit(self, now: float) -> Permit | None:
        if now >= self._look_at:
            if self.where.store.is_up(now):
                self.where.store.post(PEERS, self.where.key, self._id, heard=self._hear)
            self._look_at = now + self.every
        return super().admit(now)

    def move(self, event: Happening, now: float, why: str, verdict: Verdict | None = None) -> None:
        super().move(event, now, why, verdict)
        if why == "peers" or not self.where.store.is_up(now):
            return
        if event in {"tripped", "refuted"}:
            open_for = max(1, microseconds(self.current.ready_in(now)))
            self.where.store.post(TRIP, self.where.key, self._id, open_for)
        elif event == "proven":
            self.where.store.post(RELEASE, self.where.key, self._id)

    def obey(self, order: Order, now: float, *, monitoring: bool = False) -> None:
        super().obey(order, now, monitoring=monitoring)
        with contextlib.suppress(RuntimeError):  # by hand it may be set where no event loop runs
            self.where.store.post(RELEASE, self.where.key, self._id)

    def __repr__(self) -> str:
        return super().__repr__().replace("<CircuitBreaker", "<RedisCircuitBreaker", 1)

    def _set_up(self, where: Shared, quorum: int, every: float) -> None:
        self.where = where
        self.quorum, self.every = quorum, every
        self._id = secrets.token_hex(8)
        self._look_at = -math.inf
        self._heard_until = 0

    def _hear(self, reply: Reply | None) -> None:
        others, until, remaining = reply or (0, 0, 0)
        if others < self.quorum or until <= self._heard_until:
            return
        self._heard_until = until
        if isinstance(self.current, Closed):
            hint = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "peers", retry_after=remaining / 1e6)
            self.move("tripped", clock.now(), "peers", hint)
            announce(self)
