"""How much memory instances take, as `tracemalloc` sees it."""

import gc
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from benchmarks.harness import fn, peer
from resilient import (
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Keyed,
    LeakyBucket,
    Pipeline,
    Retry,
    RetryBudget,
    SlidingWindow,
    Throttle,
    Timeout,
    TokenBucket,
)

INSTANCES: Final = 2000
KEYS: Final = 100_000
TITLE: Final = "Memory"

Make = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Size:
    """The memory of something, in bytes; the target where there is one."""

    name: str
    size: float
    at_most: float | None = None
    ours: bool = False


def own() -> Mapping[str, Make]:
    return {
        "resilient Retry": lambda: Retry(on=OSError),
        "resilient RetryBudget": RetryBudget,
        "resilient CircuitBreaker": CircuitBreaker,
        "resilient Bulkhead": lambda: Bulkhead(10),
        "resilient TokenBucket": lambda: TokenBucket(10),
        "resilient SlidingWindow": lambda: SlidingWindow(10),
        "resilient LeakyBucket": lambda: LeakyBucket(10),
        "resilient Throttle": Throttle,
        "resilient Timeout": lambda: Timeout(10),
        "resilient Fallback": lambda: Fallback(0),
    }


def siblings() -> Mapping[str, Make]:
    return {
        f"resilient {type(gate).__name__}, another one with the same settings": gate.sibling
        for gate in (CircuitBreaker(), Bulkhead(10), TokenBucket(10))
    }


def composed() -> Mapping[str, Make]:
    strategies = (Retry(on=OSError), TokenBucket(10), CircuitBreaker(), Bulkhead(10))
    return {"resilient Pipeline of four, without the four": lambda: Pipeline(*strategies)}


def nopanic() -> Mapping[str, Make]:
    module = peer("nopanic")
    return {
        "nopanic retry": lambda: module.retry(on=OSError),
        "nopanic circuit_breaker": module.circuit_breaker,
        "nopanic bulkhead": lambda: module.bulkhead(10),
        "nopanic rate_limit": lambda: module.rate_limit(10),
    }


def pyresilience() -> Mapping[str, Make]:
    module = peer("pyresilience")
    windowed = module.CircuitBreakerConfig(sliding_window_size=100)
    return {
        "pyresilience CircuitBreaker, consecutive": lambda: module.CircuitBreaker(module.CircuitBreakerConfig()),
        "pyresilience CircuitBreaker, window of 100": lambda: module.CircuitBreaker(windowed),
    }


PEERS: Final[Mapping[str, Callable[[], Mapping[str, Make]]]] = {
    "nopanic": nopanic,
    "pyresilience": pyresilience,
    "aiolimiter": lambda: {"aiolimiter AsyncLimiter": lambda: peer("aiolimiter").AsyncLimiter(10, 1)},
    "aiobreaker": lambda: {"aiobreaker CircuitBreaker": peer("aiobreaker").CircuitBreaker},
    "circuitbreaker": lambda: {"circuitbreaker CircuitBreaker": peer("circuitbreaker").CircuitBreaker},
    "grit-toolkit": lambda: {"grit breaker": peer("grit").breaker, "grit bulkhead": lambda: peer("grit").bulkhead(10)},
    "hyx": lambda: {"hyx consecutive_breaker": peer("hyx.circuitbreaker").consecutive_breaker},
    "tenacity": lambda: {"tenacity AsyncRetrying": peer("tenacity").AsyncRetrying},
}


async def sizes(missing: set[str], *, instances: int = INSTANCES, keys: int = KEYS, with_peers: bool = True) -> list[Size]:
    """Everything that is measured here."""
    found = [Size(name, size, 250, ours=True) for name, size in _each(own(), instances)]
    found += [Size(name, size, ours=True) for name, size in _each({**siblings(), **composed()}, instances)]
    for name, make in PEERS.items() if with_peers else ():
        try:
            found += [Size(label, size) for label, size in _each(make(), instances)]
        except ImportError:
            missing.add(name)
    title = f"resilient: {keys} keys of breaker, token bucket and bulkhead"
    found.append(Size(f"{title}, in a pipeline", await _keyed_pipeline(keys), 500 * keys, ours=True))
    found.append(Size(f"{title}, in three Keyed", await _three_keyed(keys), 500 * keys, ours=True))
    return found


def _each(makers: Mapping[str, Make], instances: int) -> Iterator[tuple[str, float]]:
    for name, make in makers.items():
        make()  # what the first one loads is not its size
        yield name, _allocated(partial(_many, make, instances)) / instances


def _many(make: Make, instances: int) -> list[object]:
    return [make() for _ in range(instances)]


def _allocated(fill: Callable[[], Any]) -> float:
    """The bytes that what `fill` returns keeps alive."""
    gc.collect()
    tracemalloc.start()
    kept = fill()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del kept
    return size


async def _keyed_pipeline(keys: int) -> float:
    names = [f"key-{number}" for number in range(keys)]
    pipeline = Pipeline(CircuitBreaker(), TokenBucket(10), Bulkhead(10), key=names.__getitem__, max_keys=keys)
    await pipeline.call(fn, 0)
    gc.collect()
    tracemalloc.start()
    for number in range(1, keys):
        await pipeline.call(fn, number)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size


async def _three_keyed(keys: int) -> float:
    names = [f"key-{number}" for number in range(keys)]
    templates = (CircuitBreaker(), TokenBucket(10), Bulkhead(10))
    tables: Iterable[Keyed[Any]] = [Keyed(template, max_keys=keys) for template in templates]
    return _allocated(lambda: [table[name] for table in tables for name in names])
