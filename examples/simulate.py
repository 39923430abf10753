"""What would these policies do if a service became slow for a while? Two policies, one outage, on virtual time."""

from resilient import CircuitBreaker, Policy, Retry, RetryBudget
from resilient.simulation import Clients, Condition, Latency, Scenario, Service, study

BROWN_OUT = Scenario(
    name="brown-out",
    seconds=40,
    services=(Service(name="api", workers=4, latency=Latency(mean=0.08)),),  # fifty requests a second, at most
    clients=(Clients(rate=40, patience=0.5),),
    conditions=(Condition(on="api", begin=10, end=14, slow=5),),
)
POLICIES = {
    "naive": Policy(retry=Retry(attempts=4)),
    "careful": Policy(
        retry=Retry(attempts=4, budget=RetryBudget(ratio=0.1, floor=1)),
        circuit_breaker=CircuitBreaker(window=5, open_for=2, open_for_factor=1),
    ),
}

found = study(POLICIES, BROWN_OUT, seeds=2, claims=["naive.goodput_after < 0.1", "careful.recovery <= 12"])

for measure in ("goodput_before", "goodput_during", "goodput_after", "amplification_after", "wasted", "recovery"):
    print(f"{measure:<20}", *(f"{policy} {found.band(policy, measure).median:6.3g}" for policy in POLICIES), sep="   ")
for claim in found.claims:
    print("holds" if claim.holds else "FAILS", claim.claim)
