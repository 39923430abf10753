"""A channel whose calls know the deadline around them.

grpc.aio runs interceptors in a task of their own, where cancel scopes of the caller are out of sight: so what remains of the time
is asked for where the caller makes the call, and goes in as its `timeout`.
"""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from resilient.context import time_left
from resilient.pipeline import Pipeline
from resilient_integrations._grpc.engine import Engine

__all__ = ("ResilientChannel", "warn_of_built_in_retries")

_SERVICE_CONFIG: Final = "grpc.service_config"
_ENABLE_RETRIES: Final = "grpc.enable_retries"


class ResilientChannel(grpc.aio.Channel):
    """A channel of grpc.aio whose calls are made in the way of a policy. `resilient_channel()` makes it.

    Attributes:
        channel: the channel that does the sending.
        pipeline: what the calls go through, with the state of each key.

    """

    def __init__(self, channel: grpc.aio.Channel, engine: Engine) -> None:
        self.channel = channel
        self.pipeline: Pipeline = engine.pipeline

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _InTime(self.channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _InTime(self.channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _InTime(self.channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _InTime(self.channel.stream_stream(*args, **kwargs))

    async def close(self, grace: float | None = None) -> None:
        await self.channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002  as in grpc.aio
        return self.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self.channel.channel_ready()

    async def __aenter__(self) -> Self:
        await self.channel.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self.channel.__aexit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<ResilientChannel of {self.pipeline!r}>"


class _InTime:
    """A method of a stub: each call gets the time that its caller has left, where that is less than its own timeout."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def __call__(self, request: Any = None, timeout: float | None = None, *args: Any, **kwargs: Any) -> Any:
        left = max(0.0, time_left())
        if left < math.inf:
            timeout = left if timeout is None else min(timeout, left)
        if args:  # client streams take all by position, and then the timeout stands before the rest
            return self._method(request, timeout, *args, **kwargs)
        return self._method(request, timeout=timeout, **kwargs)


def warn_of_built_in_retries(options: Sequence[tuple[str, Any]]) -> None:
    """Warn where the channel retries by itself: below the policy, which multiplies the two."""
    given: Mapping[str, Any] = dict(options)
    config = given.get(_SERVICE_CONFIG)
    if config is None or not given.get(_ENABLE_RETRIES, 1):
        return
    try:
        methods: Any = json.loads(config).get("methodConfig", ())
        retries = any("retryPolicy" in method or "hedgingPolicy" in method for method in methods)
    except (ValueError, TypeError, AttributeError):
        return  # grpc itself says what is wrong with it
    if retries:
        warnings.warn(
            f"options[{_SERVICE_CONFIG!r}] has a retryPolicy or a hedgingPolicy: grpc retries by itself, below the policy, and "
            f"the two multiply. Take it out, say options=[({_ENABLE_RETRIES!r}, 0), ...], or give a policy without retry",
            UserWarning,
            stacklevel=3,
        )
