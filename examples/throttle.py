"""A server takes a hundred calls a second and gets a thousand: what a throttle sends, and what the server is spared."""

from random import Random

import anyio

from resilient import Throttle, Throttled, configure_logging
from resilient.testing import run_virtual


class Server:
    """It takes so many calls in each second, and refuses the others."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.second = 0
        self.answered = self.refused = 0

    async def handle(self) -> None:
        """Answer, or refuse."""
        second = int(anyio.current_time())
        if second != self.second:
            self.second, self.answered, self.refused = second, 0, 0
        if self.answered >= self.capacity:
            self.refused += 1
            msg = "busy"
            raise ConnectionError(msg)
        self.answered += 1


async def a_second(server: Server, throttle: Throttle) -> None:
    """Make a thousand calls, and say what became of them."""
    kept = 0
    for _ in range(1000):
        try:
            await throttle.call(server.handle)
        except Throttled:
            kept += 1
        except ConnectionError:
            pass
        await anyio.sleep(0.001)
    print(f"  {server.answered:4} answered, {server.refused:4} refused by the server, {kept:4} not sent: {throttle!r}")


async def main() -> None:
    """Overload it for a while, then give it room."""
    server, throttle = Server(100), Throttle(window=5, random=Random(1))  # noqa: S311  the same story each time
    print("a thousand calls a second, to a server that takes a hundred")
    for _ in range(5):
        await a_second(server, throttle)
    print("it can take all of them again")
    server.capacity = 1000
    for _ in range(12):
        await a_second(server, throttle)


if __name__ == "__main__":
    configure_logging(enabled=False)  # the story is printed instead
    run_virtual(main)
