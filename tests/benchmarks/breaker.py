"""Circuit breakers: closed and well, and open."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any

from benchmarks.harness import Case, Group, Run, Target, called, fn, peer, refused
from resilient import CircuitBreaker, CircuitOpen, CountWindow

CONSECUTIVE = "windows, a limit on half-open probes, late results told from new ones"


def own_closed() -> Iterable[Case]:
    breaker = CircuitBreaker()
    yield called("resilient @CircuitBreaker, 10 s window", breaker(fn), ours=True, targets=(Target(0.9),))
    yield called("resilient CircuitBreaker.call", lambda value: breaker.call(fn, value), ours=True)
    yield called("resilient @CircuitBreaker, CountWindow(100)", CircuitBreaker(window=CountWindow(100))(fn), ours=True)
    yield called("resilient @CircuitBreaker, consecutive failures", CircuitBreaker(consecutive_failures=5)(fn), ours=True)
    yield called("resilient @CircuitBreaker, slow calls too", CircuitBreaker(slow_call=5.0)(fn), ours=True)
    yield Case("resilient async with breaker.permit()", _permits(CircuitBreaker()), ours=True)


def _permits(breaker: CircuitBreaker) -> Run:
    async def run(n: int) -> None:
        for _ in range(n):
            async with breaker.permit():
                await fn(42)

    return run


def purgatory_wrap() -> Any:
    return peer("purgatory").AsyncCircuitBreakerFactory(default_threshold=5)("benchmark")


def purgatory_closed() -> Iterable[Case]:
    yield called("purgatory decorator", purgatory_wrap()(fn), without=CONSECUTIVE)


def aiobreaker_closed() -> Iterable[Case]:
    call = peer("aiobreaker").CircuitBreaker(fail_max=5).call_async
    yield called("aiobreaker call_async", lambda value: call(fn, value), without="windows, a limit on half-open probes")


def circuitbreaker_closed() -> Iterable[Case]:
    yield called("circuitbreaker @circuit", peer("circuitbreaker").circuit()(fn), without=CONSECUTIVE)


def hyx_closed() -> Iterable[Case]:
    yield called("hyx @consecutive_breaker", peer("hyx.circuitbreaker").consecutive_breaker()(fn), without=CONSECUTIVE)


def nopanic_closed() -> Iterable[Case]:
    nopanic = peer("nopanic")
    yield called("nopanic @circuit_breaker", nopanic.circuit_breaker()(fn), without="generations of probes, leases")
    yield called("nopanic @circuit_breaker, slow calls too", nopanic.circuit_breaker(slow_call_duration=5.0)(fn))


def grit_closed() -> Iterable[Case]:
    yield called("grit @breaker", peer("grit").breaker()(fn), without="windows; a cancelled probe wedges it")


def pyresilience_closed() -> Iterable[Case]:
    pyresilience = peer("pyresilience")
    config = pyresilience.CircuitBreakerConfig
    yield called("pyresilience, consecutive", pyresilience.resilient(circuit_breaker=config())(fn), without=CONSECUTIVE)
    counting = pyresilience.resilient(circuit_breaker=config(sliding_window_size=100))
    yield called("pyresilience, window of 100 calls", counting(fn), without="a limit on half-open probes")


def pyfailsafe_closed() -> Iterable[Case]:
    failsafe = peer("failsafe")
    run = failsafe.Failsafe(circuit_breaker=failsafe.CircuitBreaker()).run
    yield called("pyfailsafe Failsafe.run", lambda value: run(lambda: fn(value)), without=CONSECUTIVE)


async def failing(value: int) -> int:
    raise OSError(value)


def opened(name: str, call: Callable[[int], Awaitable[object]], error: type[BaseException], **more: Any) -> Case:
    """An open breaker: before each batch it is made to trip, should it not be open."""
    inner = refused(name, call, error)

    async def run(n: int) -> None:
        for _ in range(50):
            try:
                await call(42)
            except error:
                break
            except OSError:
                pass
        await inner.run(n)

    return Case(name, run, **more)


def own_open() -> Iterable[Case]:
    breaker = CircuitBreaker(consecutive_failures=5, open_for=1e6, open_for_max=1e6)
    yield refused("raise and catch", failing, OSError)
    yield opened("resilient @CircuitBreaker", breaker(failing), CircuitOpen, ours=True, targets=(Target(2.0),))


def purgatory_open() -> Iterable[Case]:
    purgatory = peer("purgatory")
    error = peer("purgatory.domain.model").OpenedState
    wrap = purgatory.AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=1e6)("open")
    yield opened("purgatory decorator", wrap(failing), error, without="a rejection that says when to ask again")


def aiobreaker_open() -> Iterable[Case]:
    aiobreaker = peer("aiobreaker")
    call = aiobreaker.CircuitBreaker(fail_max=5, timeout_duration=timedelta(days=1)).call_async
    yield opened("aiobreaker call_async", lambda value: call(failing, value), aiobreaker.CircuitBreakerError)


def circuitbreaker_open() -> Iterable[Case]:
    circuitbreaker = peer("circuitbreaker")
    wrap = circuitbreaker.circuit(recovery_timeout=10**6)
    yield opened(
        "circuitbreaker @circuit",
        wrap(failing),
        circuitbreaker.CircuitBreakerError,
        without="a rejection with data, a count of them, events",
    )


def hyx_open() -> Iterable[Case]:
    error = peer("hyx.circuitbreaker.exceptions").BreakerFailing
    wrap = peer("hyx.circuitbreaker").consecutive_breaker(recovery_time_secs=10**6)
    yield opened("hyx @consecutive_breaker", wrap(failing), error, without="retry_after, a count of rejections, events")


def nopanic_open() -> Iterable[Case]:
    nopanic = peer("nopanic")
    wrap = nopanic.circuit_breaker(reset_timeout=1e6)
    yield opened("nopanic @circuit_breaker", wrap(failing), nopanic.CircuitOpen)


def grit_open() -> Iterable[Case]:
    grit = peer("grit")
    wrap = grit.breaker(reset_after=1e6)
    yield opened("grit @breaker", wrap(failing), grit.exceptions.BreakerOpen, without="a count of rejections, events")


def pyresilience_open() -> Iterable[Case]:
    pyresilience = peer("pyresilience")
    wrap = pyresilience.resilient(circuit_breaker=pyresilience.CircuitBreakerConfig(recovery_timeout=1e6))
    yield opened("pyresilience", wrap(failing), pyresilience.CircuitOpenError, without="retry_after, a count of rejections")


GROUPS = [
    Group(
        "breaker",
        "Circuit breaker: closed, a call that succeeds",
        own_closed,
        {
            "purgatory": purgatory_closed,
            "aiobreaker": aiobreaker_closed,
            "circuitbreaker": circuitbreaker_closed,
            "hyx": hyx_closed,
            "nopanic": nopanic_closed,
            "grit-toolkit": grit_closed,
            "pyresilience": pyresilience_closed,
            "pyfailsafe": pyfailsafe_closed,
        },
    ),
    Group(
        "rejection",
        "Circuit breaker: open, the call is refused",
        own_open,
        {
            "purgatory": purgatory_open,
            "aiobreaker": aiobreaker_open,
            "circuitbreaker": circuitbreaker_open,
            "hyx": hyx_open,
            "nopanic": nopanic_open,
            "grit-toolkit": grit_open,
            "pyresilience": pyresilience_open,
        },
    ),
]
