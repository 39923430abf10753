"""Calls by key: policies in one place, a reload that keeps the state, and what happened, attempt by attempt.

Run it: python examples/policies.py
"""

import asyncio
import logging

from resilient import CircuitOpen, Policy, Resilience, RetryableError, override, policy_from_document

logging.getLogger("resilient").setLevel(logging.ERROR)  # the timeline shows it

PAYMENTS = policy_from_document(
    {
        "id": "v1",
        "retry": {"attempts": 99, "backoff": {"initial": "10ms", "maximum": "50ms"}},  # clamped to 10
        "circuit_breaker": {"consecutive_failures": 10, "open_for": "30s"},
    }
)

resilience = Resilience(policies={"payments.Charge": PAYMENTS, "user-service.GetUser": Policy.low_latency()})


@resilience.protect("user-service.GetUser")
async def get_user(user_id: int) -> dict[str, int]:
    """A service that answers."""
    await asyncio.sleep(0.01)
    return {"id": user_id}


async def charge(amount: float) -> str:
    """A service that never does."""
    msg = f"the bank is busy, {amount} not charged"
    raise RetryableError(msg)


async def main() -> None:
    """Call both, and look at what happened."""
    print("user:", await get_user(42))

    outcome, timeline = await resilience.call_with_timeline("payments.Charge", charge, 9.99)
    print("charge:", outcome.error)
    print("policy:", timeline.attributes)
    print(timeline.render())

    try:
        await resilience.call("payments.Charge", charge, 9.99)
    except CircuitOpen as refusal:
        print("refused:", refusal)

    with override(Policy()):  # everything exactly once, e.g. in a test
        outcome, timeline = await resilience.call_with_timeline("payments.Charge", charge, 9.99)
        print("with an override:", len(timeline.attempts), "attempt")

    for key, parts in resilience.statistics().items():
        print(key, {name: getattr(part, "state", part) for name, part in parts.items()})


if __name__ == "__main__":
    asyncio.run(main())
