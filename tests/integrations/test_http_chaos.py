"""Chaos in a policy takes the place of the network: what it injects is judged as if it were real."""

from random import Random
from typing import Any

import pytest

from integrations.families import POLICY, Family
from resilient import Chaos, clock, record_timeline

pytestmark = pytest.mark.anyio

URL = "http://api.example.com/"


async def test_a_fault_is_retried_as_one_of_the_network(family: Family) -> None:
    """A failed connection, which carries no response."""

    def no_route(_: Random) -> Exception:
        error: Exception = family.lib.ConnectError("chaos")
        return error

    chaos = Chaos(fault=no_route, fault_rate=1, enabled=True)
    inner = family.mock(200)
    async with family.client(inner, policy=POLICY.replace(chaos=chaos)) as client:
        with pytest.raises(family.lib.ConnectError):
            await client.get(URL)

    assert chaos.statistics().faults >= 3
    assert inner.requests == []


async def test_an_outcome_is_judged_like_a_response(family: Family) -> None:
    """A false 503 is retried, and at last handed out."""

    def unavailable(_: Random) -> Any:
        return family.lib.Response(503)

    chaos = Chaos(outcome=unavailable, outcome_rate=1, enabled=True)
    async with family.client(family.mock(200), policy=POLICY.replace(chaos=chaos)) as client:
        with record_timeline() as timeline:
            response = await client.get(URL)

    assert response.status_code == 503
    assert timeline.calls[0].attempts == 3
    assert "outcome by chaos" in timeline.render()


async def test_the_limit_of_an_attempt_cuts_its_latency(family: Family) -> None:
    """As it cuts a slow server."""
    chaos = Chaos(latency=60, latency_rate=1, enabled=True)
    policy = POLICY.replace(chaos=chaos, retry=None, attempt_timeout=2)
    async with family.client(family.mock(200), policy=policy) as client:
        with pytest.raises(family.lib.TimeoutException):
            await client.get(URL)

    assert clock.now() == 2


async def test_while_it_is_off_requests_go_out(family: Family) -> None:
    """As without it."""
    chaos = Chaos(latency=60, latency_rate=1)
    async with family.client(family.mock(200), policy=POLICY.replace(chaos=chaos)) as client:
        response = await client.get(URL)

    assert response.status_code == 200
    assert chaos.statistics().calls == 0
