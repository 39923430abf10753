"""Policies from a remote source, which may be slow, down, wrong or hostile: what was good last stays.

Everything known of one document is an `Entry`, a machine without I/O: what is valid, and when the source may be asked again.
Without `per_key` there is one entry, for all keys. A document is fetched by one caller at a time, and the others wait for it only
where they have nothing; when that caller is cancelled, one of them takes its place. In `async with provider:` a task fetches
in the background and no call waits for what it has. All mutable state: `_entries`, the entries, and `_wake`.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from random import Random
from typing import Final, get_args

import anyio
import anyio.to_thread

from resilient import clock
from resilient._arguments import Duration, integer, seconds
from resilient.errors import InvalidPolicy, PolicyNotFound, ProviderError
from resilient.observe.text import safe_text
from resilient.policy.fields import Bounds
from resilient.policy.formats import Format
from resilient.policy.key import PolicyKey
from resilient.policy.normalise import checked_bounds
from resilient.policy.providers.background import Watching
from resilient.policy.providers.base import NOT_FOUND
from resilient.policy.providers.entry import Entry
from resilient.policy.providers.last_good import Kept, LastGood
from resilient.policy.providers.reports import Reports
from resilient.policy.providers.snapshot import Snapshot
from resilient.policy.schema import Policy
from resilient.strategies.backoff import Backoff, Exponential

__all__ = ("NOT_MODIFIED", "Fetch", "Fetched", "NotModified", "RemoteProvider")

_random: Final = Random()  # noqa: S311  jitter, not a secret

_LARGE: Final = 32_768  # bytes from which on a document is read in a thread: it takes longer than a loop should stand still


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document that a source has.

    Attributes:
        text: what it says, at most 1 000 000 bytes.
        format: `"json"` (default), `"toml"` or `"yaml"`.
        etag: what names this version of it; it is handed to the next fetch. "" where the source gives none.

    """

    text: bytes
    format: Format = "json"
    etag: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.text, bytes) or self.format not in get_args(Format):
            msg = f"text={type(self.text).__name__}, format={self.format!r}: expected bytes, and 'json', 'toml' or 'yaml'"
            raise TypeError(msg)


class NotModified:
    """What a fetch gives where the document is still the one that the `etag` names: the object `NOT_MODIFIED`."""


NOT_MODIFIED: Final = NotModified()

Fetch = Callable[[str, str], Awaitable[Fetched | NotModified | None]]
"""`await fetch(key, etag)`: the document of the key ("" where one document serves all), if it is another one than `etag` names;
None where there is none. Whatever exception it raises means that the source cannot be reached."""


class RemoteProvider(Watching):
    """Policies from a remote source.

        async with RemoteProvider(policy_fetch(client, "https://config.example.com/policies.json")) as provider:
            resilience = Resilience(provider=provider)

    In the block a background task keeps the policies fresh. Without it the first call after `ttl` fetches, for at most `timeout`
    seconds, while the others go on with what there is. Needs the extra `config`.

    A document that is bad, or older than the one in use, is refused; a source that cannot be reached leaves in place what is
    there. Both are told, by an event and a log line, and asked again after a `backoff`. Where there is nothing yet, what is on
    disk serves, and where that is not there either, `load()` raises `ProviderError`, at once until the source is asked again.

    Args:
        fetch: asks the source; see `Fetch`. `resilient_integrations.httpx.policy_fetch` makes one.
        per_key: each key has a document of its own, which holds the policy of that key, or a default (default False).
        ttl: seconds for which a document is fresh, above 0 (default 30). Up to a fifth is taken off at random, so that clients
            spread.
        negative_ttl: seconds for which it is believed that a key has no document, above 0 (default 10).
        timeout: seconds that a fetch may take in all, above 0 (default 5).
        backoff: the wait after a failure (default `Exponential(initial=1, maximum=60, jitter="equal")`).
        max_keys: how many keys are kept, at least 1 (default 1000); the ones that nobody asked for go first.
        last_good: a directory that keeps what was good last, beyond the end of the program (default none).
        bounds: what remote values cannot exceed, by path, e.g. `{"retry.attempts": (1, 3), "timeout": (0.1, 10)}`; narrower than
            those of the table of fields. Values are brought into them.
        random: the source of jitter, for tests.

    Raises:
        TypeError, ValueError: an argument is wrong.

    A caller of `load()` that is cancelled leaves the fetch to one of those who wait with it.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        per_key: bool = False,
        ttl: Duration = 30.0,
        negative_ttl: Duration = 10.0,
        timeout: Duration = 5.0,
        backoff: Backoff | None = None,
        max_keys: int = 1000,
        last_good: str | PathLike[str] | None = None,
        bounds: Mapping[str, Bounds] | None = None,
        random: Random = _random,
    ) -> None:
        if not callable(fetch):
            msg = f"fetch={fetch!r}: expected an async function of a key and an etag, e.g. policy_fetch(client, url)"
            raise TypeError(msg)
        self._fetch = fetch
        self._per_key = per_key
        self._ttl = seconds("ttl", ttl, above=0.0)
        self._negative_ttl = seconds("negative_ttl", negative_ttl, above=0.0)
        self._timeout = seconds("timeout", timeout, above=0.0)
        self._backoff = Exponential(initial=1.0, maximum=60.0, jitter="equal") if backoff is None else backoff
        self._max_keys = integer("max_keys", max_keys)
        self._last_good = None if last_good is None else LastGood(last_good, max_keys)
        self._bounds = bounds if bounds is None else checked_bounds(bounds)
        self._random = random
        self._entries: dict[str, Entry] = {}
        self._wake: anyio.Event | None = None  # there while a task watches

    def current(self, key: PolicyKey) -> Policy | None:
        """The policy that is valid now; None where `load()` must find out, `NOT_FOUND` where it is known that there is none."""
        entry = self._entries.get(key if self._per_key else "")
        if entry is None:
            return None
        entry.wanted = True
        if entry.is_due(clock.now()):
            if self._wake is None:
                return None
            self._wake.set()
        return entry.policy(key)

    async def load(self, key: PolicyKey) -> Policy:
        """Find out the policy of the key, by asking the source where that is due.

        Raises:
            PolicyNotFound: there is none.
            ProviderError: the source cannot be reached, and nothing is known.

        """
        entry = self._entry(key if self._per_key else "")
        while not entry.is_known and entry.busy is not None:
            await entry.busy.wait()  # somebody asks; if that one is cancelled, the next takes its place
        if entry.is_due(clock.now()) and not (entry.is_known and self._wake is not None):
            entry.begin()
            await self._refresh(entry)
        policy = entry.policy(key)
        if policy is None:
            raise ProviderError(key, entry.why)
        if policy is NOT_FOUND:
            raise PolicyNotFound(key)
        return policy

    async def watch(self) -> None:
        """Keep the policies fresh until this is cancelled. `async with provider:` does it in the background."""
        if not self._per_key:
            self._entry("")
        self._wake = anyio.Event()
        try:
            async with anyio.create_task_group() as group:
                while True:
                    self._wake = anyio.Event()
                    now = clock.now()
                    for entry in self._entries.values():
                        if entry.wanted and entry.is_due(now):
                            entry.begin()
                            group.start_soon(self._refresh, entry)
                    following = min((entry.due_at for entry in self._entries.values() if entry.due_at > now), default=math.inf)
                    with anyio.move_on_after(following - now):
                        await self._wake.wait()
        finally:
            self._wake = None

    async def _refresh(self, entry: Entry) -> None:
        """Find out what is valid now. Where something is on disk, a task that watches asks the source only after that."""
        try:
            if self._last_good is not None and not entry.recalled:
                await self._recall(entry, self._last_good)
                if entry.is_known and self._wake is not None:
                    return
            await self._ask(entry)
        finally:
            entry.end()
            if self._wake is not None:
                self._wake.set()

    async def _recall(self, entry: Entry, last_good: LastGood) -> None:
        """Let what is on disk serve until the source has answered."""
        try:
            kept = await anyio.to_thread.run_sync(last_good.read, entry.key)
            if kept is not None:
                entry.take(await self._read(kept.text, kept.format, "lkg"), kept.etag, entry.due_at)
        except (InvalidPolicy, ValueError, OSError) as error:
            Reports("lkg", entry.key).refused(error)
        entry.recalled = True

    async def _ask(self, entry: Entry) -> None:
        entry.wanted = not self._per_key
        try:
            await self._accept(entry, await self._answer(entry))
        except InvalidPolicy as error:
            self._put_off(entry, f"its document is refused: {error.problems[0]}")
            entry.reports.refused(error)
        except Exception as error:  # noqa: BLE001  whatever is wrong with a source, calls go on
            why = error.why if isinstance(error, ProviderError) else f"{type(error).__name__}: {error}"
            retry_in = self._put_off(entry, safe_text(why))
            entry.reports.unavailable(entry.why, "none" if entry.snapshot is None else "lkg", retry_in)

    async def _answer(self, entry: Entry) -> object:
        with anyio.move_on_after(self._timeout):
            return await self._fetch(entry.key, entry.etag)
        raise ProviderError(entry.key, f"no answer within {self._timeout:g} s")

    def _put_off(self, entry: Entry, why: str) -> float:
        """Let the last good one serve, and ask again after some seconds, which are returned."""
        if entry.delays is None:
            entry.delays = self._backoff.delays(self._random)
        delay = next(entry.delays)
        entry.fail(why, clock.now() + delay)
        return delay

    async def _accept(self, entry: Entry, fetched: object) -> None:
        """Let what the source gave be valid.

        Raises:
            InvalidPolicy: it is bad, or older than what is in use.
            ProviderError: it is no answer.

        """
        known = entry.snapshot
        if fetched is None and self._per_key:
            entry.lose(self._from_now(self._negative_ttl))
            if known is not None:
                entry.reports.unavailable("the source has no document for the key any more", "none", self._negative_ttl)
                await self._keep(entry, None)
        elif isinstance(fetched, Fetched) and (known is None or fetched.text != known.text):
            snapshot = await self._read(fetched.text, fetched.format, "remote")
            entry.check(snapshot.document)
            entry.take(snapshot, fetched.etag, self._from_now(self._ttl))
            entry.reports.recovered(snapshot, known)
            await self._keep(entry, Kept(fetched.text, fetched.format, fetched.etag))
        elif known is not None and isinstance(fetched, (Fetched, NotModified)):
            snapshot = known.come_from("remote")
            etag = fetched.etag if isinstance(fetched, Fetched) else entry.etag
            entry.take(snapshot, etag, self._from_now(self._ttl))
            entry.reports.recovered(snapshot, known)
        elif fetched is None or isinstance(fetched, NotModified):
            given = "has no document" if fetched is None else "says that nothing has changed since nothing was known"
            raise ProviderError(entry.key, f"the source {given}")
        else:
            raise ProviderError(entry.key, f"fetch gave {type(fetched).__name__}: expected Fetched, NOT_MODIFIED or None")

    async def _read(self, text: bytes, format: Format, source: str) -> Snapshot:  # noqa: A002  see Fetched
        if len(text) < _LARGE:
            return Snapshot.read(text, format, self._bounds, source)
        return await anyio.to_thread.run_sync(Snapshot.read, text, format, self._bounds, source)

    async def _keep(self, entry: Entry, kept: Kept | None) -> None:
        """Have on disk what is good now. A disk that fails is told of, and no reason to refuse a policy."""
        if self._last_good is None:
            return
        try:
            if kept is None:
                await anyio.to_thread.run_sync(self._last_good.forget, entry.key)
            else:
                await anyio.to_thread.run_sync(self._last_good.write, entry.key, kept)
        except OSError as error:
            Reports("lkg", entry.key).refused(error)

    def _from_now(self, span: float) -> float:
        """When so many seconds have passed, or up to a fifth before."""
        return clock.now() + span * self._random.uniform(0.8, 1.0)

    def _entry(self, key: str) -> Entry:
        entry = self._entries.get(key)
        if entry is None:
            if len(self._entries) >= self._max_keys:
                least = min(self._entries.values(), key=_worth)
                del self._entries[least.key]
            entry = self._entries[key] = Entry(key)
        entry.wanted = True
        return entry

    def __repr__(self) -> str:
        return f"<RemoteProvider: {sum(entry.is_known for entry in self._entries.values())} documents known>"


def _worth(entry: Entry) -> tuple[bool, bool, bool]:
    """What goes first where there are too many keys: what is not being fetched, has no policy, is not asked for; the oldest."""
    return entry.busy is not None, entry.snapshot is not None, entry.wanted
