"""The bulkhead that processes share.

It is a `Bulkhead` whose slots are those of this process: who has one asks the store for a lease. Leases run out by the clock of
the server, so those of a process that was killed come back by themselves; a timer renews those that are out, and one that was
lost is told. Where the store does not answer, the slots of the process are what holds.

All mutable state besides that of a `Bulkhead`: the leases that are out, what blocks hold, the timer, and how many were lost.
"""

import asyncio
import logging
import secrets
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from resilient import Bulkhead, BulkheadFull, BulkheadStatistics, Event, Verdict, clock
from resilient._arguments import Duration, seconds
from resilient.chance import source as random
from resilient.context import time_left
from resilient.strategies.gate import Lease, Permit
from resilient.strategies.outbox import announce
from resilient_integrations._redis.scripts import ACQUIRE, RELEASE, RENEW
from resilient_integrations._redis.sharing import OnStoreError, Shared, SharedGate, must_wait, shared
from resilient_integrations._redis.store import RedisStore, Reply, microseconds

__all__ = ("LeaseLost", "RedisBulkhead", "RedisBulkheadStatistics")

_SHORTEST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.1
"""Seconds between two questions of one who waits for a lease, the longer the longer it waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost(Event):
    """Leases of calls that still run had run out in the store, or were forgotten there: others may be in their places.

    Attributes:
        strategy: the name of the bulkhead.
        leases: how many.

    """

    strategy: str
    leases: int


@dataclass(frozen=True, slots=True)
class RedisBulkheadStatistics(BulkheadStatistics):
    """A snapshot of this process's side.

    Attributes:
        leases: how many of the slots have a lease in the store.
        lost: how many leases were lost, in all.

    """

    leases: int
    lost: int


class RedisBulkhead(SharedGate, Bulkhead):
    """At most `max_concurrent` calls at a time, over all processes that share the store and the name.

    It has the face of a `Bulkhead`, but for `acquire_nowait`: while the store answers, that is a `RuntimeError`.

    A lease says how many *should* run. A process that stands still for longer than its leases last (stopped, or its event loop
    is blocked) still runs its calls when others have taken their places: `LeaseLost` tells it. What must never run
    twice needs a fencing token of the resource itself.

    Args:
        store: where the state is.
        max_concurrent: how many calls may run at a time, at least 1.
        max_queue: how many callers of this process may wait for another one of it, at least 0. 0 (the default): all are
            refused at once, whether it or others are in the way.
        queue_timeout: seconds that a caller may wait; needs a queue. None (the default): as long as the deadline allows.
        lease: seconds for which a slot stays taken when its process is gone, above 0 (default 30). It is renewed three times
            as often.
        name: what it is called in errors, events and logs, and in the store.
        on_store_error: what decides while the store does not answer: `"local"` (default), the slots of this process, which are
            as many; `"allow"`, the same for whoever has one, and all others pass, too; or `"deny"`, with `StoreUnavailable`.

    Raises:
        BulkheadFull: from a call or a block, where no slot is free, or none came free in time. `active` counts those of all
            processes where the store said no.
        StoreUnavailable: the store does not answer, with `on_store_error="deny"`.
        RuntimeError: trio runs.

    Whoever is cancelled gives back what it has. One that waits for others asks the store again and again, every 5 to 100
    milliseconds: among processes there is no order.

    """

    __slots__ = ("_blocks", "_leases", "_lost", "_timer", "lease", "where")

    def __init__(
        self,
        store: RedisStore,
        max_concurrent: int,
        *,
        max_queue: int = 0,
        queue_timeout: Duration | None = None,
        lease: Duration = 30.0,
        name: str = "bulkhead",
        on_store_error: OnStoreError = "local",
    ) -> None:
        super().__init__(max_concurrent, max_queue=max_queue, queue_timeout=queue_timeout, name=name)
        self.lease: float = seconds("lease", lease, above=0.0)
        self.where: Shared = shared(store, "bulkhead", name, on_store_error)
        self._leases: dict[str, _Leased] = {}
        self._blocks: list[Lease] = []
        self._timer: asyncio.TimerHandle | None = None
        self._lost = 0

    def sibling(self) -> Self:
        """Another one on the same state in the store."""
        other = type(self)(
            self.where.store,
            self.max_concurrent,
            max_queue=self.max_queue,
            queue_timeout=self.queue_timeout,
            lease=self.lease,
            name=self.name,
        )
        other.where = self.where
        return other

    def retune(self, template: Any) -> bool:
        if not super().retune(template):
            return False
        self.lease = template.lease
        return True

    def ready_in(self, now: float) -> float:
        return self.where.store.breaker.ready_in(now) if self.where.on_store_error == "deny" else 0.0

    def admit(self, now: float) -> Permit | None:
        if not self.where.store.is_up(now):
            return self._admit_alone(now)
        if self._active >= self.max_concurrent and self._queued >= self.max_queue:
            raise self._full()
        return None

    async def wait(self, deadline: float) -> Permit:
        started = clock.now()
        until = deadline if self.queue_timeout is None else min(deadline, started + self.queue_timeout)
        if not self.where.store.is_up(started):
            return self._admit_alone(started) or await super().wait(until)
        if super().admit(started) is None:
            await super().wait(until)
        return await self._take_lease(started, until, patient=self.max_queue > 0)

    async def at_once(self, deadline: float) -> Permit:
        now = clock.now()
        if not self.where.store.is_up(now):
            return self._admit_alone(now) or await super().at_once(deadline)
        if super().admit(now) is None:
            raise self.refuse(now)
        return await self._take_lease(now, deadline, patient=False)

    def acquire_nowait(self) -> Lease:
        if self.where.store.is_up(clock.now()):
            raise must_wait(self.name)
        return super().acquire_nowait()

    async def __aenter__(self) -> None:
        self._blocks.append(await self.acquire())

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._blocks.pop().settle()  # they are all alike

    def statistics(self) -> RedisBulkheadStatistics:
        """A snapshot of this process's side."""
        return RedisBulkheadStatistics(
            self._active, self._queued, self.max_concurrent, self.max_queue, len(self._leases), self._lost
        )

    def __repr__(self) -> str:
        return super().__repr__().replace("<Bulkhead", "<RedisBulkhead", 1)

    def give_back(self, lease: str) -> None:
        """Give a lease back, without waiting for it."""
        self._leases.pop(lease, None)
        if not self._leases and self._timer is not None:
            self._timer.cancel()
        self.where.store.post(RELEASE, self.where.key, lease)

    def _admit_alone(self, now: float) -> Permit | None:
        if self.where.on_store_error == "deny":
            raise self.where.unavailable(self.name, now)
        if self.where.on_store_error == "allow" and self._active >= self.max_concurrent:
            return _FREE
        return super().admit(now)

    async def _take_lease(self, started: float, until: float, *, patient: bool) -> Permit:
        """A lease for one who has a slot of this process; the slot is given back where there is none."""
        try:
            return await self._lease_for(started, until, patient=patient)
        except BaseException:
            self._release()
            raise

    async def _lease_for(self, started: float, until: float, *, patient: bool) -> Permit:
        store, key, pause, lease = self.where.store, self.where.key, _SHORTEST_PAUSE, secrets.token_hex(8)
        while True:
            limit = time_left(until)
            reply = await store.ask(
                ACQUIRE,
                key,
                lease,
                self.max_concurrent,
                microseconds(self.lease),
                within=limit,
                undo=lambda _: self.give_back(lease),
            )
            limit = time_left(until)
            if reply is None and limit > 0.0:
                if self.where.on_store_error == "deny":
                    raise self.where.unavailable(self.name, clock.now())
                return self
            granted, out = reply or (0, self._active)
            if granted:
                return self._hold(lease)
            if not patient or limit <= 0.0:
                raise BulkheadFull(self.name, None, out, self._queued, clock.now() - started)
            await clock.sleep(min(random.uniform(pause / 2, pause), limit))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _hold(self, lease: str) -> "_Leased":
        permit = self._leases[lease] = _Leased(self, lease)
        if len(self._leases) == 1:
            self._renew_later()
        return permit

    def _renew_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.lease / 3, self._renew, context=Context())

    def _renew(self) -> None:
        leases = tuple(self._leases)

        def heard(lost: Reply | None) -> None:
            late = [index for index in lost or () if leases[index] in self._leases]
            if late:
                self._tell_lost(len(late))

        store = self.where.store
        store.post(RENEW, self.where.key, self.max_concurrent, microseconds(self.lease), *leases, heard=heard)
        self._renew_later()

    def _tell_lost(self, leases: int) -> None:
        self._lost += leases
        logging.getLogger("resilient").warning("resilient.lease_lost strategy=%s leases=%d", self.name, leases)
        self.leave(LeaseLost(at=clock.now(), strategy=self.name, leases=leases))
        announce(self)


class _Leased:
    """The permit for a slot that has a lease."""

    __slots__ = ("_bulkhead", "_lease")

    lingers = True

    def __init__(self, bulkhead: RedisBulkhead, lease: str) -> None:
        self._bulkhead = bulkhead
        self._lease = lease

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self._bulkhead.give_back(self._lease)
        self._bulkhead.settle(verdict, latency, now)


class _Free:
    """The permit where nothing was taken."""

    lingers = False

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        pass


_FREE: Final = _Free()
