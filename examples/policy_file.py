"""Policies in a file that changes while the program runs: a good change takes effect, a bad one is refused."""

import contextlib
import logging
import tempfile
from pathlib import Path

import anyio

from resilient import Resilience
from resilient.policy.providers.file import FileProvider

GOOD = """
version = {version}

[policies."user-service.GetUser"]
classifier = "always"

[policies."user-service.GetUser".retry]
attempts = {attempts}
backoff = {{ kind = "constant", delay = "1ms" }}
"""


async def main() -> None:
    """Call, change the file, call again."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("resilient").setLevel(logging.ERROR)
    path = Path(tempfile.mkdtemp()) / "policies.toml"
    path.write_text(GOOD.format(version=1, attempts=2))

    async with FileProvider(path) as provider:
        resilience = Resilience(provider=provider)
        print(f"version {provider.document.version}: {await attempts(resilience)} attempts")

        path.write_text(GOOD.format(version=2, attempts=4))
        await anyio.sleep(0.5)  # it takes a moment until the file system has told
        print(f"version {provider.document.version}: {await attempts(resilience)} attempts")

        path.write_text(GOOD.format(version=3, attempts='"many"'))
        print(f"the next one is {'taken' if provider.reload() else 'refused'}")
        print(f"version {provider.document.version}: {await attempts(resilience)} attempts")


async def attempts(resilience: Resilience) -> int:
    """How often a call is tried that always fails."""
    made = 0

    async def fetch_user(user_id: int) -> str:
        nonlocal made
        made += 1
        raise ConnectionError(user_id)

    with contextlib.suppress(ConnectionError):
        await resilience.call("user-service.GetUser", fetch_user, 42)
    return made


if __name__ == "__main__":
    anyio.run(main)
