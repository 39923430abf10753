"""Windows beside a list of everything that was ever recorded."""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from models.machines import TICK, Timed, runs
from resilient.strategies.windows import RingCounts, TimeCounts

Entry = tuple[float, int, int, int]


def totals(entries: list[Entry]) -> tuple[int, int, int]:
    return sum(entry[1] for entry in entries), sum(entry[2] for entry in entries), sum(entry[3] for entry in entries)


class TimeWindow(Timed):
    """Ten buckets: the running one and the nine before. What is taken back is recorded as a negative number, as budgets do."""

    @initialize(span=st.sampled_from([10 * TICK, 5.0, 10.0, 20.0]), origin=st.sampled_from([0, -(10**6), 10**9]))
    def begin(self, span: float, origin: int) -> None:
        self.width = span / 10
        self.window = TimeCounts(span)
        self.ticks = origin
        self.entries: list[Entry] = []

    @rule(ticks=st.sampled_from([1, 2, 4, 8, 12, 70, 80, 81, 500]))
    def wait(self, ticks: int) -> None:
        self.ticks += ticks

    @rule(calls=st.integers(0, 3), failures=st.integers(-2, 3), slow=st.integers(0, 2))
    def record(self, calls: int, failures: int, slow: int) -> None:
        self.window.record(self.now, calls, failures, slow)
        self.entries.append((self.now, calls, failures, slow))

    @rule(calls=st.integers(1, 3))
    def record_calls(self, calls: int) -> None:
        self.window.record(self.now, calls)
        self.entries.append((self.now, calls, 0, 0))

    @invariant()
    def it_holds_what_is_young(self) -> None:
        if not hasattr(self, "window"):
            return
        running = self.now // self.width
        young = [entry for entry in self.entries if entry[0] // self.width > running - 10]
        expected = totals(young)
        fresh = self.window.is_fresh(self.now)
        assert (self.window.calls, self.window.failures, self.window.slow) == expected
        assert self.window.forgotten + self.window.calls == totals(self.entries)[0]
        assert fresh == (not any(expected))


class CountedWindow(Timed):
    """The last so many calls."""

    @initialize(size=st.integers(1, 6))
    def begin(self, size: int) -> None:
        self.size = size
        self.ring = RingCounts(size)
        self.calls: list[Entry] = []

    @rule(failed=st.booleans(), slow=st.booleans(), times=st.integers(1, 4))
    def record(self, *, failed: bool, slow: bool, times: int) -> None:
        for _ in range(times):
            self.ring.record(self.now, 1, failed, slow)
            self.calls.append((self.now, 1, failed, slow))

    @invariant()
    def it_holds_the_last_ones(self) -> None:
        if not hasattr(self, "ring"):
            return
        self.ring.expire(self.now + 1e9)
        last = totals(self.calls[-self.size :])
        assert (self.ring.calls, self.ring.failures, self.ring.slow) == last
        assert self.ring.forgotten == len(self.calls) - last[0]
        assert self.ring.is_fresh(self.now) == (not last[1] and not last[2])


TestTimeWindow = runs(TimeWindow, 80, 20)
TestCountedWindow = runs(CountedWindow, 50, 15)


def test_a_window_that_holds_anything_is_not_fresh() -> None:
    """A failure or a slow call alone, too: what budgets spend is recorded without a call."""
    for entry in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        window = TimeCounts(10.0)
        fresh = window.is_fresh(0.0)
        window.record(0.0, *entry)

        assert (fresh, window.is_fresh(0.0)) == (True, False)


def test_a_bucket_ends_at_its_very_end() -> None:
    """What is as old as the span is forgotten in that instant, also where the window was read just before."""
    window = TimeCounts(10.0)
    window.record(0.0)
    window.expire(9.0)
    before = window.calls
    window.expire(10.0)

    assert (before, window.calls) == (1, 0)
