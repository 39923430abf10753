"""The token bucket that processes share.

It is a `TokenBucket` that asks the store first. What the store answers is written into the local bucket, too: its statistics are
those of the whole, and where the store does not answer any more, the local bucket goes on from there. A caller that
must wait has its tokens reserved in the store and sleeps until their time: one round trip, and first come, first served over all
processes. All mutable state besides that of a `TokenBucket`: how many sleep, `_reserved`.
"""

import math
from typing import Final, Self

from resilient import RateLimited, TokenBucket, Verdict, clock
from resilient._arguments import Duration
from resilient.context import time_left
from resilient.strategies.flow import FlowSettings
from resilient.strategies.gate import Lease, Permit
from resilient.strategies.limiter import Tokens
from resilient.strategies.waiting import tell_wait
from resilient_integrations._redis.scripts import RETURN, TAKE
from resilient_integrations._redis.sharing import OnStoreError, Shared, SharedGate, must_wait, shared
from resilient_integrations._redis.store import RedisStore, Reply, microseconds

__all__ = ("RedisTokenBucket",)

_FASTEST: Final = 1e6
"""Tokens in a second: each takes a whole number of microseconds."""


class RedisTokenBucket(SharedGate, TokenBucket):
    """At most `rate` calls in `per` seconds, and `burst` at once, over all processes that share the store and the name.

    It has the face of a `TokenBucket`, but for `acquire_nowait`: while the store answers, that is a `RuntimeError`. The clock
    is that of the server; in whole microseconds for each token, rounded up.

    Args:
        store: where the state is.
        rate: how many tokens flow in during `per` seconds, above 0, and at most a million in a second.
        per: seconds, above 0 (default 1).
        burst: how many tokens there can be, at least 1 (default: `rate`, rounded down, at least 1).
        max_wait: seconds that a caller may wait, at least 0 (default 1). Tokens are reserved so far ahead, which is what a
            process that is killed can leave unused.
        name: what it is called in errors, events and logs, and in the store.
        on_store_error: what decides while the store does not answer: `"local"` (default), a bucket of this process with the
            same settings; `"allow"`; or `"deny"`, with `StoreUnavailable`.

    Raises:
        RateLimited: from a call or a block, when its tokens would come later than in `max_wait` or than the deadline of
            the call. `retry_after` says when they would come.
        StoreUnavailable: the store does not answer, with `on_store_error="deny"`.
        RuntimeError: trio runs.

    A caller that is cancelled, and a call that another strategy then refused, further in, gives its tokens back, unless somebody
    has taken one since: then they stay spent, so that the limit holds.

    """

    __slots__ = ("_reserved", "where")

    def __init__(
        self,
        store: RedisStore,
        rate: float,
        *,
        per: Duration = 1.0,
        burst: int | None = None,
        max_wait: Duration = 1.0,
        name: str = "token_bucket",
        on_store_error: OnStoreError = "local",
    ) -> None:
        super().__init__(rate, per=per, burst=burst, max_wait=max_wait, name=name)
        if self.rate / self.per > _FASTEST:
            msg = f"rate={rate!r} is out of range: expected at most a million tokens in a second; they take whole microseconds"
            raise ValueError(msg)
        self.where: Shared = shared(store, "bucket", name, on_store_error)
        self._reserved = 0

    def sibling(self) -> Self:
        """Another one on the same state in the store."""
        other = super().sibling()
        other.where = self.where
        other._reserved = 0  # noqa: SLF001  our own class
        return other

    def is_fresh(self, now: float) -> bool:
        return not self._reserved and super().is_fresh(now)

    def ready_in(self, now: float) -> float:
        if self.where.store.is_up(now) or self.where.on_store_error == "allow":
            return 0.0
        return self.where.store.breaker.ready_in(now) if self.where.on_store_error == "deny" else super().ready_in(now)

    def admit(self, now: float, tokens: int = 1) -> Permit | None:
        return None if self.where.store.is_up(now) else self._admit_alone(now, tokens)

    async def wait(self, deadline: float, tokens: int = 1) -> Permit:
        permit = await self._take_there(tokens, deadline, self.max_wait or 0.0)
        return permit or self._admit_alone(clock.now(), tokens) or await super().wait(deadline, tokens)

    async def at_once(self, deadline: float) -> Permit:
        permit = await self._take_there(1, deadline, 0.0)
        return permit or self._admit_alone(clock.now(), 1) or await super().at_once(deadline)

    def acquire_nowait(self, tokens: int = 1) -> Lease:
        if self.where.store.is_up(clock.now()):
            raise must_wait(self.name)
        return super().acquire_nowait(tokens)

    async def __aenter__(self) -> None:
        await self.acquire()

    @property
    def queued(self) -> int:
        """Callers of this process that wait for tokens."""
        return super().queued + self._reserved

    def give_back(self, tokens: int, mark: int) -> None:
        """Undo a take in the store, without waiting for it."""
        self.where.store.post(RETURN, self.where.key, mark, tokens * self._cost)

    def __repr__(self) -> str:
        return super().__repr__().replace("<TokenBucket", "<RedisTokenBucket", 1)

    @property
    def _cost(self) -> int:
        """Microseconds that a token takes to flow in."""
        settings: FlowSettings = self._settings
        return -(-settings.unit // (settings.flow * 1000))

    def _admit_alone(self, now: float, tokens: int) -> Permit | None:
        if self.where.on_store_error == "deny":
            raise self.where.unavailable(self.name, now)
        if self.where.on_store_error == "allow":
            return _Free((self, tokens, 0))
        permit = super().admit(now, tokens)
        return None if permit is None else self.kept(permit, now)  # who has asked the store has waited

    async def _take_there(self, tokens: int, deadline: float, patience: float) -> Tokens | None:
        """Take tokens in the store, and wait for their time. None where it does not answer."""
        if not self.where.store.is_up(clock.now()):
            return None
        limit = time_left(deadline)
        if -math.inf < limit <= 0.0:
            raise self.refuse(clock.now(), tokens)
        cost = self._cost
        reply = await self.where.store.ask(
            TAKE,
            self.where.key,
            tokens * cost,
            self.burst * cost,
            microseconds(min(limit, patience)),
            within=limit,
            undo=lambda reply: self._undo(tokens, reply),
        )
        if reply is None:
            if -math.inf < time_left(deadline) <= 0.0:  # no answer in the time that there was says nothing of the store
                raise self.refuse(clock.now(), tokens)
            return None
        granted, wait, mark, left = reply
        self._leave(clock.now(), left // cost)
        if not granted:
            raise RateLimited(self.name, wait / 1e6)
        if wait:
            await self._sleep(wait / 1e6, deadline, tokens, mark)
        return _Taken((self, tokens, mark))

    async def _sleep(self, delay: float, deadline: float, tokens: int, mark: int) -> None:
        self._reserved += 1
        began = clock.now()
        try:
            if -math.inf < time_left(deadline) <= delay:  # the answer took its time
                raise RateLimited(self.name, delay)  # noqa: TRY301  what was reserved is given back
            await clock.sleep(delay)
        except BaseException:
            self.give_back(tokens, mark)
            raise
        finally:
            self._reserved -= 1
        tell_wait(self, began)

    def _undo(self, tokens: int, reply: Reply) -> None:
        granted, _, mark, _ = reply
        if granted:
            self.give_back(tokens, mark)


class _Taken(Tokens):
    """The permit for tokens of the store."""

    __slots__ = ()

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        bucket, tokens, mark = self
        if verdict.rejected and isinstance(bucket, RedisTokenBucket):
            bucket.give_back(tokens, mark)


class _Free(Tokens):
    """The permit where nothing was taken."""

    __slots__ = ()

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        pass
