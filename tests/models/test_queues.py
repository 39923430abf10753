"""The line before a rate limiter, beside a list of who stands in it and an ideal bucket."""

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from models.loops import OnLoop
from models.machines import runs
from models.test_buckets import SECOND, Ideal
from resilient.strategies.leaky_bucket import LeakyBucket
from resilient.strategies.rate_limit import TokenBucket

LATE = 10_000
"""Nanoseconds that a wake-up may be late: floats are not exact, and a waiter that comes too early looks again after 1 µs."""


class Queue(OnLoop):
    """Callers of any weight come, wait, and are cancelled. Served in order, never too early, and never late."""

    @initialize(size=st.integers(1, 4), smooth=st.booleans(), rate=st.sampled_from([4.0, 0.5, 7.0]))
    def begin(self, *, size: int, smooth: bool, rate: float) -> None:
        self.size = size
        self.real = LeakyBucket(rate, capacity=99, shape=True) if smooth else TokenBucket(rate, burst=size)
        self.ideal = Ideal(rate, 1.0, 99 if smooth else size, smooth=smooth)
        self.line: list[tuple[asyncio.Task[int], int]] = []
        self.could_begin = 0  # when the first in line became the first

    async def acquire(self, tokens: int) -> int:
        """When it was served, in nanoseconds."""
        await self.real.acquire(tokens)
        return round(self.now * SECOND)

    @property
    def nanoseconds(self) -> int:
        return round(self.now * SECOND)

    def serve(self) -> None:
        """Look who was served since: the first ones in line, each as soon as its tokens were there."""
        while self.line and self.line[0][0].done():
            task, tokens = self.line.pop(0)
            at, ready = task.result(), self.could_begin + self.ideal.delay(self.could_begin, tokens)
            assert ready <= at <= ready + LATE
            assert not self.ideal.delay(at, tokens)
            self.ideal.taken.append((at, tokens))
            self.could_begin = at
        assert not any(task.done() for task, _ in self.line)
        if self.line:
            assert self.could_begin + self.ideal.delay(self.could_begin, self.line[0][1]) >= self.nanoseconds - LATE

    @rule(weights=st.lists(st.integers(1, 4), min_size=1, max_size=3))
    def arrive(self, weights: list[int]) -> None:
        for wish in weights:
            if not self.line:
                self.could_begin = self.nanoseconds
            tokens = min(wish, self.size)
            self.line.append((self.start(self.acquire(tokens)), tokens))
            self.go_on()
            self.serve()

    @rule(eighths=st.sampled_from([1, 2, 8, 20]))
    def wait(self, eighths: int) -> None:
        self.go_on(eighths / 8 + 0.0001)
        self.serve()

    @precondition(lambda self: self.line)
    @rule(which=st.sampled_from([0, 0, 1, 5]), also_next=st.booleans())
    def cancel(self, *, which: int, also_next: bool) -> None:
        """One, or two in one tick; those behind move up at once."""
        for _ in range(1 + also_next):
            if self.line:
                place = which % len(self.line)
                self.line.pop(place)[0].cancel()
                if place == 0:
                    self.could_begin = self.nanoseconds
        self.go_on()
        self.serve()

    @invariant()
    def it_knows_who_waits(self) -> None:
        if hasattr(self, "real"):
            seen: Any = self.real.statistics()
            assert seen.queued == self.real.queued == len(self.line)
            expected = self.ideal.delay(self.nanoseconds, 1, sum(tokens for _, tokens in self.line))
            assert self.real.refuse(self.now).retry_after == expected / SECOND

    def teardown(self) -> None:
        """Nobody waits when all were cancelled, and no stretch of time ever had too many."""
        super().teardown()
        if hasattr(self, "real"):
            assert self.real.queued == 0
            assert self.ideal.holds_the_limit()


TestQueue = runs(Queue, 60, 15)
