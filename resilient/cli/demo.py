"""The demo: a flaky server, a plain client and a resilient one, side by side.

`run` starts the server on the loopback interface and lets both clients make the same calls at the same times, phase after
phase: calm, flaky, outage, recovery. Each call is timed, and each request that leaves a client is counted below everything
else. The breaker is set to the time scale of a demo: it opens for a second, where production would take five and more.
"""

import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import anyio
import httpx

from resilient import clock
from resilient.cli.figures import CLIENTS, Call, Phase, Result, State
from resilient.cli.flaky_server import FlakyServer
from resilient.cli.screen import kept
from resilient.errors import ResilienceError
from resilient.observe import Listener, Timeline, listening
from resilient.observe.events import BreakerStateChanged, CallFinished, Event, RetryScheduled
from resilient.policy.schema import Policy
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient_integrations.httpx import ResilientTransport

__all__ = ("FULL", "QUICK", "Pace", "run")


class _Plan(NamedTuple):
    """A phase as it is planned.

    Attributes:
        seconds: in which calls are made, at the pace of a full run.
        enough: calls of each client that its figures need. A busy machine makes fewer, and goes on for longer until it has them.
        settle: seconds at most for which it goes on without new calls, so that those that wait for a retry are still part of it.
            The outage ends without: the breaker must find out by itself.

    """

    name: str
    about: str
    seconds: float
    enough: int = 0
    settle: float = 0.0


_PHASES: Final = (
    _Plan("calm", "every request is answered", 0.7),
    _Plan("flaky", "503 in bursts, some with Retry-After; resets; answers that come too late", 3.6, enough=120, settle=2.5),
    _Plan("outage", "nothing but 500, resets, and requests that hang", 3.0, enough=100),
    _Plan("recovery", "every request is answered again", 3.0, settle=2.0),
)
_LONGEST: Final = 13.0
"""Seconds after which no phase goes on for longer than planned."""
_TIMEOUT: Final = 1.0
"""Seconds after which both clients give up an attempt."""
_REST: Final = 2.0
"""How long a machine that is late rests, as a multiple of how late it is."""
_MOMENT: Final = 0.02


@dataclass(frozen=True)
class Pace:
    """How fast all goes.

    Attributes:
        time: what the seconds of the phases, and of the open breaker, are multiplied by.
        rate: calls a second, of each client.

    """

    time: float
    rate: float


FULL: Final = Pace(time=1.0, rate=50.0)
QUICK: Final = Pace(time=0.6, rate=80.0)

Watch = Callable[[Result], Coroutine[Any, Any, None]]


class _Counted(httpx.AsyncHTTPTransport):
    """The real transport; it counts what leaves, for each call."""

    def __init__(self) -> None:
        super().__init__(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # no TLS here: loading certificates takes a while

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["call"].sends += 1
        return await super().handle_async_request(request)


async def run(seed: int, pace: Pace, watch: Watch) -> Result:
    """Run the demo.

    Args:
        seed: fixes the schedule of faults.
        pace: `FULL` (about 13 seconds) or `QUICK` (about 8).
        watch: runs beside it, to show progress: it is given the result, which grows, and is cancelled at the end.

    """
    breaker = CircuitBreaker(consecutive_failures=6, open_for=pace.time, open_for_factor=1)
    resilient = ResilientTransport(_Counted(), policy=Policy.http().replace(circuit_breaker=breaker))
    planned = sum(plan.seconds for plan in _PHASES) * pace.time
    began = clock.now()
    result, timeline = Result(seed, pace.time, planned), Timeline(limit=100_000)
    async with anyio.create_task_group() as background:
        server = FlakyServer(seed, slow=3 * _TIMEOUT)
        port = await background.start(server.serve)
        background.start_soon(watch, result)
        with kept(result.log_lines), listening(timeline), listening(_states(result, began)):
            async with _client(_Counted(), port) as plain, _client(resilient, port) as client:
                await _drive(result, pace, server, (plain, client), began)
        background.cancel_scope.cancel()
    result.waterfall = _one_call(timeline.events, began + result.phases[1].begin, began + result.phases[2].begin).render()
    return result


def _client(transport: httpx.AsyncBaseTransport, port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}", timeout=_TIMEOUT, trust_env=False)


async def _drive(result: Result, pace: Pace, server: FlakyServer, clients: Sequence[httpx.AsyncClient], began: float) -> None:
    """Let both clients make a call each time one is due, until the last phase is over."""
    for title, client in zip(CLIENTS, clients, strict=True):
        await _make(Call(title, "warm-up", 0.0), client, began)  # what is imported and connected on first use is not measured
    remaining = result.planned
    async with anyio.create_task_group() as tasks:
        for plan in _PHASES:
            server.phase = plan.name
            begin = due = clock.now()
            result.phases.append(Phase(plan.name, plan.about, begin - began, plan.seconds * pace.time))
            remaining -= plan.seconds * pace.time
            made = 0
            while due < begin + plan.seconds * pace.time or (made < plan.enough and due - began + remaining < _LONGEST):
                for title, client in zip(CLIENTS, clients, strict=True):
                    call = Call(title, plan.name, clock.now() - began)
                    result.calls.append(call)
                    tasks.start_soon(_make, call, client, began)
                made += 1
                now = clock.now()
                due = max(due + 1 / pace.rate, now + _REST * (now - due))
                await anyio.sleep(due - now)
            result.phases[-1] = replace(result.phases[-1], seconds=clock.now() - begin)
            with anyio.move_on_after(plan.settle):
                while any(call.phase == plan.name and not call.done for call in result.calls):  # noqa: ASYNC110  counting events is more
                    await anyio.sleep(_MOMENT)
        tasks.cancel_scope.cancel()


async def _make(call: Call, client: httpx.AsyncClient, began: float) -> None:
    try:
        response = await client.get(f"/{call.client}", extensions={"call": call})
        call.ok = response.is_success
    except (httpx.HTTPError, ResilienceError):
        call.ok = False
    finally:
        call.end = clock.now() - began


def _states(result: Result, began: float) -> Listener:
    """A listener that keeps the breaker's changes of state."""

    def listener(event: Event) -> None:
        if isinstance(event, BreakerStateChanged):
            result.states.append(State(event.at - began, event.new, event.why))

    return listener


def _one_call(events: Sequence[Event], begin: float, end: float) -> Timeline:
    """The record of the most interesting call of the flaky phase: retried often, for many reasons, saved in the end."""
    retries: dict[int, list[RetryScheduled]] = {}
    for event in events:
        if isinstance(event, RetryScheduled):
            retries.setdefault(event.call_id, []).append(event)
    saved = [
        event.call_id
        for event in events
        if isinstance(event, CallFinished) and event.reason == "success" and begin <= event.started < end
    ]
    chosen = max(saved, key=lambda call: len({retry.verdict.reason for retry in retries.get(call, [])}), default=0)
    timeline = Timeline()
    for event in events:
        if event.call_id == chosen:
            timeline(event)
    return timeline
