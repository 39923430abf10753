"""Resilience for the SDKs of language models: `openai`, `anthropic`, and others that are made in the same way, on httpx2.

    client = wrap(AsyncOpenAI())
    answer = await client.responses.create(model="gpt-5", input="What is resilience?")

`wrap()` puts the resilient transport into the HTTP client of an SDK's client, and switches the SDK's own retries off. What is
sent again is what the page on HTTP semantics promises, and besides what the vendors say was refused: an overload (503, 529), and
any failure that the server itself says may be tried again (`x-should-retry`, which their own SDKs obey). Streams, time limits
and exceptions remain those of the SDK. No mutable state.
"""

import warnings
from typing import Any, Final, TypeVar, Unpack, cast

try:
    import httpx2
except ModuleNotFoundError as error:
    _MISSING: Final = "the SDKs of language models send by httpx2: pip install 'resilient-anyio[llm]'"
    raise ModuleNotFoundError(_MISSING, name=error.name) from error

from resilient.outcome import Classifier, Health, Kind, Verdict
from resilient.policy.schema import Policy
from resilient.strategies.backoff import Exponential
from resilient.strategies.budget import RetryBudget
from resilient.strategies.retry import Retry
from resilient_integrations._http.family import Family
from resilient_integrations._http.hints import retry_after, should_retry
from resilient_integrations._http.transport import Settings, Transport
from resilient_integrations._http.wrap import wrap_client

__all__ = ("POLICY", "wrap")

C = TypeVar("C")

POLICY: Final = Policy.http().replace(
    retry=Retry(attempts=3, backoff=Exponential(initial=0.5, maximum=8.0), timeout=120.0, budget=RetryBudget())
)
"""What `wrap()` does where it is told nothing else: as many attempts as the SDKs make themselves, with waits like theirs, of half
a second to eight. None begins more than two minutes after the call, for limits by the minute ask for waits of up to one. There is
a retry budget, and a circuit breaker for each origin. No answer is cut, however long it takes."""

_FIRST_FAILURE: Final = 500
_OVERLOADED: Final = frozenset({503, 529})
_RETRIES: Final = "x-stainless-retry-count"
"""The header in which these SDKs tell how often they have retried by themselves."""


def wrap(client: C, **settings: Unpack[Settings]) -> C:
    """Make the client of an SDK resilient in place, and switch its own retries off.

    The HTTP client inside keeps its proxies, limits, socket options and time limits. Clients that are made of it later, by
    `with_options()` or `copy()`, share the transport.

    Args:
        client: an `AsyncOpenAI`, `AsyncAnthropic`, or another asynchronous client with an `httpx2.AsyncClient` inside.
        settings: those of `ResilientTransport`; `policy` is `POLICY` by default.

    Returns:
        The same client.

    Raises:
        TypeError: it is no such client, or it is resilient already.
        TypeError, ValueError: a setting is out of its range.

    """
    sdk = cast("Any", client)
    inside: object = getattr(sdk, "_client", None)  # private, and of this name in every SDK that is made in this way
    if not isinstance(inside, httpx2.AsyncClient) or not hasattr(sdk, "max_retries"):
        msg = (
            f"client={client!r}: expected the asynchronous client of an SDK that sends by httpx2, e.g. AsyncOpenAI() or "
            "AsyncAnthropic(). A client of httpx or httpx2 itself is wrapped by the integration of its name"
        )
        raise TypeError(msg)
    settings.setdefault("policy", POLICY)
    own = settings.get("classifier")
    settings["classifier"] = _REFUSALS if own is None else own | _REFUSALS
    wrap_client(_SdkTransport, inside, **settings)
    sdk.max_retries = 0
    return client


class _SdkTransport(Transport, httpx2.AsyncBaseTransport):
    family = Family(httpx2)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.headers.get(_RETRIES, "0") != "0":
            warnings.warn(
                "the SDK retries by itself, above the policy, and the two multiply: leave max_retries= out of with_options(), "
                "and set the attempts of the policy instead",
                UserWarning,
                stacklevel=2,
            )
        response: httpx2.Response = await self.engine.handle(request, self)
        return response


def _refusal(response: httpx2.Response) -> Verdict | None:
    """A failure after which the request may be sent again, whatever its method: the server did not begin, or says so itself."""
    status = response.status_code
    if status < _FIRST_FAILURE:
        return None
    said = should_retry(response.headers)
    if said is False or (said is None and status not in _OVERLOADED):
        return None
    return Verdict(Kind.RETRYABLE, Health.UNHEALTHY, f"http_{status}", retry_after(response.headers))


_REFUSALS: Final = Classifier(lambda _error: None, _refusal)
