"""Calls by key: what the executor costs over the pipeline that it runs them in."""

from collections.abc import Iterable

from benchmarks.harness import Case, Group, Target, called, fn
from benchmarks.pipelines import four
from resilient import Policy, Resilience, override

KEY = "user-service.GetUser"
DIRECT = "resilient Pipeline.call: the pipeline of the key"


def policy_of_four() -> Policy:
    retry, rate_limit, circuit_breaker, bulkhead = four().strategies
    return Policy().replace(retry=retry, rate_limit=rate_limit, circuit_breaker=circuit_breaker, bulkhead=bulkhead)


def own() -> Iterable[Case]:
    policy = policy_of_four()
    resilience, unknown = Resilience(policies={KEY: policy}), Resilience()
    pipeline = resilience.pipeline(KEY)

    async def overridden(value: int) -> int:
        with override(policy):
            return await resilience.call(KEY, fn, value)

    yield called(DIRECT, lambda value: pipeline.call(fn, value), ours=True)
    yield called("resilient Resilience.call", lambda value: resilience.call(KEY, fn, value), ours=True, targets=(Target(0.56),))
    yield called("resilient @protect", resilience.protect(KEY)(fn), ours=True)
    yield called("resilient Resilience.call: no policy, the default one", lambda value: unknown.call(KEY, fn, value), ours=True)
    yield called("resilient Resilience.call: in a block of its own", overridden, ours=True)


GROUPS = [Group("executor", "Calls by key: over the same pipeline, called directly", own, base=DIRECT)]
