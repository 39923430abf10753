"""The rate that follows a server: its 429 and Retry-After, its RateLimit fields, and what of them is no hint."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from integrations.families import BACKENDS, POLICY, Family
from integrations.servers import answer, serve
from resilient import AdaptiveRate, AdaptiveRateStatistics, RateHint, RateLimited, Retry, TokenBucket, record_timeline
from resilient_integrations._http import hints
from resilient_integrations._http.quota import rate_hint

HINTS: list[tuple[dict[str, str], tuple[int, float] | None]] = [
    ({}, None),
    # the draft of the IETF
    ({"RateLimit": '"default";r=50;t=30'}, (50, 30)),
    ({"RateLimit": ' "default" ; r=50 ; t=30 '}, (50, 30)),
    ({"RateLimit": '"default";r=0;t=30;pk=:QUJD:'}, (0, 30)),
    ({"RateLimit": '"burst";r=90;t=10, "daily";r=3;t=3600'}, (3, 3600)),
    ({"RateLimit": '"burst";r=0;t=10, "daily";r=0;t=3600, "x";r=1;t=9999'}, (0, 3600)),
    ({"RateLimit": '"a, b;r=1;t=1";r=7;t=30'}, (7, 30)),
    ({"RateLimit": '"default";r=5', "RateLimit-Policy": '"default";q=100;w=60'}, (5, 60)),
    ({"RateLimit": '"default";r=5;t=2', "RateLimit-Policy": '"default";q=100;w=60;qu="requests"'}, (5, 2)),
    ({"RateLimit": '"default";r=5;t=2', "RateLimit-Policy": '"default";q=100;w=60;qu="content-bytes"'}, None),
    (
        {"RateLimit": '"bytes";r=5;t=2, "calls";r=70;t=3', "RateLimit-Policy": '"bytes";q=9;qu="content-bytes","calls";q=99'},
        (70, 3),
    ),
    ({"RateLimit-Policy": '"default";q=100;w=60'}, None),
    # what came before it
    ({"RateLimit": "limit=100, remaining=50, reset=30"}, (50, 30)),
    ({"RateLimit-Limit": "100", "RateLimit-Remaining": "50", "RateLimit-Reset": "30"}, (50, 30)),
    ({"X-RateLimit-Remaining": "50", "X-RateLimit-Reset": "30"}, (50, 30)),
    ({"X-Rate-Limit-Remaining": "50", "X-Rate-Limit-Reset": "2.5"}, (50, 2.5)),
    ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795000060"}, (0, 60)),
    ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795000060000"}, (0, 60)),
    ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1794999000"}, (0, 0)),
    ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795000060", "Date": "Wed, 18 Nov 2026 11:06:50 GMT"}, (0, 50)),
    # of language models: buckets that fill evenly, and tell when they are full
    ({"X-RateLimit-Limit-Requests": "60", "X-RateLimit-Remaining-Requests": "59", "X-RateLimit-Reset-Requests": "1s"}, (59, 1)),
    (
        {"X-RateLimit-Limit-Requests": "200", "X-RateLimit-Remaining-Requests": "7", "X-RateLimit-Reset-Requests": "7m12s"},
        (7, 432),
    ),
    (
        {"X-RateLimit-Limit-Requests": "10000", "X-RateLimit-Remaining-Requests": "9999", "X-RateLimit-Reset-Requests": "6ms"},
        (9999, 0.006),
    ),
    ({"X-RateLimit-Remaining-Requests": "3", "X-RateLimit-Reset-Requests": "1h0m2.5s"}, (3, 3602.5)),
    ({"X-RateLimit-Remaining-Requests": "3", "X-RateLimit-Reset-Requests": "10"}, (3, 10)),
    ({"X-RateLimit-Limit-Requests": "60", "X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "1m0s"}, (0, 1)),
    ({"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "1m0s"}, (0, 60)),
    ({"X-RateLimit-Limit-Requests": "0", "X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "1m0s"}, (0, 60)),
    ({"X-RateLimit-Remaining-Tokens": "0", "X-RateLimit-Reset-Tokens": "6m0s"}, None),
    (
        {
            "Anthropic-RateLimit-Requests-Limit": "50",
            "Anthropic-RateLimit-Requests-Remaining": "49",
            "Anthropic-RateLimit-Requests-Reset": "2026-11-18T11:07:00Z",
            "Date": "Wed, 18 Nov 2026 11:06:50 GMT",
        },
        (49, 10),
    ),
    (
        {
            "Anthropic-RateLimit-Requests-Limit": "50",
            "Anthropic-RateLimit-Requests-Remaining": "0",
            "Anthropic-RateLimit-Requests-Reset": "2026-11-18T12:07:40+01:00",
            "Date": "Wed, 18 Nov 2026 11:06:50 GMT",
        },
        (0, 1),
    ),
    ({"Anthropic-RateLimit-Tokens-Remaining": "0", "Anthropic-RateLimit-Tokens-Reset": "2026-11-18T11:07:00Z"}, None),
    # what is no hint
    ({"RateLimit": ""}, None),
    ({"X-RateLimit-Remaining-Requests": "3", "X-RateLimit-Reset-Requests": ""}, None),
    ({"X-RateLimit-Remaining-Requests": "3", "X-RateLimit-Reset-Requests": "5 minutes"}, None),
    ({"Anthropic-RateLimit-Requests-Remaining": "3", "Anthropic-RateLimit-Requests-Reset": "2026-11-18T11:07:00"}, None),
    ({"RateLimit": '"default";r=5'}, None),
    ({"RateLimit": '"default";r=-5;t=30'}, None),
    ({"RateLimit": '"default";r=5.5;t=30'}, None),
    ({"RateLimit": '"default";r=9999999999999999;t=30'}, None),
    ({"RateLimit": '"default;r=5;t=30'}, None),
    ({"RateLimit": "default"}, None),
    ({"X-RateLimit-Remaining": "50"}, None),
    ({"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "30"}, None),
    ({"X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "soon"}, None),
    ({"X-RateLimit-Remaining": "1_0", "X-RateLimit-Reset": "30"}, None),
    ({"X-RateLimit-Remaining": "٣", "X-RateLimit-Reset": "30"}, None),
]


@pytest.mark.parametrize(("headers", "expected"), HINTS)
def test_what_a_server_says_of_its_rate_limit(
    headers: dict[str, str], expected: tuple[int, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all dialects. Of several quotas the tightest counts; what is malformed, or counts anything but requests, is no hint."""
    monkeypatch.setattr(hints, "wall_clock", lambda: 1_795_000_000.0)
    encoded = httpx.Headers([(name.encode(), value.encode()) for name, value in headers.items()])

    assert rate_hint(encoded) == (None if expected is None else RateHint(*expected))


@pytest.fixture
def paced() -> Callable[..., Any]:
    """A policy that never waits for its rate."""

    def make(rate: float = 100, **settings: Any) -> Any:
        return POLICY.replace(retry=None, rate_limit=AdaptiveRate(rate, burst=50, max_wait=0, **settings))

    return make


def rate_of(client: Any, server: Any) -> AdaptiveRateStatistics:
    parts: tuple[Any, ...] = client._transport.pipeline.siblings[server.url]
    (rate,) = (part for part in parts if isinstance(part, AdaptiveRate))
    return rate.statistics()


@pytest.mark.parametrize("status", [429, 503])
class TestOverSockets:
    pytestmark = BACKENDS

    async def test_nothing_is_sent_before_a_retry_after_has_passed(
        self, family: Family, paced: Callable[..., Any], status: int
    ) -> None:
        """Whoever comes meanwhile is refused at once, and told when to come; a 429 lowers the rate as well."""
        async with serve(answer(status, headers={"Retry-After": "30"})) as server, family.client(policy=paced()) as client:
            response = await client.get(server.url)
            with pytest.raises(RateLimited) as refused:
                await client.get(server.url)
            seen = rate_of(client, server)

        assert response.status_code == status
        assert refused.value.retry_after == pytest.approx(30, abs=2)
        assert seen.rate == (70 if status == 429 else 100)
        assert len(server.requests) == 1


class TestFields:
    pytestmark = BACKENDS

    @pytest.mark.parametrize(
        "headers",
        [
            {"RateLimit": '"default";r=2;t=30', "RateLimit-Policy": '"default";q=100;w=60'},
            {"X-RateLimit-Remaining": "2", "X-RateLimit-Reset": "30"},
        ],
    )
    async def test_no_more_is_sent_than_the_server_has_left(
        self, family: Family, paced: Callable[..., Any], headers: dict[str, str]
    ) -> None:
        """A success tells it; the one who would be too many is refused, and told when the quota is renewed."""
        async with serve(answer(200, headers=headers), answer(200)) as server, family.client(policy=paced()) as client:
            for _ in range(3):
                await client.get(server.url)
            with pytest.raises(RateLimited) as refused:
                await client.get(server.url)
            left = rate_of(client, server).left

        assert refused.value.retry_after == pytest.approx(30, abs=2)
        assert (left, len(server.requests)) == (0, 3)

    async def test_a_call_waits_for_the_renewal_where_it_may(self, family: Family) -> None:
        """The retry of a 429 goes out when the quota is renewed, and not before."""
        policy = POLICY.replace(rate_limit=AdaptiveRate(1000))
        spent = answer(429, headers={"RateLimit": '"default";r=0;t=0.3'})
        async with serve(spent, answer(200)) as server, family.client(policy=policy) as client:
            with record_timeline() as timeline:
                response = await client.get(server.url)
        first, second = timeline.attempts

        assert response.status_code == 200
        assert second.started - first.at >= 0.29
        assert first.verdict.limits == RateHint(0, 0.3)

    async def test_a_quota_is_that_of_an_origin(self, family: Family, paced: Callable[..., Any]) -> None:
        """Another server goes on."""
        spent = answer(200, headers={"RateLimit": '"default";r=0;t=30'})
        async with serve(spent) as one, serve(answer(200)) as other, family.client(policy=paced()) as client:
            await client.get(one.url)
            with pytest.raises(RateLimited):
                await client.get(one.url)
            response = await client.get(other.url)

        assert response.status_code == 200

    async def test_nobody_reads_the_fields_where_nobody_wants_them(self, family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another limiter does not, so a success costs nothing more."""
        monkeypatch.setattr("resilient_integrations._http.judge.rate_hint", None)
        policy = POLICY.replace(rate_limit=TokenBucket(1000), retry=Retry(attempts=1))
        async with (
            serve(answer(200, headers={"RateLimit": '"default";r=0;t=30'})) as server,
            family.client(policy=policy) as client,
        ):
            statuses = [(await client.get(server.url)).status_code for _ in range(2)]

        assert statuses == [200, 200]
