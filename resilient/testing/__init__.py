"""The test kit: virtual time, seeded interleavings, a proxy that plays faults, scripted callees, recordings, a check for leaks.

Nothing here is imported by the rest of the library. pytest is not needed; its plugin is `resilient_integrations.pytest_plugin`.
"""

from resilient.testing.deadlock import Deadlock, Waiting
from resilient.testing.fault_proxy import FaultProxy
from resilient.testing.faults import Bandwidth, BlackHole, Drip, Fault, Latency, Refuse, Reset, Sometimes, Truncate
from resilient.testing.leaks import no_leaks
from resilient.testing.recording import Recording, recorded
from resilient.testing.scripted import After, ScriptedCall, ScriptedCallee, ScriptEnded
from resilient.testing.switches import disabled, no_waits
from resilient.testing.virtual_time import VirtualTime, explore, run_virtual, virtual_time

__all__ = (
    "After",
    "Bandwidth",
    "BlackHole",
    "Deadlock",
    "Drip",
    "Fault",
    "FaultProxy",
    "Latency",
    "Recording",
    "Refuse",
    "Reset",
    "ScriptEnded",
    "ScriptedCall",
    "ScriptedCallee",
    "Sometimes",
    "Truncate",
    "VirtualTime",
    "Waiting",
    "disabled",
    "explore",
    "no_leaks",
    "no_waits",
    "recorded",
    "run_virtual",
    "virtual_time",
)
