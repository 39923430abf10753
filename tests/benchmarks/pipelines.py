"""Several strategies as one."""

import asyncio
from collections.abc import Iterable

from benchmarks.harness import Case, Group, Run, Target, called, fn, peer
from benchmarks.limiter import PLENTY
from resilient import Bulkhead, CircuitBreaker, Fallback, Pipeline, Retry, Timeout, TokenBucket, record_timeline


def four() -> Pipeline:
    return Pipeline(Retry(on=OSError), TokenBucket(PLENTY), CircuitBreaker(), Bulkhead(10))


def _orders(_: int) -> str:
    return "orders"


def _recorded(pipeline: Pipeline) -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            with record_timeline():
                await pipeline.call(fn, 42)

    return run


def own_without_timeout() -> Iterable[Case]:
    title = "retry, token bucket, breaker, bulkhead"
    five = Pipeline(Fallback(0), *four().strategies)
    pipeline, keyed = four(), Pipeline(*four().strategies, key=_orders)
    yield called(f"resilient @Pipeline: {title}", four()(fn), ours=True, targets=(Target(1.7),))
    yield called("resilient Pipeline.call: the same", lambda value: pipeline.call(fn, value), ours=True)
    yield called("resilient @Pipeline: fallback and the same", five(fn), ours=True)
    yield called("resilient @Pipeline: the same four, keyed", keyed(fn), ours=True)
    yield Case("resilient @Pipeline: the same four, in a timeline", _recorded(four()), ours=True)


def nopanic_without_timeout() -> Iterable[Case]:
    module = peer("nopanic")
    wrap = module.compose(module.retry(on=OSError), module.rate_limit(PLENTY), module.circuit_breaker(), module.bulkhead(10))
    yield called("nopanic compose: retry, limiter, breaker, bulkhead", wrap(fn), without="one verdict for all, generations")


def grit_without_timeout() -> Iterable[Case]:
    grit = peer("grit")
    wrap = grit.policy(grit.retry(on=OSError), grit.limiter(PLENTY), grit.breaker(), grit.bulkhead(10))
    yield called("grit policy: retry, limiter, breaker, bulkhead", wrap(fn), without="windows, exact limits, events, trio")


def hyx_without_timeout() -> Iterable[Case]:
    call = peer("hyx.bulkhead").bulkhead(10, 20)(fn)
    call = peer("hyx.circuitbreaker").consecutive_breaker()(call)
    call = peer("hyx.ratelimit").tokenbucket(PLENTY, 1)(call)
    call = peer("hyx.retry").retry(on=OSError)(call)
    yield called("hyx decorators: retry, limiter, breaker, bulkhead", call, without="windows, waits, trio")


def pyresilience_without_timeout() -> Iterable[Case]:
    module = peer("pyresilience")
    wrap = module.resilient(
        retry=module.RetryConfig(retry_on=(OSError,)),
        rate_limiter=module.RateLimiterConfig(PLENTY),
        circuit_breaker=module.CircuitBreakerConfig(),
        bulkhead=module.BulkheadConfig(10),
    )
    yield called("pyresilience: retry, limiter, breaker, bulkhead", wrap(fn), without="windows, FIFO waits, trio")


def own_with_timeout() -> Iterable[Case]:
    yield called("resilient @Pipeline: six", Pipeline(Fallback(0), *four().strategies, Timeout(10))(fn), ours=True)
    seven = Pipeline(Fallback(0), Timeout(30), *four().strategies, Timeout(10))
    yield called("resilient @Pipeline: six, and a timeout of the whole call", seven(fn), ours=True)


def nopanic_with_timeout() -> Iterable[Case]:
    module = peer("nopanic")
    wrap = module.compose(
        module.fallback(0),
        module.retry(on=OSError),
        module.rate_limit(PLENTY),
        module.circuit_breaker(),
        module.bulkhead(10),
        module.timeout(10),
    )
    yield called("nopanic compose: six", wrap(fn), without="anyio's scopes (asyncio.timeout), one verdict for all")


def grit_with_timeout() -> Iterable[Case]:
    grit = peer("grit")
    layers = (grit.fallback(0), grit.retry(on=OSError), grit.limiter(PLENTY), grit.breaker(), grit.bulkhead(10), grit.timeout(10))
    yield called("grit policy: six", grit.policy(*layers)(fn), without="windows, exact limits, events, trio")


def pyresilience_with_timeout() -> Iterable[Case]:
    module = peer("pyresilience")
    wrap = module.resilient(
        fallback=module.FallbackConfig(0),
        retry=module.RetryConfig(retry_on=(OSError,)),
        rate_limiter=module.RateLimiterConfig(PLENTY),
        circuit_breaker=module.CircuitBreakerConfig(),
        bulkhead=module.BulkheadConfig(10),
        timeout=module.TimeoutConfig(10),
    )
    yield called("pyresilience: six", wrap(fn), without="windows, FIFO waits, trio")


def tenacity_and_others() -> Iterable[Case]:
    tenacity, purgatory, aiolimiter = peer("tenacity"), peer("purgatory"), peer("aiolimiter")
    semaphore, limiter = asyncio.Semaphore(10), aiolimiter.AsyncLimiter(PLENTY, 1)

    async def inside(value: int) -> int:
        async with limiter, semaphore, asyncio.timeout(10):
            return await fn(value)

    guarded = purgatory.AsyncCircuitBreakerFactory()("benchmark")(inside)
    options = {"stop": tenacity.stop_after_attempt(3), "retry": tenacity.retry_if_exception_type(OSError), "reraise": True}
    retried = tenacity.retry(**options)(guarded)
    yield called("tenacity, purgatory, aiolimiter, Semaphore, asyncio.timeout", retried, without="windows, fallback, trio")


GROUPS = [
    Group(
        "pipeline",
        "Pipeline: several strategies, no timeout",
        own_without_timeout,
        {
            "nopanic": nopanic_without_timeout,
            "grit-toolkit": grit_without_timeout,
            "hyx": hyx_without_timeout,
            "pyresilience": pyresilience_without_timeout,
        },
    ),
    Group(
        "six",
        "Pipeline of six: fallback, retry, token bucket, breaker, bulkhead, timeout",
        own_with_timeout,
        {
            "nopanic": nopanic_with_timeout,
            "grit-toolkit": grit_with_timeout,
            "pyresilience": pyresilience_with_timeout,
            "tenacity": tenacity_and_others,
        },
    ),
]
