"""What virtual time raises where real time would hang."""

__all__ = ("Deadlock",)


class Deadlock(Exception):
    """Under virtual time every task waits for something that no task, timer, thread or socket can bring about."""

    def __str__(self) -> str:
        return (
            "every task waits, and no timer is set: nothing can ever run again. "
            "Look for an event that nobody sets, or a permit that nobody gives back"
        )
