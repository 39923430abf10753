"""What limits that are shared have in common: where their state is, and what they do where the store does not answer."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from resilient import Rejected
from resilient_integrations._redis.store import RedisStore

__all__ = ("OnStoreError", "Shared", "StoreUnavailable", "must_wait", "shared")

OnStoreError = Literal["local", "allow", "deny"]


class StoreUnavailable(Rejected):
    """The store does not answer, and its limit was told to refuse calls then (`on_store_error="deny"`)."""

    reason: ClassVar[str] = "store_unavailable"

    def _why(self) -> str:
        return "the store that keeps the limit does not answer, the call was not sent"


@dataclass(frozen=True, slots=True)
class Shared:
    """Where the state of a limit is, and what to do without it."""

    store: RedisStore
    key: str
    on_store_error: OnStoreError

    def is_same_state(self, other: "Shared") -> bool:
        """Whether two limits are one."""
        return self.store is other.store and self.key == other.key

    def unavailable(self, name: str, now: float) -> StoreUnavailable:
        """The refusal where the store does not answer. It may answer again when its breaker lets somebody ask."""
        wait = self.store.breaker.ready_in(now)
        return StoreUnavailable(name, wait or None)


def shared(store: RedisStore, kind: str, name: str, on_store_error: OnStoreError = "local") -> Shared:
    """Check the arguments. The key has the name in braces, so that a cluster keeps it in one place."""
    if not isinstance(store, RedisStore):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass clients and addresses
        msg = f"store={store!r}: expected a RedisStore, e.g. RedisStore('redis://localhost')"
        raise TypeError(msg)
    if on_store_error not in get_args(OnStoreError):
        msg = f"on_store_error={on_store_error!r}: expected 'local', 'allow' or 'deny'"
        raise ValueError(msg)
    return Shared(store, f"{store.prefix}:1:{kind}:{{{name}}}", on_store_error)


def must_wait(name: str) -> RuntimeError:
    """The error for a caller that wants to know at once."""
    msg = f"{name!r} is shared: who asks the store must wait for its answer; use `await acquire()` instead of acquire_nowait()"
    return RuntimeError(msg)
