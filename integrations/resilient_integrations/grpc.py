"""Resilience for `grpc.aio`: for the channels of clients, and for servers.

    async with resilient_channel("localhost:50051") as channel:
        stub = UserServiceStub(channel)
        user = await stub.GetUser(request, timeout=2.0)

    server = grpc.aio.server(interceptors=[ServerLimits(Policy(bulkhead=Bulkhead(100)))])

What is promised of retries, streams, deadlines and exceptions stands in the page on gRPC. It works on asyncio only, as grpc.aio
does.
"""

from collections.abc import Sequence
from typing import Any, Final, Unpack

try:
    import grpc
    import grpc.aio
except ModuleNotFoundError as error:
    _MISSING: Final = "calls over gRPC need grpcio: pip install 'resilient-anyio[grpc]'"
    raise ModuleNotFoundError(_MISSING, name=error.name) from error

from resilient_integrations._grpc.channel import ResilientChannel, warn_of_built_in_retries
from resilient_integrations._grpc.client import interceptors_of
from resilient_integrations._grpc.engine import Engine, Settings
from resilient_integrations._grpc.server import ServerLimits
from resilient_integrations._grpc.status import GRPC

__all__ = ("GRPC", "ResilientChannel", "ServerLimits", "interceptors", "resilient_channel")


def resilient_channel(
    target: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    options: Sequence[tuple[str, Any]] = (),
    compression: grpc.Compression | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    **settings: Unpack[Settings],
) -> ResilientChannel:
    """A channel whose calls survive what a careful engineer would want them to survive.

    It is `grpc.aio.insecure_channel()`, or `secure_channel()` where there are `credentials`, with the `interceptors()` of this
    module outermost. Its calls know of the deadline of their caller as well: a `deadline()` block, or any cancel scope of anyio.

    Args:
        target: where the server is, e.g. `"dns:///users.internal:50051"`.
        credentials: for TLS (default: none, an insecure channel).
        options: of the channel. A service config with a `retryPolicy` gets a warning: it would multiply with the policy's retry.
        compression: as in grpc.
        interceptors: interceptors of your own: each attempt goes through them.
        settings: those of `interceptors()`.

    Raises:
        TypeError, ValueError: a setting is out of its range.
        RuntimeError: trio runs, for which there is no grpc.

    """
    engine = Engine(**settings)
    if engine.policy.retry is not None:
        warn_of_built_in_retries(options)
    chain = [*interceptors_of(engine), *interceptors]
    if credentials is None:
        channel = grpc.aio.insecure_channel(target, options, compression, chain)
    else:
        channel = grpc.aio.secure_channel(target, credentials, options, compression, chain)
    return ResilientChannel(channel, engine)


def interceptors(**settings: Unpack[Settings]) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """The interceptors, for a channel that is made elsewhere: `insecure_channel(target, interceptors=[*interceptors()])`.

    Put them before your own: what comes after them is part of each attempt. They see the `timeout` of a call, and not the
    deadline of a block around it, as the calls of a `resilient_channel()` do.

    Without any setting: three attempts for what may be run again, with waits of 0.1 to 5 seconds that respect the server's
    pushback, paid for by a budget, none more than 30 seconds after the call began; a circuit breaker for each method.

    Args:
        policy: which strategies, with which settings (default `Policy.http()`). Its `timeout` bounds the whole call, messages and
            all, its `attempt_timeout` each attempt, of streams up to their first message: the server hears of both.
        key: what has state of its own: each `"method"` (default: `package.Service.Method`), each `"service"`
            (`package.Service`), or a function of the path `/package.Service/Method`.
        max_keys: how many keys may have state of their own at a time, at least 1 (default 10 000).
        classifier: says what exceptions mean, before the table is asked; None from it asks that.
        idempotent: which methods may be run twice: paths, or a predicate on the path. They are retried after a deadline of an
            attempt, too, and are hedged where the policy hedges. All others are not run twice then, unless the server asks for
            it. Default: nobody says, and `UNAVAILABLE` is retried for all methods, none is hedged.
        retry_codes: codes that are retried as well, e.g. `(grpc.StatusCode.ABORTED,)`, unless the method is not idempotent.
        spool: messages of a client stream are read into memory before they are sent, up to so many, so that they can be sent
            again (default 0: none is). Those of a list or a tuple always can.

    Raises:
        TypeError, ValueError: a setting is out of its range.
        RuntimeError: trio runs, for which there is no grpc.

    The exception of an RPC surfaces, the same `grpc.aio.AioRpcError`. Rejections (`CircuitOpen`, `BulkheadFull`, `RateLimited`)
    and `DeadlineExceeded` are an `AioRpcError` as well, with the codes `UNAVAILABLE`, `RESOURCE_EXHAUSTED` and
    `DEADLINE_EXCEEDED`. A call that is cancelled frees all that it held, and is not sent again.

    """
    return interceptors_of(Engine(**settings))
