"""How long to wait before the next attempt.

A `Backoff` is a frozen setting. `delays(random)` starts a schedule for one call: an iterator of seconds, kept for as long
as that call is retried, so that a jitter which depends on the delay before (decorrelated) needs no shared state.
The cap is applied *before* jitter: jitter that is cut off by the cap would make all clients wait the same time.

Full, equal and decorrelated jitter: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from resilient._arguments import Duration, number, seconds
from resilient.outcome import Verdict

__all__ = (
    "Backoff",
    "BackoffLike",
    "ByVerdict",
    "Constant",
    "Custom",
    "Exponential",
    "Fibonacci",
    "Jitter",
    "Linear",
    "as_backoff",
)

Jitter = Literal["none", "full", "equal", "decorrelated"]
"""`full`: uniform in [0, d]. `equal`: uniform in [d/2, d]. `decorrelated`: uniform in [initial, 3 × the delay before],
capped. `none`: d itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """The base of all backoffs: `raw()` gives the delays without jitter.

    Args:
        maximum: seconds that no delay exceeds (default 5), at least 0.
        jitter: `"none"`, `"full"` (the default), `"equal"` or `"decorrelated"`.

    """

    maximum: Duration = 5.0
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        object.__setattr__(self, "maximum", seconds("maximum", self.maximum))
        if self.jitter not in get_args(Jitter):
            msg = f"jitter={self.jitter!r}: expected one of {', '.join(map(repr, get_args(Jitter)))}"
            raise ValueError(msg)

    @abstractmethod
    def raw(self) -> Iterator[float]:
        """The delays without cap and jitter, in seconds, without end."""

    def delays(self, random: Random) -> Iterator[float]:
        """A new schedule for one call: seconds before the second attempt, the third, ... It never ends."""
        maximum = float(self.maximum)  # type: ignore[arg-type]  # a float since __post_init__
        previous = initial = None
        for raw in self.raw():
            delay = min(raw, maximum)
            if self.jitter == "full":
                delay = random.uniform(0.0, delay)
            elif self.jitter == "equal":
                delay = random.uniform(delay / 2, delay)
            elif self.jitter == "decorrelated":
                initial = delay if initial is None else initial
                highest = min(maximum, 3 * (initial if previous is None else previous))
                previous = delay = random.uniform(min(initial, highest), highest)
            yield delay


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant(Backoff):
    """The same delay each time.

    Args:
        delay: seconds, at least 0 (default 0.1).

    """

    delay: Duration = 0.1

    def __post_init__(self) -> None:
        Backoff.__post_init__(self)
        object.__setattr__(self, "delay", seconds("delay", self.delay))

    def raw(self) -> Iterator[float]:
        return itertools.repeat(float(self.delay))  # type: ignore[arg-type]  # a float since __post_init__


@dataclass(frozen=True, kw_only=True, slots=True)
class _Growing(Backoff):
    initial: Duration = 0.1

    def __post_init__(self) -> None:
        Backoff.__post_init__(self)
        object.__setattr__(self, "initial", seconds("initial", self.initial))

    @property
    def _first(self) -> float:
        return float(self.initial)  # type: ignore[arg-type]  # a float since __post_init__


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear(_Growing):
    """`initial`, then `increment` more each time.

    Args:
        initial: seconds, at least 0 (default 0.1).
        increment: seconds, at least 0 (default: as `initial`).

    """

    increment: Duration | None = None

    def __post_init__(self) -> None:
        _Growing.__post_init__(self)
        increment = self.initial if self.increment is None else self.increment
        object.__setattr__(self, "increment", seconds("increment", increment))

    def raw(self) -> Iterator[float]:
        return itertools.count(self._first, float(self.increment))  # type: ignore[arg-type]  # a float since __post_init__


@dataclass(frozen=True, kw_only=True, slots=True)
class Exponential(_Growing):
    """`initial`, then `factor` times as long each time.

    Args:
        initial: seconds, at least 0 (default 0.1).
        factor: at least 1 (default 2).

    """

    factor: float = 2.0

    def __post_init__(self) -> None:
        _Growing.__post_init__(self)
        object.__setattr__(self, "factor", number("factor", self.factor, at_least=1.0))

    def raw(self) -> Iterator[float]:
        delay, maximum = self._first, float(self.maximum)  # type: ignore[arg-type]  # a float since __post_init__
        while True:
            yield delay
            delay = min(delay * self.factor, maximum)  # saturates: it never overflows, however many attempts


@dataclass(frozen=True, kw_only=True, slots=True)
class Fibonacci(_Growing):
    """`initial` × 1, 1, 2, 3, 5, 8, ...

    Args:
        initial: seconds, at least 0 (default 0.1).

    """

    def raw(self) -> Iterator[float]:
        maximum = float(self.maximum)  # type: ignore[arg-type]  # a float since __post_init__
        delay = following = self._first
        while True:
            yield delay
            delay, following = following, min(delay + following, maximum)


@dataclass(frozen=True, kw_only=True, slots=True)
class Custom(Backoff):
    """Delays of your own, without jitter unless it is asked for.

    Args:
        source: a function from the number of the retry (1, 2, ...) to seconds, or an iterable of seconds that can be
            walked many times, e.g. `[0.1, 0.5, 2]`; after its end the last delay repeats.

    """

    source: Callable[[int], float] | Iterable[float]
    jitter: Jitter = "none"
    maximum: Duration = 86_400.0

    def __post_init__(self) -> None:
        Backoff.__post_init__(self)
        source: object = self.source
        if isinstance(source, Iterator) or not (callable(source) or isinstance(source, Iterable)):
            msg = (
                f"backoff={source!r}: expected a Backoff, a function of the retry's number, or seconds that can be walked "
                "many times, e.g. a list; an iterator can be used by one call only"
            )
            raise TypeError(msg)
        if not callable(self.source) and not any(True for _ in self.source):
            msg = f"backoff={source!r} is empty: give at least one delay in seconds"
            raise ValueError(msg)

    def raw(self) -> Iterator[float]:
        source, last = self.source, 0.0
        for delay in map(source, itertools.count(1)) if callable(source) else source:
            last = seconds("backoff", delay)
            yield last
        yield from itertools.repeat(last)


@dataclass(frozen=True, slots=True)
class ByVerdict:
    """Another backoff for some outcomes: any mapping from a verdict to a backoff.

    `ByVerdict(lambda verdict: Exponential(initial=1) if verdict.throttled else Exponential())`

    Args:
        choose: from a verdict to a backoff. Give back the same object for the same class of outcomes: each object has a
            schedule of its own within a call.

    """

    choose: Callable[[Verdict], Backoff]


BackoffLike = Backoff | ByVerdict | Callable[[int], float] | Iterable[float]
"""What may be given as `backoff=`."""


def as_backoff(value: BackoffLike) -> Backoff | ByVerdict:
    """What a user gave as `backoff=`: a backoff, a `ByVerdict`, a function, or an iterable of seconds."""
    if isinstance(value, (Backoff, ByVerdict)):
        return value
    return Custom(source=value)
