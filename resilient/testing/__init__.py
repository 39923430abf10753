"""The test kit: virtual time, and switches that take the waits or the strategies away.

Nothing here is imported by the rest of the library. pytest is not needed.
"""

from resilient.testing.deadlock import Deadlock
from resilient.testing.switches import disabled, no_waits
from resilient.testing.virtual_time import VirtualTime, run_virtual, virtual_time

__all__ = ("Deadlock", "VirtualTime", "disabled", "no_waits", "run_virtual", "virtual_time")
