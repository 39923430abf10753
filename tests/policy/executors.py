"""What the tests of the executor share: two policies, a callee, and a provider whose policies change."""

import copy

import anyio

from resilient import (
    CircuitBreaker,
    Constant,
    Policy,
    PolicyKey,
    Retry,
)

NOW = Constant(delay=0)
TWICE = Policy(retry=Retry(attempts=2, backoff=NOW), id="twice")
TRIPS = Policy(circuit_breaker=CircuitBreaker(consecutive_failures=1), id="trips")


async def answer(number: int, *, plus: int = 0) -> int:
    return number + plus


class Changing:
    """A provider whose policies change, that may have to be awaited, and that may fail."""

    def __init__(self, policy: Policy | Exception, *, sync: bool = True) -> None:
        self.policy = policy
        self.sync = sync
        self.loads = 0

    def current(self, key: PolicyKey) -> Policy | None:
        return self.policy if self.sync and isinstance(self.policy, Policy) else None

    async def load(self, key: PolicyKey) -> Policy:
        self.loads += 1
        policy = self.policy
        await anyio.sleep(1)
        if isinstance(policy, Exception):
            raise copy.copy(policy)
        return policy
