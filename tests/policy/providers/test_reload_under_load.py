"""Three hundred calls in flight while policies change fifty times: each call sees one of them, and no state is lost."""

from pathlib import Path

import anyio
import pytest

from resilient.errors import CircuitOpen
from resilient.policy.executor import Resilience, current_policy
from resilient.policy.providers.file import FileProvider

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True),  # swaps are the same on all, and many
]

CALLS, SWAPS = 300, 50


def text(number: int) -> str:
    """A document whose parts tell whether they belong together: the attempts are those of the id."""
    attempts = 2 + number % 4
    return f"""
        version = {number}
        [policies."svc.Op"]
        id = "{attempts}"
        classifier = "always"
        retry = {{ attempts = {attempts}, backoff = {{ kind = "constant", delay = "100ms", jitter = "none" }} }}
        [policies."svc.Sick"]
        circuit_breaker = {{ consecutive_failures = {2 + number % 5}, open_for = "1h", open_for_max = "{1 + number}h" }}
    """


async def test_a_call_sees_one_policy_from_entry_to_end_and_breakers_stay_open(tmp_path: Path) -> None:
    """All calls retry until they have no attempts left; how many they make is what their policy said at the start."""
    path = anyio.Path(tmp_path / "policies.toml")
    await path.write_text(text(0))
    provider = FileProvider(path)
    resilience = Resilience(provider=provider)
    torn: list[tuple[str, set[str], int]] = []
    seen: set[str] = set()
    in_flight = most = finished = 0

    async def failing() -> None:
        raise ConnectionError

    async def two_calls(number: int) -> None:
        await anyio.sleep(0.15 * number / CALLS)
        await one_call()
        await one_call()

    async def one_call() -> None:
        nonlocal in_flight, most, finished
        ids: list[str] = []

        async def callee() -> None:
            policy = current_policy()
            ids.append(policy.id if policy is not None else "none")
            await anyio.sleep(0.05)
            raise ConnectionError

        in_flight += 1
        most = max(most, in_flight)
        with pytest.raises(ConnectionError):
            await resilience.call("svc.Op", callee)
        in_flight -= 1
        if len(set(ids)) != 1 or len(ids) != int(ids[0]):
            torn.append((ids[0], set(ids), len(ids)))
        seen.update(ids)
        finished += 1

    async def swaps() -> None:
        for number in range(1, SWAPS + 1):
            await anyio.sleep(0.02)
            (tmp_path / "policies.toml").write_text(text(number))  # not in a thread: virtual time would run on
            assert provider.reload()

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await resilience.call("svc.Sick", failing)
    async with anyio.create_task_group() as group:
        group.start_soon(swaps)
        for number in range(CALLS):
            group.start_soon(two_calls, number)
    with pytest.raises(CircuitOpen):
        await resilience.call("svc.Sick", failing)

    assert (torn, most, finished) == ([], CALLS, 2 * CALLS)
    assert (provider.document.version, len(seen)) == (SWAPS, 4)
