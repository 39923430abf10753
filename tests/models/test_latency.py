"""Live latency beside a list of samples, each with the weight that it has left."""

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from models.machines import runs
from resilient.strategies.latency import Latency


class Samples(RuleBasedStateMachine):
    """Samples come singly and in hundreds. Edges of buckets are powers of two and sixteenths between."""

    @initialize(minimum=st.sampled_from([1, 20, 50]))
    def begin(self, minimum: int) -> None:
        self.real = Latency(minimum)
        self.samples: list[tuple[int, float]] = []  # the upper edge of the bucket, in sixteenths; the weight
        self.number = 0
        self.known: dict[float, float] = {}

    @rule(seconds=st.sampled_from([0.001, 0.125, 0.13, 0.5, 1.0, 3.3, 1e-9, 1e9]), times=st.sampled_from([1, 5, 16, 100, 400]))
    def record(self, seconds: float, times: int) -> None:
        edge = math.ceil(math.log2(min(max(seconds, 1e-6), 1e6)) * 16)
        for _ in range(times):
            self.real.record(seconds, 1.0)
            self.samples.append((edge, 1.0))
            if sum(weight for _, weight in self.samples) >= 1000:
                self.fade()
        before, self.number = self.number // 16, self.number + times
        if self.number // 16 > before:
            self.known.clear()

    def fade(self) -> None:
        """All lose half of their weight; a bucket that holds next to nothing then is empty."""
        halves: dict[int, float] = {}
        for edge, weight in self.samples:
            halves[edge] = halves.get(edge, 0.0) + weight / 2
        self.samples = [(edge, weight) for edge, weight in sorted(halves.items()) if weight >= 1 / 64]

    @rule(seconds=st.sampled_from([0.125, 2.0]), delay=st.sampled_from([None, 0.125, 1.0]))
    def cut_short(self, seconds: float, delay: float | None) -> None:
        before = self.real.samples
        self.real.record_at_least(seconds, 1.0, delay)
        if delay is not None and seconds >= delay:
            self.samples.append((math.ceil(math.log2(seconds) * 16), 1.0))
            if sum(weight for _, weight in self.samples) >= 1000:
                self.fade()
            self.number += 1
            if not self.number % 16:
                self.known.clear()
        else:
            assert self.real.samples == before

    @rule(share=st.sampled_from([0.5, 0.9, 0.95]))
    def ask(self, share: float) -> None:
        """The edge that no more than the rest is above; the answer stays until sixteen more samples have come."""
        seen = self.real.quantile(share)
        if self.number < self.real.minimum:
            assert seen is None
            return
        if share not in self.known:
            total = sum(weight for _, weight in self.samples)
            edges = sorted({edge for edge, _ in self.samples})
            above = {edge: sum(weight for other, weight in self.samples if other > edge) for edge in edges}
            fits = [edge for edge in edges if above[edge] <= (1 - share) * total * (1 + 1e-9)]
            self.known = {share: 2 ** (fits[0] / 16)}
        assert seen == pytest.approx(self.known[share], rel=1e-12)

    @invariant()
    def it_counts_its_samples(self) -> None:
        if hasattr(self, "real"):
            assert self.real.samples == self.number


TestSamples = runs(Samples, 40, 15)
