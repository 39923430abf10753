"""What options of several commands take."""

import argparse

from resilient.policy.durations import seconds_in

__all__ = ("duration",)


def duration(text: str) -> float:
    """Seconds: a number of them, or with a unit, as in a document."""
    seconds = seconds_in(text if text[-1:].isalpha() else f"{text}s")
    if seconds is None:
        msg = f"{text!r}: expected a time such as 200ms, 1.5s or 2m"
        raise argparse.ArgumentTypeError(msg)
    return seconds
