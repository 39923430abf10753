"""A decorated function: retried while the connection is refused, with a note on the error when it never works."""

import asyncio

from resilient import Retry, current_attempt, timeline_of

retry = Retry(on=ConnectionError, attempts=3)


@retry
async def fetch_greeting(refusals: int) -> str:
    """Refuse the first attempts, then answer."""
    if current_attempt().number <= refusals:
        msg = "connection refused"
        raise ConnectionError(msg)
    return "hello"


async def main() -> None:
    """Call it when two attempts are refused, and when all are."""
    print("two refusals, then:", await fetch_greeting(2))

    try:
        await fetch_greeting(100)
    except ConnectionError as error:
        print(f"always refused: {error!r}")
        print(*error.__notes__, sep="\n")
        timeline = timeline_of(error)
        if timeline is not None:
            print(timeline.render())


if __name__ == "__main__":
    asyncio.run(main())
