import anyio
import pytest

from resilient import clock

pytestmark = pytest.mark.anyio


async def test_a_long_sleep_takes_no_time_and_exactly_as_long_as_it_says() -> None:
    """Both clocks start at zero and jump by the sleep."""
    await anyio.sleep(3600)

    assert (clock.now(), anyio.current_time()) == (3600.0, 3600.0)
