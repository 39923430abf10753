"""Retried and hedged calls beside plain functions that work out on paper when each attempt is made and what surfaces."""

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import anyio
from hypothesis import given
from hypothesis import strategies as st

from models.machines import thorough
from resilient import clock
from resilient.context import deadline
from resilient.errors import DeadlineExceeded
from resilient.observe.events import RetryStopped
from resilient.observe.timeline import record_timeline
from resilient.outcome import SUCCESS, Classifier, Health, Kind, Verdict
from resilient.strategies.backoff import Custom
from resilient.strategies.budget import RetryBudget, TokenBudget
from resilient.strategies.hedge import Hedge
from resilient.strategies.retry import Retry
from resilient.testing import run_virtual
from strategies.breakers import Lowest
from strategies.legs import Legs

GOOD = SUCCESS
BUSY = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503")
HINTED = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", retry_after=1.5, throttled=True)
LONG_HINT = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "http_429", retry_after=9.0, throttled=True)
NOT_SENT = Verdict(Kind.RETRYABLE, Health.NEUTRAL, "connect_error", transparent=True)
LOST = Verdict(Kind.PERMANENT, Health.UNHEALTHY, "read_error")
NOT_FOUND = Verdict(Kind.PERMANENT, Health.HEALTHY, "http_404")
STOP = Verdict(Kind.ABORT, Health.NEUTRAL, "aborted")


class Ended(Exception):
    """What an attempt that did not go well ends with: it says what that means."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


def says(error: Exception) -> Verdict | None:
    return error.verdict if isinstance(error, Ended) else None


CLASSIFY = Classifier(errors=says)


def callee(script: list[tuple[float, Verdict]]) -> Legs:
    return Legs(*((seconds, "value" if verdict is GOOD else Ended(verdict)) for seconds, verdict in script))


# -- retries


@dataclass(frozen=True)
class Plan:
    """The settings of a retried call. A `timeout` ends no attempt, a `limit` does."""

    attempts: int | None
    delays: list[float]
    timeout: float
    limit: float
    tokens: int

    def work_out(  # noqa: C901, PLR0911  one after the other, as on paper
        self, script: list[tuple[float, Verdict]]
    ) -> tuple[list[float], str, float, int]:
        """When attempts begin, why it stops, when it ends, and how many tokens are left."""
        begun, now, counted, waits, tokens, free = list[float](), 0.0, 0, 0, self.tokens, True
        while True:
            seconds, verdict = script[min(len(begun), len(script) - 1)]
            begun.append(now)
            if now + seconds > self.limit:
                return begun, "cut off", self.limit, tokens
            now += seconds
            left = min(self.timeout, self.limit) - now
            if verdict is GOOD or verdict.kind is Kind.ABORT:
                return begun, "", now, tokens
            if verdict.transparent and free:
                free = False
                if left <= 0:
                    return begun, "deadline", now, tokens
                continue
            counted += 1
            if verdict.kind is not Kind.RETRYABLE:
                return begun, "not_retryable", now, tokens
            if counted == self.attempts:
                return begun, "attempts_exhausted", now, tokens
            delay = max(self.delays[min(waits, len(self.delays) - 1)], verdict.retry_after or 0.0)
            waits += 1
            if (verdict.retry_after or 0.0) > 5:
                return begun, "retry_after_too_long", now, tokens
            if delay >= left:
                return begun, "deadline", now, tokens
            if not tokens:
                return begun, "budget_exhausted", now, tokens
            tokens -= 1
            now += delay


PLANS = st.builds(
    Plan,
    attempts=st.sampled_from([1, 2, 3, 5, 20]),
    delays=st.lists(st.sampled_from([0.0, 0.25, 1.0, 2.0]), min_size=1, max_size=3),
    timeout=st.sampled_from([math.inf, math.inf, 0.0, 1.0, 3.0]),
    limit=st.sampled_from([math.inf, math.inf, 2.0625, 5.0625]),
    tokens=st.sampled_from([9, 9, 0, 2]),
)
SCRIPTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.25, 1.0]),
        st.sampled_from([BUSY, BUSY, BUSY, HINTED, LONG_HINT, NOT_SENT, LOST, STOP, GOOD]),
    ),
    min_size=1,
    max_size=6,
)


@thorough(100)
@given(plan=PLANS, script=SCRIPTS)
def test_a_retried_call_goes_as_it_was_worked_out(plan: Plan, script: list[tuple[float, Verdict]]) -> None:
    """Every attempt at its time, stopped for the right reason, paid for exactly, and no wait ever goes beyond the deadline."""
    begun, why, ended, tokens = plan.work_out(script)
    budget, legs = TokenBudget(plan.tokens), callee(script)
    retry = Retry(
        classify=CLASSIFY,
        attempts=plan.attempts,
        backoff=Custom(source=plan.delays),
        timeout=None if plan.timeout == math.inf else plan.timeout,
        max_retry_after=5.0,
        budget=budget,
        random=Lowest(),
    )
    outcome: list[Any] = []

    async def main() -> list[str]:
        with record_timeline() as timeline:
            try:
                with deadline(plan.limit if plan.limit < math.inf else 1e9):
                    outcome.append(await retry.call(legs))
            except (Ended, DeadlineExceeded) as error:
                outcome.append(error)
        outcome.append(clock.now())
        return [event.reason for event in timeline.events if isinstance(event, RetryStopped)]

    stopped = run_virtual(main)
    last = script[min(len(begun), len(script)) - 1][1]
    silent = last is GOOD or why == "cut off" or (why in {"", "not_retryable"} and len(begun) == 1)

    assert legs.at == begun
    assert outcome[1] == ended
    assert stopped == ([] if silent else [why or "aborted"])
    assert budget.statistics().left == tokens
    if why == "cut off":
        assert isinstance(outcome[0], DeadlineExceeded)
    else:
        assert outcome[0] == "value" if last is GOOD else outcome[0].verdict is last


@thorough(40)
@given(
    scripts=st.lists(SCRIPTS, min_size=1, max_size=8),
    ratio=st.sampled_from([0.0, 0.25, 1.0]),
    floor=st.sampled_from([0.0, 0.5, 3.0]),
)
def test_the_retries_of_all_calls_together_stay_within_the_budget(
    scripts: list[list[tuple[float, Verdict]]], ratio: float, floor: float
) -> None:
    """Whatever fails, and whenever: retries ≤ ratio × first attempts + floor × (elapsed + 1)."""
    budget = RetryBudget(ratio=ratio, floor=floor)
    retry = Retry(classify=CLASSIFY, attempts=9, backoff=Custom(source=[0.0, 0.5]), max_retry_after=2.0, budget=budget)
    calls = [callee(script) for script in scripts]

    async def one(legs: Legs, after: float) -> None:
        await anyio.sleep(after)
        with contextlib.suppress(Ended):
            await retry.call(legs)

    async def main() -> float:
        async with anyio.create_task_group() as group:
            for number, legs in enumerate(calls):
                group.start_soon(one, legs, number / 4)
        return clock.now()

    elapsed = run_virtual(main)
    paid = sum(len(legs.at) - 1 - _transparent(legs, script) for legs, script in zip(calls, scripts, strict=True))

    assert paid <= ratio * len(calls) + floor * elapsed + (max(floor, 1.0) if floor else 0.0)


def _transparent(legs: Legs, script: list[tuple[float, Verdict]]) -> int:
    """Whether one of the retries was free: the first one of what was not sent."""
    return any(script[min(number, len(script) - 1)][1] is NOT_SENT for number in range(len(legs.at) - 1))


# -- hedges


@dataclass
class Result:
    """How a race went: when legs began, which of them surfaces, when, and what was paid."""

    begun: list[float]
    surfaces: int
    ended: float
    tokens: int


def race(script: list[tuple[float, Verdict]], delay: float, most: int, tokens: int) -> Result:
    begun, running, due, hedges = [0.0], {0: script[0][0]}, delay, 0
    best: int | None = None
    while True:
        leg = min(running, key=lambda number: running[number])
        now = min(running[leg], due)
        follow = now < running[leg]
        if not follow:
            del running[leg]
            verdict = script[leg][1]
            if verdict in {GOOD, NOT_FOUND, STOP}:
                return Result(begun, leg, now, tokens)
            if best is None or (script[best][1] is not LOST and verdict is LOST):
                best = leg
            follow = verdict is BUSY and hedges < most
            if verdict is not BUSY:
                hedges, due = most, math.inf
        if follow:
            hedges += 1
            due = now + delay if hedges < most else math.inf
            if tokens:
                tokens -= 1
                running[len(begun)] = now + script[len(begun)][0]
                begun.append(now)
        if not running:
            assert best is not None
            return Result(begun, best, now, tokens)


LEG = st.tuples(st.integers(0, 6), st.sampled_from([GOOD, GOOD, BUSY, BUSY, BUSY, HINTED, LOST, NOT_FOUND, STOP]))


@thorough(100)
@given(
    legs=st.lists(LEG, min_size=4, max_size=4),
    delay=st.sampled_from([0.5, 1.0, 2.0]),
    most=st.integers(1, 3),
    tokens=st.sampled_from([9, 9, 0, 1]),
)
def test_a_race_goes_as_it_was_worked_out(legs: list[tuple[int, Verdict]], delay: float, most: int, tokens: int) -> None:
    """Every leg at its time, the right one surfaces and at once, the others are cancelled, and each hedge is paid for."""
    script = [(seconds + 2.0 ** -(number + 5), verdict) for number, (seconds, verdict) in enumerate(legs)]  # no two at once
    expected = race(script, delay, most, tokens)
    budget, runners = TokenBudget(tokens), callee(script)
    hedge = Hedge(delay, max_hedges=most, classify=CLASSIFY, budget=budget)

    async def main() -> tuple[Any, float]:
        try:
            value = await hedge.call(runners)
        except Ended as error:
            return error.verdict, clock.now()
        return value, clock.now()

    outcome, ended = run_virtual(main)
    verdict = script[expected.surfaces][1]
    lives = [number for number, begun in enumerate(expected.begun) if begun + script[number][0] > expected.ended]
    seen = hedge.statistics()

    assert runners.at == expected.begun
    assert (outcome, ended) == ("value" if verdict is GOOD else verdict, expected.ended)
    assert sorted(runners.cancelled) == lives
    assert runners.active == 0
    assert budget.statistics().left == expected.tokens
    assert (seen.calls, seen.hedges) == (1, len(expected.begun) - 1)
    assert seen.wins == (expected.surfaces > 0 and verdict in {GOOD, NOT_FOUND})
