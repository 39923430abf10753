"""The engine: how a call is sent, whatever its kind.

A call becomes a call of the policy's pipeline; `rpc.send` is the callee. What is done with the outcome of an attempt is decided
by the strategies, from its verdict alone. All mutable state: that of the pipeline.
"""

import sys
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any, Final, Literal, TypedDict

import grpc

from resilient.context import Attempt
from resilient.errors import ResilienceError
from resilient.outcome import Classifier
from resilient.pipeline import Pipeline
from resilient.policy.schema import Policy
from resilient.strategies.base import Strategy
from resilient.strategies.hedge import Hedge
from resilient_integrations._grpc.errors import adopt
from resilient_integrations._grpc.rpc import Rpc, send, spooled
from resilient_integrations._grpc.status import classifiers

__all__ = ("Engine", "KeyOfMethod", "Methods", "Settings", "is_replayable", "key_function", "refuse_trio")

Methods = Collection[str] | Callable[[str], bool]
"""Which methods: their paths, `/package.Service/Method`, or a predicate on the path."""

KeyOfMethod = Literal["method", "service"] | Callable[[str], str]


class Settings(TypedDict, total=False):
    """The settings of a client, each described at `interceptors()`."""

    policy: Policy | None
    key: KeyOfMethod
    max_keys: int
    classifier: Classifier | None
    idempotent: Methods | None
    retry_codes: Collection[grpc.StatusCode]
    spool: int


class Engine:
    """What the interceptors of one channel share: policy and state per key. See `interceptors()` for the arguments."""

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        key: KeyOfMethod = "method",
        max_keys: int = 10_000,
        classifier: Classifier | None = None,
        idempotent: Methods | None = None,
        retry_codes: Collection[grpc.StatusCode] = (),
        spool: int = 0,
    ) -> None:
        refuse_trio()
        policy = Policy.http() if policy is None else policy
        _check(policy, idempotent, retry_codes, spool)
        self.policy = policy
        self.timeout = policy.timeout
        self.attempt_timeout = policy.attempt_timeout
        self.spool = spool
        self.classifiers = classifiers(classifier, retry_codes)
        self._key = key_function(key)
        self._idempotent = idempotent
        # The time limits are the engine's own business: the server hears of them. Only chaos, which takes the place of the
        # network and knows nothing of grpc, needs the one around it.
        fresh = policy.replace(timeout=None, attempt_timeout=policy.attempt_timeout if policy.chaos else None).fresh_strategies()
        self.pipeline = RpcPipeline(
            *map(_hedged_where_harmless, fresh), classify=self.classifiers[None], key=self.key_of, max_keys=max_keys
        )

    async def run(self, rpc: Rpc) -> Any:
        """Take a call through the strategies; the call below that answers."""
        try:
            return await self.pipeline.call(send, rpc)
        except ResilienceError as error:
            adopt(error)
            raise
        finally:
            del rpc.proceed  # it refers to the call that the user holds, who may drop it

    async def run_spooled(self, rpc: Rpc) -> Any:
        """As `run`, for a call whose messages come one by one: read into memory first, where they are to be."""
        if self.spool and not rpc.replayable:
            rpc.request = await spooled(rpc.request, self.spool)
            rpc.replayable = is_replayable(rpc.request)
        return await self.run(rpc)

    def key_of(self, rpc: Rpc) -> str:
        """What is called."""
        return self._key(rpc.method)

    def is_idempotent(self, method: str) -> bool | None:
        """Whether a method may be run twice; None where nobody said."""
        if self._idempotent is None:
            return None
        return self._idempotent(method) if callable(self._idempotent) else method in self._idempotent


class RpcPipeline(Pipeline):
    """The policy's pipeline. A call tells it how much time there is, whether it can be sent again, and what its method allows."""

    __slots__ = ()

    def start(self, attempt: Attempt) -> Coroutine[Any, Any, Any]:
        rpc: Rpc = attempt.args[0]
        attempt.deadline = rpc.cut
        if not rpc.replayable:
            attempt.limit = 1
        step = super().start(attempt)
        attempt.classifier = rpc.classifier
        return step


def _hedged_where_harmless(strategy: Strategy) -> Strategy:
    """A hedge asks first whether the call may be out twice; a predicate of the user's own is told the method."""
    if not isinstance(strategy, Hedge):
        return strategy
    own = strategy.when

    def when(rpc: Rpc) -> bool:
        return rpc.idempotent is True and rpc.replayable and (own is None or own(rpc.method))

    return strategy.replace(when=when)


def _method_key(method: str) -> str:
    return method.removeprefix("/").replace("/", ".")


def _service_key(method: str) -> str:
    return method.removeprefix("/").partition("/")[0]


_KEYS: Final[Mapping[Any, Callable[[str], str]]] = {"method": _method_key, "service": _service_key}


def is_replayable(messages: object) -> bool:
    """Whether messages can be read again: those of a list or a tuple can."""
    return isinstance(messages, (list, tuple))


def refuse_trio() -> None:
    """Say so where the event loop is the wrong one.

    Raises:
        RuntimeError: trio runs.

    """
    trio: Any = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        msg = "grpc.aio works on asyncio only, and this is trio: run the program with asyncio.run()"
        raise RuntimeError(msg)


def key_function(key: KeyOfMethod) -> Callable[[str], str]:
    """The function from the path of a method to a key.

    Raises:
        TypeError: it is neither one nor the name of one.

    """
    found = key if callable(key) else _KEYS.get(key)
    if found is None:
        msg = f"key={key!r}: expected 'method', 'service', or a function of the method's path"
        raise TypeError(msg)
    return found


def _check(policy: object, idempotent: object, retry_codes: Collection[object], spool: object) -> None:
    if not isinstance(policy, Policy):
        msg = f"policy={policy!r}: expected a Policy, e.g. Policy.http().replace(attempt_timeout=2.0)"
        raise TypeError(msg)
    for name, strategy in (("retry", policy.retry), ("hedge", policy.hedge)):
        if strategy is not None and strategy.classifier is not None:
            msg = (
                f"policy.{name}={strategy!r} says by itself what a failure is. Over gRPC the status and the method do: "
                "leave on= and classify= out, and say retry_codes= or classifier= for what you know better"
            )
            raise TypeError(msg)
    if isinstance(idempotent, str) or not (idempotent is None or callable(idempotent) or isinstance(idempotent, Collection)):
        msg = f"idempotent={idempotent!r}: expected paths of methods, e.g. {{'/package.Service/Get'}}, or a function of the path"
        raise TypeError(msg)
    for path in idempotent if isinstance(idempotent, Collection) else ():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(path, str) or not path.startswith("/"):
            msg = f"idempotent: {path!r} is no path of a method, which looks like '/package.Service/Get'"
            raise ValueError(msg)
    for code in retry_codes:
        if not isinstance(code, grpc.StatusCode):
            msg = f"retry_codes: {code!r} is no code, e.g. grpc.StatusCode.ABORTED"
            raise TypeError(msg)
    if isinstance(spool, bool) or not isinstance(spool, int) or spool < 0:
        msg = f"spool={spool!r}: expected a number of messages of at least 0"
        raise ValueError(msg)
