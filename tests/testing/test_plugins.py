"""pytest-asyncio and anyio's plugin in one file, and what the fixtures of conftest promise."""

import asyncio
import time

import anyio
import pytest
import sniffio

from resilient import clock


@pytest.mark.asyncio
async def test_pytest_asyncio_runs_what_is_marked_for_it_in_real_time() -> None:
    """Such a test gets a plain loop and the real clock."""
    await asyncio.sleep(0)

    assert clock.now is time.monotonic


@pytest.mark.anyio
async def test_the_plugin_of_anyio_runs_what_is_marked_for_it_in_virtual_time(anyio_backend_name: str) -> None:
    """Such a test runs once for each backend, with a clock of its own."""
    await anyio.sleep(86_400)

    assert (clock.now(), sniffio.current_async_library()) == (86_400.0, anyio_backend_name)


@pytest.mark.anyio
async def test_real_time_is_asked_for_by_a_fixture(real_backend: str) -> None:
    """Such a test runs on asyncio, uvloop and trio."""
    loop = "trio" if real_backend == "trio" else type(asyncio.get_running_loop()).__module__.partition(".")[0]

    assert (clock.now, loop) == (time.monotonic, real_backend)
