"""What a remote provider knows of one document. A machine without I/O: it is told what happened, and the time."""

import math
from collections.abc import Iterator

import anyio

from resilient.errors import InvalidPolicy, Problem
from resilient.policy.document import PolicyDocument
from resilient.policy.key import PolicyKey
from resilient.policy.providers.base import NOT_FOUND
from resilient.policy.providers.reports import Reports
from resilient.policy.providers.snapshot import Snapshot
from resilient.policy.schema import Policy

__all__ = ("Entry",)


class Entry:
    """What is known of one document.

    Attributes:
        key: the key that it is for, or "".
        snapshot: the last good one, or None.
        etag: what the source calls it, or "".
        missing: it is known that there is none.
        why: what went wrong last.
        due_at: from when on the source may be asked, in seconds on the clock.
        delays: the waits after the failures to come, since the first of a row; else None.
        busy: set when the fetch that runs has ended; None where none runs.
        wanted: somebody has asked for it since it was fetched.
        recalled: it has been looked for on disk.

    """

    __slots__ = ("busy", "delays", "due_at", "etag", "key", "missing", "recalled", "reports", "snapshot", "wanted", "why")

    def __init__(self, key: str) -> None:
        self.key = key
        self.snapshot: Snapshot | None = None
        self.etag = ""
        self.missing = False
        self.why = "nothing is known yet"
        self.due_at = -math.inf
        self.delays: Iterator[float] | None = None
        self.busy: anyio.Event | None = None
        self.wanted = True
        self.recalled = False
        self.reports = Reports("remote", key)

    @property
    def is_known(self) -> bool:
        """Whether there is an answer."""
        return self.missing or self.snapshot is not None

    def is_due(self, now: float) -> bool:
        """Whether the source is to be asked, and nobody does."""
        return self.busy is None and now >= self.due_at

    def policy(self, key: PolicyKey) -> Policy | None:
        """The policy of the key as far as it is known, or `NOT_FOUND`."""
        if self.snapshot is None:
            return NOT_FOUND if self.missing else None
        return self.snapshot.policies.current(key)

    def begin(self) -> None:
        """A fetch begins."""
        self.busy = anyio.Event()

    def end(self) -> None:
        """That fetch has ended, however it did."""
        assert self.busy is not None  # noqa: S101  it has begun
        self.busy.set()
        self.busy = None

    def check(self, document: PolicyDocument) -> None:
        """Refuse a document that is older than the one in use.

        Raises:
            InvalidPolicy: it is.

        """
        known = None if self.snapshot is None else self.snapshot.document.version
        if known is not None and (document.version is None or document.version < known):
            given = "there is none" if document.version is None else f"{document.version} is older"
            message = f"{given}, and {known} is in use: to go back, give the old policies a higher number"
            raise InvalidPolicy((Problem(("version",), message),))

    def take(self, snapshot: Snapshot, etag: str, due_at: float) -> None:
        """A good document has come."""
        self.snapshot, self.etag, self.due_at = snapshot, etag, due_at
        self.missing, self.delays = False, None

    def lose(self, due_at: float) -> None:
        """There is no document for the key any more."""
        self.snapshot, self.etag, self.due_at = None, "", due_at
        self.missing, self.delays = True, None

    def fail(self, why: str, due_at: float) -> None:
        """The source cannot be reached, or what it gave is refused: the last good one serves on."""
        self.why, self.due_at = why, due_at
        if self.snapshot is not None:
            self.snapshot = self.snapshot.come_from("lkg")
