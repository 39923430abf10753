"""What the tests of the guard share: gates of a user's own that write down what happens, and a value that lives on."""

from typing import Self

from helpers import Fatal
from resilient.errors import Rejected
from resilient.outcome import Verdict
from resilient.strategies.gate import Gate
from resilient.strategies.lingering import Lingering

__all__ = ("Body", "BrokenDoor", "Door", "LingeringDoor")


class Door(Gate):
    """A gate that writes down what happens, and admits while it is open."""

    lingers = False

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(name)
        self.log = log
        self.open = True

    def admit(self, now: float) -> Self | None:
        if not self.open:
            raise self.refuse(now)
        self.log.append(f"{self.name} in")
        return self

    def refuse(self, now: float) -> Rejected:
        return Rejected(self.name, 1.0)

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        self.log.append(f"{self.name} {verdict.reason} {latency:g}")

    def sibling(self) -> Self:
        return type(self)(self.name, self.log)

    def is_fresh(self, now: float) -> bool:
        return True


class LingeringDoor(Door):
    lingers = True


class BrokenDoor(Door):
    """One that raises when it is to take its permit back."""

    def settle(self, verdict: Verdict, latency: float, now: float) -> None:
        super().settle(verdict, latency, now)
        raise Fatal


class Body(Lingering):
    """A value that is still in use after the call returned."""
