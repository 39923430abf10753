"""What every command writes to: a terminal with colours and bars, by `rich`, or plain text."""

import contextlib
import logging
import sys
from collections.abc import Callable, Generator
from typing import Any, Final, Protocol

import anyio

__all__ = ("Paint", "PlainText", "Terminal", "Unusable", "kept", "screen")

_REFRESH: Final = 0.1


class Unusable(Exception):
    """A command cannot do its work with what it was given; the message is one line that says why. The exit status is 2."""


class Paint(Protocol):
    """How text gets its style."""

    bars: bool

    def __call__(self, text: str, style: str) -> str:
        """`text` in a style: a colour, `bold`, `dim` or `default`. Text of others must pass here: it may look like markup."""
        ...


class PlainText:
    """Text without colours and bars."""

    bars = False

    def __call__(self, text: str, style: str) -> str:
        return text

    def print(self, lines: list[str]) -> None:
        print("\n".join(lines), flush=True)

    async def live(self, lines: Callable[[], list[str]]) -> None:
        """Nothing moves here."""


class Terminal:
    """Colours, bars, and figures that grow in place, by `rich`."""

    bars = True

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415  an extra

        self._console: Any = Console(highlight=False)

    def __call__(self, text: str, style: str) -> str:
        from rich.markup import escape  # noqa: PLC0415  an extra

        return f"[{style}]{escape(text)}[/]"

    def print(self, lines: list[str]) -> None:
        self._console.print("\n".join(lines), soft_wrap=True)

    async def live(self, lines: Callable[[], list[str]]) -> None:
        """Draw the lines ten times a second, in place, until this is cancelled; then they are gone."""
        from rich.live import Live  # noqa: PLC0415  an extra
        from rich.text import Text  # noqa: PLC0415  an extra

        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(Text.from_markup("\n".join(lines())), refresh=True)
                await anyio.sleep(_REFRESH)


def screen() -> PlainText | Terminal:
    """A terminal where standard output is one and `rich` is installed."""
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            return Terminal()
    return PlainText()


@contextlib.contextmanager
def kept(lines: list[str]) -> Generator[None]:
    """Keep the log lines of the library instead of showing them."""

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, keeper = logging.getLogger("resilient"), Keeper()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(keeper)
    try:
        yield
    finally:
        logger.removeHandler(keeper)
        logger.propagate = propagate
