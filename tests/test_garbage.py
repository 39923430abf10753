"""Errors that surface leave no cycles behind: an outage makes many of them, and they keep frames, requests and sockets."""

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from helpers import Failure
from resilient.pipeline import Pipeline
from resilient.strategies.backoff import Constant
from resilient.strategies.base import Strategy
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.fallback import Fallback
from resilient.strategies.hedge import Hedge
from resilient.strategies.retry import Retry
from resilient.strategies.timeout import Timeout

pytestmark = pytest.mark.anyio

AT_ONCE = Constant(delay=0, jitter="none")


async def fails() -> None:
    raise Failure


@pytest.fixture(autouse=True)
def _uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(on=Failure, backoff=AT_ONCE),
        lambda: Retry(on=OSError),
        CircuitBreaker,
        lambda: Pipeline(Retry(on=Failure, backoff=AT_ONCE), CircuitBreaker(), Bulkhead(3), Timeout(5)),
        lambda: Pipeline(Timeout(9), Retry(on=OSError), CircuitBreaker(), Bulkhead(3), key=lambda: "key"),
        lambda: Pipeline(Fallback("cached", on=OSError), CircuitBreaker()),
        lambda: Pipeline(Hedge(1.0), Bulkhead(3)),
    ],
)
async def test_an_error_that_surfaces_can_be_freed_at_once(make: Callable[[], Strategy]) -> None:
    """When whoever caught it lets it go, whatever it went through."""
    freed: weakref.ref[Failure] | None = None
    try:
        await make().call(fails)
    except Failure as error:
        freed = weakref.ref(error)

    assert freed is not None
    assert freed() is None
