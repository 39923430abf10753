"""Limits for a server of grpc.aio: what it refuses before a handler runs, and the time that a handler has.

Each call goes through the gates of a policy in the task of its handler, inside of a cancel scope with the deadline that the
client has sent: calls that the handler makes know of it. A handler that streams is run as a coroutine that writes, whatever it is
itself, because a generator must not hold that scope. All mutable state: that of the pipeline, and whether was warned.
"""

import asyncio
import inspect
import math
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import grpc
import grpc.aio

from resilient.context import Attempt
from resilient.errors import Rejected
from resilient.outcome import Classifier, Kind, Verdict
from resilient.pipeline import Pipeline
from resilient.policy.schema import Policy
from resilient_integrations._grpc.engine import key_function
from resilient_integrations._grpc.errors import code_for
from resilient_integrations._grpc.hints import PUSHBACK
from resilient_integrations._grpc.rpc import seconds_of
from resilient_integrations._grpc.status import health_of, reason_of

__all__ = ("ServerLimits",)

KeyOfCall = Literal["method", "service"] | Callable[[str, Any], str]

_NOT_FOR_SERVERS: Final = ("fallback", "retry", "hedge", "attempt_timeout")
_HEALTH: Final = "/grpc.health."
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class ServerLimits(grpc.aio.ServerInterceptor):
    """An interceptor that refuses what a server cannot take, and hands the deadline of the client down.

    A call whose deadline has passed when its turn comes is not run. What the policy's gates refuse is answered with
    `RESOURCE_EXHAUSTED` (bulkhead, rate limit) or `UNAVAILABLE` (circuit breaker, throttle), and with the trailer
    `grpc-retry-pushback-ms` where it is known when to come back. Inside of a handler `resilient` and anyio know the time that is
    left: waits give up in time, and a `resilient_channel()` sends it on. Health checks (`/grpc.health...`) are never refused.

    Args:
        policy: `rate_limit`, `bulkhead`, `circuit_breaker`, `throttle`, `chaos`, and `timeout`, the longest time that a
            handler may take. Default: none, which still sheds what is too late.
        key: what has state of its own: each `"method"`, each `"service"`, or a function of the path and the `ServicerContext`,
            e.g. the identity of a client. Default: one state for the whole server.
        max_keys: how many keys may have state of their own at a time, at least 1 (default 10 000).
        classifier: says what a handler's exceptions and answers mean to the breaker, before its status is asked.

    Attributes:
        pipeline: what the calls go through.

    Raises:
        TypeError: the policy has a strategy that is for clients.

    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        key: KeyOfCall | None = None,
        max_keys: int = 10_000,
        classifier: Classifier | None = None,
    ) -> None:
        policy = Policy() if policy is None else policy
        _check(policy)
        self._timeout = policy.timeout
        self._classifier = classifier
        self._warned = False
        self.pipeline: Pipeline = _ServingPipeline(
            *policy.replace(timeout=None).fresh_strategies(), key=None if key is None else _key_of(key), max_keys=max_keys
        )

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or method.startswith(_HEALTH):
            return handler
        kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
        behaviour = getattr(handler, kind)
        if not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)):
            self._warn_of_sync(method)
            return handler

        async def limited(request: Any, context: Any) -> Any:
            return await self._serve(_Serving(method, context, lambda: _run(behaviour, request, context), self._classifier))

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(limited, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer)

    async def _serve(self, serving: "_Serving") -> Any:
        context = serving.context
        left = context.time_remaining()
        limit = min(math.inf if left is None else left, seconds_of(self._timeout))
        refusal: Rejected | None = None
        if limit > 0:
            with anyio.CancelScope(deadline=anyio.current_time() + limit) as scope:
                try:
                    return await self.pipeline.call(_handle, serving)
                except Rejected as rejection:
                    if serving.admitted:
                        raise  # it is of a call that the handler has made
                    refusal = rejection
                except asyncio.CancelledError:
                    if scope.cancel_called:
                        await anyio.lowlevel.checkpoint()  # what the handler awaited may have replaced the scope's own
                    raise
        if refusal is not None:
            return await _refuse(context, refusal)
        return await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed")

    def _warn_of_sync(self, method: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the handler of {method} is no async function: it runs in a thread, out of reach, and is not "
                "limited. Make it one, or limit it with maximum_concurrent_rpcs of the server",
                UserWarning,
                stacklevel=2,
            )


class _Serving:
    """One call of a client.

    Attributes:
        admitted: whether its handler has begun to run.

    """

    __slots__ = ("admitted", "classifier", "context", "method", "run")

    def __init__(self, method: str, context: Any, run: Callable[[], Awaitable[Any]], own: Classifier | None) -> None:
        self.method = method
        self.context = context
        self.run = run
        self.admitted = False
        by_status = Classifier(self._of_error, self._of_value)
        self.classifier = by_status if own is None else own | by_status

    def _of_error(self, _: Exception) -> Verdict:
        return _verdict(self._status() or grpc.StatusCode.UNKNOWN)

    def _of_value(self, _: object) -> Verdict | None:
        status = self._status()
        return None if status is None else _verdict(status)

    def _status(self) -> grpc.StatusCode | None:
        """What the handler has set or aborted with, or None where that is OK."""
        code = self.context.code()
        found = _CODES.get(code, code)
        return found if isinstance(found, grpc.StatusCode) and found is not grpc.StatusCode.OK else None


class _ServingPipeline(Pipeline):
    """The gates of a server. What an outcome means is said by the status of the call."""

    __slots__ = ()

    def start(self, attempt: Attempt) -> Coroutine[Any, Any, Any]:
        step = super().start(attempt)
        attempt.classifier = attempt.args[0].classifier
        return step


async def _handle(serving: _Serving) -> Any:
    serving.admitted = True
    return await serving.run()


async def _run(behaviour: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
    if not inspect.isasyncgenfunction(behaviour):
        return await behaviour(request, context)
    async with aclosing(behaviour(request, context)) as messages:
        async for message in messages:
            await context.write(message)
    return None


async def _refuse(context: Any, rejection: Rejected) -> Any:
    wait = rejection.retry_after
    trailers = () if wait is None else ((PUSHBACK, str(math.ceil(wait * 1000))),)
    return await context.abort(code_for(rejection), f"the call was refused: {rejection.reason}", trailers)


def _verdict(code: grpc.StatusCode) -> Verdict:
    return Verdict(Kind.PERMANENT, health_of(code), reason_of(code), throttled=code is grpc.StatusCode.RESOURCE_EXHAUSTED)


def _key_of(key: KeyOfCall) -> Callable[[_Serving], str]:
    if callable(key):
        return lambda serving: key(serving.method, serving.context)
    of_method = key_function(key)
    return lambda serving: of_method(serving.method)


def _check(policy: object) -> None:
    if not isinstance(policy, Policy):
        msg = f"policy={policy!r}: expected a Policy, e.g. Policy(bulkhead=Bulkhead(100))"
        raise TypeError(msg)
    for name in _NOT_FOR_SERVERS:
        if getattr(policy, name) is not None:
            msg = f"policy.{name}={getattr(policy, name)!r} is for clients: a server runs what it is sent once. Leave it out"
            raise TypeError(msg)
