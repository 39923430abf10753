"""The throttle beside a list of the calls that ended and of those that it refused."""

from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.machines import Timed, runs, tried
from resilient.errors import Throttled
from resilient.outcome import CANCELLED, SUCCESS, Health, Verdict
from resilient.strategies.throttle import Throttle
from strategies.breakers import BAD, NOTHING, REJECTED


class Die(Random):
    """Shows what it is told to."""

    shows = 0.0

    def random(self) -> float:
        return self.shows


class Throttling(Timed):
    """Calls begin and end, time passes, the die shows anything."""

    @initialize(
        multiplier=st.sampled_from([1.0, 2.0, 3.5]), minimum=st.sampled_from([1, 4]), maximum=st.sampled_from([0.0, 0.5, 0.9])
    )
    def begin(self, multiplier: float, minimum: int, maximum: float) -> None:
        self.multiplier, self.minimum, self.maximum = multiplier, minimum, maximum
        self.die = Die()
        self.real = Throttle(multiplier=multiplier, minimum_calls=minimum, maximum=maximum, random=self.die)
        self.calls: list[tuple[float, str]] = []
        self.in_flight = 0

    @rule(ticks=st.sampled_from([1, 8, 40, 80, 500]))
    def wait(self, ticks: int) -> None:
        self.ticks += ticks

    @rule(drawn=st.sampled_from([0.0, 0.25, 0.6, 0.95, None]))
    def call(self, drawn: float | None) -> None:
        """None: the die shows the very probability, which just passes."""
        probability = self.probability()
        self.die.shows = shows = probability if drawn is None else drawn
        _, refusal = tried(Throttled, lambda: self.real.admit(self.now))
        assert (refusal is not None) == (shows < probability)
        if refusal is not None:
            assert refusal.probability == probability
            self.calls.append((self.now, "refused"))
        else:
            self.in_flight += 1

    @precondition(lambda self: self.in_flight)
    @rule(verdict=st.sampled_from([SUCCESS, BAD, BAD, NOTHING, CANCELLED, REJECTED]), times=st.sampled_from([1, 1, 3]))
    def end(self, verdict: Verdict, times: int) -> None:
        for _ in range(min(times, self.in_flight)):
            self.real.settle(verdict, 0.0, self.now)
            self.in_flight -= 1
            if verdict.throttled or verdict.health is Health.UNHEALTHY:
                self.calls.append((self.now, "failed"))
            elif verdict.health is Health.HEALTHY:
                self.calls.append((self.now, "accepted"))

    def young(self) -> list[str]:
        return [what for at, what in self.calls if at // 1.0 > self.now // 1.0 - 10]

    def probability(self) -> float:
        """That of the book."""
        young = self.young()
        excess = len(young) - self.multiplier * young.count("accepted")
        return min(self.maximum, max(0.0, excess / (len(young) + 1))) if len(young) >= self.minimum else 0.0

    @invariant()
    def it_counts_as_the_list_does(self) -> None:
        if not hasattr(self, "real"):
            return
        seen, young = self.real.statistics(), self.young()
        assert (seen.requests, seen.accepts, seen.rejected) == (len(young), young.count("accepted"), young.count("refused"))
        assert seen.probability == self.real.refuse(self.now).probability == self.probability()
        assert seen.in_flight == self.in_flight
        assert self.real.is_fresh(self.now) == (not self.in_flight and not young)


TestThrottling = runs(Throttling, 80, 20)
