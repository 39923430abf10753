"""State per key, bounded.

`Keyed(template)` makes a sibling of a stateful strategy (the same settings, fresh state) for each new key. At most
`max_keys` are kept: when they are used up, keys whose state equals a fresh one are forgotten, which loses nothing; an
instance that is open, or has permits out, or remembers a failure stays. Where nothing can be forgotten, new keys share
one overflow instance, and one warning says so: hostile keys cannot grow memory.

All mutable state: the dictionary `_states` in order of insertion, `_overflow`, and whether it `_warned`.
"""

import itertools
import logging
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from resilient import clock
from resilient._arguments import integer
from resilient.strategies.gate import Gate

__all__ = ("Bounded", "Keyed", "Siblings", "Template", "sibling_for")

T = TypeVar("T", bound="Template")
S = TypeVar("S")

_SWEEP: Final = 64
"""How many of the oldest keys are looked at when there is no room: enough to find one, bounded."""


class Template(Protocol):
    """A stateful strategy as a template for keys."""

    def sibling(self) -> Self:
        """The same settings, fresh state."""
        ...

    def is_fresh(self, now: float) -> bool:
        """Whether nothing is lost when it is forgotten."""
        ...


def sibling_for(template: T, key: str | None) -> T:
    """A sibling for the state of a key. Where the state lies elsewhere, it must be told which: see `Gate.for_key`."""
    return template.for_key(key) if key is not None and isinstance(template, Gate) else template.sibling()


class Bounded(Generic[S]):
    """The bounded dictionary of state per key: make one, ask whether one is fresh; the rest follows."""

    __slots__ = ("_overflow", "_states", "_warned", "max_keys")

    def __init__(self, max_keys: int) -> None:
        self.max_keys = integer("max_keys", max_keys)
        self._states: dict[str, S] = {}
        self._overflow: S | None = None
        self._warned = False

    @abstractmethod
    def _make(self, key: str | None) -> S:
        """State for a key; for those that share one it is None."""
        raise NotImplementedError

    @abstractmethod
    def _is_fresh(self, state: S, now: float) -> bool:
        raise NotImplementedError

    def __getitem__(self, key: str) -> S:
        """The state of the key; made on its first use."""
        state = self._states.get(key)
        return state if state is not None else self._add(key)

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._states))

    def __contains__(self, key: object) -> bool:
        return key in self._states

    def __repr__(self) -> str:
        full = ", overflowing" if self._overflow is not None else ""
        return f"<{type(self).__name__}: {len(self)} of {self.max_keys} keys{full}>"

    def _add(self, key: str) -> S:
        if len(self._states) >= self.max_keys and not self._forget_some():
            return self._shared()
        state = self._states[key] = self._make(key)
        return state

    def _forget_some(self) -> bool:
        """Forget fresh ones among the oldest; the others move to the end, so that the next sweep sees new ones."""
        now, states = clock.now(), self._states
        for key in list(itertools.islice(states, _SWEEP)):
            state = states.pop(key)
            if not self._is_fresh(state, now):
                states[key] = state
        return len(states) < self.max_keys

    def _shared(self) -> S:
        if not self._warned:
            self._warned = True
            logging.getLogger("resilient").warning(
                "all %d keys have state that cannot be forgotten: new keys share one instance. "
                "Are the keys of low cardinality (no ids)? If so, raise max_keys",
                self.max_keys,
            )
        if self._overflow is None:
            self._overflow = self._make(None)
        return self._overflow


class Keyed(Bounded[T]):
    """One stateful strategy per key: `Keyed(TokenBucket(100), max_keys=10_000)["alice"]`.

    Args:
        template: a gate (breaker, bulkhead, limiter) or a retry budget. It is only copied, never used itself.
        max_keys: how many keys may have state of their own at a time, at least 1 (default 10 000).

    Hold on to the result of `keyed[key]` for one call only: a key that is idle may be forgotten and made anew.

    """

    __slots__ = ("template",)

    def __init__(self, template: T, *, max_keys: int = 10_000) -> None:
        if not (hasattr(template, "sibling") and hasattr(template, "is_fresh")):
            msg = f"template={template!r} has no state to keep per key: pass a breaker, bulkhead, limiter or budget"
            raise TypeError(msg)
        super().__init__(max_keys)
        self.template = template

    def _make(self, key: str | None) -> T:
        return sibling_for(self.template, key)

    def _is_fresh(self, state: T, now: float) -> bool:
        return state.is_fresh(now)

    def statistics(self) -> dict[str, Any]:
        """A snapshot of every key's statistics."""
        return {key: getattr(state, "statistics")() for key, state in self._states.items()}  # noqa: B009  not of the protocol


class Siblings(Bounded[tuple[Template, ...]]):
    """The stateful parts of a pipeline per key: one sibling for each of `templates`, in their order."""

    __slots__ = ("templates",)

    def __init__(self, templates: Sequence[Template], *, max_keys: int) -> None:
        super().__init__(max_keys)
        self.templates = tuple(templates)

    def _make(self, key: str | None) -> tuple[Template, ...]:
        return tuple([sibling_for(template, key) for template in self.templates])  # one made of a generator keeps room to grow

    def _is_fresh(self, state: tuple[Template, ...], now: float) -> bool:
        return all(part.is_fresh(now) for part in state)
