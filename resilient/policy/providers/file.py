"""Policies from a file, reloaded while the program runs.

The file is read when the provider is made; then a bad document raises. Later a bad one is refused: an event and a log line say
why, and what was valid stays. A good one takes the place of the last in a single assignment, so a call sees one or the other.

Watched is the *directory*: editors replace a file by another one of its name, and Kubernetes swaps a symbolic link to a whole
directory; neither changes the file that was there. All mutable state: `_now`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from resilient._arguments import Duration, seconds
from resilient.errors import InvalidPolicy
from resilient.policy.document import PolicyDocument
from resilient.policy.fields import Bounds
from resilient.policy.formats import Format
from resilient.policy.key import PolicyKey
from resilient.policy.providers.background import Watching
from resilient.policy.providers.reports import Reports
from resilient.policy.providers.snapshot import LARGEST, Snapshot
from resilient.policy.schema import Policy

__all__ = ("FORMATS", "FileProvider")

FORMATS: Final[dict[str, Format]] = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


class FileProvider(Watching):
    """Policies from a TOML, YAML or JSON file.

        async with FileProvider("policies.toml") as provider:      # reloads it when it changes
            resilience = Resilience(provider=provider)

    Without the block it reloads when `reload()` is called. Needs the extra `config`.

    Args:
        path: the file, of at most 1 000 000 bytes.
        format: `"toml"`, `"yaml"` or `"json"` (default: by the ending of the name).
        bounds: narrower bounds than those of the table of fields, by path, e.g. `{"retry.attempts": (1, 5)}`.
        look_every: seconds after which a watched file is looked at in any case, above 0 (default 30): some network file
            systems tell nobody of changes.

    Raises:
        InvalidPolicy: the document is bad; it lists everything that is wrong, with the lines.
        OSError: the file cannot be read.
        ValueError: the name does not tell the format.
        ModuleNotFoundError: the extra `config` is not installed.

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: Format | None = None,  # noqa: A002  the word that users know
        bounds: Mapping[str, Bounds] | None = None,
        look_every: Duration = 30.0,
    ) -> None:
        self.path: Final = Path(path)
        self._format: Final[Format] = _format_of(self.path) if format is None else format
        self._bounds = bounds
        self._look_every = seconds("look_every", look_every, above=0.0)
        self._reports = Reports("file", str(self.path))
        self._now = self._load()

    @property
    def document(self) -> PolicyDocument:
        """The document that is valid now."""
        return self._now.document

    def current(self, key: PolicyKey) -> Policy:
        """The policy of the key."""
        return self._now.policies.current(key)

    async def load(self, key: PolicyKey) -> Policy:
        """The policy of the key.

        Raises:
            PolicyNotFound: there is none.

        """
        return await self._now.policies.load(key)

    def reload(self) -> bool:
        """Read the file again. Returns whether what is valid now is what it holds; False: it was refused, and told."""
        return self._take(self._read())

    async def watch(self) -> None:
        """Reload the file whenever it changes, until this is cancelled. `async with provider:` does it in the background.

        Raises:
            ModuleNotFoundError: the extra `config` is not installed.
            FileNotFoundError: the directory is gone.

        """
        try:
            from watchfiles import awatch  # noqa: PLC0415  an extra
        except ModuleNotFoundError as error:
            msg = "to watch a file needs watchfiles: pip install 'resilient-anyio[config]'"
            raise ModuleNotFoundError(msg, name="watchfiles") from error
        directories = {self.path.absolute().parent, self.path.resolve().parent}
        every = round(self._look_every * 1000)
        stop = anyio.Event()
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(_when_cancelled, stop.set)  # a thread waits for changes, and is told by nothing else
            try:
                async for _ in awatch(
                    *directories,
                    watch_filter=None,
                    recursive=False,
                    rust_timeout=every,
                    yield_on_timeout=True,
                    stop_event=stop,
                ):
                    self._take(await anyio.to_thread.run_sync(self._read))
            except Exception as error:  # noqa: BLE001  it surfaces below, without the group around it
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _read(self) -> Snapshot | InvalidPolicy | OSError:
        """Read the file, and change nothing: this may run in a thread."""
        try:
            return self._load()
        except (InvalidPolicy, OSError) as error:
            return error

    def _load(self) -> Snapshot:
        with self.path.open("rb") as file:
            text = file.read(LARGEST + 1)
        return Snapshot.read(text, self._format, self._bounds, "file")

    def _take(self, read: Snapshot | InvalidPolicy | OSError) -> bool:
        """Let what was read be valid, or refuse it."""
        if not isinstance(read, Snapshot):
            self._reports.refused(read)
            return False
        before = self._now
        self._now = before if read.text == before.text else read
        self._reports.recovered(self._now, before)
        return True

    def __repr__(self) -> str:
        return f"<FileProvider {str(self.path)!r}: {len(self._now.document.policies)} policies>"


def _format_of(path: Path) -> Format:
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        msg = f"path={str(path)!r}: the name does not tell the format; say format='toml', 'yaml' or 'json'"
        raise ValueError(msg)
    return found


async def _when_cancelled(then: Callable[[], object]) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        then()
