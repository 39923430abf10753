"""What is left behind: permits, waiters, values that live on, tasks and timers.

Two snapshots are compared, one before the block and one after it; what was there before is nobody's leak. Strategies and
lingering values (streamed responses, streams) are found by asking the garbage collector for all objects, so that strategies
need no registry; it does not tell of objects that were frozen (`gc.freeze()`) nor of those that are gone. Tasks and timers are
those of the event loop that runs, where one does.
"""

import asyncio
import contextlib
import gc
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import anyio

from resilient.strategies.base import Strategy
from resilient.strategies.lingering import Lingering
from resilient.testing.inside_asyncio import pending_timers

__all__ = ("no_leaks",)

_HELD: Final = {"active": "permits out", "in_flight": "calls in flight", "queued": "waiters"}
"""Names in statistics that count what must come back, and what they count."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What is there. The objects are kept, so that an address is not used twice."""

    strategies: dict[int, tuple[Strategy, dict[str, int]]]
    values: dict[int, Lingering]
    tasks: dict[int, str]
    timers: dict[int, asyncio.TimerHandle]

    def left_since(self, before: "_Snapshot") -> list[str]:
        left: list[str] = []
        for address, (strategy, held) in self.strategies.items():
            _, had = before.strategies.get(address, (strategy, {}))
            left += [f"{count} {_HELD[name]}: {strategy!r}" for name, count in held.items() if count > had.get(name, 0)]
        left += [
            f"a value that was not closed: {value!r}" for address, value in self.values.items() if address not in before.values
        ]
        left += [f"a task that still runs: {name}" for identity, name in self.tasks.items() if identity not in before.tasks]
        left += [f"a timer that is set: {timer!r}" for address, timer in self.timers.items() if address not in before.timers]
        return left


@contextlib.contextmanager
def no_leaks() -> Generator[None]:
    """Assert that the block leaves nothing behind. It goes around all that a test does.

    Looked at are: permits that are out, calls in flight and waiters of every strategy in the process (as its `statistics()`
    tells), values that live on and have not ended (a response that was not closed, an async generator that was not exhausted),
    tasks of the event loop, and on asyncio timers of it (uvloop does not show them). Where the block raises, its error surfaces
    and nothing is looked at. It takes some tens of milliseconds, more where there are many objects.

    Raises:
        AssertionError: something is left; it tells what.

    """
    before = _look()
    yield
    left = _look().left_since(before)
    if left:
        raise AssertionError("left behind:\n- " + "\n- ".join(left))


def _look() -> _Snapshot:
    strategies: dict[int, tuple[Strategy, dict[str, int]]] = {}
    values: dict[int, Lingering] = {}
    kinds = {*_kinds_of(Strategy), *_kinds_of(Lingering)}
    everything: list[Any] = gc.get_objects()
    for thing in [thing for thing in everything if type(thing) in kinds]:  # not isinstance: proxies answer in the name of others
        if isinstance(thing, Strategy):
            held = _held(thing)
            if held:
                strategies[id(thing)] = thing, held
        elif not thing.has_ended:
            values[id(thing)] = thing
    tasks, timers = _of_the_loop()
    return _Snapshot(strategies, values, tasks, timers)


def _kinds_of(base: type[Any]) -> Iterator[type[Any]]:
    yield base
    for kind in base.__subclasses__():
        yield from _kinds_of(kind)


def _held(strategy: Any) -> dict[str, int]:
    try:
        statistics = strategy.statistics()
    except AttributeError:  # it has none, or was never finished: its constructor refused an argument
        return {}
    return {name: getattr(statistics, name) for name in _HELD if getattr(statistics, name, 0)}


def _of_the_loop() -> tuple[dict[int, str], dict[int, asyncio.TimerHandle]]:
    tasks: dict[int, str] = {}
    timers: list[asyncio.TimerHandle] = []
    with contextlib.suppress(RuntimeError):  # no event loop runs
        tasks = {task.id: repr(task.name) for task in anyio.get_running_tasks()}
        timers = pending_timers(asyncio.get_running_loop())  # trio has none but those of tasks
    return tasks, {id(timer): timer for timer in timers}
