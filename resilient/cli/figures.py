"""What the two clients of the demo got: calls, phases, and the figures that follow from them."""

import math
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ("CLIENTS", "Call", "Figures", "Phase", "Promise", "Result", "State")

CLIENTS: Final = ("plain", "resilient")
RECOVERED: Final = 0.97
"""The share of successes from which on a client counts as recovered."""


@dataclass(frozen=True)
class Phase:
    """A stretch of the run in which the server behaves in one way; times are in seconds."""

    name: str
    about: str
    begin: float
    seconds: float


@dataclass(slots=True)
class Call:
    """One call of one client; times are in seconds since the run began."""

    client: str
    phase: str
    begin: float
    end: float = math.inf
    ok: bool = False
    sends: int = 0

    @property
    def done(self) -> bool:
        return self.end < math.inf


@dataclass(frozen=True, slots=True)
class State:
    """The breaker has this state from here on."""

    at: float
    state: str
    why: str


@dataclass(frozen=True)
class Figures:
    """The sums of some calls."""

    calls: int
    succeeded: int
    sends: int
    latencies: tuple[float, ...]

    @classmethod
    def of(cls, calls: list[Call]) -> "Figures":
        """Those of the calls that have ended."""
        done = [call for call in calls if call.done]
        return cls(
            calls=len(done),
            succeeded=sum(call.ok for call in done),
            sends=sum(call.sends for call in done),
            latencies=tuple(sorted(call.end - call.begin for call in done)),
        )

    @property
    def success_rate(self) -> float:
        """The share of calls that succeeded; 1.0 where there were none."""
        return self.succeeded / self.calls if self.calls else 1.0

    @property
    def attempts_per_call(self) -> float:
        return self.sends / self.calls if self.calls else 0.0

    def percentile(self, share: float) -> float:
        """Seconds within which so many calls had their result, good or bad (nearest rank)."""
        return self.latencies[math.ceil(share * len(self.latencies)) - 1] if self.latencies else 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "succeeded": self.succeeded,
            "success_rate": round(self.success_rate, 4),
            "sends": self.sends,
            "attempts_per_call": round(self.attempts_per_call, 3),
            **{f"p{percent}_ms": round(self.percentile(percent / 100) * 1000, 1) for percent in (50, 95, 99)},
        }


@dataclass(frozen=True)
class Promise:
    """A figure, and the range in which it is to be. `form` formats them for people."""

    what: str
    value: float
    at_least: float
    at_most: float
    form: str = "{:.1%}"

    @property
    def kept(self) -> bool:
        return self.at_least <= self.value <= self.at_most

    def __str__(self) -> str:
        value, low, high = (self.form.format(number) for number in (self.value, self.at_least, self.at_most))
        return f"{self.what}: {value} ({low} to {high})"

    def as_json(self) -> dict[str, Any]:
        value = round(self.value, 4) if self.value < math.inf else None
        return {"what": self.what, "value": value, "at_least": self.at_least, "at_most": self.at_most, "kept": self.kept}


@dataclass
class Result:
    """All that happened; it grows while the demo runs.

    Attributes:
        seed: what fixed the schedule of faults.
        open_for: for how many seconds the breaker opens.
        planned: seconds in which calls are made, in all phases together.
        phases: those that have begun.
        calls: in the order in which they began.
        states: of the breaker, with their times.
        log_lines: what the library logged.
        waterfall: the timeline of one call, drawn.

    """

    seed: int
    open_for: float
    planned: float
    phases: list[Phase] = field(default_factory=list[Phase])
    calls: list[Call] = field(default_factory=list[Call])
    states: list[State] = field(default_factory=lambda: [State(0.0, "closed", "")])
    log_lines: list[str] = field(default_factory=list[str])
    waterfall: str = ""

    def figures(self, client: str, phase: str) -> Figures:
        """What a client got in a phase; a call belongs to the phase in which it began."""
        return Figures.of([call for call in self.calls if call.client == client and call.phase == phase])

    @property
    def outage_sends(self) -> float:
        """What the resilient client sent during the outage, as a share of what the plain one sent."""
        plain, resilient = (self.figures(client, "outage").sends for client in CLIENTS)
        return resilient / plain if plain else 0.0

    @property
    def recovered_after(self) -> float:
        """Seconds from the end of the outage until the resilient client's calls succeed again, and go on to.

        The calls of the recovery that began later than that succeed in at least 97 of 100 cases.
        """
        recovery = self.phases[-1]
        calls = [call for call in self.calls if call.client == "resilient" and call.phase == recovery.name]
        failures = 0
        after = math.inf
        for later, call in enumerate(reversed(calls)):
            failures += not call.ok
            if failures <= (1 - RECOVERED) * (later + 1) and call.ok:
                after = call.begin - recovery.begin
        return after

    def promises(self) -> list[Promise]:
        """What the demo is to show, and what it did."""
        plain, resilient = (self.figures(client, "flaky") for client in CLIENTS)
        return [
            Promise("flaky: successes of the plain client", plain.success_rate, 0.75, 0.85),
            Promise("flaky: successes of the resilient one", resilient.success_rate, RECOVERED, 1.0),
            Promise("flaky: its attempts a call", resilient.attempts_per_call, 1.0, 1.5, "{:.2f}"),
            Promise("outage: its requests, as a share of those of the plain one", self.outage_sends, 0.0, 0.2),
            Promise("recovery: seconds until it is back", self.recovered_after, 0.0, self.open_for + 2.0, "{:.1f}"),
        ]

    def as_json(self) -> dict[str, Any]:
        """The machine-readable result; `version` changes when a field changes its meaning."""
        return {
            "version": 1,
            "seed": self.seed,
            "open_for": self.open_for,
            "phases": [
                {
                    "name": phase.name,
                    "begin": round(phase.begin, 3),
                    "seconds": round(phase.seconds, 3),
                    **{client: self.figures(client, phase.name).as_json() for client in CLIENTS},
                }
                for phase in self.phases
            ],
            "outage_sends": round(self.outage_sends, 4),
            "recovered_after": round(self.recovered_after, 3) if self.recovered_after < math.inf else None,
            "breaker": [{"at": round(state.at, 3), "state": state.state, "why": state.why} for state in self.states],
            "log_lines": len(self.log_lines),
            "promises": [promise.as_json() for promise in self.promises()],
        }
