"""A real HTTP server is killed while calls are under way, and comes back on its port: how the outage begins, lasts and ends."""

import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import anyio.to_thread

from integrations.families import BACKENDS, LEFT_BELOW, POLICY, Family, gates
from resilient import Bulkhead, CircuitBreaker, CircuitOpen, clock

pytestmark = BACKENDS

OPEN_FOR: Final = 0.1
SLACK: Final = 2.0
"""Seconds that a busy machine may take for what takes none."""

_PROGRAM: Final = """
import http.server, os, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/silent":
            self.wait()
        self.send_response(200)
        self.send_header("Process", str(os.getpid()))
        self.send_header("Content-Length", "5" if self.path == "/body" else "0")
        self.end_headers()
        if self.path == "/body":
            self.wfile.write(b"half")
            self.wait()

    def wait(self):
        print(flush=True)
        threading.Event().wait()

    def log_message(self, *_):
        pass

with http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
"""
"""Answers with the number of its process: at once, never (`/silent`), or not to the end (`/body`). It prints when one waits."""


class Process:
    """The server. It is killed as the kernel kills: nothing is said, its connections are gone."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(port)]
        self._process: Any = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603  our own
        self.port = port
        self.pid: int = self._process.pid

    async def heard(self) -> bytes:
        """The next line that it prints."""
        line: bytes = await anyio.to_thread.run_sync(self._process.stdout.readline)
        return line

    def kill(self) -> None:
        with self._process:  # waits for it, and closes what it prints to
            self._process.kill()


@asynccontextmanager
async def running(port: int = 0) -> AsyncGenerator[Process]:
    """A server that accepts connections."""
    process = Process(port)
    try:
        process.port = int(await process.heard())
        yield process
    finally:
        process.kill()


class Calls:
    """What came of the calls to a server: each gives a response, or an exception of the family."""

    def __init__(self, family: Family, client: Any, port: int) -> None:
        self._errors: type[Exception] = family.lib.TransportError
        self._client = client
        self._url = f"http://127.0.0.1:{port}"
        self.by = set[int]()  # who has answered
        self.failed = list[Exception]()
        self.slowest = 0.0

    async def get(self, path: str = "/", times: int = 1) -> None:
        for _ in range(times):
            started = clock.now()
            try:
                response = await self._client.get(self._url + path)
                self.by.add(int(response.headers["process"]))
            except self._errors as error:
                self.failed.append(error)
            self.slowest = max(self.slowest, clock.now() - started)

    async def some(self, times: int = 1) -> None:
        """Four at a time, one after the other so many times."""
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(self.get, "/", times)


@LEFT_BELOW
async def test_a_server_that_is_killed_and_comes_back_is_called_again(family: Family) -> None:
    """What is under way fails at once, with the exceptions of the client; then the breaker refuses; one probe later all is well.

    No permit stays out: `family.client` sees to that.
    """
    breaker = CircuitBreaker(consecutive_failures=3, open_for=OPEN_FOR, open_for_factor=1)
    policy = POLICY.replace(circuit_breaker=breaker, bulkhead=Bulkhead(4))
    async with family.client(policy=policy, client={"timeout": 30.0}) as client:
        async with running() as first:
            before, under_way, during, after = (Calls(family, client, first.port) for _ in range(4))
            await before.some()
            breaker, _ = gates(client._transport)
            async with anyio.create_task_group() as tasks:
                for path in ("/silent", "/silent", "/body"):
                    tasks.start_soon(under_way.get, path)
                    await first.heard()
                first.kill()
        await during.some(times=5)
        seen = breaker.statistics()

        async with running(first.port) as second:
            back = clock.now()
            await anyio.sleep(breaker.statistics().open_remaining)
            await after.get()
            recovered = clock.now() - back
            await after.some()

    assert (before.by, before.failed) == ({first.pid}, [])
    assert (under_way.by, len(under_way.failed)) == (set(), 3)
    assert (during.by, len(during.failed)) == (set(), 20)
    assert any(isinstance(error, CircuitOpen) for error in during.failed)
    assert (seen.opened >= 1, seen.is_healthy) == (True, False)
    assert (after.by, after.failed, breaker.state) == ({second.pid}, [], "closed")
    assert max(under_way.slowest, during.slowest) < SLACK
    assert recovered < OPEN_FOR + SLACK
