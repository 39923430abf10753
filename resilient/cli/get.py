"""`resilient get`: one request through the resilient transport, and what happened to it.

The quickest way to try a policy on a real service. What it prints holds no credentials, no query, and no value of a header.
"""

import argparse
import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import anyio

from resilient import clock
from resilient.cli.documents import Section, Source, read_document
from resilient.cli.explain import chosen
from resilient.cli.options import duration
from resilient.cli.screen import Paint, PlainText, Terminal, Unusable, kept, screen
from resilient.errors import ResilienceError
from resilient.observe import Timeline, listening
from resilient.observe.text import milliseconds, safe_text
from resilient.policy.schema import Policy

__all__ = ("add_to",)

_MISSING: Final = 'it needs httpx or httpx2: python -m pip install "resilient-anyio[httpx]"'
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")
_ERRORS_FROM: Final = 400


@dataclass(slots=True)
class _Answer:
    """What came of the request: a status and the bytes of its body, or an error."""

    status: int | None = None
    reason: str = ""
    protocol: str = ""
    size: int = 0
    seconds: float = 0.0
    error: str | None = None

    @property
    def code(self) -> int:
        """The exit status."""
        if self.error is not None or self.status is None:
            return 3
        return int(self.status >= _ERRORS_FROM)


class _Library(NamedTuple):
    """httpx or httpx2, and its integration."""

    client: Any
    resilient: Any


def add_to(commands: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "get",
        help="a request through the resilient transport, with its timeline",
        description="Sends a request through the resilient transport and shows its timeline: to try a policy on a real service.",
        epilog="exit status: 0 answered with less than 400, 1 with 400 and more, 2 usage, 3 not answered",
    )
    parser.add_argument("url", metavar="URL", help="http:// or https://")
    parser.add_argument("--policy", metavar="FILE", help="a document of policies (default: the preset http)")
    parser.add_argument("--key", help="what is called: the policy of this key is taken (default: the default of the document)")
    parser.add_argument("--method", type=_method, default="GET", help="default: GET")
    parser.add_argument("--header", type=_header, action="append", default=[], metavar="'NAME: VALUE'", help="may be repeated")
    parser.add_argument("--timeout", type=_timeout, metavar="TIME", help="for everything, retries and waits included")
    parser.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
    parser.set_defaults(run=_run)


def _method(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        msg = "expected the name of a method, e.g. HEAD"
        raise argparse.ArgumentTypeError(msg)
    return text.upper()


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and _TOKEN.fullmatch(name.strip()) and _VALUE.fullmatch(value)):
        msg = "expected 'Name: value' in printable ASCII"  # it does not show the value, which may be secret
        raise argparse.ArgumentTypeError(msg)
    return name.strip(), value.strip()


def _timeout(text: str) -> float:
    seconds = duration(text)
    if seconds <= 0:
        msg = f"{text!r}: expected a time above 0, e.g. 2.5 or 500ms"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def _run(options: argparse.Namespace) -> int:
    library = _library()
    policy = Policy.http() if options.policy is None else _policy(options.policy, options.key)
    client = _client(library, options, policy)
    timeline, answer = Timeline(), _Answer()
    shown = PlainText() if options.json else screen()
    with kept([]):
        anyio.run(_send, library, client, options, timeline, answer, shown)
    if options.json:
        print(json.dumps(_as_json(options, timeline, answer), indent=2))
    else:
        shown.print([*_lines(options, timeline, shown), "", *_result(answer, shown)])
    return answer.code


def _library() -> _Library:
    try:
        import httpx  # noqa: PLC0415  an extra

        import resilient_integrations.httpx  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        return _other_library(error)
    return _Library(httpx, resilient_integrations.httpx)


def _other_library(error: ModuleNotFoundError) -> _Library:
    try:
        import httpx2  # noqa: PLC0415  an extra

        import resilient_integrations.httpx2  # noqa: PLC0415  an extra
    except ModuleNotFoundError:
        raise Unusable(_MISSING) from error
    return _Library(httpx2, resilient_integrations.httpx2)


def _policy(name: str, key: str | None) -> Policy:
    source = read_document(name)
    if source.problems:
        msg = f"{name}: the document is not valid, see: resilient check {name}"
        raise Unusable(msg)
    return _section(source, key).policy


def _section(source: Source, key: str | None) -> Section:
    """The policy of the key; without one the default, or the only one that there is."""
    if key is not None or len(source.sections) == 1:
        return chosen(source, key or source.sections[0].name)
    default = next((section for section in source.sections if section.is_default), None)
    if default is None:
        names = ", ".join(section.name for section in source.sections)
        msg = f"{source.name}: say whose policy with --key; there are {names}"
        raise Unusable(msg)
    return default


def _client(library: _Library, options: argparse.Namespace, policy: Policy) -> Any:
    """A client with the policy, whose limit of an attempt takes the place of the client's own."""
    _check_url(library, options.url)
    client = library.client.AsyncClient(**({} if policy.attempt_timeout is None else {"timeout": None}))
    key: Callable[[object], str] | None = None if options.key is None else lambda _: options.key
    limits = {} if options.timeout is None else {"timeout": options.timeout}
    try:
        return library.resilient.wrap(client, policy=policy, key=key, **limits)
    except ValueError as error:  # it names what only an executor knows
        raise Unusable(str(error)) from error


def _check_url(library: _Library, text: str) -> None:
    host = ""
    if text.lower().startswith(("http://", "https://")):
        with contextlib.suppress(library.client.InvalidURL):
            host = library.client.URL(text).host
    if not host:
        msg = "not a URL: expected https://host/path"  # it does not show the text, which may hold a password
        raise Unusable(msg)


async def _send(
    library: _Library,
    client: Any,
    options: argparse.Namespace,
    timeline: Timeline,
    answer: _Answer,
    shown: PlainText | Terminal,
) -> None:
    began = clock.now()
    async with anyio.create_task_group() as background:
        background.start_soon(shown.live, lambda: _lines(options, timeline, shown))
        try:
            with listening(timeline):
                async with client, client.stream(options.method, options.url, headers=options.header) as response:
                    answer.status, answer.reason = response.status_code, safe_text(response.reason_phrase)
                    answer.protocol = response.http_version
                    async for chunk in response.aiter_raw():
                        answer.size += len(chunk)
        except (library.client.HTTPError, ResilienceError, OSError) as error:
            answer.error = safe_text(f"{type(error).__name__}: {error}".removesuffix(": "))
        answer.seconds = clock.now() - began
        background.cancel_scope.cancel()


def _lines(options: argparse.Namespace, timeline: Timeline, paint: Paint) -> list[str]:
    """What was asked, and what has happened up to now."""
    return [
        paint(f"{options.method} {_safe_url(options.url)}", "bold"),
        "",
        *(paint(line, "default") for line in timeline.render().splitlines()),
    ]


def _safe_url(text: str) -> str:
    """Without credentials, query and fragment."""
    return safe_text(text.partition("#")[0])


def _result(answer: _Answer, paint: Paint) -> list[str]:
    if answer.error is not None:
        return [f"{paint('error', 'red')} {paint(answer.error, 'default')}"]
    status = paint(f"{answer.status} {answer.reason}".strip(), "green" if answer.code == 0 else "red")
    return [f"{status}, {answer.protocol}, {answer.size} bytes in {milliseconds(answer.seconds)}"]


def _as_json(options: argparse.Namespace, timeline: Timeline, answer: _Answer) -> dict[str, Any]:
    attempts = [
        {
            "number": one.number,
            "kind": one.kind,
            "reason": one.verdict.reason,
            "error": one.error,
            "seconds": round(one.at - one.started, 6),
        }
        for one in timeline.attempts
    ]
    return {
        "version": 1,
        "method": options.method,
        "url": _safe_url(options.url),
        **asdict(answer),
        "attempts": attempts,
        "statistics": asdict(timeline.statistics()),
    }
