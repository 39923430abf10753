"""A service goes down and comes back: what a circuit breaker lets through meanwhile."""

import anyio

from resilient import CircuitBreaker, CircuitOpen, configure_logging


class Service:
    """A service that can be down. It counts the calls that reach it."""

    def __init__(self) -> None:
        self.is_down = False
        self.reached = 0

    async def fetch_user(self, user_id: int) -> dict[str, int]:
        """Answer, or fail."""
        self.reached += 1
        if self.is_down:
            msg = "no route to host"
            raise ConnectionError(msg)
        return {"id": user_id}


breaker = CircuitBreaker(name="user-service", consecutive_failures=3, open_for=0.2)


async def call(service: Service, times: int) -> None:
    """Call the service through the breaker, and show what became of the calls."""
    answered = refused = 0
    before = service.reached
    for _ in range(times):
        try:
            await breaker.call(service.fetch_user, 42)
            answered += 1
        except CircuitOpen:
            refused += 1
        except ConnectionError:
            pass
    print(f"  {times} calls: {service.reached - before} reached the service, {refused} were refused, {answered} were answered")
    print(f"  {breaker!r}")


async def main() -> None:
    """Drive the breaker through an outage."""
    configure_logging(enabled=False)  # the story is printed instead
    service = Service()

    print("the service is well")
    await call(service, 10)

    print("it goes down: three failures in a row open the circuit")
    service.is_down = True
    await call(service, 100)

    print("after a while one call goes through as a probe, and fails")
    await anyio.sleep(0.2)
    await call(service, 100)

    print("it comes back: after twice that time the next probe succeeds")
    service.is_down = False
    await anyio.sleep(0.4)
    await call(service, 10)


if __name__ == "__main__":
    anyio.run(main)
