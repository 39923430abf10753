"""Chaos that is off, and chaos that does not hit."""

from collections.abc import Iterable

from benchmarks.harness import Case, Group, called, fn
from resilient import Chaos


def own() -> Iterable[Case]:
    yield called("resilient @Chaos, off", Chaos(fault=OSError, fault_rate=0.1)(fn), ours=True)
    yield called("resilient @Chaos, on at a rate of 0", Chaos(fault=OSError, fault_rate=0, enabled=True)(fn), ours=True)


GROUPS = [Group("chaos", "Chaos: a call that it does not hit", own)]
