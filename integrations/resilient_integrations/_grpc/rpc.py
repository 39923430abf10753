"""One call on its way through the strategies, and its attempts.

`send` is the callee of the pipeline: it starts the call below once more, with the time that is left, and waits until it is known
how that went: until the answer of a unary call, until the first message of a stream. The time that is left is the deadline that
the server hears.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from resilient import clock
from resilient._arguments import Duration
from resilient.context import Attempt, current_attempt, time_left
from resilient.errors import DeadlineExceeded, TimeoutExceeded
from resilient.observe.events import TimedOut
from resilient.strategies.timeout import Timeout
from resilient_integrations._grpc.status import code_of
from resilient_integrations._grpc.stream import NOTHING, Exchange
from resilient_integrations._grpc.waiting import answer_of

if TYPE_CHECKING:
    from resilient_integrations._grpc.engine import Engine

__all__ = ("Rpc", "seconds_of", "send", "spooled")

Proceed = Callable[[Any, Any], Awaitable[Any]]
Limit = Timeout | Duration | None


class Rpc:
    """One call.

    Attributes:
        engine: what sends it.
        method: its path, `/package.Service/Method`.
        details: those of the caller.
        request: the message, or an iterable of messages.
        streams: whether messages come back, and not one.
        replayable: whether the request can be sent again.
        idempotent: whether the method may be run twice; None where nobody said.
        total: the limit in seconds for everything; infinity where there is none.
        limit: that limit, where it is the policy's.
        cut: when it is reached, on the clock of `resilient.clock`.
        call: the call below of the latest attempt, or None.
        started: heard when the first attempt has started, where somebody may ask.

    """

    __slots__ = (
        "call",
        "cut",
        "details",
        "engine",
        "idempotent",
        "limit",
        "method",
        "proceed",
        "replayable",
        "request",
        "started",
        "streams",
        "total",
    )

    def __init__(
        self, engine: "Engine", proceed: Proceed, details: Any, request: Any, *, streams: bool = False, replayable: bool = True
    ) -> None:
        self.engine = engine
        self.proceed = proceed
        self.details = details
        self.request = request
        self.streams = streams
        self.replayable = replayable
        method: str | bytes = details.method  # grpc.aio has bytes, its types say text
        self.method = method.decode() if isinstance(method, bytes) else method
        self.idempotent = engine.is_idempotent(self.method)
        given = min(math.inf if details.timeout is None else details.timeout, time_left())
        most = seconds_of(engine.timeout)
        self.limit = engine.timeout if most < given else None
        self.total = min(most, given)
        self.cut = clock.now() + self.total
        self.call: Any = None
        self.started: asyncio.Future[None] | None = None

    def time_remaining(self) -> float | None:
        """Seconds until everything is cut, or None where nothing limits it."""
        return None if self.cut == math.inf else max(0.0, self.cut - clock.now())

    @property
    def classifier(self) -> Any:
        """Says what its outcomes mean."""
        return self.engine.classifiers[self.idempotent]

    def time_for_attempt(self) -> tuple[float, Limit]:
        """Seconds that an attempt may take now, and the limit of the policy that says so, if it is one of those.

        Raises:
            DeadlineExceeded: nothing is left.

        """
        left = self.cut - clock.now()
        if left <= 0:
            raise DeadlineExceeded(self.total)
        each = seconds_of(self.engine.attempt_timeout) if self.replayable else math.inf  # others wait for the caller's messages
        return (each, self.engine.attempt_timeout) if each < left else (left, self.limit)

    async def start(self, seconds: float) -> Any:
        """Start the call below, with metadata of its own: what an interceptor below adds does not add up."""
        details = self.details
        metadata = details.metadata
        self.call = call = await self.proceed(
            grpc.aio.ClientCallDetails(
                details.method,
                None if seconds == math.inf else seconds,
                None if metadata is None else grpc.aio.Metadata(*metadata),
                details.credentials,
                details.wait_for_ready,
            ),
            self.request,
        )
        if self.started is not None and not self.started.done():
            self.started.set_result(None)
        return call


async def send(rpc: Rpc) -> Any:
    """Make the call below once: the callee of the pipeline."""
    attempt = current_attempt()
    seconds, limit = rpc.time_for_attempt()
    try:
        if not rpc.streams:
            call = await rpc.start(seconds)
            await answer_of(call, call)
            return call
        # The limit of an attempt holds until the first message: it is none that grpc could keep for a stream.
        until_first = seconds if limit is not None and limit is not rpc.limit else math.inf
        call = await rpc.start(seconds if until_first == math.inf else rpc.cut - clock.now())
        messages: AsyncIterator[Any] = aiter(call)
        return Exchange(call, messages, await answer_of(call, anext(messages, NOTHING), until_first))
    except (grpc.RpcError, TimeoutExceeded) as error:
        if limit is not None and code_of(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
            _tell_cut(attempt, limit, seconds)
        raise


def _tell_cut(attempt: Attempt, limit: Limit, seconds: float) -> None:
    """A limit of the policy was reached."""
    attempt.notify(TimedOut(at=clock.now(), key=attempt.key, call_id=attempt.identify(), seconds=seconds))
    on_timeout = getattr(limit, "on_timeout", None)
    if on_timeout is not None:
        on_timeout()


def seconds_of(limit: Limit) -> float:
    """The seconds of a limit, asked for now where they are dynamic; infinity where there is none."""
    if limit is None:
        return math.inf
    seconds = (limit if isinstance(limit, Timeout) else Timeout(limit)).seconds
    return seconds_of(seconds()) if callable(seconds) else float(seconds)


_END: Final[Any] = object()


async def spooled(messages: Any, most: int) -> Any:
    """The messages as a list where there are `most` at most, else an iterator over all of them."""
    rest: AsyncIterator[Any] = aiter(messages) if hasattr(messages, "__aiter__") else _one_by_one(messages)
    kept: list[Any] = []
    while len(kept) <= most:
        message = await anext(rest, _END)
        if message is _END:
            return kept
        kept.append(message)
    return _chained(kept, rest)


async def _one_by_one(messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


async def _chained(kept: list[Any], rest: AsyncIterator[Any]) -> AsyncIterator[Any]:
    for message in kept:
        yield message
    async for message in rest:
        yield message
