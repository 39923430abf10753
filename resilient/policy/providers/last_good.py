"""The last good documents of a remote source, on disk: one file each, for a program that starts while the source is down.

Files are replaced by a rename, so none is ever half written, and carry a checksum. They are the user's alone (0600). These
functions block, and are called in a thread.
"""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from resilient.policy.formats import Format
from resilient.policy.providers.snapshot import LARGEST

__all__ = ("Kept", "LastGood")

_SUFFIX: Final = ".policy.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is on disk of a document."""

    text: bytes
    format: Format
    etag: str


class LastGood:
    """A directory of last good documents.

    Args:
        directory: made when something is first kept.
        limit: how many are kept; the oldest ones go.

    """

    def __init__(self, directory: str | os.PathLike[str], limit: int) -> None:
        self.directory: Final = Path(directory)
        self._limit = limit

    def read(self, key: str) -> Kept | None:
        """What is kept for a key, or None.

        Raises:
            ValueError: it is damaged.
            OSError: it cannot be read.

        """
        try:
            with self._path(key).open("rb") as file:
                raw = file.read(8 * LARGEST)  # escaped text is longer
        except FileNotFoundError:
            return None
        try:
            kept: dict[str, Any] = json.loads(raw)
            text = kept["text"].encode()
            known = kept["key"] == key and kept["format"] in get_args(Format) and isinstance(kept["etag"], str)
            if known and kept["sha256"] == _digest(text):
                return Kept(text, kept["format"], kept["etag"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        msg = f"{self._path(key)} is damaged"
        raise ValueError(msg)

    def write(self, key: str, kept: Kept) -> None:
        """Keep a document.

        Raises:
            OSError: it cannot be written.

        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_room(key)
        text = kept.text.decode("utf-8-sig")
        content = {"key": key, "etag": kept.etag, "format": kept.format, "sha256": _digest(text.encode()), "text": text}
        handle, name = tempfile.mkstemp(dir=self.directory)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path(key))
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    def forget(self, key: str) -> None:
        """Keep nothing for a key.

        Raises:
            OSError: it cannot be removed.

        """
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.directory / (_digest(key.encode("utf-8", "surrogatepass"))[:32] + _SUFFIX)

    def _make_room(self, key: str) -> None:
        others = [path for path in self.directory.glob("*" + _SUFFIX) if path != self._path(key)]
        if len(others) >= self._limit:
            min(others, key=lambda path: path.stat().st_mtime).unlink(missing_ok=True)


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
