import logging
from typing import Any

import anyio
import pytest

from helpers import Failure, Script
from resilient.errors import CircuitOpen, RateLimited
from resilient.keyed import Keyed
from resilient.strategies.budget import RetryBudget
from resilient.strategies.bulkhead import Bulkhead
from resilient.strategies.circuit_breaker import CircuitBreaker
from resilient.strategies.rate_limit import TokenBucket
from resilient.strategies.retry import Retry

pytestmark = pytest.mark.anyio

TEMPLATES = [
    TokenBucket(5, burst=7, max_wait=2),
    Bulkhead(3, max_queue=2, queue_timeout=1),
    CircuitBreaker(consecutive_failures=2),
    RetryBudget(ratio=0.3),
]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: type(template).__name__)
async def test_a_key_gets_a_sibling_of_the_template_and_keeps_it(template: Any) -> None:
    """The same settings, fresh state; the template itself is never handed out."""
    keyed = Keyed(template)
    ann, bob = keyed["ann"], keyed["bob"]

    assert keyed["ann"] is ann
    assert ann is not bob
    assert template not in (ann, bob)
    assert type(ann) is type(template)
    assert list(keyed) == ["ann", "bob"]
    assert ("ann" in keyed, "eve" in keyed, len(keyed)) == (True, False, 2)


async def test_what_one_key_uses_up_the_others_still_have() -> None:
    """They share settings, not state."""
    keyed = Keyed(TokenBucket(1, max_wait=0))
    keyed["ann"].acquire_nowait()
    with pytest.raises(RateLimited):
        keyed["ann"].acquire_nowait()

    keyed["bob"].acquire_nowait()


async def test_keys_that_are_as_new_are_forgotten_when_there_is_no_room() -> None:
    """That loses nothing: a bucket that is full again equals a fresh one."""
    keyed = Keyed(TokenBucket(1000), max_keys=3)
    for number in range(100):
        keyed[str(number)].acquire_nowait()
        await anyio.sleep(1)

    assert len(keyed) <= 3


async def test_keys_that_remember_something_stay() -> None:
    """An open breaker is not forgotten to make room, however many keys come."""
    keyed = Keyed(CircuitBreaker(consecutive_failures=1), max_keys=10)
    with pytest.raises(Failure):
        await keyed["bad"].call(Script(Failure()))
    for number in range(100):
        await keyed[str(number)].call(Script(1))

    with pytest.raises(CircuitOpen):
        await keyed["bad"].call(Script(1))
    assert len(keyed) <= 10


async def test_a_permit_that_is_out_keeps_its_key() -> None:
    """Else another instance would let one too many in."""
    keyed = Keyed(Bulkhead(1), max_keys=2)
    with keyed["held"].acquire_nowait():
        for number in range(10):
            keyed[str(number)].acquire_nowait().settle()

        assert "held" in keyed
        assert keyed["held"].statistics().active == 1


async def test_where_nothing_can_be_forgotten_new_keys_share_one_instance(caplog: pytest.LogCaptureFixture) -> None:
    """One warning says so, with what to do; hostile keys cannot grow memory."""
    keyed = Keyed(Bulkhead(1), max_keys=2)
    leases = [keyed[key].acquire_nowait() for key in ("ann", "bob")]
    with caplog.at_level(logging.WARNING, logger="resilient"):
        shared = {id(keyed[str(number)]) for number in range(1000)}

    assert (len(shared), len(keyed)) == (1, 2)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("all 2 keys have state that cannot be forgotten: new keys share one instance.")
    assert repr(keyed) == "<Keyed: 2 of 2 keys, overflowing>"
    for lease in leases:
        lease.settle()


async def test_new_keys_have_their_own_again_when_there_is_room() -> None:
    """The overflow instance is for the time in between."""
    keyed = Keyed(Bulkhead(1), max_keys=2)
    leases = [keyed[key].acquire_nowait() for key in ("ann", "bob")]
    shared = keyed["eve"]
    for lease in leases:
        lease.settle()

    assert keyed["eve"] is not shared
    assert list(keyed) == ["eve"]


async def test_a_sweep_looks_at_other_keys_each_time() -> None:
    """A few old keys that must stay do not keep those behind them from being forgotten."""
    keyed = Keyed(Bulkhead(1), max_keys=200)
    leases = [keyed[f"held {number}"].acquire_nowait() for number in range(150)]
    for number in range(50):
        _ = keyed[f"idle {number}"]
    own = [f"new {number}" for number in range(10) if keyed[f"new {number}"] and f"new {number}" in keyed]

    assert len(own) >= 5
    assert sum(key.startswith("held") for key in keyed) == 150
    for lease in leases:
        lease.settle()


async def test_statistics_are_those_of_all_keys() -> None:
    """A snapshot by key."""
    keyed = Keyed(TokenBucket(5))
    keyed["ann"].acquire_nowait()
    _ = keyed["bob"]

    assert {key: seen.tokens for key, seen in keyed.statistics().items()} == {"ann": 4, "bob": 5}
    assert repr(keyed) == "<Keyed: 2 of 10000 keys>"


async def test_what_has_no_state_is_refused() -> None:
    """There is nothing to keep per key."""
    with pytest.raises(TypeError, match="has no state to keep per key: pass a breaker, bulkhead, limiter or budget"):
        Keyed(Retry(on=OSError))  # type: ignore[type-var]
    with pytest.raises(ValueError, match="max_keys=0 is out of range"):
        Keyed(Bulkhead(1), max_keys=0)
