"""The SDKs of language models over the resilient transport: what is asked again, how often, and what surfaces."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from integrations.families import BACKENDS, LEFT_BELOW, gates
from integrations.llm_sdks import ANTHROPIC, NO_TLS, OPENAI, QUICK, Sdk, keys, transport_of
from integrations.servers import answer, nobody, serve, stall
from resilient import (
    AdaptiveRate,
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    CircuitOpen,
    Classifier,
    Health,
    Kind,
    RateHint,
    RateLimited,
    TimeoutExceeded,
    Verdict,
    record_timeline,
    timeline_of,
)
from resilient_integrations import llm

ONLY_OPENAI = pytest.mark.parametrize("sdk", [OPENAI], indirect=True, ids=["openai"])
ASYNCIO = [*BACKENDS[:2], pytest.mark.parametrize("anyio_backend", ["real-plain"], indirect=True)]
"""Most tests run on one backend: what differs between the two is tested without an SDK."""
STREAMS = [*BACKENDS, LEFT_BELOW]


@pytest.fixture(params=[OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
def sdk(request: pytest.FixtureRequest) -> Sdk:
    """Run the test with both SDKs, or with the one that it names."""
    chosen: Sdk = request.param
    assert chosen.lib  # it is imported here, outside of the time of a test
    return chosen


@pytest.fixture
def session_events() -> Any:
    """Calls of OpenAI's SDK that carry a key. They take long to import, and are imported here for the same reason."""
    return importlib.import_module("openai.resources.beta.agents.sessions.events").AsyncEvents


class TestAskedAgain:
    pytestmark = ASYNCIO

    @pytest.mark.parametrize("status", [429, 503, 529])
    async def test_a_refusal_is_asked_again_when_the_server_says(self, sdk: Sdk, status: int) -> None:
        """A limit or an overload: not before the pause that the server wants; the question is the same."""
        async with (
            serve(answer(status, headers={"retry-after-ms": "40"}), sdk.whole()) as server,
            sdk.connected(server.url) as client,
        ):
            with record_timeline() as timeline:
                text = await sdk.ask(client)
        first, second = timeline.attempts

        assert text == "because"
        assert second.started - first.at >= 0.04
        assert len(set(server.bodies)) == 1
        assert [request.header("x-stainless-retry-count") for request in server.requests] == ["0", "0"]

    async def test_the_sdk_does_not_retry_on_top_of_that(self, sdk: Sdk) -> None:
        """Three attempts are three requests, and the error of the SDK surfaces; its response tells of them."""
        async with serve(answer(503)) as server, sdk.connected(server.url) as client:
            with pytest.raises(sdk.lib.InternalServerError) as failed:
                await sdk.ask(client)

        assert len(server.requests) == 3
        assert failed.value.response.extensions["resilient.attempts"] == 3
        assert failed.value.response.extensions["resilient.timeline"].attempts[0].verdict.reason == "http_503"

    @pytest.mark.parametrize(
        ("status", "said", "requests"),
        [
            (500, None, 1),
            (500, "true", 2),
            (502, "maybe", 1),
            (503, "false", 1),
            (529, "false", 1),
            (429, "false", 1),
            (400, "true", 1),
        ],
    )
    @ONLY_OPENAI
    async def test_a_question_that_may_have_been_answered_is_not_asked_again_unless_the_server_says_so(
        self, sdk: Sdk, status: int, said: str | None, requests: int
    ) -> None:
        """A 500 may come after the work was done and paid for; `x-should-retry` is the vendors' own word on it."""
        headers = {} if said is None else {"x-should-retry": said}
        async with serve(answer(status, headers=headers), sdk.whole()) as server, sdk.connected(server.url) as client:
            if requests == 1:
                with pytest.raises(sdk.lib.APIStatusError):
                    await sdk.ask(client)
            else:
                await sdk.ask(client)

        assert len(server.requests) == requests

    async def test_what_only_reads_is_asked_again(self, sdk: Sdk) -> None:
        """A GET is, after any failure that may pass, as everywhere."""
        listing = answer(200, b'{"data": [], "object": "list", "has_more": false}', {"Content-Type": "application/json"})
        async with serve(answer(500), listing) as server, sdk.connected(server.url) as client:
            page = await client.models.list()

        assert page.data == []
        assert len(server.requests) == 2

    async def test_a_server_that_nobody_reaches_is_tried_as_often_as_the_policy_says(self, sdk: Sdk) -> None:
        """What was never sent is sent again, whatever it is; then the error is the SDK's, and its cause tells."""
        with nobody() as port:
            async with sdk.connected(f"http://127.0.0.1:{port}") as client:
                with pytest.raises(sdk.lib.APIConnectionError) as failed:
                    await sdk.ask(client)
        cause = failed.value.__cause__

        assert isinstance(cause, httpx2.ConnectError)
        assert len(timeline_of(cause).attempts) == 3  # type: ignore[union-attr]  # there is one

    @ONLY_OPENAI
    async def test_a_classifier_of_ones_own_is_asked_first(self, sdk: Sdk) -> None:
        """What it says stands; where it says nothing, the integration does."""
        no = Verdict(Kind.PERMANENT, Health.HEALTHY, "no_money")
        own = Classifier(lambda _: None, lambda response: no if "broke" in response.headers else None)
        async with (
            serve(answer(503), answer(503, headers={"broke": "yes"})) as server,
            sdk.connected(server.url, classifier=own) as client,
        ):
            with pytest.raises(sdk.lib.InternalServerError):
                await sdk.ask(client)

        assert len(server.requests) == 2


class TestIdempotencyKeys:
    pytestmark = ASYNCIO

    @ONLY_OPENAI
    async def test_the_key_that_an_sdk_sets_is_that_of_all_attempts(self, sdk: Sdk, session_events: Any) -> None:
        """Requests of the OpenAI SDK that take a key are asked again after a 500, with the same one."""
        async with serve(answer(500), answer(200)) as server, sdk.connected(server.url) as client:
            await session_events(client).create("s", events=[], idempotency_key="mine")  # client.beta.agents.sessions.events

        assert keys(server) == ["mine", "mine"]

    async def test_a_key_of_ones_own_is_consent(self, sdk: Sdk) -> None:
        """Neither SDK sends one with a question; in `extra_headers` it goes along, and the question is asked again."""
        async with serve(answer(500), sdk.whole()) as server, sdk.connected(server.url) as client:
            await sdk.ask(client, extra_headers={"Idempotency-Key": "mine"})

        assert keys(server) == ["mine", "mine"]

    async def test_a_key_for_every_question_is_a_setting(self, sdk: Sdk) -> None:
        """Each question has another one, each attempt of it the same."""
        script = (answer(500), sdk.whole(), sdk.whole())
        async with serve(*script) as server, sdk.connected(server.url, idempotency_key="auto") as client:
            await sdk.ask(client)
            await sdk.ask(client)
        first, again, second = keys(server)

        assert first == again
        assert second not in {None, first}


class TestRateLimits:
    pytestmark = ASYNCIO

    async def test_no_more_is_asked_than_the_server_has_left(self, sdk: Sdk) -> None:
        """A success tells it; whoever would be too many is refused, with the error of a timeout, and nothing is sent."""
        policy = QUICK.replace(rate_limit=AdaptiveRate(1000, burst=50, max_wait=0))
        reset = "30s" if sdk.is_openai else "2026-11-18T11:07:20Z"
        headers = {"Date": "Wed, 18 Nov 2026 11:06:50 GMT", **sdk.limits(60, 1, reset)}
        async with serve(sdk.whole(headers), sdk.whole()) as server, sdk.connected(server.url, policy=policy) as client:
            await sdk.ask(client)
            await sdk.ask(client)
            with pytest.raises(sdk.lib.APITimeoutError) as refused:
                await sdk.ask(client)
        cause = refused.value.__cause__

        assert isinstance(cause, RateLimited)
        assert cause.retry_after == pytest.approx(30, abs=2)
        assert len(server.requests) == 2

    async def test_the_retry_of_a_429_goes_out_when_the_next_call_is_there(self, sdk: Sdk) -> None:
        """That is long before the quota is whole again."""
        policy = QUICK.replace(rate_limit=AdaptiveRate(1000))
        reset = "1m0s" if sdk.is_openai else "2026-11-18T11:07:50Z"
        spent = answer(429, headers={"Date": "Wed, 18 Nov 2026 11:06:50 GMT", **sdk.limits(600, 0, reset)})
        async with serve(spent, sdk.whole()) as server, sdk.connected(server.url, policy=policy) as client:
            with record_timeline() as timeline:
                await sdk.ask(client)
        first, second = timeline.attempts

        assert first.verdict.limits == RateHint(0, 0.1)
        assert second.started - first.at >= 0.09


class TestWhatSurfaces:
    pytestmark = ASYNCIO

    async def test_an_open_breaker_is_a_connection_error_of_the_sdk(self, sdk: Sdk) -> None:
        """`except openai.APIConnectionError` goes on working, and `__cause__` says what it was. Nothing is sent."""
        policy = QUICK.replace(circuit_breaker=CircuitBreaker(initial="isolated"))
        async with serve(sdk.whole()) as server, sdk.connected(server.url, policy=policy) as client:
            with pytest.raises(sdk.lib.APIConnectionError) as refused:
                await sdk.ask(client)

        assert isinstance(refused.value.__cause__, CircuitOpen)
        assert server.requests == []

    async def test_a_full_bulkhead_is_a_timeout_of_the_sdk(self, sdk: Sdk) -> None:
        """As a connection pool is that has none to give. A stream holds its place while it is open."""
        async with (
            serve(sdk.streamed(events=1, then="stall")) as server,
            sdk.connected(server.url, policy=QUICK.replace(bulkhead=Bulkhead(1))) as client,
            await sdk.stream(client),
        ):
            with pytest.raises(sdk.lib.APITimeoutError) as refused:
                await sdk.ask(client)

        assert isinstance(refused.value.__cause__, BulkheadFull)
        assert len(server.requests) == 1

    @pytest.mark.parametrize(("ours", "cause"), [(None, httpx2.ReadTimeout), (0.05, TimeoutExceeded)])
    async def test_a_time_limit_is_a_timeout_of_the_sdk(self, sdk: Sdk, ours: float | None, cause: type[Exception]) -> None:
        """Its own limits hold, and so do those of the policy. The question may be with the server: it is not asked again."""
        async with serve(stall()) as server, sdk.connected(server.url, attempt_timeout=ours) as client:
            with pytest.raises(sdk.lib.APITimeoutError) as late:
                await sdk.ask(client.with_options(timeout=0.05 if ours is None else 5.0))

        assert isinstance(late.value.__cause__, cause)
        assert len(server.requests) == 1

    async def test_retries_of_the_sdk_that_come_back_are_warned_about(self, sdk: Sdk) -> None:
        """They are asked for by `with_options(max_retries=...)`: then the two multiply."""
        async with (
            serve(answer(500, headers={"retry-after-ms": "1"}), sdk.whole()) as server,
            sdk.connected(server.url) as client,
        ):
            with pytest.warns(UserWarning, match="the SDK retries by itself"):
                await sdk.ask(client.with_options(max_retries=1))

        assert len(server.requests) == 2


class TestStreams:
    pytestmark = STREAMS

    async def test_a_stream_begins_after_a_refusal_and_gives_its_permit_back_at_its_end(self, sdk: Sdk) -> None:
        """It is the same call; while tokens come, the permit is out."""
        async with serve(answer(529), sdk.streamed()) as server, sdk.connected(server.url) as client:
            async with await sdk.stream(client) as stream:
                (bulkhead,) = (gate for gate in gates(transport_of(client)) if isinstance(gate, Bulkhead))
                busy = bulkhead.statistics().active
                text = "".join([sdk.text(event) async for event in stream])
            free = bulkhead.statistics().active

        assert text == "because"
        assert (busy, free) == (1, 0)
        assert len(server.requests) == 2

    async def test_a_stream_that_is_closed_early_gives_its_permit_back_at_once(self, sdk: Sdk) -> None:
        """Nobody needs to hear the rest; the connection ends, too."""
        async with serve(sdk.streamed(events=1, then="stall")) as server, sdk.connected(server.url) as client:
            async with await sdk.stream(client) as stream:
                text = sdk.text(await anext(stream))
            await server.until(gone=1)

        assert text == "be"

    @pytest.mark.parametrize("broken", ["cut", "silent", "error event"])
    async def test_a_stream_that_breaks_is_not_begun_again(self, sdk: Sdk, broken: str) -> None:
        """What has been heard would come twice. The SDK raises; a breaker hears of a cut, and the permit is back."""
        endings: dict[str, Callable[[], Any]] = {
            "cut": lambda: sdk.streamed(events=1, then="reset"),
            "silent": lambda: sdk.streamed(events=1, then="stall"),
            "error event": lambda: sdk.streamed(events=1, last=b'event: error\ndata: {"error": {"message": "overloaded"}}\n\n'),
        }
        async with serve(endings[broken]()) as server, sdk.connected(server.url, patience=0.1) as client:
            async with await sdk.stream(client) as stream:
                begun = sdk.text(await anext(stream))
                with pytest.raises(sdk.lib.APIError if sdk.is_openai or broken == "error event" else httpx2.TransportError):
                    await anext(stream)
            breaker, _ = gates(transport_of(client))

        assert begun == "be"
        assert len(server.requests) == 1
        assert breaker.statistics().failures == (0 if broken == "error event" else 1)


def test_the_policy_asks_as_often_as_the_sdks_do_by_themselves(sdk: Sdk) -> None:
    """And no answer is cut: there is no limit on an attempt, nor on the whole."""
    retry = llm.POLICY.retry

    assert retry is not None
    assert retry.attempts == sdk.lib.DEFAULT_MAX_RETRIES + 1
    assert (llm.POLICY.timeout, llm.POLICY.attempt_timeout) == (None, None)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has no httpx2 is told what to install."""
    monkeypatch.setitem(sys.modules, "httpx2", None)
    monkeypatch.delitem(sys.modules, "resilient_integrations.llm")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resilient-anyio\[llm\]'"):
        importlib.import_module("resilient_integrations.llm")


class TestWrap:
    def test_it_goes_around_what_is_there_and_switches_the_retries_off(self, sdk: Sdk) -> None:
        """The HTTP client and its transport stay; clients that are derived share them, without retries of their own."""
        client = sdk.make("http://127.0.0.1:1")
        inner = transport_of(client)
        wrapped = llm.wrap(client)
        derived = wrapped.with_options(timeout=1)

        assert wrapped is client
        assert transport_of(client).inner is inner
        assert transport_of(derived) is transport_of(client)
        assert (client.max_retries, derived.max_retries) == (0, 0)

    @pytest.mark.parametrize("again", [{}, {"spool": -1}])
    def test_a_client_that_cannot_be_wrapped_keeps_its_retries(self, sdk: Sdk, again: dict[str, Any]) -> None:
        """A setting out of range, and a second time, are told at once."""
        client = sdk.make("http://127.0.0.1:1")
        if not again:
            llm.wrap(client)
        client.max_retries = 7
        with pytest.raises((TypeError, ValueError), match=r"resilient already|spool=-1"):
            llm.wrap(client, **again)

        assert client.max_retries == 7

    @ONLY_OPENAI
    def test_what_is_no_asynchronous_client_of_an_sdk_is_refused(self, sdk: Sdk) -> None:
        """With the name of what is expected."""
        for other in (
            sdk.lib.OpenAI(api_key="k", http_client=httpx2.Client(verify=NO_TLS)),
            httpx2.AsyncClient(verify=NO_TLS),
            None,
        ):
            with pytest.raises(
                TypeError, match=r"expected the asynchronous client of an SDK .* AsyncOpenAI\(\) or AsyncAnthropic\(\)"
            ):
                llm.wrap(other)
