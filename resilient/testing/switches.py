"""Switches for tests of code that uses the strategies: no waits, or no strategies at all.

Both act on the whole process while their block runs, so that they reach tasks that were started before. They replace a
function of `resilient.clock`, and the flag of `resilient._switch`; outside of their blocks they cost nothing: while the
strategies are disabled a silent listener sends all calls the way of those that somebody listens to, where the flag is read.
"""

import contextlib
from collections.abc import Generator

import anyio.lowlevel

from resilient import _switch, clock
from resilient.observe.events import Event
from resilient.observe.listeners import ears, everywhere

__all__ = ("disabled", "no_waits")


@contextlib.contextmanager
def no_waits() -> Generator[None]:
    """Let the waits of retries take no time while the block runs.

    Everything else stays as it is: the delays are chosen, reported, and compared with the deadline; queues of bulkheads and
    limiters wait for real, since somebody must give back a permit first. Cancellation is delivered where the wait would be.
    """
    real, clock.sleep = clock.sleep, _no_sleep
    try:
        yield
    finally:
        clock.sleep = real


async def _no_sleep(_seconds: float) -> None:
    await anyio.lowlevel.checkpoint()


@contextlib.contextmanager
def disabled() -> Generator[None]:
    """Make all strategies inert while the block runs: a call just calls the callee, once.

    Nothing is retried, refused, limited in time or replaced, no permit is taken, and no state learns anything. Listeners and
    timelines still hear of the call and its attempt. `deadline()` blocks keep their meaning.
    """
    before, _switch.enabled = _switch.enabled, False
    everywhere.append(_hear_nothing)
    ears.append(_hear_nothing)
    try:
        yield
    finally:
        everywhere.remove(_hear_nothing)
        ears.remove(_hear_nothing)
        _switch.enabled = before


def _hear_nothing(_event: Event) -> None:
    pass
