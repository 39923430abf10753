"""Every Python block of the README and the docs runs.

The blocks of a page share one namespace and run in order in one event loop on asyncio, under virtual time; `await` is
allowed at the top level, as in the REPL of asyncio. A page that needs threads or sockets of its own says so with the comment
`<!-- real time -->`. No page reaches the network: on the others, `https://api.example.com` answers every request of both
httpx families with `{"id": 42}`, below the transport, and every other host is an error.
"""

import ast
import contextlib
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
import respx

import resilient
from resilient.testing import run_virtual

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REAL_TIME: Final = "<!-- real time -->"

_BLOCK: Final = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\((?!https?://|mailto:)([^)#]+)(?:#[^)]*)?\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[types.CodeType]:
    """The Python blocks of a page, compiled so that a traceback shows the line of the page."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        lines_before = text.count("\n", 0, found.start(1))
        yield compile("\n" * lines_before + found[1], str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def run(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        done = eval(block, namespace)  # noqa: S307  code of our own; exec would not hand out the coroutine
        if inspect.iscoroutine(done):
            await done


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_python_block_of_a_page_runs(page: Path) -> None:
    """What a reader copies from a page works."""
    if REAL_TIME in page.read_text():
        anyio.run(run, page)
        return
    mock: Any = respx.mock  # its types are not known to strict checkers
    with contextlib.ExitStack() as mocks:
        for family in ("httpcore", "httpcore2"):
            server = mocks.enter_context(mock(using=family, assert_all_called=False))
            server.route(host="api.example.com").respond(json={"id": 42})
        run_virtual(run, page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_inside_of_the_docs_leads_somewhere(page: Path) -> None:
    """A link to another page, or to a file of the repository, names one that exists."""
    targets = {target: (page.parent / target).resolve() for target in _LINK.findall(page.read_text())}

    assert [target for target, file in targets.items() if not file.exists()] == []


def test_every_strategy_has_a_page() -> None:
    """The module of a public strategy, or of what one is given, has a page of its name."""
    homes = {getattr(getattr(resilient, name), "__module__", "") for name in resilient.__all__}
    strategies = {home.rpartition(".")[2] for home in homes if home.startswith("resilient.strategies.")}
    # What strategies are made of; `CountWindow` is told with the breaker, triggers with the hedge, `Quota` with the token bucket.
    shared = {"base", "gate", "latency", "limiter", "lingering", "windows"}

    assert strategies - shared <= {page.stem for page in (ROOT / "docs" / "strategies").glob("*.md")}


def test_every_page_is_listed_on_the_first_one() -> None:
    """A reader finds each page from `docs/index.md`."""
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in _LINK.findall(index.read_text())}

    assert [name_of(page) for page in PAGES[1:] if page not in linked | {index}] == []
