"""Names that are safe to show.

Keys, names of strategies and reasons may come from outside, and they end up in log lines and on terminals: what is not
printable is escaped there, so that a name can forge no line and steer no terminal. Where a key was made from a URL, its
credentials and its query are left out.
"""

import re
from typing import Final

__all__ = ("milliseconds", "name_of", "safe_text")

_LIMIT: Final = 200
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY: Final = re.compile(r"\?.*", re.DOTALL)


def safe_text(text: str) -> str:
    """`text` without credentials and query, its unprintable characters escaped, at most 200 characters of it."""
    if "?" in text or "@" in text:
        text = _QUERY.sub("", _CREDENTIALS.sub("", text))
    if len(text) > _LIMIT:
        text = text[:_LIMIT] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def milliseconds(seconds: float) -> str:
    """A duration for people: `12.3 ms`, and from ten seconds on `12.3 s`."""
    return f"{seconds * 1000:.1f} ms" if abs(seconds) < 10 else f"{seconds:.1f} s"  # noqa: PLR2004  as the docstring says


def name_of(error: BaseException | None) -> str:
    """What events say of an exception: its type; "" where there is none."""
    return "" if error is None else type(error).__name__
