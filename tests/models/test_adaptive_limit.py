"""What holds for an adaptive limit whatever it hears."""

from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.machines import Timed, runs, tried
from resilient.errors import BulkheadFull
from resilient.outcome import CANCELLED, SUCCESS, Verdict
from resilient.strategies.adaptive_limit import AdaptiveLimit
from strategies.breakers import BAD, NOTHING, REJECTED


class Adapting(Timed):
    """Calls begin, in floods too, and end with anything after any time."""

    @initialize(initial=st.integers(1, 9), minimum=st.integers(1, 3), room=st.sampled_from([0, 5, 50]), seed=st.integers(0, 9))
    def begin(self, initial: int, minimum: int, room: int, seed: int) -> None:
        self.minimum, self.maximum = minimum, minimum + room
        first = min(max(initial, minimum), self.maximum)
        self.real = AdaptiveLimit(first, minimum=minimum, maximum=self.maximum, random=Random(seed))
        self.active = 0
        self.moved: list[float] = []

    @rule(ticks=st.sampled_from([1, 4, 9, 80]))
    def wait(self, ticks: int) -> None:
        self.ticks += ticks

    @rule(times=st.sampled_from([1, 3, 30]))
    def call(self, times: int) -> None:
        """One gets in exactly where fewer are inside than the limit says."""
        for _ in range(times):
            limit = self.real.limit
            _, refusal = tried(BulkheadFull, lambda: self.real.admit(self.now))
            assert (refusal is not None) == (self.active >= limit)
            assert refusal is None or refusal.active == self.active
            self.active += refusal is None

    @precondition(lambda self: self.active)
    @rule(
        verdict=st.sampled_from([SUCCESS, SUCCESS, SUCCESS, BAD, NOTHING, CANCELLED, REJECTED]),
        latency=st.sampled_from([0.0, 0.01, 0.1, 0.1, 1.0]),
        times=st.sampled_from([1, 7, 25]),
    )
    def end(self, verdict: Verdict, latency: float, times: int) -> None:
        for _ in range(min(times, self.active)):
            before = self.real.limit
            self.real.settle(verdict, latency, self.now)
            self.active -= 1
            if self.real.limit != before:
                assert verdict not in {CANCELLED, REJECTED}
                assert not self.moved or self.now - self.moved[-1] >= 1.0  # a window is a second at least
                self.moved.append(self.now)

    @rule(times=st.sampled_from([25, 60]), latency=st.sampled_from([0.01, 0.1, 1.0]), drops=st.sampled_from([0, 0, 2]))
    def serve(self, times: int, latency: float, drops: int) -> None:
        """A while of steady traffic, as full as may be: what makes windows."""
        for number in range(times):
            self.call(30)
            self.ticks += number % 2
            self.end(BAD if drops and not number % drops else SUCCESS, latency, 1)

    @invariant()
    def the_limit_is_in_its_range_and_nobody_is_lost(self) -> None:
        if hasattr(self, "real"):
            seen = self.real.statistics()
            assert self.minimum <= seen.limit <= self.maximum
            assert (seen.active, seen.queued) == (self.active, 0)

    def teardown(self) -> None:
        if hasattr(self, "real"):
            while self.active:
                self.real.settle(CANCELLED, 0.0, self.now)
                self.active -= 1
            assert self.real.statistics().active == 0
            assert self.real.statistics().limit >= 1
        super().teardown()


TestAdapting = runs(Adapting, 60, 15)
