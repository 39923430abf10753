"""What holds for an adaptive limit whatever it hears, beside a list of all that it heard: whether each change has its reason."""

import itertools
import math
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.machines import Timed, runs, tried
from resilient.errors import BulkheadFull
from resilient.observe.events import Event, LimitChanged
from resilient.observe.listeners import add_listener, remove_listener
from resilient.outcome import CANCELLED, SUCCESS, Verdict
from resilient.strategies.adaptive_limit import AdaptiveLimit
from strategies.breakers import BAD, NOTHING, REJECTED

TELLING = {SUCCESS, BAD, NOTHING}  # the last one is a 429: nothing for a breaker, and a drop here


def nobody(_: Event) -> None:
    """Listens: else changes are not told."""


def told(limit: AdaptiveLimit) -> list[Event]:
    happened, limit.outbox = limit.outbox, None
    return list(happened.events) if happened is not None else []


class Adapting(Timed):
    """Calls begin, in floods too, and end with anything after any time."""

    def __init__(self) -> None:
        super().__init__()
        add_listener(nobody)

    @initialize(initial=st.integers(1, 9), minimum=st.integers(1, 3), room=st.sampled_from([0, 5, 50]), seed=st.integers(0, 9))
    def begin(self, initial: int, minimum: int, room: int, seed: int) -> None:
        self.minimum, self.maximum = minimum, minimum + room
        first = min(max(initial, minimum), self.maximum)
        self.real = AdaptiveLimit(first, minimum=minimum, maximum=self.maximum, random=Random(seed))
        self.active = 0
        self.moved: list[float] = []
        self.heard: list[tuple[float | None, int]] = []  # latencies, None for a drop, and how many calls were in flight
        self.judged = 0  # so many of them when it moved last
        self.before_probe: float | None = None

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
            if verdict in TELLING:
                self.heard.append((latency if verdict is SUCCESS else None, self.active))
            before = self.real.limit
            self.real.settle(verdict, latency, self.now)
            self.active -= 1
            changes = [event for event in told(self.real) if isinstance(event, LimitChanged)]
            assert bool(changes) == (self.real.limit != before)
            for change in changes:
                assert (change.old, change.new) == (before, self.real.limit)
                assert verdict in TELLING
                assert not self.moved or self.now - self.moved[-1] >= 1.0  # a window is a second at least
                self.moved.append(self.now)
                self.has_its_reason(change)

    def has_its_reason(self, change: LimitChanged) -> None:
        """By what was heard since it moved last, which is a window at least, and by what was ever heard."""
        since, self.judged = self.heard[self.judged :], len(self.heard)
        latencies = [latency for latency, _ in self.heard if latency is not None]
        drops, peak = any(latency is None for latency, _ in since), max(active for _, active in since)
        probed, self.before_probe = self.before_probe, None
        assert len(since) >= 20
        match change.why:
            case "room":
                assert change.old < change.new <= change.old + 1 + math.sqrt(change.old + 1) / 2
                assert 2 * peak >= change.old
            case "slower":
                assert change.old > change.new >= change.old // (4 if drops else 2)
                assert peak >= 0.95 * change.old
                assert max(latencies) > 1.25 * min(latencies)
            case "drops":
                assert drops
                assert change.old > change.new >= change.old // 2
            case "probe":
                assert peak >= 0.95 * change.old
                assert latencies
                self.before_probe = change.old
            case _:
                assert change.why == "probe_over"
                if probed is None:  # it was as low as can be: half of what it had just become is no less
                    assert change.old == self.minimum
                    return
                assert probed // (8 if drops else 4) <= change.new <= probed + 1 + math.sqrt(probed + 1) / 2

    @rule(
        times=st.sampled_from([25, 60]),
        latencies=st.sampled_from([[0.1], [0.01, 0.1], [0.1, 1.0], [1.0, 0.1]]),
        drops=st.sampled_from([0, 0, 3, 9]),
    )
    def serve(self, times: int, latencies: list[float], drops: int) -> None:
        """A while of steady traffic, as full as may be: what makes windows."""
        for latency, number in itertools.product(latencies, range(times)):
            self.call(max(0, self.real.limit - self.active) + 1)
            self.ticks += number % 2
            self.end(BAD if drops and not number % drops else SUCCESS, latency, 1)

    @invariant()
    def the_limit_is_in_its_range_and_nobody_is_lost(self) -> None:
        if hasattr(self, "real"):
            seen = self.real.statistics()
            assert self.minimum <= seen.limit <= self.maximum
            latencies = [max(latency, 1e-6) for latency, _ in self.heard if latency is not None]
            if seen.baseline is not None:  # it is a mean of some of them
                assert min(latencies) * 0.999 <= seen.baseline <= max(latencies) * 1.001
            assert (seen.active, seen.queued) == (self.active, 0)

    def teardown(self) -> None:
        if hasattr(self, "real"):
            while self.active:
                self.real.settle(CANCELLED, 0.0, self.now)
                self.active -= 1
            assert self.real.statistics().active == 0
            assert self.real.statistics().limit >= 1
        remove_listener(nobody)
        super().teardown()


TestAdapting = runs(Adapting, 60, 15)
