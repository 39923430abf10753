"""Rate limiters with tokens in them, and a throttle of a service that is well."""

from collections.abc import Iterable

from benchmarks.harness import Case, Group, Target, called, entered, fn, peer
from resilient import AdaptiveRate, LeakyBucket, SlidingWindow, Throttle, TokenBucket

PLENTY = 1_000_000_000


def own() -> Iterable[Case]:
    bucket = TokenBucket(PLENTY)
    yield called("resilient @TokenBucket", bucket(fn), ours=True, targets=(Target(0.5),))
    yield entered("resilient async with bucket", bucket, ours=True, targets=(Target(0.5),))
    yield called("resilient @LeakyBucket", LeakyBucket(PLENTY)(fn), ours=True)
    yield called("resilient @SlidingWindow", SlidingWindow(PLENTY)(fn), ours=True)
    yield called("resilient @SlidingWindow(exact)", SlidingWindow(1000, 1e-6, exact=True)(fn), ours=True)
    yield called("resilient @AdaptiveRate", AdaptiveRate(PLENTY, burst=PLENTY)(fn), ours=True)
    yield called("resilient @Throttle", Throttle()(fn), ours=True)


def aiolimiter() -> Iterable[Case]:
    limiter = peer("aiolimiter").AsyncLimiter(PLENTY, 1)
    yield entered("aiolimiter async with", limiter, without="FIFO order across amounts, a bound on waits, trio")


def hyx() -> Iterable[Case]:
    wrap = peer("hyx.ratelimit").tokenbucket(PLENTY, 1)
    yield called("hyx @tokenbucket", wrap(fn), without="waiting, exact limits, trio")


def nopanic() -> Iterable[Case]:
    yield called("nopanic @rate_limit", peer("nopanic").rate_limit(PLENTY)(fn), without="strict FIFO order, exact limits")


def grit() -> Iterable[Case]:
    yield called("grit @limiter", peer("grit").limiter(PLENTY)(fn), without="exact limits, trio")


def pyresilience() -> Iterable[Case]:
    module = peer("pyresilience")
    wrap = module.resilient(rate_limiter=module.RateLimiterConfig(max_calls=PLENTY))
    yield called("pyresilience @resilient(rate_limiter)", wrap(fn), without="FIFO order (it polls), trio")


GROUPS = [
    Group(
        "limiter",
        "Rate limiter: a token is there",
        own,
        {"aiolimiter": aiolimiter, "hyx": hyx, "nopanic": nopanic, "grit-toolkit": grit, "pyresilience": pyresilience},
    )
]
