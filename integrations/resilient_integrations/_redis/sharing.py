"""What limits that are shared have in common: where their state is, and what they do where the store does not answer."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal, Self, get_args
from urllib.parse import quote

from resilient import Gate, Rejected
from resilient_integrations._redis.store import RedisStore

__all__ = ("OnStoreError", "Shared", "SharedGate", "StoreUnavailable", "must_wait", "shared")

OnStoreError = Literal["local", "allow", "deny"]

_READABLE: Final = "-._~:@+, "
_LONGEST: Final = 200


class StoreUnavailable(Rejected):
    """The store does not answer, and its limit was told to refuse calls then (`on_store_error="deny"`)."""

    reason: ClassVar[str] = "store_unavailable"

    def _why(self) -> str:
        return "the store that keeps the limit does not answer, the call was not sent"


@dataclass(frozen=True, slots=True)
class Shared:
    """Where the state of a limit is, and what to do without it.

    Attributes:
        store: the store.
        kind: what it is the state of.
        limit: the key in the store of the limit as it was made.
        key: that of this state, which is the same, or that of one of its keys.
        on_store_error: what to do where the store does not answer.

    """

    store: RedisStore
    kind: str
    limit: str
    key: str
    on_store_error: OnStoreError

    def for_key(self, key: str) -> Self:
        """Where the state of a key is. It is told from that of all other keys and names."""
        return replace(self, key=f"{self.key}/{_part(key)}")

    def is_of(self, template: "Shared") -> bool:
        """Whether this is the state of the template, or of one of its keys."""
        return self.store is template.store and self.limit == template.limit

    def unavailable(self, name: str, now: float) -> StoreUnavailable:
        """The refusal where the store does not answer. It may answer again when its breaker lets somebody ask."""
        wait = self.store.breaker.ready_in(now)
        return StoreUnavailable(name, wait or None)


class SharedGate(Gate):
    """What limits that are shared have in common: copies of them are on the same state, or on that of a name or a key."""

    __slots__ = ()

    where: Shared

    def named(self, name: str) -> Self:
        """One with the same settings and a state of its own, of this name: for each tenant, say."""
        other = self._at(shared(self.where.store, self.where.kind, name, self.where.on_store_error))
        other.name = name
        return other

    def for_key(self, key: str) -> Self:
        """One with the same settings and name, and a state for this key: what a keyed pipeline asks for.

        All processes that ask for the same key share it.
        """
        return self._at(self.where.for_key(key))

    def retune(self, template: Any) -> bool:
        if not self.where.is_of(template.where) or not super().retune(template):
            return False
        self._move(replace(self.where, on_store_error=template.where.on_store_error))
        return True

    def _at(self, where: Shared) -> Self:
        other = self.sibling()
        other._move(where)  # noqa: SLF001  our own class
        return other

    def _move(self, where: Shared) -> None:
        self.where = where  # type: ignore[misc]  # the slot is that of each subclass: two bases cannot both have some


def shared(store: RedisStore, kind: str, name: str, on_store_error: OnStoreError = "local") -> Shared:
    """Check the arguments."""
    if not isinstance(store, RedisStore):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass clients and addresses
        msg = f"store={store!r}: expected a RedisStore, e.g. RedisStore('redis://localhost')"
        raise TypeError(msg)
    if on_store_error not in get_args(OnStoreError):
        msg = f"on_store_error={on_store_error!r}: expected 'local', 'allow' or 'deny'"
        raise ValueError(msg)
    key = f"{store.prefix}:1:{kind}:{_part(name)}"
    return Shared(store, kind, key, key, on_store_error)


def _part(text: str) -> str:
    """A name or a key as part of a key in the store: no two have the same, and none is long."""
    escaped = quote(text, safe=_READABLE, errors="surrogatepass")
    if len(escaped) <= _LONGEST:
        return escaped
    return "#" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()  # which no escaped one begins with


def must_wait(name: str) -> RuntimeError:
    """The error for a caller that wants to know at once."""
    msg = f"{name!r} is shared: who asks the store must wait for its answer; use `await acquire()` instead of acquire_nowait()"
    return RuntimeError(msg)
