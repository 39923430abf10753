"""CircuitBreaker: stop calling a service that is unwell, and find out when it is well again.

While it is closed, calls pass and their results are counted in a window. When too many of them failed or were slow it opens:
calls are refused at once. After a while it is half-open: a few calls pass as probes, and decide whether it closes or opens again,
for longer. This file holds the settings and what users see; the state machine is in `breaker_states`.
"""

import inspect
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final, Literal, Self

from resilient import clock
from resilient._arguments import Duration, fraction, integer, number, seconds
from resilient.chance import source as _random
from resilient.errors import CircuitOpen
from resilient.outcome import Classifier, On, failure_on
from resilient.strategies.breaker_states import BreakerMachine, BreakerState, Closed, HalfOpen, Order, Past, State
from resilient.strategies.outbox import announce
from resilient.strategies.windows import CountWindow, RingCounts, TimeCounts

__all__ = ("BreakerCounts", "BreakerSettings", "BreakerStatistics", "CircuitBreaker")

Initial = Literal["closed", "isolated", "disabled", "monitor_only"]

_DEFAULT_RATE: Final = 0.5
_DEFAULT_MAXIMUM: Final = 60.0
_ORDERS: Final[dict[Initial, Order]] = {"closed": "close", "isolated": "isolate", "disabled": "disable", "monitor_only": "close"}


@dataclass(frozen=True, slots=True)
class BreakerCounts:
    """What a `trip` predicate decides on. All but `consecutive_failures` are counts of the window.

    Attributes:
        calls: calls with a result. Those without one are not among them: cancelled, or refused by a strategy further in.
        failures: how many of them failed.
        slow: how many of them were slow.
        consecutive_failures: failures since the last success, however long ago.

    """

    calls: int
    failures: int
    slow: int
    consecutive_failures: int

    @property
    def successes(self) -> int:
        """How many of them did not fail."""
        return self.calls - self.failures

    @property
    def failure_rate(self) -> float:
        """The share of failures, 0.0 to 1.0; 0.0 where there were no calls."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def success_rate(self) -> float:
        """The share of successes, 0.0 to 1.0; 1.0 where there were no calls."""
        return 1.0 - self.failure_rate

    @property
    def slow_rate(self) -> float:
        """The share of slow calls, 0.0 to 1.0; 0.0 where there were no calls."""
        return self.slow / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class BreakerStatistics(BreakerCounts):
    """A snapshot of a breaker. While it is open, the counts are still those of the window that tripped it.

    Attributes:
        state: `closed`, `open`, `half_open`, `isolated`, `disabled` or `monitor_only`.
        would_be: the state that it would be in if it were not monitor-only; else the same.
        in_flight: calls that it let through and that have not ended, as far as the current state has to do with them.
        probes_out: how many of them are half-open probes that still count.
        open_remaining: seconds until it is half-open; infinity while it is isolated, 0.0 where it is not open.
        opened: how often it has opened.
        rejected: how many calls it has refused (monitor-only: would have refused) in all.
        total_calls: calls with a result in all, since it was made or `reset()`.
        total_failures: how many of them failed.
        total_timeouts: how many of these were timeouts: the callee raised a `TimeoutError`.
        last_failure: the reason code of the last failure, or None.
        last_failure_ago: seconds since then, or None.

    """

    state: BreakerState
    would_be: State
    in_flight: int
    probes_out: int
    open_remaining: float
    opened: int
    rejected: int
    total_calls: int
    total_failures: int
    total_timeouts: int
    last_failure: str | None
    last_failure_ago: float | None

    @property
    def total_successes(self) -> int:
        """How many of all calls did not fail."""
        return self.total_calls - self.total_failures

    @property
    def is_healthy(self) -> bool:
        """Whether calls pass as ever: not open, half-open or isolated."""
        return self.would_be in {"closed", "disabled"}


class _Trip:
    """A predicate of the user's. One that raises says no; that is reported once."""

    __slots__ = ("_predicate", "_reported")

    def __init__(self, predicate: Callable[[BreakerCounts], bool]) -> None:
        if not callable(predicate) or inspect.iscoroutinefunction(predicate):
            msg = f"trip={predicate!r}: expected a plain function of BreakerCounts, e.g. trip=lambda counts: counts.failures > 9"
            raise TypeError(msg)
        self._predicate = predicate
        self._reported = False

    def __call__(self, window: TimeCounts | RingCounts, consecutive_failures: int) -> bool:
        counts = BreakerCounts(int(window.calls), int(window.failures), int(window.slow), consecutive_failures)
        try:
            return bool(self._predicate(counts))
        except Exception:
            if not self._reported:
                self._reported = True
                logging.getLogger("resilient").exception(
                    "trip=%r raised and counts as False; this is reported once", self._predicate
                )
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """The settings of a breaker, shared by its siblings. What is switched off is infinite."""

    name: str
    failure_rate: float
    window: float | CountWindow
    minimum_calls: int
    consecutive_failures: float
    trip: _Trip | None
    slow_call: float
    slow_rate: float
    open_for: float
    open_for_factor: float
    open_for_max: float
    half_open_calls: int
    half_open_successes: int
    probe_lease: float
    initial: Initial
    classifier: Classifier | None
    random: Random


@lru_cache(maxsize=256)
def _shared(settings: BreakerSettings) -> BreakerSettings:
    """The same object for all that are equal: a program may have many breakers, and has few kinds of them."""
    return settings


class CircuitBreaker(BreakerMachine):
    """Stop calling a service that is unwell.

    A call is a failure where its verdict says `UNHEALTHY`: by default any `Exception` is, but rejections of strategies further in
    and cancellation, which tell nothing. It trips where a failure or a slow call makes one of the conditions true: a rate over
    a window, so many failures in a row, or a predicate of your own. `consecutive_failures` and `trip` take the place of
    `failure_rate`, unless that is given too; then each of them may trip it.

    Args:
        name: what it is called in events, logs and errors (default `"circuit_breaker"`).
        failure_rate: the share of failed calls that trips it, in (0, 1] (default 0.5).
        window: what the rates look back over: seconds in ten buckets, above 0 (default 10), or `CountWindow(100)`.
        minimum_calls: calls in the window below which no rate trips it, at least 1 (default 20).
        consecutive_failures: so many failures in a row trip it, at least 1 (default: off).
        trip: a predicate on `BreakerCounts`, asked after each failed or slow call (default: none). It must be quick and must
            not await; one that raises says no, and is reported once.
        slow_call: seconds from which on a call is slow, above 0 (default: none is). It counts even if the call was cut off.
        slow_rate: the share of slow calls that trips it, in (0, 1] (default 0.5 where `slow_call` is given).
        open_for: seconds that it stays open, above 0 (default 5). Up to a fifth is taken off at random.
        open_for_factor: how much longer each time, at least 1 (default 2), until it was closed for as long as it would be open.
        open_for_max: the longest time, at least `open_for` (default 60, or `open_for` if that is longer). A server that asks
            for a longer wait than `open_for` (`retry_after` of the failure that trips it) is given it, up to this time.
        half_open_calls: how many probes may be out at a time, at least 1 (default 1).
        half_open_successes: how many must succeed until it closes, at least 1 (default: as `half_open_calls`). One failed or
            slow probe opens it again.
        probe_lease: seconds after which a probe that has not ended loses its place, above 0 (default 120). Its result does not
            count then, so this must be longer than the slowest good call.
        on: which exceptions are failures: a type, a tuple of types, or a predicate. All others then count as answers.
        never: which exceptions count as answers even if `on` (default: any `Exception`) matches.
        classify: a classifier of outcomes, in place of `on` and `never`; needed to judge values.
        initial: the state of a new one: `"closed"` (default), `"isolated"`, `"disabled"` or `"monitor_only"`.
        random: the source of jitter, for tests.

    Raises:
        TypeError, ValueError: an argument is of the wrong type or out of range, at construction.
        CircuitOpen: from a call, where it refuses. It carries `state`, `retry_after` and `rejections`.

    Cancellation is neutral: it frees the permit and always propagates. Nothing runs in the background.

    """

    __slots__ = ()

    refusal = CircuitOpen

    def __init__(
        self,
        *,
        name: str = "circuit_breaker",
        failure_rate: float | None = None,
        window: Duration | CountWindow = 10.0,
        minimum_calls: int = 20,
        consecutive_failures: int | None = None,
        trip: Callable[[BreakerCounts], bool] | None = None,
        slow_call: Duration | None = None,
        slow_rate: float | None = None,
        open_for: Duration = 5.0,
        open_for_factor: float = 2.0,
        open_for_max: Duration | None = None,
        half_open_calls: int = 1,
        half_open_successes: int | None = None,
        probe_lease: Duration = 120.0,
        on: On | None = None,
        never: On | None = None,
        classify: Classifier | None = None,
        initial: Initial = "closed",
        random: Random | None = None,
    ) -> None:
        if failure_rate is None and consecutive_failures is None and trip is None:
            failure_rate = _DEFAULT_RATE
        shortest = seconds("open_for", open_for, above=0.0)
        longest = max(_DEFAULT_MAXIMUM, shortest) if open_for_max is None else open_for_max
        settings = BreakerSettings(
            name=name,
            failure_rate=math.inf if failure_rate is None else fraction("failure_rate", failure_rate),
            window=_window(window, minimum_calls),
            minimum_calls=integer("minimum_calls", minimum_calls),
            consecutive_failures=(
                math.inf if consecutive_failures is None else integer("consecutive_failures", consecutive_failures)
            ),
            trip=None if trip is None else _Trip(trip),
            slow_call=math.inf if slow_call is None else seconds("slow_call", slow_call, above=0.0),
            slow_rate=_slow_rate(slow_call, slow_rate),
            open_for=shortest,
            open_for_factor=number("open_for_factor", open_for_factor, at_least=1.0),
            open_for_max=seconds("open_for_max", longest, at_least=shortest),
            half_open_calls=integer("half_open_calls", half_open_calls),
            half_open_successes=integer(
                "half_open_successes", half_open_calls if half_open_successes is None else half_open_successes
            ),
            probe_lease=seconds("probe_lease", probe_lease, above=0.0),
            initial=_initial(initial),
            classifier=_classifier(on, never, classify),
            random=random or _random,
        )
        super().__init__(settings if settings.trip or settings.classifier else _shared(settings))

    def sibling(self) -> Self:
        """A new breaker with the same settings."""
        other = type(self).__new__(type(self))
        BreakerMachine.__init__(other, self.settings)
        return other

    def retune(self, template: Self) -> bool:
        """Take over the settings of `template`. The state stays: one that is open stays open, for as long as it was to be.

        What was counted stays, unless the window is another one; that it opens for longer each time stays, unless `open_for` or
        its like is another one. False where `initial` is another one: the wish to have it isolated, say.
        """
        old, new = self.settings, template.settings
        if new.initial != old.initial:
            return False
        self.name = template.name
        self.settings, self.classifier = new, new.classifier
        if new.window != old.window:
            self.count_anew()
        if self.past is not None and _opening(new) != _opening(old):
            self.past.next_open = new.open_for
        return True

    @property
    def state(self) -> BreakerState:
        """The state now: `closed`, `open`, `half_open`, `isolated`, `disabled` or `monitor_only`. Asking changes nothing."""
        return self.state_at(clock.now())

    def isolate(self) -> None:
        """Refuse all calls, until `close()`, `reset()`, or one of the others below."""
        self._obey("isolate")

    def close(self) -> None:
        """Let calls pass, with an empty window. Calls that are in flight do not count any more."""
        self._obey("close")

    def disable(self) -> None:
        """Let all calls pass and count nothing."""
        self._obey("disable")

    def monitor(self) -> None:
        """Let all calls pass, count them, and tell in events what would have been done."""
        self._obey("close", monitoring=True)

    def reset(self) -> None:
        """Be as new: the initial state, nothing counted, nothing remembered."""
        initial = self.settings.initial
        self.obey(_ORDERS[initial], clock.now(), monitoring=initial == "monitor_only")
        self.window = self.past = None
        announce(self)

    def _obey(self, order: Order, *, monitoring: bool = False) -> None:
        self.obey(order, clock.now(), monitoring=monitoring)
        announce(self)

    def statistics(self) -> BreakerStatistics:
        """A snapshot."""
        now = clock.now()
        state, window = self.current, self.window or TimeCounts(1.0)
        past = self.past or Past(math.inf)
        window.expire(now)
        probes = [probe for probe in state.probes if probe.expires > now] if isinstance(state, HalfOpen) else []
        return BreakerStatistics(
            calls=int(window.calls),
            failures=int(window.failures),
            slow=int(window.slow),
            consecutive_failures=state.consecutive if isinstance(state, Closed) else 0,
            state=self.state_at(now),
            would_be=self.would_be(now),
            in_flight=state.out if isinstance(state, Closed) else len(probes),
            probes_out=len(probes),
            open_remaining=state.ready_in(now),
            opened=past.opened,
            rejected=past.rejected,
            total_calls=int(past.calls + window.calls + window.forgotten),
            total_failures=past.failures,
            total_timeouts=past.timeouts,
            last_failure=past.last_failure,
            last_failure_ago=None if past.last_failure is None else now - past.last_failure_at,
        )

    def __repr__(self) -> str:
        seen = self.statistics()
        details = {
            "closed": f"{seen.failures} of {seen.calls} calls failed",
            "open": f"for {seen.open_remaining:.3g} s more",
            "half_open": f"{seen.probes_out} probes out",
        }
        told = [seen.state, *([seen.would_be] if seen.would_be != seen.state else []), details.get(seen.would_be, "")]
        return f"<CircuitBreaker {self.name!r}: {', '.join(filter(None, told))}>"


def _opening(settings: BreakerSettings) -> tuple[float, float, float]:
    return settings.open_for, settings.open_for_factor, settings.open_for_max


def _window(window: Duration | CountWindow, minimum_calls: int) -> float | CountWindow:
    if not isinstance(window, CountWindow):
        return seconds("window", window, above=0.0)
    if minimum_calls > window.size:
        msg = (
            f"minimum_calls={minimum_calls!r} can never be reached in window={window!r}: "
            f"expected at most {window.size}, e.g. minimum_calls={window.size}"
        )
        raise ValueError(msg)
    return window


def _slow_rate(slow_call: Duration | None, slow_rate: float | None) -> float:
    if slow_call is None:
        if slow_rate is not None:
            msg = f"slow_rate={slow_rate!r} needs slow_call=: say from how many seconds on a call is slow, e.g. slow_call=2.0"
            raise TypeError(msg)
        return math.inf
    return _DEFAULT_RATE if slow_rate is None else fraction("slow_rate", slow_rate)


def _classifier(on: On | None, never: On | None, classify: Classifier | None) -> Classifier | None:
    if on is None and never is None:
        if classify is None or isinstance(classify, Classifier):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass functions
            return classify
        msg = f"classify={classify!r}: expected a Classifier, e.g. classify=Classifier(errors=my_function)"
        raise TypeError(msg)
    if classify is not None:
        msg = "classify= says what a failure is, and so do on= and never=: give one or the other"
        raise TypeError(msg)
    return failure_on(Exception if on is None else on, never)


def _initial(initial: Initial) -> Initial:
    if initial not in _ORDERS:
        msg = f"initial={initial!r}: expected one of {', '.join(map(repr, _ORDERS))}"
        raise ValueError(msg)
    return initial
