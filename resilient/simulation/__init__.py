"""The simulator: what would this policy do in that outage?

The strategies are the real ones; the services, the clients and the time are not. `simulate` makes one run, `study` compares
policies over several seeds, `sweep` looks for metastable states, `gallery` holds the scenarios that ship with the library.
`resilient simulate` does the same from the command line. Nothing here is imported by the rest of the library.
"""

from resilient.simulation.claims import Claim, Verification
from resilient.simulation.measures import MEASURES, Measure, Run
from resilient.simulation.model import Clients, Condition, Latency, Scenario, Service
from resilient.simulation.read import gallery, load_scenario, read_scenario
from resilient.simulation.run import Caller, Subject, simulate
from resilient.simulation.study import Band, Study, study
from resilient.simulation.sweep import Level, Sweep, sweep

__all__ = (
    "MEASURES",
    "Band",
    "Caller",
    "Claim",
    "Clients",
    "Condition",
    "Latency",
    "Level",
    "Measure",
    "Run",
    "Scenario",
    "Service",
    "Study",
    "Subject",
    "Sweep",
    "Verification",
    "gallery",
    "load_scenario",
    "read_scenario",
    "simulate",
    "study",
    "sweep",
)
