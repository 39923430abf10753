"""How to test resilient code: an outage of a minute in no time, a bug that only some orders of tasks show, a bad network.

With pytest the first parts are `@pytest.mark.virtual_time(seeds=50)` and fixtures; here they are plain calls.
"""

import asyncio

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.lowlevel import checkpoint

from resilient import CircuitBreaker, Constant, Pipeline, Retry, Timeout, clock, configure_logging
from resilient.observe.events import BreakerStateChanged, RetryScheduled
from resilient.testing import After, FaultProxy, Latency, Reset, ScriptedCallee, explore, no_leaks, recorded, run_virtual


async def outage() -> None:
    """A backend refuses, hangs, and comes back: what happened is asserted on, to the second."""
    backend = ScriptedCallee(ConnectionError("refused"), After(60), "at last")
    pipeline = Pipeline(
        Retry(on=(ConnectionError, TimeoutError), backoff=Constant(delay=30, maximum=30, jitter="none")),
        CircuitBreaker(consecutive_failures=5),
        Timeout(5),
    )
    with recorded() as events, no_leaks():
        answer = await pipeline.call(backend)
    events.assert_order(RetryScheduled, RetryScheduled)
    events.assert_none(BreakerStateChanged)
    print(f"  {answer!r} after {clock.now():g} s, calls at {backend.at}")
    print(events.render(width=30))


class Client:
    """It connects in the background, and takes for granted that this is quicker than the first question."""

    def __init__(self) -> None:
        self.connected = False

    async def connect(self) -> None:
        """Two round trips."""
        await checkpoint()
        await checkpoint()
        self.connected = True

    async def ask(self) -> None:
        """The question is prepared, and then sent."""
        for _ in range(8):
            await checkpoint()
        if not self.connected:
            msg = "asked before it was connected"
            raise RuntimeError(msg)


async def start_and_ask() -> None:
    """It works: as long as tasks run in the order in which they were started."""
    client = Client()
    await asyncio.gather(client.connect(), client.ask())


def find_the_race() -> None:
    """Under some orders of the two it goes wrong; the notes of the error say which seed shows it again."""
    run_virtual(start_and_ask)
    print("  it passes in the usual order")
    try:
        explore(start_and_ask, seeds=500)
    except RuntimeError as error:
        print(f"  {error}: {'; '.join(error.__notes__)}")


async def answer(stream: ByteStream) -> None:
    """A server that answers whatever it is asked."""
    async with stream:
        async for request in stream:
            await stream.send(b"answer to " + request)


async def bad_network() -> None:
    """Real sockets: latency, then a reset while the client waits for its answer."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, answer)
        port: int = listener.extra(SocketAttribute.local_port)  # noqa: S610  a socket's attribute, no SQL
        async with (
            FaultProxy("127.0.0.1", port, Latency(0.02)) as proxy,
            await anyio.connect_tcp("127.0.0.1", proxy.port) as client,
        ):
            await client.send(b"one")
            print(f"  {await client.receive()!r}, with some latency")
            proxy.fault = Reset(after=4)
            await client.send(b"two")
            try:
                while True:
                    print(f"  {await client.receive()!r}, and then")
            except anyio.BrokenResourceError as error:
                print(f"  {error.__cause__!r}")
        group.cancel_scope.cancel()


if __name__ == "__main__":
    configure_logging(enabled=False)  # the story is printed instead
    print("an outage, under virtual time")
    run_virtual(outage)
    print("\na race, found by its seed")
    find_the_race()
    print("\na bad network, on real sockets")
    anyio.run(bad_network)
