"""What holds for the circuit breaker whatever happens: random histories of its machine."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.errors import CircuitOpen
from resilient.outcome import Verdict
from resilient.strategies.breaker_states import TRANSITIONS, Closed, HalfOpen, Open
from resilient.strategies.circuit_breaker import BreakerCounts, CircuitBreaker
from resilient.strategies.gate import Permit
from resilient.strategies.windows import CountWindow
from strategies.breakers import BAD, CANCELLED, GOOD, REJECTED, breaker, changes, drive, granted, told


def two_failed(counts: BreakerCounts) -> bool:
    return counts.failures > 1


SETTINGS: list[dict[str, Any]] = [
    {"consecutive_failures": 2},
    {"minimum_calls": 3, "half_open_calls": 3, "probe_lease": 4.0, "slow_call": 3.0},
    {"window": CountWindow(5), "minimum_calls": 5, "half_open_calls": 2, "half_open_successes": 3, "random": None},
    {"trip": two_failed, "half_open_calls": 3, "half_open_successes": 1},
    {"minimum_calls": 3, "half_open_calls": 2, "initial": "monitor_only"},
]

verdicts = st.sampled_from([GOOD, BAD, BAD, CANCELLED, REJECTED])
steps = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 12)),
    st.tuples(st.just("call"), st.none()),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 50), verdicts)),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 50), verdicts)),
)


class History:
    """A breaker, and the calls that it let through."""

    def __init__(self, machine: CircuitBreaker) -> None:
        self.machine = machine
        self.now = 0.0
        self.out: list[tuple[Permit, object, float]] = []  # with the state that granted it, and when

    def take(self, step: str, argument: Any) -> None:
        if step == "wait":
            self.now += argument
        elif step == "call":
            self.call()
        elif self.out:
            number, verdict = argument
            self.end(number % len(self.out), verdict)

    def call(self) -> None:
        before = self.machine.current
        try:
            permit = granted(self.machine, self.now)
        except CircuitOpen:
            assert not self.machine.monitoring
            assert isinstance(before, HalfOpen) or (isinstance(before, Open) and self.now < before.until)
            return
        assert isinstance(self.machine.current, Closed | HalfOpen) or self.machine.monitoring
        self.out.append((permit, self.machine.current, self.now))

    def end(self, number: int, verdict: Verdict) -> None:
        permit, state, began = self.out.pop(number)
        before = self.machine.current
        permit.settle(verdict, self.now - began, self.now)
        if before is not state:
            assert self.machine.current is before

    def check(self) -> None:
        state, window = self.machine.current, self.machine.window
        assert window is None or 0 <= max(window.failures, window.slow) <= window.calls
        if isinstance(state, HalfOpen):
            assert sum(probe.expires > self.now for probe in state.probes) <= self.machine.settings.half_open_calls
            assert state.passed < self.machine.settings.half_open_successes
        if isinstance(state, Closed):
            assert state.out == sum(permit is state for permit, _, _ in self.out)


@pytest.mark.parametrize("chosen", SETTINGS, ids=range(len(SETTINGS)))
@settings(max_examples=100, deadline=None)
@given(history=st.lists(steps, max_size=80))
def test_whatever_happens_it_keeps_its_rules_and_never_wedges(chosen: dict[str, Any], history: list[tuple[str, Any]]) -> None:
    """Never too many probes, no stale result moves it, every change is one of the table, and good calls close it at last."""
    run = History(breaker(**chosen))
    machine = run.machine
    for step, argument in history:
        run.take(step, argument)
        run.check()
    run.now += machine.settings.open_for_max + machine.settings.probe_lease
    for _ in range(machine.settings.half_open_successes):
        drive(machine, run.now, GOOD)
    walked = changes(told(machine))

    assert machine.would_be(run.now) == "closed"
    assert {(old, new) for old, new, _ in walked} <= {(old, new) for (old, _), new in TRANSITIONS.items()}
    assert all(before[1] == after[0] for before, after in itertools.pairwise(walked))
