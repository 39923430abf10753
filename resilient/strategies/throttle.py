"""Throttle: refuse on our side what an overloaded server would refuse anyway.

Of the calls of the last `window` seconds it knows how many were made, `requests`, and how many the server accepted, `accepts`.
While it accepts at least one in `multiplier`, nothing happens; then calls are refused at random, with the probability

    (requests - multiplier × accepts) / (requests + 1), at most `maximum`,

so that the server gets `multiplier` times as much as it accepts, and the rest costs it nothing. There is no state to be open or
closed, no cliff, and no probe: the calls that pass are the probes. From the chapter "Handling Overload" of Google's *Site
Reliability Engineering*; like there, calls that it refused itself are requests too. A call counts when it has
ended, so that those in flight speak neither for nor against the server; the window expires on reading, so that what was long
ago decides nothing. When the server is well again, what passes grows `multiplier`-fold in each window, until all does.

All mutable state: the window of counts, and the number of calls in flight.
"""

from dataclasses import dataclass
from random import Random
from typing import Final, Self

from resilient import clock
from resilient._arguments import Duration, integer, number, seconds
from resilient.chance import source as _random
from resilient.errors import Throttled
from resilient.outcome import Health, Verdict
from resilient.strategies.gate import Gate
from resilient.strategies.windows import TimeCounts

__all__ = ("Throttle", "ThrottleStatistics")

_HEALTHY: Final = Health.HEALTHY


@dataclass(frozen=True, slots=True)
class ThrottleStatistics:
    """A snapshot of a throttle.

    Attributes:
        requests: calls in the window: those that ended with a result, and those that were refused here.
        accepts: how many of them the server accepted.
        rejected: how many of them were refused here.
        probability: with which the next call is refused, 0.0 to `maximum`.
        in_flight: calls that passed and have not ended.

    """

    requests: int
    accepts: int
    rejected: int
    probability: float
    in_flight: int


class Throttle(Gate):
    """Refuse a share of the calls while the server refuses too many of them: client-side adaptive throttling.

    What counts as accepted is in the verdict: a `HEALTHY` outcome that is not `throttled` is; an `UNHEALTHY` or a throttled one
    (429, RESOURCE_EXHAUSTED) is not; what tells nothing (a cancellation, a refusal of a strategy further in) does not count.

    Args:
        multiplier: how many times as much as the server accepts may be sent, at least 1 (default 2: it acts where fewer than
            half are accepted). 1.1 spares the server more, and learns more slowly that it is well again.
        window: seconds over which calls count, above 0 (default 10).
        minimum_calls: calls in the window below which nothing is refused, at least 1 (default 10).
        maximum: the highest probability of a refusal, in [0, 1) (default 0.9). The rest finds out when the server is well again.
        random: the source of chance, for tests.
        name: what it is called in errors, events and logs.

    Raises:
        Throttled: from a call that was refused. `probability` says how likely that was.

    Cancellation is neutral: it counts nothing and always propagates.

    """

    __slots__ = ("_in_flight", "_random", "_window", "maximum", "minimum_calls", "multiplier", "window")

    refusal = Throttled

    lingers = False
    """It is the permit that it grants: calls are all alike. Whether one was accepted is known when its value is returned."""

    def __init__(
        self,
        *,
        multiplier: float = 2.0,
        window: Duration = 10.0,
        minimum_calls: int = 10,
        maximum: float = 0.9,
        random: Random | None = None,
        name: str = "throttle",
    ) -> None:
        super().__init__(name)
        self.multiplier = number("multiplier", multiplier, at_least=1.0)
        self.window = seconds("window", window, above=0.0)
        self.minimum_calls = integer("minimum_calls", minimum_calls)
        self.maximum = number("maximum", maximum, at_least=0.0, at_most=1.0)
        if self.maximum == 1.0:
            msg = f"maximum={maximum!r} would let no call find out that the server is well again: expected less than 1, e.g. 0.9"
            raise ValueError(msg)
        self._random = random or _random
        self._window = TimeCounts(self.window)  # calls: requests; failures: those that were not accepted; slow: refused here
        self._in_flight = 0

    def admit(self, now: float) -> Self:
        probability = self._probability(now)
        if probability and self._random.random() < probability:
            self._window.record(now, 1, 1, 1)
            raise Throttled(self.name, None, probability)
        self._in_flight += 1
        return self

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self._in_flight -= 1
        if verdict.throttled or verdict.health is Health.UNHEALTHY:
            self._window.record(now, 1, 1)
        elif verdict.health is _HEALTHY:
            self._window.record(now)

    def refuse(self, now: float) -> Throttled:
        return Throttled(self.name, None, self._probability(now))

    def sibling(self) -> Self:
        return type(self)(
            multiplier=self.multiplier,
            window=self.window,
            minimum_calls=self.minimum_calls,
            maximum=self.maximum,
            random=self._random,
            name=self.name,
        )

    def is_fresh(self, now: float) -> bool:
        return not self._in_flight and self._window.is_fresh(now)

    def retune(self, template: Self) -> bool:
        """Take over the settings of `template` and keep what was counted. False where the windows differ in length."""
        if template.window != self.window:
            return False
        self.name = template.name
        self.multiplier, self.minimum_calls, self.maximum = template.multiplier, template.minimum_calls, template.maximum
        self._random = template._random
        return True

    def statistics(self) -> ThrottleStatistics:
        """A snapshot."""
        probability, window = self._probability(clock.now()), self._window
        return ThrottleStatistics(
            requests=int(window.calls),
            accepts=int(window.calls - window.failures),
            rejected=int(window.slow),
            probability=probability,
            in_flight=self._in_flight,
        )

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<Throttle {self.name!r}: {now.accepts} of {now.requests} calls accepted, {now.probability:.0%} refused>"

    def _probability(self, now: float) -> float:
        window = self._window
        window.expire(now)
        requests = window.calls
        excess = requests - self.multiplier * (requests - window.failures)
        if excess <= 0 or requests < self.minimum_calls:
            return 0.0
        return min(excess / (requests + 1), self.maximum)
