"""The one clock that all strategies read, and the one sleep by which they wait for time to pass.

Responsible for the time that state machines see: seconds as a float, monotonic, origin unknown. It is read as
`clock.now()`, once per decision, and replaced as a whole (`clock.now = ...`) by virtual time in tests and in
simulation. anyio's own clock is another one: its deadlines are turned into *remaining seconds* by `time_left()`
in `resilient.context`, and only on paths that wait. The waits of retries are `clock.sleep(...)`, which
`resilient.testing.no_waits()` replaces; a wait in a queue is not: it ends when somebody gives something back.
"""

import time
from collections.abc import Awaitable, Callable

import anyio

__all__ = ("now", "sleep")

now: Callable[[], float] = time.monotonic
"""Seconds on a monotonic clock."""

sleep: Callable[[float], Awaitable[None]] = anyio.sleep
"""Wait for so many seconds."""
