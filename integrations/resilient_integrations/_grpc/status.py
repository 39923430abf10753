"""What a status means: a table from codes to verdicts.

gRPC does not say of a method whether it may be run twice. So three cases are told apart: it may (`idempotent` is True), it must
not (False), or nobody said (None), where the convention of gRPC holds, that `UNAVAILABLE` may be tried again. What a status tells
about the health of the server is another question, with an answer of its own.
"""

from collections.abc import Collection
from functools import partial
from typing import Any, Final

import grpc

from resilient.errors import Rejected, TimeoutExceeded
from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient_integrations._grpc.hints import pushback, retry_info

__all__ = ("GRPC", "classifiers", "code_of", "health_of", "reason_of")

Code = grpc.StatusCode

_UNHEALTHY: Final = frozenset({Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS})
_NEUTRAL: Final = frozenset({Code.CANCELLED, Code.RESOURCE_EXHAUSTED})


def code_of(error: BaseException) -> grpc.StatusCode | None:
    """The status of an exception, or None where it is not of gRPC."""
    if isinstance(error, grpc.RpcError):
        code: Any = getattr(error, "code", None)
        found: object = code() if callable(code) else None
        return found if isinstance(found, Code) else None
    return Code.DEADLINE_EXCEEDED if isinstance(error, TimeoutExceeded) else None


def health_of(code: grpc.StatusCode) -> Health:
    """What a status tells about the server: that it failed, that it answered, or nothing."""
    if code in _UNHEALTHY:
        return Health.UNHEALTHY
    return Health.NEUTRAL if code in _NEUTRAL else Health.HEALTHY


def reason_of(code: grpc.StatusCode) -> str:
    """The reason code: `grpc_unavailable`."""
    return f"grpc_{code.name.lower()}"


def classifiers(own: Classifier | None, also: Collection[grpc.StatusCode] = ()) -> dict[bool | None, Classifier]:
    """The classifier for each answer to whether a method is idempotent.

    Args:
        own: is asked first.
        also: codes that are retried as well, unless the method must not be run twice.

    """
    tables = {said: Classifier(partial(_verdict, frozenset(also), said)) for said in (True, False, None)}
    return tables if own is None else {said: own | table for said, table in tables.items()}


def _verdict(also: frozenset[grpc.StatusCode], idempotent: bool | None, error: Exception) -> Verdict | None:  # noqa: FBT001  one of three
    code = None if isinstance(error, Rejected) else code_of(error)
    if code is None:
        return None
    wait, forbidden = None, False
    trailing: Any = getattr(error, "trailing_metadata", None)
    if trailing is not None:
        trailers = trailing()
        wait = pushback(trailers)
        forbidden = wait is not None and wait < 0
        if wait is None:
            wait = retry_info(trailers)
    may_resend = not forbidden and _may_resend(code, idempotent, hinted=wait is not None, also=also)
    return Verdict(
        Kind.RETRYABLE if may_resend else Kind.PERMANENT,
        health_of(code),
        reason_of(code),
        None if forbidden else wait,
        throttled=code is Code.RESOURCE_EXHAUSTED,
    )


def _may_resend(code: grpc.StatusCode, idempotent: bool | None, *, hinted: bool, also: frozenset[grpc.StatusCode]) -> bool:  # noqa: FBT001
    if hinted and code in {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED}:
        return True  # the server asks for it itself
    if idempotent is False:
        return False
    return code is Code.UNAVAILABLE or code in also or (code is Code.DEADLINE_EXCEEDED and idempotent is True)


GRPC: Final = classifiers(None)[None]
"""Judges what a stub of grpc or grpc.aio raises, wherever it is called."""
