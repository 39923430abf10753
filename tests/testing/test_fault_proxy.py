"""A TCP proxy that plays faults: on real sockets, with plain streams and with both HTTP clients."""

import errno
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random
from typing import Any, Final

import anyio
import anyio.abc
import httpx
import httpx2
import pytest

from resilient.testing import (
    Bandwidth,
    BlackHole,
    Drip,
    Fault,
    FaultProxy,
    Latency,
    Refuse,
    Reset,
    Sometimes,
    Truncate,
)
from resilient.testing.faults import Weather, faults_of

SIZE: Final = 100_000
BODY: Final = bytes(Random(0).randbytes(SIZE))
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"

real = pytest.mark.usefixtures("real_backend")


async def answer(stream: anyio.abc.SocketStream) -> None:
    """An HTTP server: every request gets the body."""
    async with stream:
        try:
            async for _ in stream:
                await stream.send(HEAD + BODY)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass


async def echo(stream: anyio.abc.SocketStream) -> None:
    """What comes in goes back, until the other side says that it is done."""
    async with stream:
        try:
            async for chunk in stream:
                await stream.send(chunk)
            await stream.send(b"bye")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass


@asynccontextmanager
async def proxied(
    *faults: Fault, serve: Callable[[anyio.abc.SocketStream], Awaitable[None]] = answer, seed: int = 0
) -> AsyncGenerator[FaultProxy]:
    """A proxy in front of a server of ours."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610  a socket's attribute, no SQL
        async with FaultProxy("127.0.0.1", port, *faults, seed=seed) as proxy:
            yield proxy
        group.cancel_scope.cancel()


async def get(proxy: FaultProxy, client: Any = httpx, **options: Any) -> bytes:
    async with client.AsyncClient(trust_env=False, verify=False, **options) as session:
        response = await session.get(f"http://127.0.0.1:{proxy.port}/")
        body: bytes = response.content
        return body


async def read_all(stream: anyio.abc.ByteReceiveStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


@real
@pytest.mark.anyio
@pytest.mark.parametrize("client", [httpx, httpx2], ids=lambda client: client.__name__)
async def test_without_faults_it_is_not_noticed(client: Any) -> None:
    """All bytes come through, over several connections."""
    async with proxied() as proxy:
        assert [await get(proxy, client) == BODY for _ in range(3)] == [True] * 3
        assert proxy.connections == 3


@real
@pytest.mark.anyio
@pytest.mark.parametrize("client", [httpx, httpx2], ids=lambda client: client.__name__)
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Reset(after=1000), "ReadError"),
        (Reset(), "ReadError"),
        (Truncate(after=1000), "RemoteProtocolError"),
        (Truncate(), "RemoteProtocolError"),
        (BlackHole(after=1000), "ReadTimeout"),
        (BlackHole(), "ReadTimeout"),
        (Refuse(), "ConnectError"),
    ],
    ids=repr,
)
async def test_each_end_is_the_error_that_http_clients_know(client: Any, fault: Fault, error: str) -> None:
    """A reset, an orderly end too early, silence, and nobody there."""
    async with proxied(fault) as proxy:
        with pytest.raises(getattr(client, error)):
            await get(proxy, client, timeout=0.05)


@real
@pytest.mark.anyio
async def test_so_many_bytes_pass_before_a_reset() -> None:
    """To the byte, and then it is a reset, not an end."""
    async with proxied(Reset(after=1234)) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await stream.send(b"GET")
        got = b""
        with pytest.raises(anyio.BrokenResourceError) as caught:  # noqa: PT012  some come before
            while True:
                got += await stream.receive()

    assert got == (HEAD + BODY)[:1234]
    assert getattr(caught.value.__cause__, "errno", None) == errno.ECONNRESET


@real
@pytest.mark.anyio
async def test_so_many_bytes_pass_before_an_orderly_end() -> None:
    """The client reads an end, not an error."""
    async with proxied(Truncate(after=1234)) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await stream.send(b"GET")

        assert await read_all(stream) == (HEAD + BODY)[:1234]


@real
@pytest.mark.anyio
async def test_nothing_passes_through_a_black_hole() -> None:
    """The client may send as much as it likes: it is neither answered nor closed."""
    async with proxied(BlackHole(after=5), serve=echo) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        with anyio.move_on_after(0.05) as scope:
            await stream.send(b"again")
            await stream.send(bytes(1_000_000))
            await stream.receive()

    assert scope.cancelled_caught


@real
@pytest.mark.anyio
async def test_the_end_of_one_side_is_handed_on() -> None:
    """A client that says that it is done still gets the rest."""
    async with proxied(serve=echo) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await stream.send(b"hello ")
        await stream.send_eof()

        assert await read_all(stream) == b"hello bye"


@real
@pytest.mark.anyio
async def test_latency_delays_and_does_not_slow_down() -> None:
    """Each chunk is under way for so long; those behind it are too, not one after the other."""

    async def pieces(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            for _ in range(20):
                await stream.send(b"piece")
                await anyio.sleep(0.005)

    async with proxied(Latency(0.1), serve=pieces) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        started = anyio.current_time()
        assert await read_all(stream) == b"piece" * 20
        took = anyio.current_time() - started

    assert 0.1 <= took < 1.5  # one after the other: 2 seconds


@real
@pytest.mark.anyio
@pytest.mark.parametrize("fault", [Bandwidth(SIZE * 10), Drip(SIZE // 10, 0.01)], ids=repr)
async def test_a_pace_is_kept(fault: Fault) -> None:
    """A tenth of a second for all of it."""
    async with proxied(fault) as proxy:
        started = anyio.current_time()
        assert await get(proxy) == BODY
        took = anyio.current_time() - started

    assert took >= 0.09


@real
@pytest.mark.anyio
async def test_faults_are_switched_while_a_connection_is_open() -> None:
    """What counts bytes counts from the switch on."""
    async with proxied(serve=echo) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await stream.send(b"one")
        assert await stream.receive() == b"one"
        proxy.fault = Truncate(after=2)
        await stream.send(b"two")

        assert await read_all(stream) == b"tw"


@real
@pytest.mark.anyio
async def test_an_idle_connection_meets_a_reset_with_its_next_bytes() -> None:
    """The server never sees them: a connection in a pool that went stale."""
    async with proxied(serve=echo) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await stream.send(b"one")
        await stream.receive()
        proxy.fault = Reset()
        await stream.send(b"two")

        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


@real
@pytest.mark.anyio
async def test_a_port_that_refuses_can_be_opened_again() -> None:
    """The same port, back and forth; connections that are open stay so."""
    async with proxied(serve=echo) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await stream.send(b"one")
        await stream.receive()
        for _ in range(2):
            proxy.fault = Refuse()
            with pytest.raises(OSError, match=r"."):
                await anyio.connect_tcp("127.0.0.1", proxy.port)
            proxy.fault = None
            async with await anyio.connect_tcp("127.0.0.1", proxy.port) as other:
                await other.send(b"two")
                assert await other.receive() == b"two"
        await stream.send(b"three")

        assert await stream.receive() == b"three"


@real
@pytest.mark.anyio
async def test_what_the_server_does_is_handed_on(caplog: pytest.LogCaptureFixture) -> None:
    """Where it resets, or is not there, the client sees a reset; in the second case a line says why."""

    async def reset(stream: anyio.abc.SocketStream) -> None:
        async with FaultProxy("127.0.0.1", 1) as nobody, await anyio.connect_tcp("127.0.0.1", nobody.port) as other:
            with pytest.raises(anyio.BrokenResourceError):
                await other.receive()
        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610  a socket's attribute, no SQL
        raw.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    async with proxied(serve=reset) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            await stream.receive()

    assert "the server cannot be reached: " in caplog.text
    assert "to 127.0.0.1:1: no fault, 1 connections>" in caplog.text


@real
@pytest.mark.anyio
async def test_a_client_that_reads_slowly_holds_the_server_back() -> None:
    """A proxy is no place to keep what nobody reads."""
    sent = 0

    async def flood(stream: anyio.abc.SocketStream) -> None:
        nonlocal sent
        async with stream:
            with pytest.raises((anyio.BrokenResourceError, anyio.ClosedResourceError)):  # noqa: PT012  some go before
                while True:
                    await stream.send(bytes(1_000_000))
                    sent += 1_000_000

    async with proxied(serve=flood) as proxy, await anyio.connect_tcp("127.0.0.1", proxy.port):
        before = -1
        while sent != before:
            before = sent
            await anyio.sleep(0.1)

    assert sent < 100_000_000


@real
@pytest.mark.anyio
async def test_an_error_of_the_block_surfaces_as_it_is() -> None:
    """Not in a group; and all connections are closed."""
    with pytest.raises(LookupError):
        async with FaultProxy("127.0.0.1", 1):
            raise LookupError


@real
@pytest.mark.anyio
async def test_a_port_that_is_taken_is_an_error() -> None:
    """That of the operating system."""
    async with FaultProxy("127.0.0.1", 1) as first:
        with pytest.raises(OSError, match=f"in use, to listen on 127.0.0.1 port {first.port}"):
            async with FaultProxy("127.0.0.1", 1, listen_port=first.port):
                pass


@real
@pytest.mark.anyio
async def test_one_proxy_runs_once_at_a_time() -> None:
    """And again when it has ended, on its port."""
    proxy = FaultProxy("127.0.0.1", 1)
    async with proxy:
        with pytest.raises(RuntimeError, match="runs already: one `async with` at a time"):
            async with proxy:
                pass
        port = proxy.port
    async with proxy:
        assert proxy.port == port


# What needs no socket


def weather_of(*faults: Fault, number: int = 1, seed: int = 0) -> Weather:
    return FaultProxy("127.0.0.1", 1, *faults, seed=seed).weather(number)


def test_several_faults_make_one_weather() -> None:
    """Latencies add up, the slowest pace and the earliest end count."""
    weather = weather_of(
        Latency(1), Latency(2), Drip(10, 1), Bandwidth(5), Drip(100, 1), Truncate(after=10), Reset(after=5), BlackHole(7)
    )

    assert weather.under_way() == 3
    assert (weather.size, weather.pause) == (1, 0.2)
    assert (weather.after, weather.end) == (5, "reset")


def test_what_is_drawn_follows_from_the_seed_and_the_connection() -> None:
    """The same again, and another one for another connection or seed."""

    def drawn(number: int, seed: int) -> tuple[float, float]:
        weather = weather_of(Latency(1, jitter=1), Sometimes(0.5, Reset()), number=number, seed=seed)
        return weather.under_way(), weather.after

    assert drawn(1, 0) == drawn(1, 0)
    assert len({drawn(1, 0), drawn(2, 0), drawn(1, 1)}) == 3
    assert all(1 <= drawn(number, 0)[0] <= 2 for number in range(100))
    assert 30 < sum(drawn(number, 0)[1] == 0 for number in range(100)) < 70


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Latency(-1), "seconds=-1 is out of range"),
        (lambda: Latency(1, jitter=-1), "jitter=-1 is out of range"),
        (lambda: Bandwidth(0), "rate=0 is out of range"),
        (lambda: Drip(0), "size=0 is out of range"),
        (lambda: Drip(pause=-1), "pause=-1 is out of range"),
        (lambda: Reset(after=-1), "after=-1 is out of range"),
        (lambda: Truncate(after=-1), "after=-1 is out of range"),
        (lambda: BlackHole(after=-1), "after=-1 is out of range"),
        (lambda: Sometimes(2, Reset()), "share=2 is out of range"),
        (lambda: FaultProxy("127.0.0.1", 0), "port=0 is out of range"),
        (lambda: FaultProxy("127.0.0.1", 65_536), "port=65536 is out of range: expected a port of at most 65535"),
        (lambda: FaultProxy("127.0.0.1", 1, listen_port=65_536), "listen_port=65536 is out of range"),
        (lambda: FaultProxy("127.0.0.1", 1, seed=-1), "seed=-1 is out of range"),
        (lambda: FaultProxy("127.0.0.1", 1, listen_port=-1), "listen_port=-1 is out of range"),
    ],
)
def test_arguments_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    """The message names the parameter and its range."""
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_fault_is_refused() -> None:
    """The message shows some that are; a port cannot be open sometimes."""
    with pytest.raises(TypeError, match=r"expected a fault such as Latency\(0.2\)"):
        faults_of((Latency(1), 5))
    with pytest.raises(TypeError, match=r"take Reset\(\)"):
        Sometimes(0.5, Refuse())
    with pytest.raises(TypeError, match=r"fault=<class '.*Reset'>: expected a fault"):
        Sometimes(0.5, Reset)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="host=5432: expected the name or address of the server"):
        FaultProxy(5432, 5432)  # type: ignore[arg-type]


def test_durations_may_be_timedeltas() -> None:
    """Seconds are what is kept."""
    assert Latency(timedelta(seconds=2), timedelta(seconds=1)) == Latency(2.0, 1.0)
    assert weather_of(Latency(timedelta(seconds=2)), Drip(1, timedelta(seconds=3))).pause == 3.0


def test_its_repr_tells_where_it_leads_and_what_happens() -> None:
    """And that nothing does."""
    proxy = FaultProxy("db", 5432)
    assert repr(proxy) == "<FaultProxy on port 0 to db:5432: no fault, 0 connections>"
    proxy.fault = Latency(0.2), Reset()

    assert "Latency(seconds=0.2, jitter=0.0), Reset(after=0)" in repr(proxy)
