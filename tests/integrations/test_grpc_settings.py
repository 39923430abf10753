"""What needs no server: hints, verdicts, settings, the channel around a channel, and what is said where something is missing."""

import copy
import json
import pickle
import runpy
import sys
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import resilient_integrations.grpc
from integrations.grpc_scenes import UNARY, Play, serving
from resilient import (
    BulkheadFull,
    CircuitOpen,
    Health,
    Hedge,
    Kind,
    Policy,
    RateLimited,
    ResilienceError,
    Retry,
    RetryableError,
    Throttled,
    TimeoutExceeded,
)
from resilient.lint import lint
from resilient_integrations._grpc.errors import adopt
from resilient_integrations._grpc.hints import pushback, retry_info
from resilient_integrations._grpc.status import classifiers, code_of
from resilient_integrations.grpc import GRPC as CLASSIFIER
from resilient_integrations.grpc import ServerLimits, interceptors, resilient_channel

Code = grpc.StatusCode
DETAILS = "grpc-status-details-bin"


def error_with(code: grpc.StatusCode, *trailers: tuple[str, str | bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers))


# As protobuf and googleapis-common-protos write them: Status(code=14, message="busy", details=[...]).
BUSY = b"\x08\x0e\x12\x04busy"
RETRY_INFO = b"\n(type.googleapis.com/google.rpc.RetryInfo"
DEBUG_INFO = b"\n(type.googleapis.com/google.rpc.DebugInfo"
TRACE = b"\x1a3" + DEBUG_INFO + b"\x12\x07\x12\x05trace"


# Hints.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1500", 1.5),
        ("-1", -1.0),
        ("soon", -1.0),
        ("", -1.0),
        ("1.5", -1.0),
        ("٣", -1.0),
        ("4294967296", -1.0),
        ("9" * 40, -1.0),
    ],
)
def test_a_pushback_is_milliseconds_or_forbids(text: str, seconds: float) -> None:
    """What is negative or cannot be read asks not to be tried again."""
    assert pushback((("grpc-retry-pushback-ms", text),)) == seconds


def test_without_a_trailer_there_is_no_hint() -> None:
    """Nor in one of another name, nor where there are none."""
    assert pushback((("other", "1"),)) is None
    assert pushback(None) is None
    assert retry_info(((DETAILS, "text"),)) is None


def test_retry_info_is_found_among_other_details() -> None:
    """Its delay is seconds and nanoseconds."""
    half = BUSY + TRACE + b"\x1a6" + RETRY_INFO + b"\x12\n\n\x08\x08\x03\x10\x80\xca\xb5\xee\x01"

    assert retry_info(((DETAILS, half),)) == 3.5
    assert retry_info(((DETAILS, BUSY + b"\x1a*" + RETRY_INFO),)) is None
    assert retry_info(((DETAILS, BUSY + b"\x1a." + RETRY_INFO + b"\x12\x02\n\x00"),)) == 0.0
    assert retry_info(((DETAILS, BUSY + b"\x1a9" + RETRY_INFO + b"\x12\r\n\x0b\x08" + b"\xff" * 9 + b"\x01"),)) is None  # -1 s
    assert retry_info(((DETAILS, BUSY + TRACE),)) is None


@given(st.binary(max_size=60))
def test_whatever_is_no_status_is_no_hint(garbage: bytes) -> None:
    """Nothing that a server sends breaks the reader."""
    hint = retry_info(((DETAILS, garbage),))

    assert hint is None or hint >= 0


@pytest.mark.parametrize(
    "message",
    [b"\x1a\x05ab", b"\x80", b"\xff" * 11, b"\x1b", b"\x0d\x00\x00\x00\x00\x11" + bytes(8)],
    ids=["cut-short", "half-a-number", "number-too-long", "unknown-kind", "fixed-widths"],
)
def test_a_message_that_is_damaged_is_no_hint(message: bytes) -> None:
    """Each way in which a message can be wrong."""
    assert retry_info(((DETAILS, message),)) is None


# Verdicts.


@pytest.mark.parametrize("code", list(Code))
def test_each_status_has_a_verdict(code: grpc.StatusCode) -> None:
    """The table of the page on gRPC."""
    kinds = {said: classifiers(None)[said].errors(error_with(code)) for said in (True, False, None)}
    retried = {said for said, verdict in kinds.items() if verdict is not None and verdict.kind is Kind.RETRYABLE}
    verdict = kinds[None]

    assert retried == {Code.UNAVAILABLE: {True, None}, Code.DEADLINE_EXCEEDED: {True}}.get(code, set())
    assert verdict is not None
    assert verdict.reason == f"grpc_{code.name.lower()}"
    assert verdict.throttled is (code is Code.RESOURCE_EXHAUSTED)
    assert (verdict.health is Health.UNHEALTHY) is (
        code.name in {"UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
    )
    assert (verdict.health is Health.NEUTRAL) is (code.name in {"CANCELLED", "RESOURCE_EXHAUSTED"})


def test_retry_info_stands_in_for_a_missing_pushback() -> None:
    """The trailer goes before it."""
    info = BUSY + b"\x1a0" + RETRY_INFO + b"\x12\x04\n\x02\x08\x02"
    by_info = CLASSIFIER.errors(error_with(Code.RESOURCE_EXHAUSTED, (DETAILS, info)))
    by_both = CLASSIFIER.errors(error_with(Code.RESOURCE_EXHAUSTED, (DETAILS, info), ("grpc-retry-pushback-ms", "-1")))

    assert by_info is not None
    assert (by_info.kind, by_info.retry_after) == (Kind.RETRYABLE, 2.0)
    assert by_both is not None
    assert (by_both.kind, by_both.retry_after) == (Kind.PERMANENT, None)


def test_what_is_not_of_grpc_has_no_verdict() -> None:
    """Neither a mistake nor a bare RpcError, nor a rejection, which is judged elsewhere."""
    assert CLASSIFIER.errors(LookupError()) is None
    assert CLASSIFIER.errors(grpc.RpcError()) is None
    assert CLASSIFIER.errors(adopt(CircuitOpen("breaker"))) is None


def test_a_limit_of_ours_is_judged_as_a_deadline() -> None:
    """The server was silent for as long."""
    verdict = CLASSIFIER.errors(TimeoutExceeded(1.0))

    assert code_of(TimeoutExceeded(1.0)) is Code.DEADLINE_EXCEEDED
    assert verdict is not None
    assert verdict.reason == "grpc_deadline_exceeded"


# Exceptions.


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CircuitOpen("breaker", 2.0), Code.UNAVAILABLE),
        (Throttled("throttle"), Code.UNAVAILABLE),
        (BulkheadFull("bulkhead", None, 3), Code.RESOURCE_EXHAUSTED),
        (RateLimited("bucket"), Code.RESOURCE_EXHAUSTED),
        (TimeoutExceeded(1.0), Code.DEADLINE_EXCEEDED),
        (RetryableError("busy"), Code.UNAVAILABLE),
        (ResilienceError("other"), Code.UNAVAILABLE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_strategies_raise_becomes_an_error_of_grpc(error: ResilienceError, code: grpc.StatusCode) -> None:
    """The same object, with the face of grpc; it can be copied and pickled."""
    kind, text = type(error), str(error)
    adopted: Any = adopt(error)

    assert adopted is error
    assert adopt(adopted) is error
    assert isinstance(adopted, kind)
    assert isinstance(adopted, grpc.aio.AioRpcError)
    assert adopted.code() is code
    assert adopted.details() == adopted.debug_error_string() == str(adopted) == text
    assert list(adopted.initial_metadata()) == list(adopted.trailing_metadata()) == []
    assert repr(adopted).startswith(kind.__name__)
    for other in (copy.copy(adopted), pickle.loads(pickle.dumps(adopted))):  # noqa: S301  our own
        assert type(other) is type(adopted)
        assert str(other) == text


# Settings.


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"policy": "strict"}, TypeError, "expected a Policy"),
        ({"policy": Policy(retry=Retry(on=OSError))}, TypeError, "retry_codes= or classifier="),
        ({"policy": Policy(hedge=Hedge(1.0, on=OSError))}, TypeError, "policy.hedge"),
        ({"key": "host"}, TypeError, "expected 'method', 'service'"),
        ({"idempotent": UNARY}, TypeError, "expected paths of methods"),
        ({"idempotent": 3}, TypeError, "expected paths of methods"),
        ({"idempotent": ["Unary"]}, ValueError, "is no path of a method"),
        ({"idempotent": [3]}, ValueError, "is no path of a method"),
        ({"retry_codes": ["ABORTED"]}, TypeError, "is no code"),
        ({"spool": -1}, ValueError, "at least 0"),
        ({"spool": True}, ValueError, "at least 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    """What is wrong is said when the interceptors are made."""
    with pytest.raises(error, match=message):
        interceptors(**settings)


def test_there_is_an_interceptor_for_each_kind_of_call() -> None:
    """One is for one kind only."""
    kinds = [
        grpc.aio.UnaryUnaryClientInterceptor,
        grpc.aio.UnaryStreamClientInterceptor,
        grpc.aio.StreamUnaryClientInterceptor,
        grpc.aio.StreamStreamClientInterceptor,
    ]

    assert [isinstance(one, kind) for one, kind in zip(interceptors(), kinds, strict=True)] == [True] * 4


def test_the_default_policy_is_sound() -> None:
    """The lint has nothing to say about it."""
    assert lint(Policy.http().strategies, classify=CLASSIFIER, keyed=True) == ()


def test_trio_is_refused_with_a_reason() -> None:
    """grpc.aio would fail in its own way."""

    async def make() -> None:
        with pytest.raises(RuntimeError, match="works on asyncio only"):
            interceptors()

    anyio.run(make, backend="trio")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed grpcio is told how to."""
    monkeypatch.setitem(sys.modules, "grpc", None)

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resilient-anyio\[grpc\]'"):
        runpy.run_path(resilient_integrations.grpc.__file__)


# The channel.

RETRIES: dict[str, Any] = {"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4}}]}


@pytest.mark.parametrize(
    ("options", "policy", "warns"),
    [
        ([("grpc.service_config", json.dumps(RETRIES))], None, True),
        ([("grpc.service_config", json.dumps(RETRIES)), ("grpc.enable_retries", 1)], None, True),
        ([("grpc.service_config", json.dumps(RETRIES)), ("grpc.enable_retries", 0)], None, False),
        ([("grpc.service_config", json.dumps(RETRIES))], Policy(), False),
        ([("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]}))], None, False),
        ([("grpc.service_config", "{")], None, False),
        ([], None, False),
    ],
    ids=["retries", "retries-on", "retries-off", "no-policy-of-ours", "other-config", "no-json", "no-config"],
)
@pytest.mark.parametrize("anyio_backend", ["real-grpc"], indirect=True)
@pytest.mark.anyio
async def test_retries_of_grpc_itself_get_a_warning(
    options: list[tuple[str, Any]],
    policy: Policy | None,
    warns: bool,  # noqa: FBT001
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Both together multiply."""
    async with resilient_channel("127.0.0.1:1", options=options, policy=policy):
        pass

    assert [str(warning.message) for warning in recwarn if "multiply" in str(warning.message)] != [] or not warns
    assert bool(recwarn.list) is warns


@pytest.mark.usefixtures("real_backend")
@pytest.mark.parametrize("anyio_backend", ["real-grpc"], indirect=True)
@pytest.mark.anyio
async def test_a_channel_has_all_that_a_channel_has() -> None:
    """State, readiness, closing; a secure one where there are credentials."""
    async with serving(Play().handlers) as target:
        channel = resilient_channel(target)
        assert channel.get_state() is grpc.ChannelConnectivity.IDLE
        await channel.channel_ready()
        assert channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY
        assert "Retry" in repr(channel)
        await channel.wait_for_state_change(grpc.ChannelConnectivity.CONNECTING)
        await channel.close()

        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    secure = resilient_channel("127.0.0.1:1", grpc.local_channel_credentials(), compression=grpc.Compression.Gzip)
    assert isinstance(secure, grpc.aio.Channel)
    await secure.close(0.0)


def test_limits_of_a_server_need_no_policy() -> None:
    """They shed what comes too late anyway."""
    assert ServerLimits().pipeline.strategies == ()
