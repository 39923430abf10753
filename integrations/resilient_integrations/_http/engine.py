"""The engine: how a request is sent, whatever the family.

A request becomes a call of the policy's pipeline; `attempt.send` is the callee. What is done with the outcome of an attempt is
decided by the strategies, from its verdict alone; the engine prepares the request, and turns what surfaces into what the
client knows. All mutable state: that of the pipeline, and the exchanges that were `lost`.
"""

import math
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal

from resilient.context import Attempt
from resilient.errors import ResilienceError
from resilient.observe.timeline import timeline_of
from resilient.outcome import Classifier
from resilient.pipeline import Pipeline
from resilient.policy.schema import Policy
from resilient.strategies.adaptive_rate import AdaptiveRate
from resilient.strategies.base import Strategy
from resilient.strategies.hedge import Hedge
from resilient_integrations._http.attempt import send
from resilient_integrations._http.bodies import OneShotBody, replayable, spooled
from resilient_integrations._http.call import FIRST_REDIRECT, Sending, origin_of
from resilient_integrations._http.errors import adopt
from resilient_integrations._http.exchange import Exchange
from resilient_integrations._http.failure import forget
from resilient_integrations._http.judge import http_classifier
from resilient_integrations._http.lost import Lost
from resilient_integrations._http.options import EXTENSION, Hold, Limit, Options, seconds_of

if TYPE_CHECKING:
    from resilient_integrations._http.family import Family
    from resilient_integrations._http.transport import Transport

__all__ = ("ATTEMPTS", "TIMELINE", "Engine")

ATTEMPTS: Final = "resilient.attempts"
"""The key in a response's `extensions`: how often the request was sent."""
TIMELINE: Final = "resilient.timeline"
"""The key in a response's `extensions`: the timeline, where an attempt failed before."""


class Engine:
    """What the transports of one client share: policy, state per key, and the options. See `Transport` for the arguments."""

    def __init__(
        self,
        family: "Family",
        *,
        policy: Policy | None = None,
        key: Callable[[Any], str] | None = None,
        max_keys: int = 10_000,
        classifier: Classifier | None = None,
        idempotency_key: Literal["auto"] | Callable[[Any], str | None] | None = None,
        spool: int = 0,
        retry_503: bool = False,
        hold: Hold = "body",
        timeout: Limit = None,
        attempt_timeout: Limit = None,
        before_attempt: Callable[[Any, int], Awaitable[object] | object] | None = None,
    ) -> None:
        policy = Policy.http() if policy is None else policy
        _check(policy, idempotency_key, spool)
        self.family = family
        self.lost = Lost()
        self.retry_503 = retry_503
        self.before_attempt = before_attempt
        self.options = Options(
            hold=hold,
            timeout=policy.timeout if timeout is None else timeout,
            attempt_timeout=policy.attempt_timeout if attempt_timeout is None else attempt_timeout,
        )
        self._key = key
        self._make_key = _random_key if idempotency_key == "auto" else idempotency_key
        self._spool = spool
        self._retry = policy.retry
        self.window = seconds_of(policy.retry.timeout) if policy.retry is not None else math.inf
        classify = http_classifier(classifier, limits=isinstance(policy.rate_limit, AdaptiveRate))
        # The two time limits are the engine's own business: they need to know what was sent, and go on through the body. And
        # chaos takes the place of the network, inside of them, so that what it injects is judged as if it were real.
        self.chaos = policy.chaos
        fresh = policy.replace(timeout=None, attempt_timeout=None, chaos=None).fresh_strategies()
        self.pipeline = HopPipeline(*map(_hedged_where_harmless, fresh), classify=classify, key=self.key_of, max_keys=max_keys)

    async def handle(self, request: Any, transport: "Transport") -> Any:
        """Send a request of the client; the response."""
        transport.check_open()
        if self.lost.queue:
            self.lost.end_all()
        given = request.extensions.get(EXTENSION)
        options = self.options if given is None else self.options.but(given)
        if not isinstance(request.stream, self.family.byte_stream):
            await self._make_replayable(request)
        sending = Sending(self, transport, request, options)
        if self._make_key is not None and not (sending.has_idempotent_method or sending.keyed):
            sending.make_key(self._make_key)
        try:
            value = await self.pipeline.begin(send, (sending,), {})
        except Exception as error:
            forget(error)
            if isinstance(error, ResilienceError):
                adopt(error, self.family.package, request)
            raise
        return self._hand_out(value, sending)

    def key_of(self, sending: Sending) -> str:
        """What is called."""
        if sending.options.key is not None:
            return sending.options.key
        return origin_of(sending.request.url) if self._key is None else self._key(sending.request)

    def attempts_left(self, sending: Sending) -> int | None:
        """How many attempts a hop may make, where that is not just what the policy says."""
        options, retries = sending.options, sending.retries
        if not options.retry:
            return 1
        if options.attempts is None and not retries:
            return None
        attempts = self._retry.attempts if options.attempts is None and self._retry is not None else options.attempts
        return None if attempts is None else max(1, attempts - retries)

    async def _make_replayable(self, request: Any) -> None:
        """See that a body that can be sent once is not sent twice: not by us, and not by a redirect.

        Raises:
            StreamConsumed: (of the family) an earlier hop has sent it.
            TypeError: the request is of the other family.

        """
        self.family.refuse_other("request", request)  # its streams are of no class of ours, so it always comes by here
        stream = request.stream
        if isinstance(stream, OneShotBody):
            if stream.begun:
                raise self.family.package.StreamConsumed
            return
        if replayable(stream):
            return
        body = await spooled(stream, self._spool) if self._spool else stream
        request.stream = self.family.byte_stream(body) if isinstance(body, bytes) else self.family.one_shot_body(body)

    def _hand_out(self, value: Any, sending: Sending) -> Any:
        response = value.hand_out() if isinstance(value, Exchange) else value
        if not isinstance(response, self.family.response):
            msg = f"{response!r} stands in for a response: a fallback must give an instance of {self.family.name}.Response"
            raise TypeError(msg)
        if response.status_code >= FIRST_REDIRECT:
            sending.hand_on(response)
        response.extensions[ATTEMPTS] = sending.attempts
        timeline = timeline_of(value)
        if timeline is not None:
            response.extensions[TIMELINE] = timeline
        return response


class HopPipeline(Pipeline):
    """The policy's pipeline. A hop that is not just what the policy says is told what its call has left of time and attempts."""

    __slots__ = ()

    def start(self, attempt: Attempt) -> Coroutine[Any, Any, Any]:
        sending: Sending = attempt.args[0]
        if sending.follows or sending.options is not sending.engine.options or sending.cut < math.inf:
            attempt.deadline = min(sending.window, sending.cut)
            attempt.limit = sending.engine.attempts_left(sending)
        return super().start(attempt)


def _hedged_where_harmless(strategy: Strategy) -> Strategy:
    """A hedge asks first whether the request may be out twice; a predicate of the user's own is told the request."""
    if not isinstance(strategy, Hedge):
        return strategy
    own = strategy.when

    def when(sending: Sending) -> bool:
        return sending.can_race and (own is None or own(sending.request))

    return strategy.replace(when=when)


def _random_key(_request: Any) -> str:
    return str(uuid.uuid4())


def _check(policy: object, idempotency_key: object, spool: object) -> None:
    if not isinstance(policy, Policy):
        msg = f"policy={policy!r}: expected a Policy, e.g. Policy.http().replace(attempt_timeout=2.0)"
        raise TypeError(msg)
    if policy.retry is not None and not policy.retry.needs_classifier:
        msg = (
            f"policy.retry={policy.retry!r} says by itself what to retry. Over HTTP that depends on the method, the body, and on "
            "what was sent: leave on= and classify= out, and pass classifier= to the transport for what you know better"
        )
        raise TypeError(msg)
    if policy.hedge is not None and policy.hedge.classifier is not None:
        msg = (
            f"policy.hedge={policy.hedge!r} says by itself what a failure is: leave on= and classify= out, and pass classifier= "
            "to the transport for what you know better"
        )
        raise TypeError(msg)
    if idempotency_key is not None and idempotency_key != "auto" and not callable(idempotency_key):
        msg = f'idempotency_key={idempotency_key!r}: expected "auto" or a function of the request'
        raise TypeError(msg)
    if isinstance(spool, bool) or not isinstance(spool, int) or spool < 0:
        msg = f"spool={spool!r}: expected a number of bytes of at least 0"
        raise ValueError(msg)
