"""What several test files share: a callee that plays a script, errors that only it raises, and a cancellation from outside."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import anyio

from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.strategies.backoff import Constant
from resilient.strategies.retry import Retry
from resilient.testing import ScriptedCallee


class Failure(Exception):
    """An error of the callee that is retried."""


class Fatal(Exception):
    """An error of the callee that is not."""


SECOND = Constant(delay=1, jitter="none")
RETRY = Retry(on=Failure, backoff=SECOND)
"""Three attempts, a second apart."""

BUSY = Verdict(Kind.RETRYABLE, Health.UNHEALTHY, "http_503")


def on_errors(verdict: Verdict) -> Classifier:
    """A classifier to whom all errors are the same, and all values good."""
    return Classifier(lambda _: verdict)


def _busy_if_503(status: Any) -> Verdict | None:
    return BUSY if status == 503 else None


def _no_opinion(_: Exception) -> None:
    return None


VALUES = Classifier(_no_opinion, _busy_if_503)
"""A classifier of values: 503 asks for a retry."""


Script = ScriptedCallee


@contextlib.asynccontextmanager
async def cancelled_after(seconds: float) -> AsyncGenerator[anyio.CancelScope]:
    """A block that another task cancels after so many seconds, out of the blue: no deadline tells of it beforehand."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(_cancel_after, scope, seconds)
            yield scope
            group.cancel_scope.cancel()


async def _cancel_after(scope: anyio.CancelScope, seconds: float) -> None:
    await anyio.sleep(seconds)
    scope.cancel()
