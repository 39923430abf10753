"""What is compared in each scenario: other libraries as their documentation shows them for such a call, and ours.

Peers are imported when they are asked for, after the command has put `time.monotonic` on virtual time; those that are not
installed are left out.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any, Final

from resilient import Exponential, Hedge, Policy, Retry, RetryBudget
from resilient.simulation import Caller, Subject

__all__ = ("COMPARED", "subjects")

Request = Callable[[], Awaitable[object]]
Peer = tuple[str, Callable[[Any], Caller]]
"""The module of a library, and what makes a caller of it."""

ERRORS: Final = (ConnectionError, TimeoutError)
SLOW: Final = 0.035
"""Seconds after which nineteen of twenty servers have answered: hedges with a fixed delay are told so."""
FIRST, LONGEST, MANY = 0.005, 2.0, 1000  # of the herd's backoff; each client tries until it is done


def _wrapped(decorate: Callable[[Any], Any]) -> Caller:
    async def call(request: Request) -> object:
        return await request()

    decorated: Caller = decorate(call)
    return decorated


def _tenacity(peer: Any, wait: Any, stop: Any) -> Caller:
    made: Caller = peer.AsyncRetrying(stop=stop, wait=wait, retry=peer.retry_if_exception_type(ERRORS), reraise=True)
    return made


def tenacity(peer: Any) -> Caller:
    return _tenacity(peer, peer.wait_random_exponential(multiplier=0.1, max=5), peer.stop_after_attempt(4))


def tenacity_herd(peer: Any, *, jitter: bool) -> Caller:
    wait = peer.wait_random_exponential if jitter else peer.wait_exponential
    return _tenacity(peer, wait(multiplier=FIRST, max=LONGEST), peer.stop_never)


def stamina(peer: Any, **settings: Any) -> Caller:
    peer.instrumentation.set_on_retry_hooks([])  # no log lines
    made: Caller = peer.AsyncRetryingCaller(**settings).on(ERRORS)
    return made


def stamina_herd(peer: Any, *, jitter: bool) -> Caller:
    added = {} if jitter else {"wait_jitter": 0}
    return stamina(peer, attempts=None, timeout=None, wait_initial=FIRST, wait_max=LONGEST, **added)


def backoff(peer: Any) -> Caller:
    return _wrapped(peer.on_exception(peer.expo, ERRORS, max_tries=4))


def backoff_herd(peer: Any, *, jitter: bool) -> Caller:
    how = peer.full_jitter if jitter else None
    return _wrapped(peer.on_exception(peer.expo, ERRORS, factor=FIRST, max_value=LONGEST, jitter=how))


def httpx_retries(peer: Any, retry: Any = None) -> Caller:
    import httpx  # noqa: PLC0415  beside its peer

    class Wire(httpx.AsyncBaseTransport):
        """The network: what a request returns is put aside, for a response cannot carry it."""

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            try:
                request.extensions["answer"].append(await request.extensions["send"]())
            except TimeoutError as error:
                raise httpx.ReadTimeout(str(error)) from error
            except ConnectionError as error:
                raise httpx.ConnectError(str(error)) from error
            return httpx.Response(200)

    transport = peer.RetryTransport(transport=Wire(), retry=retry)

    async def call(request: Request) -> object:
        answer: list[object] = []
        sent = httpx.Request("GET", "http://service/", extensions={"send": request, "answer": answer})
        await transport.handle_async_request(sent)
        return answer[-1]

    return call


def httpx_retries_herd(peer: Any, *, jitter: bool) -> Caller:
    retry = peer.Retry(total=MANY, backoff_factor=FIRST, max_backoff_wait=LONGEST, backoff_jitter=float(jitter))
    return httpx_retries(peer, retry)


def nopanic(peer: Any) -> Caller:
    return _wrapped(peer.retry(on=ERRORS))


def nopanic_with_budget(peer: Any) -> Caller:
    return _wrapped(peer.retry(on=ERRORS, budget=peer.RetryBudget()))


def nopanic_with_breaker(peer: Any) -> Caller:
    retry, breaker = peer.retry(on=ERRORS, budget=peer.RetryBudget()), peer.circuit_breaker()
    return _wrapped(lambda call: retry(breaker(call)))


def nopanic_herd(peer: Any, *, jitter: bool) -> Caller:
    delays = (peer.backoff.full_jitter if jitter else peer.backoff.exponential)(base=FIRST, cap=LONGEST)
    return _wrapped(peer.retry(attempts=MANY, on=ERRORS, backoff=delays))


def nopanic_hedge(peer: Any) -> Caller:
    return _wrapped(peer.hedge(delay=SLOW))


def grit_hedge(peer: Any) -> Caller:
    return _wrapped(peer.hedge(SLOW))


def hedge_by_hand(_: Any) -> Caller:
    """As it is written where there is no library."""

    async def call(request: Request) -> object:
        first = asyncio.ensure_future(request())
        done, _ = await asyncio.wait({first}, timeout=SLOW)
        if done:
            return first.result()
        done, others = await asyncio.wait({first, asyncio.ensure_future(request())}, return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            other.cancel()
        return done.pop().result()

    return call


def _herd(jitter: str) -> Policy:
    return Policy(retry=Retry(attempts=MANY, backoff=Exponential(initial=FIRST, maximum=LONGEST, jitter=jitter)))  # type: ignore[arg-type]  # one of its words  # pyright: ignore[reportArgumentType]


def _with_and_without(name: str, module: str, make: Callable[..., Caller], how: str = "full jitter") -> dict[str, Peer]:
    return {
        f"{name}, no jitter": (module, partial(make, jitter=False)),
        f"{name}, {how}": (module, partial(make, jitter=True)),
    }


_OUTAGE: Final[Mapping[str, Subject | Peer]] = {
    "no retries": None,
    "tenacity, 4 attempts, random exponential": ("tenacity", tenacity),
    "stamina, defaults": ("stamina", stamina),
    "backoff, 4 tries, expo": ("backoff", backoff),
    "httpx-retries, defaults": ("httpx_retries", httpx_retries),
    "nopanic retry": ("nopanic", nopanic),
    "nopanic retry with budget": ("nopanic", nopanic_with_budget),
    "nopanic retry with budget and breaker": ("nopanic", nopanic_with_breaker),
    "**resilient, `Policy.http()`**": Policy.http(),
    "**resilient, `Policy.aggressive()`**": Policy.aggressive(),
}
COMPARED: Final[Mapping[str, Mapping[str, Subject | Peer]]] = {
    "retry-storm": _OUTAGE,
    "flapping": _OUTAGE,
    "tail-at-scale": {
        "no hedges": None,
        "by hand, `asyncio.wait`": ("asyncio", hedge_by_hand),
        "grit hedge": ("grit", grit_hedge),
        "nopanic hedge": ("nopanic", nopanic_hedge),
        "**resilient, the same delay**": Policy(hedge=Hedge(SLOW)),
        "**resilient, live percentile**": Policy(hedge=Hedge()),
        "**resilient, live percentile, budget of 2 %**": Policy(hedge=Hedge(budget=RetryBudget(ratio=0.02, floor=0))),
    },
    "thundering-herd": {
        **_with_and_without("tenacity", "tenacity", tenacity_herd),
        **_with_and_without("stamina", "stamina", stamina_herd, "its jitter, up to a second"),
        **_with_and_without("backoff", "backoff", backoff_herd),
        **_with_and_without("httpx-retries", "httpx_retries", httpx_retries_herd),
        **_with_and_without("nopanic", "nopanic", nopanic_herd),
        "**resilient, no jitter**": _herd("none"),
        **{f"**resilient, {jitter} jitter**": _herd(jitter) for jitter in ("equal", "decorrelated", "full")},
    },
}
"""What is compared, by the name of the scenario."""


def subjects(scenario: str) -> dict[str, Subject]:
    """What is compared in a scenario: ours, and each peer that is installed."""
    found: dict[str, Subject] = {}
    for name, subject in COMPARED[scenario].items():
        if not isinstance(subject, tuple):
            found[name] = subject
            continue
        module, make = subject
        try:
            peer = import_module(module)
        except ImportError:
            print(f"{module} is not installed", file=sys.stderr)
            continue
        found[name] = partial(make, peer)
    return found
