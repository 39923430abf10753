"""One hedged call: its legs, who of them wins, and when the next one is started.

The first leg runs in the caller's own task: what it does to the context is seen there, and a call that is answered in time costs
no task. Hedges are tasks of a group around it. Each leg, when it ends, decides synchronously what that means for the race
(`_ended`): it is an answer and wins, it has failed and the next one follows at once, or it came too late. Whoever decides the
race cancels the group; each leg that lost disposes of its own value. Until the next hedge is due there is a timer, which on
asyncio is a bare one, a tenth of the price of a task that sleeps.

All mutable state: how many legs live, how many hedges there were, when the next one is due, the best failure so far, and, once
it is `over`, what surfaces.
"""

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any, Final, NoReturn

import anyio
import anyio.abc
import anyio.lowlevel

from resilient import clock
from resilient.context import Attempt, call_time_left
from resilient.observe.events import HedgeFinished, HedgeResult, HedgeStarted
from resilient.outcome import Health, Kind, Verdict
from resilient.strategies.lingering import dispose_of
from resilient.strategies.streams import Stream

if TYPE_CHECKING:
    from resilient.strategies.base import Inside, Step
    from resilient.strategies.budget import Budget, Spending
    from resilient.strategies.hedge import Hedge, HedgeState

__all__ = ("Race", "is_answer", "obstacle_inside")

_PATIENCE: Final = 5.0
"""Seconds that disposing of a value may take that nobody will use."""


def is_answer(verdict: Verdict) -> bool:
    """Whether the callee answered: with a success, or with an error that says that it is well."""
    return verdict.kind is Kind.SUCCESS or (verdict.kind is Kind.PERMANENT and verdict.health is Health.HEALTHY)


def obstacle_inside(inside: "Inside", attempt: Attempt, now: float) -> str:
    """Why no hedge should be sent through the gates inside: the reason of the one that is not calm; "" where all are."""
    for template in inside:
        gate = attempt.sibling(template)
        if not gate.is_calm(now):
            return gate.refusal.reason
    return ""


class _Leg:
    """One of the attempts that race."""

    __slots__ = ("attempt", "error", "spending", "started", "value", "verdict")

    def __init__(self, attempt: Attempt, started: float) -> None:
        self.attempt = attempt
        self.started = started
        self.spending: Spending | None = None  # what paid for it
        self.value: Any = None
        self.error: BaseException | None = None
        self.verdict: Verdict | None = None  # once it has ended

    def says_more_than(self, other: "_Leg | None") -> bool:
        """Whether its failure is the one to surface, if no answer comes."""
        return other is None or _weight(self.verdict) > _weight(other.verdict)

    def settle(self, *, sent: bool) -> None:
        """What paid for it hears that it has ended, or gets back what was paid for nothing."""
        spending, self.spending = self.spending, None
        if spending is not None:
            (spending.release if sent else spending.refund)(clock.now())


def _weight(verdict: Verdict | None) -> int:
    return 0 if verdict is None or verdict.rejected else 1 if verdict.kind is Kind.RETRYABLE else 2


class Race:
    """The state of one hedged call."""

    __slots__ = (
        "_attempt",
        "_best",
        "_budget",
        "_call",
        "_delay",
        "_due",
        "_group",
        "_hedge",
        "_hedges",
        "_inside",
        "_learns",
        "_limit",
        "_live",
        "_loop",
        "_original",
        "_sleeper",
        "_state",
        "_timer",
        "over",
    )

    def __init__(
        self,
        hedge: "Hedge",
        call: "Step",
        inside: "Inside",
        attempt: Attempt,
        state: "HedgeState",
        budget: "Budget | None",
        delay: float,
        *,
        learns: bool,
    ) -> None:
        self._hedge = hedge
        self._call = call
        self._inside = inside
        self._attempt = attempt
        self._state = state
        self._budget = budget
        self._delay = delay
        self._learns = learns
        self._hedges = 0  # that were due, started or not
        self._live = 1
        self._timer: asyncio.TimerHandle | None = None
        self._sleeper = False  # there was need of a task that sleeps until the next hedge is due
        self._best: _Leg | None = None  # what surfaces: the failure that says most, or in the end the one that won
        self._due: float
        self._limit: float
        self._loop: asyncio.AbstractEventLoop | None
        self._original: _Leg
        self._group: anyio.abc.TaskGroup
        self.over = False

    async def run(self, now: float) -> Any:
        """Run the legs; the first answer, or the failure that says most."""
        self._original = original = _Leg(self._attempt, now)
        self._limit = now + call_time_left(self._attempt.deadline)  # anyio's deadlines end the legs, and with them the race
        self._loop = _running_loop()
        try:
            async with anyio.create_task_group() as self._group:
                self._wait_for_next(now)
                try:
                    await self._run_leg(original)
                except BaseException:
                    self.over = True
                    self._stop_waiting()  # a hedge that started while the group closes would be awaited by nobody
                    raise
        except BaseException:
            await self._dispose_of(self._best)
            raise
        finally:
            self._stop_waiting()
        best, self._best = self._best, None
        if best is None:  # pragma: no cover  the original leg has ended, or else the group has raised
            raise AssertionError
        self._attempt.adopt_verdict(best.attempt)
        if best.error is not None:
            _raise(best)
        return best.value

    async def _run_leg(self, leg: _Leg) -> None:
        if self.over:  # decided between the start of this task and its first step
            leg.settle(sent=False)
            self._lost(leg)
            return
        try:
            leg.value = await self._call(leg.attempt)
            if isinstance(leg.value, Stream):
                await leg.value.check_movable()
        except anyio.get_cancelled_exc_class():
            leg.settle(sent=True)
            self._cut_short(leg)
            if self.over or leg.attempt.hedge:
                await anyio.lowlevel.checkpoint()  # a library may have put its own in the place of anyio's: as in `Timeout`
            if leg.attempt.hedge:
                self._left()
                return  # nobody cancelled it: the callee raised that by itself, and the others go on
            raise
        except BaseException as error:  # noqa: BLE001  it surfaces outside of the group, as it is
            leg.error = error
        await self._dispose_of(self._ended(leg))

    # Decisions. Nothing here awaits.

    def _ended(self, leg: _Leg) -> _Leg | None:
        """A leg has an outcome. Returns the one whose value nobody will use."""
        now = clock.now()
        outcome = leg.value if leg.error is None else leg.error
        leg.verdict = verdict = leg.attempt.verdict(outcome, error=leg.error is not None, classifier=self._hedge.classifier)
        leg.settle(sent=not verdict.rejected)
        if self.over:
            self._lost(leg)
            return leg
        if is_answer(verdict):
            self._won(leg, verdict.reason, now)
            return self._surface(leg)
        self._learn(leg, now)
        if verdict.kind is Kind.ABORT:
            self._tell(leg, "failed", verdict.reason)
            return self._surface(leg)
        if leg.attempt.hedge and verdict.rejected:
            self._tell(leg, "suppressed", verdict.reason)
            self._left()
            return leg
        self._tell(leg, "failed", verdict.reason)
        loser: _Leg | None = leg
        if leg.says_more_than(self._best):
            loser, self._best = self._best, leg
        if not _may_follow(verdict):
            self._stop_waiting()
            self._hedges = self._hedge.max_hedges
        elif self._hedges < self._hedge.max_hedges:
            self._next_hedge(verdict.reason, now)
        self._left()
        return loser

    def _won(self, leg: _Leg, why: str, now: float) -> None:
        if leg is self._original:
            if self._learns:
                self._state.latency.record(now - leg.started, now)
        else:
            self._state.wins += 1
            if self._original.verdict is None:
                self._learn(self._original, now)
        self._tell(leg, "won", why)

    def _surface(self, leg: _Leg) -> _Leg | None:
        """It is decided: what this leg ended with surfaces. Returns the one that would have."""
        loser, self._best = self._best, leg
        self._live -= 1
        self._finish()
        return loser

    def _left(self) -> None:
        """A leg is gone, and the race goes on without it, if there is another one."""
        self._live -= 1
        if not self._live:
            self._finish()

    def _finish(self) -> None:
        self.over = True
        self._stop_waiting()
        if self._live or self._sleeper:
            self._group.cancel_scope.cancel()

    def _learn(self, leg: _Leg, now: float) -> None:
        """The original leg will give no answer: it ran for at least so long."""
        if self._learns and leg is self._original:
            self._state.latency.record_at_least(now - leg.started, now, self._delay)

    def _cut_short(self, leg: _Leg) -> None:
        """A leg was cancelled: because another one won, or with the whole call."""
        if self.over:
            self._lost(leg)
            return
        self._learn(leg, clock.now())
        self._tell(leg, "lost", "cancelled")

    def _lost(self, leg: _Leg) -> None:
        best = self._best
        if best is None or best.verdict is None or not is_answer(best.verdict):
            self._tell(leg, "lost", "cancelled")
        else:
            self._tell(leg, "lost", "hedge_won" if best.attempt.hedge else "original_won")

    # Hedges.

    def _next_hedge(self, why: str, now: float) -> None:
        """A hedge is due: start it, unless something speaks against it. The one after it waits for the delay again."""
        self._hedges += 1
        attempt = self._attempt.again("hedge")
        attempt.number, attempt.hedge = self._attempt.number, self._hedges
        leg = _Leg(attempt, now)
        obstacle = "deadline" if now >= self._limit else obstacle_inside(self._inside, attempt, now)
        if obstacle:
            self._tell(leg, "suppressed", obstacle)
        elif not self._pay(leg, now):
            self._tell(leg, "denied", "budget_exhausted")
        else:
            self._state.hedges += 1
            self._live += 1
            attempt.notify(HedgeStarted(**self._about(leg), why=why, after=now - self._original.started, delay=self._delay))
            self._group.start_soon(self._run_leg, leg, name=f"resilient hedge {self._hedges}")
        self._wait_for_next(now)

    def _pay(self, leg: _Leg, now: float) -> bool:
        if self._budget is None:
            return True
        leg.spending = self._budget.spend(now, attempt=leg.attempt, kind="hedge")
        return leg.spending is not None

    # The time until the next one is due.

    def _wait_for_next(self, now: float) -> None:
        self._stop_waiting()
        if self.over or self._hedges >= self._hedge.max_hedges or now + self._delay >= self._limit:
            return
        self._due = now + self._delay
        if self._loop is not None:
            self._timer = self._loop.call_later(self._delay, self._on_timer, self._loop)
        elif not self._sleeper:
            self._sleeper = True
            self._group.start_soon(self._sleep)

    def _stop_waiting(self) -> None:
        self._due = math.inf
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """The callback of a timer is in no task, and there anyio knows of no event loop: the hedge is started by one."""
        loop.create_task(self._start_due(self._timer))

    async def _start_due(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is timer:  # and nothing has happened since
            self._next_hedge("delay", clock.now())

    async def _sleep(self) -> None:
        """What trio has in place of a timer."""
        while self._due < math.inf:
            await anyio.sleep(max(0.0, self._due - clock.now()))
            if clock.now() >= self._due:
                self._next_hedge("delay", clock.now())

    # What is told, and what is thrown away.

    def _tell(self, leg: _Leg, result: HedgeResult, why: str) -> None:
        if leg.attempt.hedge:
            self._attempt.notify(HedgeFinished(**self._about(leg), started=leg.started, result=result, why=why))

    def _about(self, leg: _Leg) -> dict[str, Any]:
        attempt = leg.attempt
        return {
            "at": clock.now(),
            "key": attempt.key,
            "call_id": self._attempt.identify(),
            "number": attempt.number,
            "hedge": attempt.hedge,
        }

    async def _dispose_of(self, leg: _Leg | None) -> None:
        """Throw the value of a leg away. What goes wrong then must not hide how the call ended."""
        if leg is None or leg.error is not None or leg.verdict is None:
            return
        try:
            with anyio.move_on_after(_PATIENCE, shield=True):
                await dispose_of(leg.value, self._hedge.dispose)
        except Exception:
            logging.getLogger("resilient").warning("a value that lost was disposed of, which raised", exc_info=True)


def _may_follow(verdict: Verdict) -> bool:
    """Whether a failure is a reason to start the next leg at once: not where the callee asks for patience."""
    patience = verdict.throttled or verdict.retry_after is not None
    return verdict.kind is Kind.RETRYABLE and not verdict.rejected and not patience


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop of asyncio that runs this task; None on trio."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return None if task is None else task.get_loop()


def _raise(leg: _Leg) -> NoReturn:
    error, leg.error = leg.error, None
    try:
        raise error  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]  the caller has checked that there is one
    finally:
        del error  # the traceback refers to this frame: no cycle
