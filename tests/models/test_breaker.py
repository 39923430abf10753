"""The circuit breaker beside a model that keeps a list of all that happened and counts it anew for each decision."""

import math
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.machines import TICK, Timed, runs, tried
from resilient.errors import CircuitOpen
from resilient.outcome import CANCELLED, SUCCESS, Health, Kind, Verdict
from resilient.strategies.circuit_breaker import BreakerCounts, CircuitBreaker
from resilient.strategies.gate import Permit
from resilient.strategies.windows import CountWindow
from strategies.breakers import BAD, NOTHING, REJECTED, breaker, changes, drive, told

TIMED_OUT = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "read_timeout")
COME_LATER = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503", retry_after=20.0)
VERDICTS = [SUCCESS, SUCCESS, BAD, BAD, BAD, TIMED_OUT, COME_LATER, NOTHING, CANCELLED, REJECTED]


def two_failed_and_as_many_worked(counts: BreakerCounts) -> bool:
    return counts.failures == 2 == counts.successes


DEFAULTS: dict[str, Any] = {
    "failure_rate": math.inf,
    "window": 10.0,
    "minimum_calls": 3,
    "consecutive_failures": math.inf,
    "trip": None,
    "slow_call": math.inf,
    "slow_rate": math.inf,
    "open_for": 5.0,
    "open_for_factor": 2.0,
    "open_for_max": 60.0,
    "half_open_calls": 1,
    "half_open_successes": 1,
    "probe_lease": 8.0,
    "initial": "closed",
}
SETTINGS: list[dict[str, Any]] = [
    {"consecutive_failures": 2},
    {"failure_rate": 0.5},
    {"failure_rate": 0.75, "window": CountWindow(4), "half_open_calls": 2, "half_open_successes": 3},
    {"failure_rate": 1.0, "slow_call": 2.0, "slow_rate": 0.5, "half_open_calls": 3, "half_open_successes": 3},
    {"trip": two_failed_and_as_many_worked, "half_open_calls": 3, "half_open_successes": 1, "window": 20.0},
    {"consecutive_failures": 1, "open_for": 2.0, "open_for_factor": 3.0, "open_for_max": 10.0, "probe_lease": 2.0},
    {"failure_rate": 0.5, "initial": "monitor_only"},
    {"consecutive_failures": 1, "initial": "isolated"},
]


@dataclass(eq=False)
class Call:
    """A call that was let through: by which stay in a state, and as what."""

    began: float
    stay: int
    kind: str
    expires: float = math.inf


@dataclass
class Model:
    """A breaker that remembers everything. `stay` numbers its stays in states."""

    settings: dict[str, Any]
    state: str = "closed"
    monitoring: bool = False
    stay: int = 0
    until: float = 0.0
    next_open: float = 0.0
    closed_at: float = -math.inf
    passed: int = 0
    in_a_row: int = 0
    rejected: int = 0
    opened: int = 0
    total: int = 0
    samples: list[tuple[float, bool, bool]] = field(default_factory=list[tuple[float, bool, bool]])
    failures: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    out: list[Call] = field(default_factory=list[Call])

    def enter(self, state: str, now: float) -> None:
        self.state, self.stay = state, self.stay + 1
        self.closed_at = now if state == "closed" else math.inf
        self.passed = self.in_a_row = 0
        if state in {"closed", "disabled"}:
            self.samples = []

    def window(self, now: float) -> list[tuple[float, bool, bool]]:
        """What the window still holds: of ten buckets, the running one and the nine before, or so many calls."""
        span = self.settings["window"]
        if isinstance(span, CountWindow):
            return self.samples[-span.size :]
        width = span / 10
        return [sample for sample in self.samples if sample[0] // width > now // width - 10]

    def mine(self, now: float) -> list[Call]:
        """The calls that the state at hand has let through and still heeds."""
        return [call for call in self.out if call.stay == self.stay and call.kind != "free" and call.expires > now]

    def admit(self, now: float) -> Call | None:
        if self.state == "open" and now >= self.until:
            self.enter("half_open", now)
        call: Call | None = Call(now, self.stay, self.state)
        if self.state == "disabled":
            call = Call(now, self.stay, "free")
        elif self.state == "half_open":
            places, successes = self.settings["half_open_calls"], self.settings["half_open_successes"]
            call = Call(now, self.stay, self.state, now + self.settings["probe_lease"])
            if len(self.mine(now)) >= min(places, max(places, successes) - self.passed):
                call = None
        elif self.state != "closed":
            call = None
        if call is None:
            self.rejected += 1
            if not self.monitoring:
                return None
            call = Call(now, self.stay, "free")
        self.out.append(call)
        return call

    def settle(self, call: Call, verdict: Verdict, latency: float, now: float) -> None:
        heeded = call in self.mine(now)
        self.out.remove(call)
        slow = latency >= self.settings["slow_call"] and not verdict.rejected
        if not heeded or (verdict.health is Health.NEUTRAL and not slow):
            return
        failed = verdict.health is Health.UNHEALTHY
        if call.kind == "half_open":
            self.total += 1
            self.failures += [(now, verdict.reason)] * failed
            self.passed += 1
            if failed or slow:
                self.open(verdict, now)
            elif self.passed >= self.settings["half_open_successes"]:
                self.enter("closed", now)
            return
        self.sample(verdict, now, failed=failed, slow=slow)

    def sample(self, verdict: Verdict, now: float, *, failed: bool, slow: bool) -> None:
        self.total += 1
        self.samples.append((now, failed, slow))
        self.failures += [(now, verdict.reason)] * failed
        if failed:
            self.in_a_row += 1
        elif verdict.health is Health.HEALTHY:
            self.in_a_row = 0
        if (failed or slow) and self.trips(now):
            self.open(verdict, now)

    def trips(self, now: float) -> bool:
        chosen, window = self.settings, self.window(now)
        calls = len(window)
        failures, slow = sum(sample[1] for sample in window), sum(sample[2] for sample in window)
        enough = calls >= chosen["minimum_calls"]
        return (
            self.in_a_row >= chosen["consecutive_failures"]
            or (enough and failures >= chosen["failure_rate"] * calls)
            or (enough and slow >= chosen["slow_rate"] * calls)
            or (chosen["trip"] is not None and chosen["trip"](BreakerCounts(calls, failures, slow, self.in_a_row)))
        )

    def open(self, verdict: Verdict, now: float) -> None:
        chosen = self.settings
        calm = now - self.closed_at >= self.next_open
        length = chosen["open_for"] if calm else self.next_open
        self.next_open = min(length * chosen["open_for_factor"], chosen["open_for_max"])
        if verdict.retry_after and verdict.health is Health.UNHEALTHY:
            hint = min(verdict.retry_after, chosen["open_for_max"])
            length = max(length, hint + min(hint / 10, 1.0))
        self.enter("open", now)
        self.opened += 1
        self.until = now + length

    def obey(self, state: str, now: float, *, monitoring: bool = False) -> None:
        self.next_open, self.monitoring = self.settings["open_for"], monitoring
        self.enter(state, now)


class Breaker(Timed):
    """Calls begin and end in any order, time passes, somebody turns the switch by hand now and then."""

    real: CircuitBreaker
    model: Model

    @initialize(chosen=st.sampled_from(SETTINGS))
    def begin(self, chosen: dict[str, Any]) -> None:
        settings = {**DEFAULTS, **chosen}
        self.real = breaker(**{name: None if value == math.inf else value for name, value in settings.items()})
        initial = settings["initial"]
        self.model = Model(settings, "closed" if initial == "monitor_only" else initial)
        self.model.monitoring = initial == "monitor_only"
        self.model.next_open = settings["open_for"]
        self.permits: list[tuple[Call, Permit]] = []
        self.rests: list[Permit] = []

    @rule(ticks=st.sampled_from([1, 1, 3, 8, 16, 40, 64, 90, 500]))
    def wait(self, ticks: int) -> None:
        self.ticks += ticks

    @rule(verdicts=st.lists(st.sampled_from(VERDICTS), min_size=1, max_size=8))
    def serve(self, verdicts: list[Verdict]) -> None:
        """One call after the other, and first the wait for a probe: in many histories Hypothesis leaves all other rules out."""
        if self.model.state == "open":
            self.ticks += max(0, math.ceil((self.model.until - self.now) / TICK))
        for verdict in verdicts:
            before = len(self.permits)
            self.call(1)
            if len(self.permits) > before:
                self.end(before, verdict)

    @rule(times=st.sampled_from([1, 1, 2, 4]))
    def call(self, times: int) -> None:
        for _ in range(times):
            expected = self.model.admit(self.now)
            permit, refusal = tried(CircuitOpen, lambda: self.real.admit(self.now))
            assert (permit is None) == (expected is None)
            if refusal is not None:
                wait = self.model.until - self.now if self.model.state == "open" else None
                assert (refusal.state, refusal.retry_after) == (self.model.state, wait)
            elif expected is not None and permit is not None:
                self.permits.append((expected, permit))

    @precondition(lambda self: self.permits)
    @rule(which=st.integers(0, 7), verdict=st.sampled_from(VERDICTS))
    def end(self, which: int, verdict: Verdict) -> None:
        call, permit = self.permits.pop(which % len(self.permits))
        latency = self.now - call.began
        self.model.settle(call, verdict, latency, self.now)
        rest = permit.settle(verdict, latency, self.now)
        if rest is not None:
            self.rests.append(rest)

    @precondition(lambda self: self.rests)
    @rule(verdict=st.sampled_from([SUCCESS, BAD, NOTHING]))
    def end_the_rest(self, verdict: Verdict) -> None:
        self.rests.pop().settle(verdict, 0.0, self.now)
        if self.model.state == "closed" and verdict.health is Health.UNHEALTHY:
            self.model.sample(verdict, self.now, failed=True, slow=False)

    @precondition(lambda self: self.ticks > 80)
    @rule(order=st.sampled_from(["close", "isolate", "disable", "monitor", "reset"]))
    def switch(self, order: str) -> None:
        getattr(self.real, order)()
        state = {"isolate": "isolated", "disable": "disabled"}.get(order, "closed")
        monitoring = order == "monitor"
        if order == "reset":
            initial = self.model.settings["initial"]
            state, monitoring = ("closed", True) if initial == "monitor_only" else (initial, False)
        self.model.obey(state, self.now, monitoring=monitoring)
        if order == "reset":
            self.model.rejected = self.model.opened = self.model.total = 0
            self.model.samples, self.model.failures = [], []

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        now, model, seen = self.now, self.model, self.real.statistics()
        would_be = "half_open" if model.state == "open" and now >= model.until else model.state
        window = model.window(now)
        probes = model.mine(now) if model.state == "half_open" else []
        assert (seen.state, seen.would_be) == ("monitor_only" if model.monitoring else would_be, would_be)
        assert (seen.calls, seen.failures, seen.slow) == (
            len(window),
            sum(sample[1] for sample in window),
            sum(sample[2] for sample in window),
        )
        assert seen.consecutive_failures == (model.in_a_row if model.state == "closed" else 0)
        assert seen.probes_out == len(probes) <= model.settings["half_open_calls"]
        assert seen.in_flight == (len(model.mine(now)) if model.state == "closed" else len(probes))
        assert (seen.opened, seen.rejected, seen.total_calls) == (model.opened, model.rejected, model.total)
        assert seen.total_failures == len(model.failures)
        assert seen.total_timeouts == sum("timeout" in reason for _, reason in model.failures)
        at, reason = model.failures[-1] if model.failures else (None, None)
        assert (seen.last_failure, seen.last_failure_ago) == (reason, None if at is None else now - at)
        remaining = {"open": max(0.0, model.until - now), "isolated": math.inf}.get(model.state, 0.0)
        assert seen.open_remaining == remaining
        assert self.real.ready_in(now) == (0.0 if model.monitoring else remaining)
        assert self.real.is_calm(now) == (model.monitoring or model.state in {"closed", "disabled"})

    def teardown(self) -> None:
        """However it went: its changes are those of the table, and once the time is over good calls close it."""
        if hasattr(self, "model"):
            walked = {(old, new) for old, new, why in changes(told(self.real)) if why != "by_hand"}
            assert walked <= {("closed", "open"), ("open", "half_open"), ("half_open", "closed"), ("half_open", "open")}
            if self.model.state in {"isolated", "disabled"}:
                self.real.obey("close", self.now)
            self.ticks += 8 * 80
            drive(self.real, self.now, *[SUCCESS] * self.model.settings["half_open_successes"])
            assert self.real.statistics().would_be == "closed"
        super().teardown()


TestBreaker = runs(Breaker, 120, 30)
