"""A cache that survives its backend, and lets callers survive their origin.

    cache = ResilientCache(RedisBackend.from_url("redis://localhost"), prefix="users:", ttl=60, stale_if_error=3600)
    user = await cache.get_or_load("42", lambda: fetch_user(42))

Every operation of the backend runs under a retry, a circuit breaker and a timeout; every load under what protects the origin. A
lookup is one *flight* for each key at a time: read the backend, decide (fresh, stale, nothing), load where that is needed, tell
all who wait, write. What the backend cannot do a loader makes up for. Nothing runs in the background but the refreshes of stale
values in an `async with cache:` block. All mutable state: the flights by key, what is counted, and the group of the block.
"""

import contextlib
import functools
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from enum import Enum
from random import Random
from typing import Any, Final, Literal, ParamSpec, TypeVar, get_args

from resilient import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpen,
    Exponential,
    Outcome,
    Part,
    Pipeline,
    Retry,
    Strategy,
    Timeout,
    chance,
    clock,
)
from resilient._arguments import Duration, number, seconds
from resilient.blocks import Block
from resilient.context import make_current
from resilient.observe.listeners import emit, sink
from resilient.outcome import On
from resilient_integrations._cache.backends import Backend, MemoryBackend, Stored
from resilient_integrations._cache.entries import JSON, Entry, Serializer
from resilient_integrations._cache.flights import Flight
from resilient_integrations._cache.protection import Called, Origin
from resilient_integrations._cache.redis import RedisBackend
from resilient_integrations._cache.settings import SerializerLike, backend_of, serializer_for
from resilient_integrations._cache.statistics import CacheLookup, CacheStatistics, Count, Result
from resilient_integrations._cache.store import Store

__all__ = (
    "JSON",
    "MISSING",
    "Backend",
    "CacheLookup",
    "CacheStatistics",
    "MemoryBackend",
    "Missing",
    "RedisBackend",
    "ResilientCache",
    "Serializer",
    "Stored",
)

P = ParamSpec("P")
T = TypeVar("T")

OnOpen = Literal["bypass", "shed"]

_COUNTED: Final[dict[Result, Count]] = {
    "hit": "hits",
    "stale": "stale",
    "miss": "misses",
    "coalesced": "coalesced",
    "shed": "shed",
}


class Missing(Enum):
    """What is there where nothing is: it is not `None`, which can be stored."""

    MISSING = "missing"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing.MISSING


class ResilientCache(Block):
    """A cache over a backend that may be slow, down or wrong.

    Args:
        backend: where entries are kept (default: a `MemoryBackend`).
        name: what it is called in events, logs and statistics (default `"cache"`). It is the key of its calls.
        prefix: stands before each key in the backend (default none). Caches that share a backend need different ones.
        ttl: seconds for which a value is fresh, above 0 (default 60).
        negative_ttl: the same for `None`, which says that there is nothing; 0 does not store it (default: as `ttl`).
        jitter: up to this share of a time to live is taken off at random, 0 to 1 (default 0.1), so that what was stored
            together does not expire together.
        stale_while_revalidate: seconds for which a stale value is still given while it is refreshed, at least 0 (default 0).
        stale_if_error: seconds for which a stale value is still given where the load fails, at least 0 (default 0).
        stale_on: which errors of a load an old value may hide: a type, a tuple of types, or a predicate (default: every one).
            Another one surfaces, and ends the old value. `Exception` as a type does not match rejections.
        on_open: what becomes of a lookup while the breaker is open: `"bypass"` asks the loader (default), `"shed"` raises
            `CircuitOpen`.
        timeout: seconds that one attempt of an operation may take, above 0 (default 0.1).
        retry: tries operations again (default: two attempts, up to 10 ms apart; a timeout is not tried again).
        breaker: stops asking a backend that is unwell (default: five failures in a row, or half of twenty within 10 s, open it
            for 5 s and more). Caches on one server can share one.
        origin: what a load runs under: a strategy or a pipeline (default: `Bulkhead(64, max_queue=256, queue_timeout=5)`).
        serializer: to bytes and back (default: JSON; none for a backend that keeps objects). Any pair of functions.
        random: the source of jitter, for tests.

    Raises:
        TypeError, ValueError: an argument is wrong, at construction.

    Cancellation is neutral. Where the caller that loads is cancelled, one of those who wait takes its place.
    `async with cache:` lets stale values be refreshed in the background; what is not done at the end of the block is cancelled.
    """

    def __init__(
        self,
        backend: Backend | None = None,
        *,
        name: str = "cache",
        prefix: str = "",
        ttl: Duration = 60.0,
        negative_ttl: Duration | None = None,
        jitter: float = 0.1,
        stale_while_revalidate: Duration = 0.0,
        stale_if_error: Duration = 0.0,
        stale_on: On | None = None,
        on_open: OnOpen = "bypass",
        timeout: Duration = 0.1,
        retry: Retry | None = None,
        breaker: CircuitBreaker | None = None,
        origin: Strategy | None = None,
        serializer: SerializerLike | None = None,
        random: Random | None = None,
    ) -> None:
        if on_open not in get_args(OnOpen):
            msg = f"on_open={on_open!r}: expected 'bypass' or 'shed'"
            raise ValueError(msg)
        self.backend = backend_of(backend)
        self.name = name
        self.breaker = breaker or CircuitBreaker(name=name, failure_rate=0.5, consecutive_failures=5)
        self._prefix = prefix
        self._ttl = seconds("ttl", ttl, above=0.0)
        self._negative_ttl = None if negative_ttl is None else seconds("negative_ttl", negative_ttl)
        self._revalidate = seconds("stale_while_revalidate", stale_while_revalidate)
        self._sheds = on_open == "shed"
        self._flights: dict[str, Flight] = {}
        self._counts: Counter[Count] = Counter()
        random = random or chance.source
        guard = Pipeline(
            Called(name),
            retry or Retry(on=Exception, never=TimeoutError, attempts=2, backoff=Exponential(initial=0.01), random=random),
            self.breaker,
            Timeout(seconds("timeout", timeout, above=0.0)),
        )
        self._store = Store(
            self.backend,
            guard,
            name=name,
            serializer=serializer_for(self.backend, serializer),
            stale_for=max(self._revalidate, seconds("stale_if_error", stale_if_error)),
            jitter=number("jitter", jitter, at_least=0.0, at_most=1.0),
            random=random,
            counts=self._counts,
        )
        protection = origin or Bulkhead(64, max_queue=256, queue_timeout=5.0, name=f"{name}_origin")
        self._origin = Origin(name, protection, stale_on, self._counts)

    async def get(self, key: str, default: Any = MISSING) -> Any:
        """The value of a key while it is fresh, else `default`: `MISSING`, unless another one is given.

        Raises:
            CircuitOpen: the breaker is open.
            Exception: what the backend raised in the last attempt; `TimeoutExceeded` where it took too long.

        """
        entry = await self._store.read(self._full(key))
        if entry is None or not entry.is_fresh:
            self._tell("miss")
            return default
        self._tell("hit")
        return entry.value

    async def set(self, key: str, value: Any, *, ttl: Duration | None = None) -> None:
        """Store a value, `None` too, in place of what there is. A load of the key that goes on is not stored any more.

        Raises:
            CircuitOpen: the breaker is open.
            Exception: what the serializer raised, or the backend in the last attempt; `TimeoutExceeded` where it took too long.

        """
        full = self._full(key)
        with self._superseding(full):
            await self._store.write(full, value, self._lifetime(ttl))

    async def delete(self, key: str) -> None:
        """Have nothing for a key. Who asks from now on gets nothing that was loaded before.

        Raises:
            CircuitOpen: the breaker is open: what was stored is still there.
            Exception: what the backend raised in the last attempt; `TimeoutExceeded` where it took too long.

        """
        full = self._full(key)
        with self._superseding(full):
            await self._store.delete(full)

    async def get_or_load(self, key: str, loader: Callable[[], Awaitable[T]], *, ttl: Duration | None = None) -> T:
        """The value of a key; where there is none, what `loader()` returns, which is stored.

        Of all who ask for a key at a time one asks the backend and the loader, and the others get what it gets, an error too. A
        failure of the backend fails nobody. A loader must not ask for its own key: it would wait for itself.

        Args:
            key: what is asked for, after the prefix.
            loader: an async function without arguments. `None` from it is stored for `negative_ttl`.
            ttl: seconds, in place of the cache's.

        Raises:
            CircuitOpen: the breaker is open, and `on_open` is `"shed"`.
            Rejected: what protects the origin refused the load, and no old value may take its place.
            Exception: what the loader raised, likewise.

        """
        full, span = self._full(key), self._lifetime(ttl)
        while (flight := self._flights.get(full)) is not None:
            if await flight.wait():
                self._tell("coalesced")
                break
        else:
            flight = await self._fly(Flight(full, loader, span))
        value: T = flight.hand_out()
        return value

    def cached(
        self, *, key: Callable[..., str], ttl: Duration | None = None
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Decorate an async function, so that calls go through `get_or_load`: `@cache.cached(key=lambda user_id: f"{user_id}")`.

        Args:
            key: makes the key from the arguments of a call; different calls must give different keys.
            ttl: seconds, in place of the cache's.

        Raises:
            TypeError: what is decorated is no async function.

        """
        self._lifetime(ttl)

        def decorate(fn: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
            if not inspect.iscoroutinefunction(fn):
                msg = f"cannot cache {fn!r}: put @cache.cached(...) on an async function, below @classmethod or @staticmethod"
                raise TypeError(msg)

            @functools.wraps(fn)
            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
                return await self.get_or_load(key(*args, **kwargs), functools.partial(fn, *args, **kwargs), ttl=ttl)

            return wrapper

        return decorate

    def statistics(self) -> CacheStatistics:
        """A snapshot."""
        counts: dict[str, int] = {name: self._counts[name] for name in get_args(Count)}
        return CacheStatistics(in_flight=len(self._flights), breaker=self.breaker.statistics(), **counts)

    def parts(self) -> Iterator[Part]:
        """What has a state: the breaker of the backend, and what protects the origin. See `resilient.parts_of`."""
        yield Part("", self.breaker.name, self.breaker)
        yield from self._origin.parts()

    def reset(self) -> None:
        """Count from zero, and let the breaker be as new. Entries stay."""
        self._counts.clear()
        self.breaker.reset()

    def __repr__(self) -> str:
        counts = self._counts
        return (
            f"<ResilientCache {self.name!r}: {counts['hits']} hits, {counts['stale']} stale, {counts['misses']} misses, "
            f"breaker {self.breaker.state}>"
        )

    async def _fly(self, flight: Flight) -> Flight:
        """Lead a flight: find out what there is, and tell all who wait."""
        self._flights[flight.key] = flight
        try:
            outcome = await self._find(flight)
            if not flight.in_background:
                flight.tell(outcome)
        finally:
            if not flight.in_background:
                self._land(flight)
        return flight

    async def _find(self, flight: Flight) -> Outcome[Any]:
        """What the backend has, else what the loader gives."""
        try:
            entry = await self._look_up(flight.key)
        except CircuitOpen as refusal:
            self._tell("shed")
            return Outcome(error=refusal)
        if entry is not None and entry.is_fresh:
            self._tell("hit")
            return Outcome(entry.value)
        if entry is not None and entry.fresh_for > -self._revalidate:
            flight.tell(Outcome(entry.value))
            if self._group is not None:
                self._tell("stale")
                flight.in_background = True
                self._group.start_soon(self._refresh, flight, entry)
                return Outcome(entry.value)
        outcome, is_old = await self._load(flight, entry)
        self._tell("stale" if is_old else "miss")
        return outcome

    async def _look_up(self, key: str) -> Entry | None:
        """What the backend has; None where it has nothing that is of use, or cannot be asked."""
        try:
            return await self._store.read(key)
        except Exception as error:
            if self._sheds and isinstance(error, CircuitOpen):
                raise
            self._counts["bypassed"] += 1
            return None

    async def _load(self, flight: Flight, old: Entry | None) -> tuple[Outcome[Any], bool]:
        """What the loader gives, which is stored, or the old value in its place; and which of them it is."""
        outcome, is_old = await self._origin.load(flight.loader, old)
        if outcome.error is None and not is_old:
            flight.tell(outcome)  # those who wait need not wait for the backend
            await self._keep(flight, outcome.value, old)
        elif not is_old and old is not None and not flight.superseded:
            await self._store.forget(flight.key)  # the next one who asks is to hear of this error too
        return outcome, is_old

    async def _keep(self, flight: Flight, value: Any, old: Entry | None) -> None:
        if flight.superseded:
            return
        span = self._negative_ttl if value is None and self._negative_ttl is not None else flight.span
        if span:
            await self._store.keep(flight.key, value, span)
        if flight.superseded or (not span and old is not None):  # it may have been written after what took its place
            await self._store.forget(flight.key)

    async def _refresh(self, flight: Flight, old: Entry) -> None:
        make_current(None)  # the deadline of the caller who found it stale is not ours
        self._counts["refreshes"] += 1
        try:
            outcome, _ = await self._load(flight, old)
            flight.tell(outcome)
        finally:
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.wake()

    @contextlib.contextmanager
    def _superseding(self, key: str) -> Generator[None]:
        """While a key is set or deleted: what others began before that ended is joined by nobody any more, and not stored."""
        self._supersede(key)
        try:
            yield
        finally:
            self._supersede(key)

    def _supersede(self, key: str) -> None:
        flight = self._flights.pop(key, None)
        if flight is not None:
            flight.superseded = True

    def _full(self, key: str) -> str:
        if not isinstance(key, str):
            msg = f"key={key!r}: expected a text, got {type(key).__name__}"
            raise TypeError(msg)
        return self._prefix + key

    def _lifetime(self, ttl: Duration | None) -> float:
        return self._ttl if ttl is None else seconds("ttl", ttl, above=0.0)

    def _tell(self, result: Result) -> None:
        self._counts[_COUNTED[result]] += 1
        listeners = sink()
        if listeners:
            emit(listeners, CacheLookup(at=clock.now(), key=self.name, cache=self.name, result=result))
