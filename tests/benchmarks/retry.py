"""Retry: a call that succeeds, and one that fails once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from benchmarks.harness import Case, Group, Run, Target, called, fn, peer
from resilient import Constant, Retry, RetryBudget, configure_logging

NO_BUDGET = "budget, server hints, deadlines"


def own_success() -> Iterable[Case]:
    retry = Retry(on=OSError)
    yield called("resilient @Retry", retry(fn), ours=True, targets=(Target(0.4),))
    yield called("resilient Retry.call", lambda value: retry.call(fn, value), ours=True)
    yield called("resilient @Retry, with a budget", Retry(on=OSError, budget=RetryBudget())(fn), ours=True)


def tenacity_success() -> Iterable[Case]:
    tenacity = peer("tenacity")
    options = {"stop": tenacity.stop_after_attempt(3), "retry": tenacity.retry_if_exception_type(OSError), "reraise": True}
    yield called("tenacity @retry", tenacity.retry(**options)(fn), without="budget, deadlines around")


def stamina_success() -> Iterable[Case]:
    yield called("stamina @retry", peer("stamina").retry(on=OSError, attempts=3)(fn), without="budget, deadlines around")


def backoff_success() -> Iterable[Case]:
    backoff = peer("backoff")
    yield called("backoff @on_exception", backoff.on_exception(backoff.expo, OSError, max_tries=3)(fn), without="budget, trio")


def opnieuw_success() -> Iterable[Case]:
    wrap = peer("opnieuw").retry(retry_on_exceptions=OSError)
    yield called("opnieuw @retry", wrap(fn), without="budget, deadlines around, trio")


def hyx_success() -> Iterable[Case]:
    yield called("hyx @retry", peer("hyx.retry").retry(on=OSError)(fn), without=NO_BUDGET + ", trio")


def nopanic_success() -> Iterable[Case]:
    nopanic = peer("nopanic")
    yield called("nopanic @retry", nopanic.retry(on=OSError)(fn), without="anyio's deadlines, the attempt in context")
    yield called("nopanic @retry, with a budget", nopanic.retry(on=OSError, budget=nopanic.RetryBudget())(fn))


def grit_success() -> Iterable[Case]:
    yield called("grit @retry", peer("grit").retry(on=OSError)(fn), without=NO_BUDGET + ", events, trio")


def pyresilience_success() -> Iterable[Case]:
    pyresilience = peer("pyresilience")
    wrap = pyresilience.resilient(retry=pyresilience.RetryConfig(retry_on=(OSError,)))
    yield called("pyresilience @resilient(retry)", wrap(fn), without="deadlines, trio")


def pyfailsafe_success() -> Iterable[Case]:
    failsafe = peer("failsafe")
    run = failsafe.Failsafe(failsafe.RetryPolicy(retriable_exceptions=[OSError])).run
    yield called("pyfailsafe Failsafe.run", lambda value: run(lambda: fn(value)), without=NO_BUDGET + ", events")


def failing_once() -> Callable[[int], Coroutine[Any, Any, int]]:
    """Every second attempt fails, so every call fails once."""
    fails = False

    async def flaky(value: int) -> int:
        nonlocal fails
        fails = not fails
        if fails:
            raise OSError
        return value

    return flaky


def by_hand() -> Callable[[int], Awaitable[int]]:
    flaky = failing_once()

    async def call(value: int) -> int:
        for _ in range(2):
            try:
                return await flaky(value)
            except OSError:
                pass
            await asyncio.sleep(0)
        raise OSError

    return call


def own_failure() -> Iterable[Case]:
    retry = Retry(on=OSError, backoff=Constant(delay=0))
    yield called("by hand: try, except, sleep(0)", by_hand())
    yield called("resilient @Retry, logged", retry(failing_once()), ours=True)
    silent = called("", retry(failing_once()))
    yield Case("resilient @Retry, logs off", _without_logs(silent.run), ours=True)


def _without_logs(run: Run) -> Run:
    async def silent(n: int) -> None:
        configure_logging(enabled=False)
        try:
            await run(n)
        finally:
            configure_logging()

    return silent


def tenacity_failure() -> Iterable[Case]:
    tenacity = peer("tenacity")
    wrap = tenacity.retry(stop=tenacity.stop_after_attempt(3), retry=tenacity.retry_if_exception_type(OSError), reraise=True)
    yield called("tenacity @retry", wrap(failing_once()), without="logs, a record of the attempts")


def stamina_failure() -> Iterable[Case]:
    stamina = peer("stamina")
    stamina.instrumentation.set_on_retry_hooks([])
    wrap = stamina.retry(on=OSError, wait_initial=0, wait_max=0, wait_jitter=0)
    yield called("stamina @retry, hooks off", wrap(failing_once()), without="a record of the attempts")


def backoff_failure() -> Iterable[Case]:
    backoff = peer("backoff")
    logging.getLogger("backoff").setLevel(logging.ERROR)
    wrap = backoff.on_exception(backoff.constant, OSError, max_tries=3, interval=0, jitter=None)
    yield called("backoff @on_exception, logs off", wrap(failing_once()), without="a record of the attempts")


def hyx_failure() -> Iterable[Case]:
    yield called("hyx @retry", peer("hyx.retry").retry(on=OSError, backoff=0)(failing_once()), without="any record, log or event")


def nopanic_failure() -> Iterable[Case]:
    wrap = peer("nopanic").retry(on=OSError, backoff=0)
    yield called("nopanic @retry", wrap(failing_once()), without="logs, a record of the attempts, anyio's deadlines")


def grit_failure() -> Iterable[Case]:
    grit = peer("grit")
    wrap = grit.retry(on=OSError, wait=grit.constant(0))
    yield called("grit @retry", wrap(failing_once()), without="any record, log or event; trio")


def pyresilience_failure() -> Iterable[Case]:
    pyresilience = peer("pyresilience")
    wrap = pyresilience.resilient(retry=pyresilience.RetryConfig(retry_on=(OSError,), delay=0, jitter=False))
    yield called("pyresilience @resilient(retry)", wrap(failing_once()), without="logs, a record of the attempts")


GROUPS = [
    Group(
        "retry",
        "Retry: a call that succeeds",
        own_success,
        {
            "tenacity": tenacity_success,
            "stamina": stamina_success,
            "backoff": backoff_success,
            "opnieuw": opnieuw_success,
            "hyx": hyx_success,
            "nopanic": nopanic_success,
            "grit-toolkit": grit_success,
            "pyresilience": pyresilience_success,
            "pyfailsafe": pyfailsafe_success,
        },
    ),
    Group(
        "retried",
        "Retry: a call that fails once and then succeeds, with no delay",
        own_failure,
        {
            "tenacity": tenacity_failure,
            "stamina": stamina_failure,
            "backoff": backoff_failure,
            "hyx": hyx_failure,
            "nopanic": nopanic_failure,
            "grit-toolkit": grit_failure,
            "pyresilience": pyresilience_failure,
        },
    ),
]
