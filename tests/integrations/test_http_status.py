"""Responses: which statuses are tried again, for which requests, when, and what the breaker learns.

No socket is needed for that: the inner transport is a mock, and time is virtual, so every wait is exact.
"""

import email.utils
from typing import Any

import pytest

from integrations.families import AT_ONCE, POLICY, Family, gates
from resilient import Bulkhead, CircuitBreaker, Exponential, Health, Policy, Retry, clock, record_timeline
from resilient.observe.events import RetryScheduled
from resilient_integrations._http import hints

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]  # loops have no say

URL = "https://api.example.com/users"
KEYED = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
HEALTHY, UNHEALTHY, NEUTRAL = Health.HEALTHY, Health.UNHEALTHY, Health.NEUTRAL


def request_as(kind: str) -> dict[str, Any]:
    return {"method": kind.rsplit(maxsplit=1)[-1], "url": URL, "headers": KEYED if kind.startswith("keyed") else {}}


ANY = ("GET", "POST", "keyed POST")
IDEMPOTENT = ("GET", "keyed POST")
ONLY_KEYED = ("keyed POST",)
NEVER = ()

STATUSES = [
    *((status, NEVER, HEALTHY) for status in (204, 304)),
    *((status, NEVER, HEALTHY) for status in (400, 401, 404, 417, 422)),
    (408, IDEMPOTENT, HEALTHY),
    (409, ONLY_KEYED, HEALTHY),
    (421, ANY, HEALTHY),
    (425, ANY, HEALTHY),
    (429, ANY, NEUTRAL),
    *((status, IDEMPOTENT, UNHEALTHY) for status in (500, 502, 503, 504)),
    *((status, NEVER, UNHEALTHY) for status in (501, 505)),
]


@pytest.mark.parametrize(("status", "resent", "health"), STATUSES)
async def test_a_status_is_retried_for_requests_that_may_be_sent_twice(
    family: Family, status: int, resent: tuple[str, ...], health: Health
) -> None:
    """The table of statuses: who is sent again, and what the breaker learns of it."""
    for kind in ANY:
        async with family.client(family.mock(status, 299)) as client:
            with record_timeline() as timeline:
                response = await client.request(**request_as(kind))

            assert (kind, response.status_code) == (kind, 299 if kind in resent else status)
            assert timeline.attempts[0].verdict.health is health
            assert timeline.attempts[0].verdict.throttled == (status == 429)


@pytest.mark.parametrize(
    ("method", "resent"),
    [
        *((method, True) for method in ("GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PUT", "DELETE")),
        *((method, False) for method in ("POST", "PATCH", "CONNECT", "LOCK", "X-OWN")),
    ],
)
async def test_a_method_says_whether_a_request_may_be_sent_twice(family: Family, method: str, *, resent: bool) -> None:
    """Safe and idempotent methods may; others, unknown ones among them, may not."""
    inner = family.mock(503, 200)
    async with family.client(inner) as client:
        response = await client.request(method, URL)

        assert response.status_code == (200 if resent else 503)


@pytest.mark.parametrize("name", ["Idempotency-Key", "X-Idempotency-Key"])
async def test_a_key_that_the_user_set_is_consent_to_send_a_post_twice(family: Family, name: str) -> None:
    """Both spellings count, and the key is the same on every attempt."""
    inner = family.mock(500, 502, 200)
    async with family.client(inner) as client:
        response = await client.post(URL, headers={name: "k1"})

        assert response.status_code == 200
        assert [request.headers[name] for request in inner.requests] == ["k1", "k1", "k1"]


@pytest.mark.parametrize(("method", "idempotent", "status"), [("POST", True, 200), ("GET", False, 503)])
async def test_a_request_can_say_whether_it_may_be_sent_twice(
    family: Family,
    method: str,
    *,
    idempotent: bool,
    status: int,
) -> None:
    """`extensions={"resilient": {"idempotent": ...}}` goes before the method."""
    inner = family.mock(503, 200)
    async with family.client(inner) as client:
        response = await client.request(method, URL, extensions={"resilient": {"idempotent": idempotent}})

        assert response.status_code == status


@pytest.mark.parametrize(("retry_503", "status"), [(False, 503), (True, 200)])
async def test_a_post_that_was_answered_503_with_retry_after_is_sent_again_on_request_only(
    family: Family,
    *,
    retry_503: bool,
    status: int,
) -> None:
    """The server may have done the work before it gave up."""
    inner = family.mock((503, {"Retry-After": "1"}), 200)
    async with family.client(inner, retry_503=retry_503) as client:
        response = await client.post(URL)

        assert response.status_code == status


async def test_a_post_that_was_answered_503_without_retry_after_is_never_sent_again(family: Family) -> None:
    """The opt-in is for servers that say when to come back."""
    inner = family.mock(503, 200)
    async with family.client(inner, retry_503=True) as client:
        assert (await client.post(URL)).status_code == 503


async def test_the_last_response_is_handed_out_as_it_is(family: Family) -> None:
    """No response is turned into an exception, and its body is that of the last attempt."""
    inner = family.mock(500, 502, (503, {"X-Attempt": "3"}), 200)
    async with family.client(inner) as client:
        response = await client.get(URL)

        assert (response.status_code, response.headers["X-Attempt"]) == (503, "3")
        assert response.extensions["resilient.attempts"] == 3


# -- when ------------------------------------------------------------------------------------------------------------

RETRY_AFTER: list[tuple[str, dict[str, str] | list[tuple[str, str]], float]] = [
    ("seconds", {"Retry-After": "7"}, 7.0),
    ("zero seconds", {"Retry-After": "0"}, 0.0),
    ("two headers: the largest", [("Retry-After", "1"), ("Retry-After", "7")], 7.0),
    ("two values that a proxy joined: the largest", {"Retry-After": "1, 7"}, 7.0),
    (
        "a date, by the server's own clock",
        {"Date": "Sun, 06 Nov 1994 08:49:30 GMT", "Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"},
        7.0,
    ),
    (
        "a date in the form of RFC 850",
        {"Date": "Sun, 06 Nov 1994 08:49:30 GMT", "Retry-After": "Sunday, 06-Nov-94 08:49:37 GMT"},
        7.0,
    ),
    ("a date in the form of asctime", {"Date": "Sun, 06 Nov 1994 08:49:30 GMT", "Retry-After": "Sun Nov  6 08:49:37 1994"}, 7.0),
    ("a date that has passed", {"Date": "Sun, 06 Nov 1994 08:49:30 GMT", "Retry-After": "Sun, 06 Nov 1994 08:49:00 GMT"}, 0.0),
    ("milliseconds", {"retry-after-ms": "1500"}, 1.5),
    ("milliseconds of another vendor", {"x-ms-retry-after-ms": "1500"}, 1.5),
    ("milliseconds go before seconds", {"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
    ("malformed milliseconds do not", {"retry-after-ms": "soon", "Retry-After": "2"}, 2.0),
]


@pytest.mark.parametrize(
    ("headers", "seconds"), [pytest.param(headers, seconds, id=name) for name, headers, seconds in RETRY_AFTER]
)
async def test_a_hint_of_the_server_is_never_shortened(family: Family, headers: Any, seconds: float) -> None:
    """The next attempt comes when the server asked for it, or a little later, so that not all come at once."""
    inner = family.mock((503, headers), 200)
    async with family.client(inner) as client:
        with record_timeline() as timeline:
            response = await client.get(URL)

        wait = next(event for event in timeline.events if isinstance(event, RetryScheduled))
        assert response.status_code == 200
        assert seconds <= clock.now() <= seconds + min(seconds / 10, 1.0) + 1e-6
        assert wait.delay_source == "server"


MALFORMED = ["1_000", "+5", "-1", "１０", "soon", "", "1.5", "0x10", "7 s", "Sun, 99 Foo 1994 08:49:37 GMT"]


async def test_a_malformed_hint_is_no_hint(family: Family) -> None:
    """`int()` would take some of these; the grammar of the header does not."""
    for value in MALFORMED:
        async with family.client(family.mock((503, [(b"Retry-After", value.encode())]), 200)) as client:
            with record_timeline() as timeline:
                response = await client.get(URL)

            wait = next(event for event in timeline.events if isinstance(event, RetryScheduled))
            assert (value, response.status_code, wait.delay, wait.delay_source) == (value, 200, 0.0, "backoff")


async def test_a_date_without_the_servers_clock_is_compared_with_ours(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A response without a `Date` leaves nothing else."""
    monkeypatch.setattr(hints, "wall_clock", lambda: 1_000_000.0)
    inner = family.mock((503, {"Retry-After": email.utils.formatdate(1_000_007, usegmt=True)}), 200)
    async with family.client(inner) as client:
        await client.get(URL)

        assert 7.0 <= clock.now() <= 7.7 + 1e-6


@pytest.mark.parametrize("hint", ["61", "3600", "99999999999999999999"])
async def test_a_hint_beyond_the_longest_wait_ends_the_call_at_once(family: Family, hint: str) -> None:
    """`max_retry_after` is 60 s: nobody comes back earlier than asked, so the response is handed out now."""
    retry = Retry(attempts=3, backoff=AT_ONCE)
    inner = family.mock((429, {"Retry-After": hint}), 200)
    async with family.client(inner, policy=Policy.http().replace(retry=retry)) as client:
        response = await client.get(URL)

        assert (response.status_code, clock.now()) == (429, 0.0)


async def test_a_hint_beyond_the_window_ends_the_call_at_once(family: Family) -> None:
    """30 s are left for waits and new attempts."""
    inner = family.mock((503, {"Retry-After": "30"}), 200)
    async with family.client(inner) as client:
        response = await client.get(URL)

        assert (response.status_code, clock.now()) == (503, 0.0)


async def test_a_hint_beyond_the_timeout_of_the_request_ends_the_call_at_once(family: Family) -> None:
    """As short as the caller wants it."""
    inner = family.mock((503, {"Retry-After": "3"}), 200)
    async with family.client(inner) as client:
        response = await client.get(URL, extensions={"resilient": {"timeout": 2.0}})

        assert (response.status_code, clock.now()) == (503, 0.0)


@pytest.mark.parametrize(
    ("status", "said", "kind", "expected"),
    [
        pytest.param(503, "false", "GET", 503, id="no: a GET is not sent again"),
        pytest.param(429, "false", "POST", 429, id="no: not even after 429"),
        pytest.param(400, "true", "GET", 200, id="yes: a GET is sent again after 400"),
        pytest.param(400, "true", "keyed POST", 200, id="yes: a keyed POST is"),
        pytest.param(500, "true", "POST", 500, id="yes: a POST that may have been processed is not"),
        pytest.param(429, "true", "POST", 200, id="yes: one that was refused is"),
        pytest.param(503, "maybe", "GET", 200, id="another word says nothing"),
    ],
)
async def test_the_server_itself_may_say_whether_to_retry(
    family: Family, status: int, said: str, kind: str, expected: int
) -> None:
    """It knows better than the status, but not whether the request is safe to send twice."""
    for name in ("x-should-retry", "stripe-should-retry"):
        async with family.client(family.mock((status, {name: said}), 200)) as client:
            assert (await client.request(**request_as(kind))).status_code == expected


async def test_a_throttled_request_waits_as_long_as_it_is_told(family: Family) -> None:
    """429 with Retry-After, of a POST as well."""
    async with family.client(family.mock((429, {"Retry-After": "7"}), 200)) as client:
        assert (await client.post(URL)).status_code == 200
        assert 7.0 <= clock.now() <= 7.7 + 1e-6


# -- what breakers and limits make of it ------------------------------------------------------------------------------


async def test_throttling_does_not_trip_the_breaker(family: Family) -> None:
    """A server that answers 429 is well: it protects itself."""
    inner = family.mock(429)
    async with family.client(inner, policy=POLICY.replace(retry=None)) as client:
        for _ in range(40):
            await client.get(URL)

        assert len(inner.requests) == 40


async def test_errors_of_the_server_trip_the_breaker_of_its_origin_only(family: Family) -> None:
    """Each origin (scheme, host, port) has a breaker of its own."""
    inner = family.mock(500)
    breaker = CircuitBreaker(consecutive_failures=3)
    async with family.client(inner, policy=Policy.http().replace(retry=None, circuit_breaker=breaker)) as client:
        for _ in range(3):
            assert (await client.get(URL)).status_code == 500
        with pytest.raises(family.lib.TransportError, match="circuit is open"):
            await client.get("https://api.example.com:443/other")

        for other in ("http://api.example.com/", "https://api.example.com:8443/", "https://other.example.com/"):
            assert (await client.get(other)).status_code == 500


@pytest.mark.parametrize("status", [301, 401, 404, 409, 422])
async def test_an_answer_that_the_user_did_not_want_is_a_success_for_the_breaker(family: Family, status: int) -> None:
    """It closes a breaker whose failures are counted in a row."""
    inner = family.mock(500, 500, status, 500, 500, status)
    breaker = CircuitBreaker(consecutive_failures=3)
    async with family.client(inner, policy=Policy.http().replace(retry=None, circuit_breaker=breaker)) as client:
        for _ in range(6):
            await client.get(URL)

        assert len(inner.requests) == 6


async def test_a_throttled_outcome_may_have_a_backoff_of_its_own_and_is_paid_by_the_budget(family: Family) -> None:
    """Defaults: three attempts, paid for by a budget, jittered."""
    inner = family.mock(429)
    async with family.client(inner, policy=Policy.http()) as client:
        with record_timeline() as timeline:
            await client.get(URL)

        waits = [event for event in timeline.events if isinstance(event, RetryScheduled)]
        assert [wait.budget_left is not None for wait in waits] == [True, True]
        assert len(inner.requests) == 3


async def test_no_attempt_is_made_once_the_window_is_over(family: Family) -> None:
    """The window bounds waits and new attempts."""
    retry = Retry(attempts=None, backoff=Exponential(initial=1.0, jitter="none"), timeout=10.0)
    inner = family.mock(503)
    async with family.client(inner, policy=Policy.http().replace(retry=retry, circuit_breaker=None)) as client:
        response = await client.get(URL)

        assert (response.status_code, len(inner.requests), clock.now()) == (503, 4, 7.0)  # 1 + 2 + 4, and the next 5 end too late


async def test_the_permit_of_a_bulkhead_is_kept_per_origin(family: Family) -> None:
    """State is looked up by origin, with the port that the scheme implies."""
    async with family.client(family.mock(200), policy=Policy.http().replace(bulkhead=Bulkhead(3))) as client:
        await client.get(URL)

        assert [type(gate) for gate in gates(client._transport, "https://api.example.com:443")] == [CircuitBreaker, Bulkhead]
