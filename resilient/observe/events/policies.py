"""What becomes of policies: where they come from, and when others are taken up."""

from dataclasses import dataclass
from typing import Literal

from resilient.observe.events.event import Event

__all__ = (
    "PolicyApplied",
    "PolicyRefused",
    "PolicyReloaded",
    "PolicyUnavailable",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyReloaded(Event):
    """A provider has other policies than before. What it has first is not told.

    Attributes:
        provider: `"file"` or `"remote"`.
        origin: which file, or for which key; "" for the document of a remote source.
        source: where they come from: `"file"`, `"remote"`, or `"lkg"`, the last ones known to be good.
        version: the number of the document, or None.
        policies: how many there are, the default among them.
        clamped: how many of their values were brought into bounds.

    """

    provider: str
    origin: str
    source: str
    version: int | None = None
    policies: int = 0
    clamped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRefused(Event):
    """A document is not used; the last good one stays. It is told once, until something else happens.

    Attributes:
        provider: as in `PolicyReloaded`; `"lkg"` where what is on disk is not used.
        origin: as in `PolicyReloaded`.
        why: what is wrong with it: the first problem.
        problems: how many there are.

    """

    provider: str
    origin: str
    why: str
    problems: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyUnavailable(Event):
    """A source of policies cannot be reached. It is told once, until something else happens.

    Attributes:
        provider: as in `PolicyReloaded`.
        origin: as in `PolicyReloaded`.
        why: what went wrong.
        serving: what calls get in the meantime: `"lkg"`, the last policies known to be good, or `"none"`.
        retry_in: seconds until it is asked again, at the earliest.

    """

    provider: str
    origin: str
    why: str
    serving: Literal["lkg", "none"]
    retry_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApplied(Event):
    """An executor has taken up another policy for a key, while somebody listens.

    Attributes:
        policy_id: its `id`.
        policy_source: where it comes from.
        kept: the parts that went on with their state, under new settings.
        made: the parts that began afresh.

    """

    policy_id: str
    policy_source: str
    kept: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
