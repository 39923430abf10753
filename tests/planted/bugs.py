"""The ten bugs, and the tests that must catch them.

Each is one text of a module in the place of another one: short, so that it stays there while the code around it changes, and
there exactly once. One of them stands here twice, since "jitter after the cap" can be meant in two ways.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ("BUGS", "ROOT", "Bug")

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bug:
    """One way in which such libraries are wrong.

    Attributes:
        title: what it is called.
        module: where it is planted, in `resilient/strategies`.
        right: the text as it is.
        wrong: what takes its place.
        tests: those that must catch it, by file and name in `tests/`.

    """

    title: str
    module: str
    right: str
    wrong: str
    tests: tuple[str, ...]

    @property
    def path(self) -> str:
        """The file of the module, from the root."""
        return f"resilient/strategies/{self.module}.py"

    def times_in(self, root: Path) -> int:
        """How often the text is there. Once, or it cannot be planted."""
        return (root / self.path).read_text(encoding="utf-8").count(self.right)

    def plant(self, root: Path) -> None:
        """Break the package in this folder."""
        path = root / self.path
        path.write_text(path.read_text(encoding="utf-8").replace(self.right, self.wrong), encoding="utf-8")


BUGS: Final = (
    Bug(
        "lost permit on cancel: who is cancelled in the tick of the hand-off keeps the slot",
        "slots",
        "            if waiter.woken:\n                self._release()\n",
        "            if waiter.woken:\n                pass\n",
        ("strategies/test_bulkhead_cancellation.py::test_a_waiter_cancelled_in_the_tick_of_its_grant_passes_it_on",),
    ),
    Bug(
        "stale result closes half-open: a late success from before the trip",
        "breaker_states",
        "        if machine.current is not self:\n",
        "        if machine.current is not self:\n"
        "            if isinstance(machine.current, HalfOpen) and verdict.health is _HEALTHY:\n"
        '                machine.move("proven", now, "probes_succeeded")\n',
        ("strategies/test_circuit_breaker.py::test_a_late_success_from_before_the_trip_does_not_close_it",),
    ),
    Bug(
        "probe never released: one that is cancelled keeps its place",
        "breaker_states",
        "        state.probes.remove(self)\n",
        "        if verdict.health is not Health.NEUTRAL:\n            state.probes.remove(self)\n",
        ("strategies/test_circuit_breaker.py::test_a_cancelled_probe_frees_its_place",),
    ),
    Bug(
        "jitter after the cap: it goes beyond it",
        "backoff",
        "random.uniform(0.0, delay)",
        "random.uniform(0.0, raw)",
        ("strategies/test_backoff.py::test_whatever_the_settings_a_delay_is_finite_and_within_the_cap",),
    ),
    Bug(
        "jitter after the cap: the cap cuts it off, so that all wait the same time",
        "backoff",
        "random.uniform(0.0, delay)",
        "min(random.uniform(0.0, raw), maximum)",
        ("strategies/test_backoff.py::test_the_cap_comes_before_the_jitter",),
    ),
    Bug(
        "Retry-After shortened: cut to the longest delay of the backoff",
        "retry_loop",
        "return hint + ",
        "return min(hint, float(chosen.maximum)) + ",
        ("strategies/test_retry.py::test_the_jitter_of_a_long_hint_is_at_most_a_second",),
    ),
    Bug(
        "budget checked after sleeping: the wait is for nothing",
        "retry",
        "            delay = loop.decide(attempt, verdict, error)\n",
        "            delay = loop.decide(attempt, verdict, error)\n"
        '            if loop._stopped is not None and loop._stopped.reason == "budget_exhausted":\n'
        "                await clock.sleep(1.0)\n",
        ("strategies/test_retry_stops.py::test_a_retry_is_paid_for_before_its_wait",),
    ),
    Bug(
        "loser not closed: what came second stays open",
        "hedge_race",
        "        await self._dispose_of(self._ended(leg))\n",
        "        self._ended(leg)\n",
        (
            "strategies/test_hedge_endings.py::test_a_value_that_comes_too_late_is_discarded",
            "strategies/test_hedge_endings.py::test_a_stream_that_comes_too_late_is_closed",
        ),
    ),
    Bug(
        "window not expired on read: only what is recorded expires it",
        "windows",
        '        """Forget what is older than the span."""\n',
        '        """Forget what is older than the span."""\n        return\n',
        ("strategies/test_windows.py::test_a_time_window_expires_on_reading",),
    ),
    Bug(
        "double settle: a permit that was given back is given back again",
        "gate",
        "permit, self._permit = self._permit, None",
        "permit = self._permit",
        ("strategies/test_gate.py::test_a_gate_by_hand_is_settled_once_with_what_the_work_ended_with",),
    ),
    Bug(
        "native cancel swallowed: it becomes a timeout",
        "timeout",
        "  # see the top of this module\n                raise\n",
        "  # see the top of this module\n                raise TimeoutExceeded(limit) from None\n",
        ("strategies/test_timeout.py::test_native_cancellation_is_never_swallowed",),
    ),
)
