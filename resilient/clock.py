"""The one clock that all strategies read.

Responsible for the time that state machines see: seconds as a float, monotonic, origin unknown. It is read as
`clock.now()`, once per decision, and replaced as a whole (`clock.now = ...`) by virtual time in tests and in
simulation. anyio's own clock is another one: its deadlines are turned into *remaining seconds* by `time_left()`
in `resilient.context`, and only on paths that wait.
"""

import time
from collections.abc import Callable

__all__ = ("now",)

now: Callable[[], float] = time.monotonic
"""Seconds on a monotonic clock."""
