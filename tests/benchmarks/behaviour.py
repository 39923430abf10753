"""How policies behave in an outage: ours and those of peers, in the same scenario, under the same arrivals.

    python tests/benchmarks/behaviour.py [--scenario retry-storm] [--seeds 3]

Each library is set up as its documentation shows it for a call over a network, or has its defaults where these are usable. Their
clocks are on virtual time, too: `time.monotonic` is replaced before they are imported. Peers that are not installed are left out.
"""

import argparse
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import import_module
from typing import Any, Final

from resilient import Policy, clock
from resilient.simulation import Caller, Run, Subject, gallery, simulate
from resilient.simulation.study import Study
from resilient.simulation.text import value

time.monotonic = lambda: clock.now()  # noqa: PLW0108  it changes; of whatever time there is; the library has the real one already

Request = Callable[[], Awaitable[object]]

ERRORS: Final = (ConnectionError, TimeoutError)
SHOWN: Final = ("goodput", "goodput_after", "recovery", "amplification_during", "amplification_after", "wasted", "wait")
UNITS: Final = {"recovery": "s", "wait": "s", "goodput": "share", "goodput_after": "share", "wasted": "share"}


def tenacity(peer: Any) -> Caller:
    wait = peer.wait_random_exponential(multiplier=0.1, max=5)
    made: Caller = peer.AsyncRetrying(
        stop=peer.stop_after_attempt(4), wait=wait, retry=peer.retry_if_exception_type(ERRORS), reraise=True
    )
    return made


def stamina(peer: Any) -> Caller:
    peer.instrumentation.set_on_retry_hooks([])  # no log lines
    made: Caller = peer.AsyncRetryingCaller().on(ERRORS)
    return made


def backoff(peer: Any) -> Caller:
    return _wrapped(peer.on_exception(peer.expo, ERRORS, max_tries=4))


def httpx_retries(peer: Any) -> Caller:
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

    transport = peer.RetryTransport(transport=Wire())

    async def call(request: Request) -> object:
        answer: list[object] = []
        sent = httpx.Request("GET", "http://service/", extensions={"send": request, "answer": answer})
        await transport.handle_async_request(sent)
        return answer[-1]

    return call


def nopanic(peer: Any) -> Caller:
    return _wrapped(peer.retry(on=ERRORS))


def nopanic_with_budget(peer: Any) -> Caller:
    return _wrapped(peer.retry(on=ERRORS, budget=peer.RetryBudget()))


def nopanic_with_breaker(peer: Any) -> Caller:
    retry, breaker = peer.retry(on=ERRORS, budget=peer.RetryBudget()), peer.circuit_breaker()
    return _wrapped(lambda call: retry(breaker(call)))


def _wrapped(decorate: Callable[[Any], Any]) -> Caller:
    async def call(request: Request) -> object:
        return await request()

    decorated: Caller = decorate(call)
    return decorated


PEERS: Final[dict[str, tuple[str, Callable[[Any], Caller]]]] = {
    "tenacity, 4 attempts, random exponential": ("tenacity", tenacity),
    "stamina, defaults": ("stamina", stamina),
    "backoff, 4 tries, expo": ("backoff", backoff),
    "httpx-retries, defaults": ("httpx_retries", httpx_retries),
    "nopanic retry": ("nopanic", nopanic),
    "nopanic retry with budget": ("nopanic", nopanic_with_budget),
    "nopanic retry with budget and breaker": ("nopanic", nopanic_with_breaker),
}


def subjects() -> dict[str, Subject]:
    """What is compared: nothing, our presets, and each peer that is installed."""
    found: dict[str, Subject] = {"no retries": None}
    for name, (module, make) in PEERS.items():
        try:
            peer = import_module(module)
        except ImportError:
            print(f"{module} is not installed", file=sys.stderr)
            continue
        found[name] = partial(make, peer)
    presets = {"**resilient, `Policy.http()`**": Policy.http(), "**resilient, `Policy.aggressive()`**": Policy.aggressive()}
    return {**found, **presets}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="retry-storm", choices=tuple(gallery()))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    scenario = gallery()[options.scenario]
    runs: dict[str, list[Run]] = {}
    for name, subject in subjects().items():
        runs[name] = []
        for seed in range(1, options.seeds + 1):
            random.seed(seed)  # peers draw from the common one
            runs[name].append(simulate(subject, scenario, seed=seed, name=name))
    found = Study(scenario=scenario, runs=runs)
    print("| | " + " | ".join(SHOWN) + " |")
    print("| --- |" + " ---: |" * len(SHOWN))
    for name in runs:
        cells = [value(found.band(name, measure).median, UNITS.get(measure, "")) for measure in SHOWN]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
