"""Chaos: faults, latency and false outcomes at a rate, to see whether the rest holds.

It stands innermost, around the callee, so that everything outside takes what it injects for the callee's own doing. Each kind
draws for itself on each call, always in the same order: with a seeded `Random` a run can be repeated. It is off unless it is
enabled; then the call is handed on without a frame of its own.

All mutable state: the switch `enabled`, and the counts of what was injected.
"""

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal

import anyio

from resilient import clock
from resilient._arguments import Duration, number
from resilient._arguments import seconds as check_seconds
from resilient.chance import source as _random
from resilient.context import Attempt
from resilient.observe.events import ChaosInjected
from resilient.observe.text import name_of
from resilient.strategies.base import Step, Strategy

__all__ = ("Chaos", "ChaosStatistics", "Fault")

Fault = type[Exception] | Callable[[Random], Exception]
"""A type of exception that needs no arguments, or a function that makes one."""

_ABSENT: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class ChaosStatistics:
    """A snapshot of what was injected.

    Attributes:
        enabled: whether it is on now.
        calls: calls that it could have hit: those made while it was on.
        faults: exceptions raised in place of a call.
        latencies: calls that were made to wait.
        outcomes: values returned in place of a call.

    """

    enabled: bool
    calls: int
    faults: int
    latencies: int
    outcomes: int

    @property
    def injected(self) -> int:
        """Everything that was injected."""
        return self.faults + self.latencies + self.outcomes


class Chaos(Strategy):
    """Inject faults, latency and outcomes, each at a rate of its own.

    A call that is hit waits first; then a fault takes the place of the call, or else an outcome does; or else the call is made.
    The wait plays a slow callee: a `Timeout` outside cuts it off, and no deadline shortens it beforehand.

    Args:
        fault: what to raise: a type of exception that needs no arguments, or a function of the `Random` that makes an exception.
        fault_rate: the share of calls that it hits, 0 to 1; required with `fault`.
        latency: seconds to wait before the call, at least 0 (float or `timedelta`), or a function of the `Random` giving them.
        latency_rate: the share of calls that it hits, 0 to 1; required with `latency`.
        outcome: what to return in place of the call: a value, or a function of the `Random` that makes one.
        outcome_rate: the share of calls that it hits, 0 to 1; required with `outcome`.
        enabled: whether it is on (default False), or a function without arguments that is asked at each call, e.g.
            `lambda: os.environ.get("CHAOS") == "1"`. One that raises says no, and is reported once. The attribute of the same
            name may be set while the program runs.
        name: what it is called in events and logs.
        random: the source of chance; give a seeded one, `Random(42)`, to repeat a run.

    Raises:
        TypeError, ValueError: nothing to inject, a rate without its kind or the other way round, or an argument out of range,
            at construction; from the call, where a function of yours gives no exception or no seconds.

    """

    __slots__ = (
        "_calls",
        "_faults",
        "_latencies",
        "_outcomes",
        "_reported",
        "enabled",
        "fault",
        "fault_rate",
        "latency",
        "latency_rate",
        "name",
        "outcome",
        "outcome_rate",
        "random",
    )

    def __init__(
        self,
        *,
        fault: Fault | None = None,
        fault_rate: float | None = None,
        latency: Duration | Callable[[Random], float] | None = None,
        latency_rate: float | None = None,
        outcome: Any = _ABSENT,
        outcome_rate: float | None = None,
        enabled: bool | Callable[[], bool] = False,
        name: str = "chaos",
        random: Random | None = None,
    ) -> None:
        if fault is None and latency is None and outcome is _ABSENT:
            msg = "nothing to inject: give a fault, a latency or an outcome, e.g. Chaos(fault=ConnectionError, fault_rate=0.05)"
            raise TypeError(msg)
        self.fault_rate = _rate("fault", fault_rate, given=fault is not None)
        self.latency_rate = _rate("latency", latency_rate, given=latency is not None)
        self.outcome_rate = _rate("outcome", outcome_rate, given=outcome is not _ABSENT)
        self.fault = None if fault is None else _fault(fault)
        self.latency = latency if latency is None or callable(latency) else check_seconds("latency", latency)
        self.outcome = outcome
        if not isinstance(enabled, bool) and not callable(enabled):
            msg = f"enabled={enabled!r}: expected True, False, or a function without arguments that says so"
            raise TypeError(msg)
        self.enabled = enabled
        self.name = name
        self.random = random or _random
        self._reported = False
        self._calls = self._faults = self._latencies = self._outcomes = 0

    def is_on(self) -> bool:
        """Whether it is enabled now."""
        if not callable(self.enabled):
            return self.enabled
        try:
            return bool(self.enabled())
        except Exception:
            if not self._reported:
                self._reported = True
                logging.getLogger("resilient").exception("enabled=%r raised: no chaos; this is reported once", self.enabled)
            return False

    def run(self, call: Step, attempt: Attempt) -> Coroutine[Any, Any, Any]:
        return self._disturb(call, attempt) if self.is_on() else call(attempt)

    async def _disturb(self, call: Step, attempt: Attempt) -> Any:
        self._calls += 1
        slow, faulty, false = self._draw(self.latency_rate), self._draw(self.fault_rate), self._draw(self.outcome_rate)
        if slow:
            latency = self.latency(self.random) if callable(self.latency) else self.latency
            wait = check_seconds("latency", latency)  # type: ignore[arg-type]  # without one the rate is None
            self._latencies += 1
            self._tell(attempt, "latency", seconds=wait)
            await anyio.sleep(wait)
        if faulty:
            error = self._make_fault()
            self._faults += 1
            self._tell(attempt, "fault", error=name_of(error))
            raise error
        if false:
            value = self.outcome(self.random) if callable(self.outcome) else self.outcome
            self._outcomes += 1
            self._tell(attempt, "outcome")
            return value
        return await call(attempt)

    def _draw(self, rate: float | None) -> bool:
        return rate is not None and self.random.random() < rate

    def _make_fault(self) -> Exception:
        fault: Any = self.fault
        error: object = fault() if isinstance(fault, type) else fault(self.random)
        if not isinstance(error, Exception):
            msg = f"fault={fault!r} gave {error!r}: expected an exception, e.g. fault=lambda _: ConnectionError('chaos')"
            raise TypeError(msg)
        return error

    def _tell(
        self, attempt: Attempt, kind: Literal["fault", "latency", "outcome"], *, seconds: float = 0.0, error: str = ""
    ) -> None:
        event = ChaosInjected(
            at=clock.now(),
            key=attempt.key,
            call_id=attempt.identify(),
            strategy=self.name,
            kind=kind,
            seconds=seconds,
            error=error,
            nth=self._faults + self._latencies + self._outcomes,
        )
        attempt.notify(event)

    def statistics(self) -> ChaosStatistics:
        """A snapshot."""
        return ChaosStatistics(self.is_on(), self._calls, self._faults, self._latencies, self._outcomes)

    def __repr__(self) -> str:
        seen = self.statistics()
        return f"<Chaos {self.name!r}: {'on' if seen.enabled else 'off'}, {seen.injected} injected in {seen.calls} calls>"


def _rate(kind: str, rate: float | None, *, given: bool) -> float | None:
    """The rate of a kind; None where that kind is not injected."""
    if given != (rate is not None):
        lacking, there = (f"{kind}_rate", kind) if given else (kind, f"{kind}_rate")
        msg = f"{there}= needs {lacking}=: say both what to inject and how often, e.g. {kind}_rate=0.05"
        raise TypeError(msg)
    return None if rate is None else number(f"{kind}_rate", rate, at_least=0.0, at_most=1.0)


def _fault(fault: Fault) -> Fault:
    given: object = fault
    is_error = isinstance(given, type) and issubclass(given, Exception)
    if not is_error and (isinstance(given, (type, BaseException)) or not callable(given)):
        msg = (
            f"fault={fault!r}: expected a type of exception, or a function that makes one, for each call its own: "
            "fault=lambda _: ConnectionError('chaos')"
        )
        raise TypeError(msg)
    return fault
