"""What a network can do to a connection: the faults that a `FaultProxy` plays, as values.

Several at a time make one `Weather`: latencies add up, the slowest pace and the earliest end count.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, Final, Literal, cast

from resilient._arguments import Duration, fraction, integer, number, seconds

__all__ = (
    "Bandwidth",
    "BlackHole",
    "Drip",
    "Fault",
    "Latency",
    "Refuse",
    "Reset",
    "Sometimes",
    "Truncate",
    "Weather",
    "faults_of",
)

_SLICES: Final = 50
"""So many pieces a second a bandwidth is cut into."""


End = Literal["reset", "fin", "silence"]
"""How a connection ends: RST, FIN, or not at all."""


@dataclass(slots=True)
class Weather:
    """What happens to one connection, all faults taken together.

    Attributes:
        random: what latencies are drawn from.
        latencies: how long what the server sends is under way, in seconds, from and to each.
        size: how many bytes are sent at a time.
        pause: seconds before each of these pieces.
        after: how many bytes of the server pass until the end.
        end: what the end is.

    """

    random: Random
    latencies: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    size: int = 65_536
    pause: float = 0.0
    after: float = math.inf
    end: End = "fin"

    def under_way(self) -> float:
        """Seconds that the next piece of the server is under way."""
        return sum(self.random.uniform(low, high) for low, high in self.latencies)

    def slow_to(self, size: int, pause: float) -> None:
        if size * self.pause <= self.size * pause:  # the rate is size / pause
            self.size, self.pause = size, pause

    def end_after(self, after: int, end: End) -> None:
        if after < self.after:
            self.after, self.end = after, end


class Fault:
    """The base of all faults. They are frozen values, and can be shared."""

    __slots__ = ()

    @abstractmethod
    def apply(self, weather: Weather) -> None:
        """Add to what happens to a connection."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Latency(Fault):
    """What the server sends arrives later. Throughput stays as it is.

    Attributes:
        seconds: how much, at least 0 (a `timedelta` becomes seconds).
        jitter: up to so many seconds more, at least 0 (default 0). The order of bytes stays.

    """

    seconds: Duration
    jitter: Duration = 0.0

    def __post_init__(self) -> None:
        for name in ("seconds", "jitter"):
            object.__setattr__(self, name, seconds(name, getattr(self, name)))

    def apply(self, weather: Weather) -> None:
        least, more = cast("float", self.seconds), cast("float", self.jitter)
        weather.latencies.append((least, least + more))


@dataclass(frozen=True, slots=True)
class Bandwidth(Fault):
    """What the server sends comes at this rate at most.

    Attributes:
        rate: bytes per second, more than 0.

    """

    rate: float

    def __post_init__(self) -> None:
        number("rate", self.rate, above=0)

    def apply(self, weather: Weather) -> None:
        size = max(1, round(self.rate / _SLICES))
        weather.slow_to(size, size / self.rate)


@dataclass(frozen=True, slots=True)
class Drip(Fault):
    """What the server sends comes in small pieces.

    Attributes:
        size: bytes in a piece, at least 1 (default 1).
        pause: seconds before each piece, at least 0 (default 0.01).

    """

    size: int = 1
    pause: Duration = 0.01

    def __post_init__(self) -> None:
        integer("size", self.size)
        object.__setattr__(self, "pause", seconds("pause", self.pause))

    def apply(self, weather: Weather) -> None:
        weather.slow_to(self.size, cast("float", self.pause))


@dataclass(frozen=True, slots=True)
class _End(Fault):
    """A fault that ends the connection, each in its own way, after so many bytes."""

    after: int = 0
    _how: ClassVar[End]

    def __post_init__(self) -> None:
        integer("after", self.after, at_least=0)

    def apply(self, weather: Weather) -> None:
        weather.end_after(self.after, self._how)


@dataclass(frozen=True, slots=True)
class Reset(_End):
    """The connection is reset (RST), as by a process that crashed.

    Attributes:
        after: how many bytes of the server pass before, at least 0 (default 0: it comes with the first bytes of either side).

    """

    _how = "reset"


@dataclass(frozen=True, slots=True)
class Truncate(_End):
    """The connection is closed in order (FIN), though not all was sent.

    Attributes:
        after: how many bytes of the server pass before, at least 0 (default 0: it comes with the first bytes of either side).

    """

    _how = "fin"


@dataclass(frozen=True, slots=True)
class BlackHole(_End):
    """The connection stays open, and nothing passes any more in either direction.

    Attributes:
        after: how many bytes of the server pass before, at least 0 (default 0).

    """

    _how = "silence"


@dataclass(frozen=True, slots=True)
class Refuse(Fault):
    """New connections are refused: nobody listens on the port. Those that are open stay."""

    def apply(self, weather: Weather) -> None:
        """Nothing: it is the listener that is gone."""


@dataclass(frozen=True, slots=True)
class Sometimes(Fault):
    """Another fault, for a share of the connections: `Sometimes(0.1, Reset(after=100))`.

    Attributes:
        share: in (0, 1]. It is drawn for each connection.
        fault: any but `Refuse`, which is decided before there is a connection.

    """

    share: float
    fault: Fault

    def __post_init__(self) -> None:
        fraction("share", self.share)
        if isinstance(self.fault, Refuse):
            msg = "fault=Refuse(): it cannot happen sometimes, a port is open or not; take Reset(), which accepts and then resets"
            raise TypeError(msg)
        if not isinstance(cast("object", self.fault), Fault):
            raise TypeError(_no_fault(self.fault))

    def apply(self, weather: Weather) -> None:
        if weather.random.random() < self.share:
            self.fault.apply(weather)


def faults_of(given: Any) -> tuple[Fault, ...]:
    """Check what a user calls faults: one, several, or None."""
    faults: list[Any] = [] if given is None else [*given] if isinstance(given, tuple) else [given]
    for fault in faults:
        if not isinstance(fault, Fault):
            raise TypeError(_no_fault(fault))
    return tuple(faults)


def _no_fault(given: object) -> str:
    return f"fault={given!r}: expected a fault such as Latency(0.2) or Reset(after=100), several in a tuple, or None"
