"""The store: one connection, which all who ask share, and what happens where it does not answer.

Who asks puts a request into a queue. A short-lived task takes all that is there, sends it as one pipeline, hands out the
replies, and goes on until the queue is empty: what is asked while a pipeline is under way is the next one. Each pipeline is a
call through a breaker and has a time limit, so a store that is down, slow or wrong costs that much, and soon nothing.
An answer that comes when nobody waits for it any more is undone by whoever asked.

All mutable state: the queue, the task that sends, the client, the event loop that they belong to,
which scripts the server has, and the counts.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ResponseError

from resilient import BreakerStatistics, CircuitBreaker, Part
from resilient._arguments import Duration, seconds
from resilient_integrations._redis.scripts import Script

__all__ = ("RedisStore", "Reply", "StoreStatistics", "microseconds")

Reply = list[int]
Heard = Callable[[Reply | None], None]
"""What is called with the reply; with None where there is none."""

_Redis: Final[Any] = Redis  # its types are not known to strict checkers
_LARGEST: Final = 1000
"""Requests in a pipeline."""


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """A snapshot of a store.

    Attributes:
        requests: how often it was asked for something, in all.
        errors: how many of them had no answer, or an error for one.
        pipelines: how many round trips there were.
        breaker: of the breaker around them.

    """

    requests: int
    errors: int
    pipelines: int
    breaker: BreakerStatistics


class RedisStore:
    """A server of Redis or Valkey, which limits of this module share. Make one for each server; it connects when it is needed.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout: seconds that a limit waits for an answer, connecting included, above 0 (default 0.1).
        prefix: what all keys begin with (default `"resilient"`). Limits are one where prefix, kind, name and key are the same.
        client: makes the client, of the url and options: that of a cluster, say (default `redis.asyncio.Redis.from_url`).
        breaker: refuses to ask a store that does not answer (default: opens after 3 failures in a row, for 1 to 5 seconds).
        options: others of `redis.asyncio.Redis.from_url`, e.g. `password`. Timeouts and retries are the store's own business.

    Raises:
        TypeError, ValueError: an argument is wrong, at construction.
        RuntimeError: from its limits, where trio runs: `redis.asyncio` is for asyncio only.

    `async with store:` closes it at the end, after what is under way (leases that are given back) was sent. It can be used again.
    """

    def __init__(
        self,
        url: str = "redis://localhost",
        *,
        timeout: Duration = 0.1,
        prefix: str = "resilient",
        client: Callable[..., Any] | None = None,
        breaker: CircuitBreaker | None = None,
        **options: Any,
    ) -> None:
        self.timeout = seconds("timeout", timeout, above=0.0)
        self.prefix = prefix
        self.breaker = breaker or CircuitBreaker(name=prefix + ":store", consecutive_failures=3, open_for=1.0, open_for_max=5.0)
        self._url = url
        self._client_of: Callable[..., Any] = client or _Redis.from_url
        self._options: dict[str, Any] = {
            **options,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,  # there is one time limit for a pipeline, and not one for each reply of it
            "socket_connect_timeout": self.timeout,
        }
        self._make_client()
        self._queue: list[tuple[Script, str, tuple[str | int, ...], Heard]] = []
        self._sending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._known: set[Script] = set()
        self._requests = self._errors = self._pipelines = 0

    def is_up(self, now: float) -> bool:
        """Whether asking makes sense: its breaker is closed, or nobody is finding out at the moment whether it may be."""
        breaker = self.breaker
        return breaker.ready_in(now) == 0.0 and (self._sending is None or breaker.is_calm(now))

    def post(self, script: Script, key: str, *arguments: str | int, heard: Heard = lambda _: None) -> None:
        """Run a script, without waiting for it.

        Raises:
            RuntimeError: asyncio does not run.

        """
        loop = self._running_loop()
        self._requests += 1
        self._queue.append((script, key, arguments, heard))
        if self._sending is None:
            # It belongs to no call: no deadline, no key, no listeners of a block.
            self._sending = loop.create_task(self._send_all(), context=Context())

    async def ask(
        self, script: Script, key: str, *arguments: str | int, within: float, undo: Callable[[Reply], None]
    ) -> Reply | None:
        """Run a script and wait for the reply. None where there is none in time.

        Args:
            script: what to run.
            key: its key.
            arguments: its arguments.
            within: seconds to wait, at most, if that is less than the `timeout`.
            undo: called with a reply that comes too late, or for a caller that is cancelled.

        """
        loop = self._running_loop()
        answer: asyncio.Future[Reply | None] = loop.create_future()

        def heard(reply: Reply | None) -> None:
            if not answer.done():
                answer.set_result(reply)
            elif reply is not None:
                undo(reply)

        self.post(script, key, *arguments, heard=heard)
        patience = loop.call_later(min(within, self.timeout), heard, None)
        try:
            return await answer
        except BaseException:
            reply = None if answer.cancelled() else answer.result()  # it may lie there already
            if reply is not None:
                undo(reply)
            raise
        finally:
            patience.cancel()

    def statistics(self) -> StoreStatistics:
        """A snapshot."""
        return StoreStatistics(self._requests, self._errors, self._pipelines, self.breaker.statistics())

    def parts(self) -> Iterator[Part]:
        """What has a state: the breaker. See `resilient.parts_of`."""
        yield Part("", self.breaker.name, self.breaker)

    async def aclose(self) -> None:
        """Send what is under way and close the connection."""
        if self._sending is not None:
            await asyncio.wait((self._sending,))
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<RedisStore {self.prefix!r}: {self._requests} requests, {self._errors} errors, breaker {self.breaker.state}>"

    def _make_client(self) -> None:
        self._client = self._client_of(self._url, **self._options)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            msg = f"{self!r} works where asyncio runs: redis.asyncio knows no other event loop, such as that of trio"
            raise RuntimeError(msg) from error
        if loop is not self._loop:
            if self._loop is not None:  # it is closed, or runs in another thread: what belongs to it cannot be used here
                self._make_client()
                self._queue, self._sending = [], None
            self._loop = loop
        return loop

    async def _send_all(self) -> None:
        batch: list[tuple[Script, str, tuple[str | int, ...], Heard]] = []
        try:
            while self._queue:
                batch, self._queue = self._queue[:_LARGEST], self._queue[_LARGEST:]
                replies: list[Any] = []
                try:
                    self._pipelines += 1
                    replies = await self.breaker.call(self._send, batch)
                except Exception:  # noqa: BLE001  whatever it is, there is no answer; the breaker has seen it
                    replies = [None] * len(batch)
                told, batch = batch, []
                for (_, _, _, heard), reply in zip(told, replies, strict=True):
                    self._tell(heard, reply)
                await asyncio.sleep(0)  # who has heard, and asks again at once, does so now
        finally:
            self._sending = None
            unheard, self._queue = [*batch, *self._queue], []
            for _, _, _, heard in unheard:  # the event loop is being shut down
                self._tell(heard, None)

    def _tell(self, heard: Heard, reply: Reply | Exception | None) -> None:
        answer = reply if isinstance(reply, list) else None
        self._errors += answer is None
        heard(answer)

    async def _send(self, batch: list[tuple[Script, str, tuple[str | int, ...], Heard]]) -> list[Any]:
        try:
            async with asyncio.timeout(self.timeout):
                replies = await self._run([(*self._how(script), 1, key, *args) for script, key, args, _ in batch])
                unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
                if unknown:  # it has forgotten them, or is another one of a cluster
                    told = [batch[index] for index in unknown]
                    again = await self._run([("EVAL", script.text, 1, key, *args) for script, key, args, _ in told])
                    for index, reply in zip(unknown, again, strict=True):
                        replies[index] = reply
            errors = [reply for reply in replies if isinstance(reply, Exception)]
            if len(errors) == len(replies):  # one wrong key is no illness; a server that loads, or may not write, is
                raise errors[0]  # noqa: TRY301  it is an error like any other
        except Exception:
            await self._hang_up()
            raise
        return replies

    def _how(self, script: Script) -> tuple[str, str]:
        """How to run a script: it is handed in once, and has a short name from then on."""
        if script in self._known:
            return "EVALSHA", script.digest
        self._known.add(script)
        return "EVAL", script.text

    async def _hang_up(self) -> None:
        """The next one looks anew for who is in charge: another server may be, of a cluster or by the word of sentinels."""
        self._known.clear()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self.timeout):
                await self._client.aclose()

    async def _run(self, commands: list[tuple[str | int, ...]]) -> list[Any]:
        if len(commands) == 1:  # a pipeline of one takes twice as long
            try:
                return [await self._client.execute_command(*commands[0])]
            except ResponseError as error:
                return [error]
        async with self._client.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


def microseconds(span: float) -> int:
    """Seconds as whole microseconds: at least none, and infinity as more than anybody waits for."""
    return math.floor(min(max(span, 0.0), 1e9) * 1e6)
