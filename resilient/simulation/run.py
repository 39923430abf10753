"""The driver: a scenario comes to life on virtual time, and a policy has to live with it.

The strategies are the real ones, in the real pipeline that the policy builds; their clock is virtual time, and their source of
chance is seeded. Arrivals, work and jitter draw from generators of their own, so that two policies are compared under
the same arrivals. While a run goes on nobody else may use the strategies in this process: clock and chance are the process's.

All mutable state: the record, and the set of calls that are pending.
"""

import asyncio
import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextvars import Context
from functools import partial
from itertools import cycle
from random import Random
from typing import Any, Final, Protocol

from resilient import chance, clock
from resilient.errors import Rejected
from resilient.observe import listeners
from resilient.observe.events import BreakerStateChanged, Event
from resilient.policy.schema import Policy
from resilient.simulation.loop import run_simulated
from resilient.simulation.measures import Run, measure
from resilient.simulation.model import Clients, Condition, Scenario
from resilient.simulation.record import Call, Record
from resilient.simulation.service import ANSWER, SIMULATED, Endless, Server
from resilient.strategies.base import Strategy
from resilient.strategies.circuit_breaker import CircuitBreaker

__all__ = ("Caller", "Subject", "simulate")

Caller = Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]
"""Calls a function without arguments in a resilient way: `await caller(fn)`."""

Subject = Policy | Callable[[], Caller] | None
"""What is tried: a policy, a function that makes a caller (another library's, say), or None for no protection at all."""

_DRAIN: Final = 30.0  # seconds at most in which the calls that were begun may end
_TOGETHER_AT: Final = 1.0


class Progress(Protocol):
    """Hears how far a run has come."""

    def __call__(self, share: float, /) -> object: ...


def simulate(subject: Subject, scenario: Scenario, *, seed: int = 1, name: str = "", progress: Progress | None = None) -> Run:
    """What would this policy do in that outage?

    Args:
        subject: the policy; None for no protection. Its classifier is replaced: simulated failures speak for themselves. So it is
            with a function that makes a caller, one for each process of the clients.
        scenario: the outage.
        seed: the same one gives the same run (default 1).
        name: what the policy is called in reports (default: its `id`).
        progress: is told how far it has come, from 0 to 1, after each step.

    Returns:
        What was measured.

    Raises:
        TypeError: the subject is none of these, or its caller is not async.
        ValueError: the policy names a budget or a trigger that is not built in, or sends requests without end at one moment.

    """
    label = name or (subject.id if isinstance(subject, Policy) else "")
    record = Record(scenario.step, scenario.seconds + _DRAIN, [service.name for service in scenario.services])
    with _quiet(record), _seeded(seed):
        driver = _Driver(subject, scenario, seed, record, progress or _nobody)
        try:
            run_simulated(driver.run)
        except Endless as error:
            raise ValueError(str(error)) from error
        finally:
            driver.close()
    return measure(scenario, label, seed, record)


class _Driver:
    """One run."""

    def __init__(self, subject: Subject, scenario: Scenario, seed: int, record: Record, progress: Progress) -> None:
        self._subject = subject
        self._scenario = scenario
        self._seed = seed
        self._record = record
        self._progress = progress
        self._pending: set[asyncio.Task[None]] = set()
        self._watched: list[Strategy] = []
        self._servers: dict[str, Server] = {}

    async def run(self) -> None:
        """Make all calls, and wait until they have ended."""
        scenario = self._scenario
        self._build()
        self._sample(0)
        for group in scenario.clients:
            self._start(group)
        await asyncio.sleep(scenario.seconds)
        if self._pending:
            await asyncio.wait(self._pending, timeout=_DRAIN)
        self._record.over = clock.now()
        for task in self._pending:
            task.cancel()
        if self._pending:
            await asyncio.wait(self._pending)
        for server in self._servers.values():
            server.close()

    def close(self) -> None:
        """Calls that were to begin when the run was stopped are not missed."""
        for task in self._pending:
            call = task.get_coro()
            if inspect.iscoroutine(call) and inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
                call.close()

    def _build(self) -> None:
        scenario, loop = self._scenario, asyncio.get_running_loop()
        for service in reversed(scenario.services):
            tally = self._record.tallies[service.name]
            self._servers[service.name] = server = Server(
                service, self._conditions(service.name), self._random(service.name), tally, loop
            )
            if service.calls:
                (caller,) = self._callers(service.policy, 1)
                server.below = partial(caller, partial(self._servers[service.calls].request, service.patience))
        self._record.breakers = sum(isinstance(strategy, CircuitBreaker) for strategy in self._watched)

    def _conditions(self, name: str) -> tuple[Condition, ...]:
        return tuple(one for one in self._scenario.conditions if one.on == name)

    def _random(self, purpose: str) -> Random:
        return Random(f"{self._seed}/{purpose}")  # noqa: S311  a simulation

    def _callers(self, policy: str, count: int) -> list[Caller]:
        subject = self._scenario.policies[policy] if policy else self._subject
        callers: list[Caller] = []
        for _ in range(count):
            if subject is None:
                callers.append(_call)
            elif isinstance(subject, Policy):
                pipeline = subject.pipeline(classify=SIMULATED)
                self._watched.extend(pipeline.strategies)
                callers.append(pipeline.call)
            else:
                callers.append(_made_by(subject))
        return callers

    def _start(self, group: Clients) -> None:
        """Let a group of clients make its calls."""
        server = self._servers[group.calls or self._scenario.services[0].name]
        request = partial(server.request, group.patience)
        calls = cycle([partial(self._call, group, caller, request) for caller in self._callers(group.policy, group.pipelines)])
        loop, random, conditions = asyncio.get_running_loop(), self._random(group.name), self._conditions(group.name)
        if group.together:
            for _ in range(group.together):
                loop.call_at(_TOGETHER_AT, lambda: self._spawn(next(calls)()))
        for _ in range(group.users):
            self._spawn(self._user(group, next(calls), random))
        if group.rate:
            self._arrive(group, calls.__next__, random, conditions, self._gap(group, random))
        self._record.breakers = sum(isinstance(strategy, CircuitBreaker) for strategy in self._watched)

    def _gap(self, group: Clients, random: Random) -> float:
        """Until the next call, in the time that one takes on average: it passes as quickly as the rate is high."""
        return 1.0 if group.arrivals == "constant" else random.expovariate(1.0)

    def _arrive(
        self,
        group: Clients,
        next_call: Callable[[], Callable[[], Any]],
        random: Random,
        conditions: Sequence[Condition],
        gap: float,
    ) -> None:
        """Make a call where its time has come, and see to it that the next one is made.

        The rate is looked at anew in each step, so that calls that are seldom in a disturbance are not when it is over.
        """
        now, loop = clock.now(), asyncio.get_running_loop()
        if gap <= 0:
            self._spawn(next_call()())
            gap = self._gap(group, random)
        rate = group.rate
        for one in conditions:
            rate *= 1 + (one.rate - 1) * one.strength(now)
        step = self._scenario.step
        wait, gap = (gap / rate, 0.0) if gap <= rate * step else (step, gap - rate * step)
        if now + wait < self._scenario.seconds:
            loop.call_at(now + wait, partial(self._arrive, group, next_call, random, conditions, gap))

    async def _user(self, group: Clients, call: Callable[[], Awaitable[None]], random: Random) -> None:
        """Make a call after the other."""
        while True:
            await asyncio.sleep(random.expovariate(1 / group.think))
            if clock.now() >= self._scenario.seconds:
                return
            await call()

    def _spawn(self, call: Any) -> None:
        task = asyncio.get_running_loop().create_task(call, context=Context())
        self._pending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._pending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "a call is broken", "exception": error})

    async def _call(self, group: Clients, caller: Caller, request: Callable[[], Awaitable[object]]) -> None:
        """One call, as its user sees it."""
        began = clock.now()
        self._record.made[self._record.index(began)] += group.fan_out
        ended, result = math.inf, "failed"
        try:
            result = await (_one(caller, request) if group.fan_out == 1 else _all(caller, request, group.fan_out))
            ended = clock.now()
        finally:
            if group.counted:
                if result == "ok" and ended - began > group.good_within:
                    result = "late"
                self._record.calls.append(Call(began, ended, result))

    def _sample(self, step: int) -> None:
        """Look at queues, breakers and budgets, once in each step."""
        record, now = self._record, clock.now()
        for name, server in self._servers.items():
            record.tallies[name].queue[step] = server.waiting
            server.catch_up(now)
        for strategy in self._watched:
            if isinstance(strategy, CircuitBreaker):
                record.open[step] += (strategy.state not in {"closed", "disabled"}) / record.breakers
            budget = getattr(strategy, "budget", None)
            if budget is not None:
                record.budget[step] = min(record.budget[step], budget.left(now))
        self._progress(min(1.0, now / self._scenario.seconds))
        if step + 1 < record.steps:
            asyncio.get_running_loop().call_at((step + 1) * record.step, self._sample, step + 1)


def _made_by(subject: Callable[[], Caller]) -> Caller:
    expected = "expected a policy, None, or a function without arguments that makes an async caller: lambda: pipeline.call, say"
    if not callable(subject) or isinstance(subject, Strategy) or inspect.iscoroutinefunction(subject):
        msg = f"subject={subject!r}: {expected}"
        raise TypeError(msg)
    caller = subject()
    if not callable(caller):
        msg = f"subject() returned {caller!r}: {expected}"
        raise TypeError(msg)
    return caller


async def _all(caller: Caller, request: Callable[[], Awaitable[object]], fan_out: int) -> str:
    """The result of a call that is several requests side by side."""
    results = await asyncio.gather(*(_one(caller, request) for _ in range(fan_out)))
    return next((result for result in results if result != "ok"), "ok")


async def _one(caller: Caller, request: Callable[[], Awaitable[object]]) -> str:
    waited = caller(request)  # only what is awaited may fail: an error here is one of whoever wrote the caller
    if not hasattr(waited, "__await__"):
        msg = f"{caller!r} returned {waited!r}: expected an async caller, async def call(request): return await request()"
        raise TypeError(msg)
    try:
        answer = await waited
    except Rejected:
        return "rejected"
    except Exception:  # noqa: BLE001  whatever it is, the call has failed
        return "failed"
    return "ok" if answer is ANSWER else "degraded"


async def _call(request: Callable[[], Awaitable[object]]) -> object:
    return await request()


def _nobody(_share: float) -> None:
    pass


@contextlib.contextmanager
def _quiet(record: Record) -> Generator[None]:
    """Note what breakers do, in the place of the logs."""

    def note(event: Event) -> None:
        if isinstance(event, BreakerStateChanged) and event.new == "open":
            record.openings[record.index(event.at)] += 1

    before, listeners.notable[:] = list(listeners.notable), [note]
    try:
        yield
    finally:
        listeners.notable[:] = before


@contextlib.contextmanager
def _seeded(seed: int) -> Generator[None]:
    """Let the strategies draw from a seeded source."""
    before = chance.source.getstate()
    chance.source.seed(seed)
    try:
        yield
    finally:
        chance.source.setstate(before)
