"""What the tests of the bulkhead share."""

from resilient.strategies.bulkhead import Bulkhead


def is_empty(bulkhead: Bulkhead) -> bool:
    """Nothing is held, nobody waits, and all slots can be had again."""
    now = bulkhead.statistics()
    leases = [bulkhead.acquire_nowait() for _ in range(bulkhead.max_concurrent)]
    for lease in leases:
        lease.settle()
    return (now.active, now.queued) == (0, 0) and bulkhead.statistics() == now
