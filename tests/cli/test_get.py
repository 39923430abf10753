"""`resilient get`: one request through the resilient transport, against real servers on the loopback interface."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from integrations.servers import Server, Step, answer, nobody, reset, serve, stall
from resilient.cli import main

Serving = Callable[..., Server]

AT_ONCE = "[policies.'a.b'.retry.backoff]\ninitial = 0.001\nmaximum = 0.001\n"


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Start scripted servers, which run in a thread beside the command."""
    with anyio.from_thread.start_blocking_portal() as portal:
        stack: list[Any] = []

        def start(*script: Step) -> Server:
            stack.append(portal.wrap_async_context_manager(serve(*script)))
            server: Server = stack[-1].__enter__()
            return server

        yield start

        for context in reversed(stack):
            context.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine that runs the tests may have one."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def document(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "policies.toml"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def quick(document: Callable[[str], str]) -> list[str]:
    """Options for retries that do not wait."""
    return ["--policy", document(AT_ONCE)]


def test_a_request_that_was_saved_shows_how(serving: Serving, quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Status, size and the waterfall; the log is silent, all of it stands in the timeline."""
    server = serving(answer(503), reset(), answer(200, b"hello"))

    assert main(["get", f"{server.url}/users/42", *quick]) == 0

    told, log = capsys.readouterr()
    lines = told.splitlines()
    assert lines[0] == f"GET {server.url}/users/42"
    assert lines[2].startswith(f"call {server.url}: success, 3 attempts, ")
    assert [word for word in ("http_503", "backoff", "ReadError", "success") if word in told] == [
        "http_503",
        "backoff",
        "ReadError",
        "success",
    ]
    assert lines[-1].startswith("200 Scripted, HTTP/1.1, 5 bytes in ")
    assert log == ""


def test_the_method_and_headers_are_sent(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """A method in small letters, too."""
    server = serving(answer())

    assert main(["get", server.url, "--method", "head", "--header", "X-One: 1", "--header", "X-Two:2"]) == 0

    (request,) = server.requests
    assert (request.method, request.header("X-One"), request.header("X-Two")) == ("HEAD", "1", "2")
    assert capsys.readouterr().out.startswith("HEAD ")


@pytest.mark.parametrize("output", ["text", "json"])
@pytest.mark.parametrize("query", ["", "?token=hunter2"])
def test_no_secret_is_printed(
    output: str, query: str, serving: Serving, quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the credentials and the query of the URL nor the values of headers; the server gets them."""
    server = serving(answer(500), reset())
    url = server.url.replace("http://", "http://me:hunter2@") + f"/users{query}#hunter2"
    options = [
        "--header",
        "Authorization: Bearer hunter2",
        "--header",
        "X-Key: hunter2",
        *(["--json"] if output == "json" else []),
    ]

    assert main(["get", url, *options, *quick]) == 3

    captured = capsys.readouterr()
    assert server.requests[0].target == f"/users{query}"
    assert server.requests[0].header("Authorization") == "Basic bWU6aHVudGVyMg=="  # httpx: the URL beats the header
    assert server.requests[0].header("X-Key") == "hunter2"
    assert "hunter2" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["http://me:hunter2@h:port/"], "resilient get: not a URL: expected https://host/path\n"),
        (["http://me:hun/ter2@h/"], "resilient get: not a URL: expected https://host/path\n"),
        (["http://"], "resilient get: not a URL: expected https://host/path\n"),
        (["ftp://hunter2"], "resilient get: not a URL: expected https://host/path\n"),
        (["example.com"], "resilient get: not a URL: expected https://host/path\n"),
        (["http://h", "--header", "Authorization hunter2"], "argument --header: expected 'Name: value' in printable ASCII\n"),
        (["http://h", "--header", "X: hunter2\r\nY: 1"], "argument --header: expected 'Name: value' in printable ASCII\n"),
        (["http://h", "--header", ": hunter2"], "argument --header: expected 'Name: value' in printable ASCII\n"),
        (["http://h", "--method", "hunter 2"], "argument --method: expected the name of a method, e.g. HEAD\n"),
        (["http://h", "--timeout", "soon"], "argument --timeout: 'soon': expected a time such as 200ms, 1.5s or 2m\n"),
        (["http://h", "--timeout", "0"], "argument --timeout: '0': expected a time above 0, e.g. 2.5 or 500ms\n"),
        (["http://h", "--timeout", "inf"], "argument --timeout: 'inf': expected a time such as 200ms, 1.5s or 2m\n"),
    ],
)
def test_what_cannot_be_sent_is_a_matter_of_usage(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and a line, in which no secret is repeated."""
    try:
        status: object = main(["get", *arguments])
    except SystemExit as ended:
        status = ended.code

    message = capsys.readouterr().err
    assert status == 2
    assert message.endswith(told)
    assert "hunter2" not in message


@pytest.mark.parametrize(("status", "code"), [(204, 0), (302, 0), (404, 1), (503, 1)])
def test_the_exit_status_tells_what_was_answered(status: int, code: int, serving: Serving, quick: list[str]) -> None:
    """Below 400 is well."""
    assert main(["get", serving(answer(status)).url, *quick]) == code


def test_a_service_that_is_not_there(quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Status 3, and the reason in a line below the timeline."""
    with nobody() as port:
        assert main(["get", f"http://127.0.0.1:{port}", *quick]) == 3

    told = capsys.readouterr().out
    assert "3 attempts" in told
    assert told.splitlines()[-1].startswith("error ConnectError: ")


def test_a_request_that_takes_too_long_is_cut_off(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """`--timeout` is for everything."""
    assert main(["get", serving(stall()).url, "--timeout", "50ms"]) == 3
    assert "error TimeoutExceeded: " in capsys.readouterr().out


def test_a_request_that_a_policy_refuses(
    serving: Serving, document: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was sent."""
    server = serving(answer())
    policy = document('[default.circuit_breaker]\ninitial = "isolated"\n')

    assert main(["get", server.url, "--policy", policy]) == 3
    assert "error CircuitOpen: " in capsys.readouterr().out
    assert server.requests == []


def test_a_body_that_breaks_off_is_an_error(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    """Although there was a status."""
    server = serving(reset(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"))

    assert main(["get", server.url, "--json"]) == 3

    told = json.loads(capsys.readouterr().out)
    assert told["status"] == 200
    assert told["error"]


def test_the_result_as_json(serving: Serving, quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """For other programs: the same figures, and nothing else."""
    server = serving(answer(429), answer(200, b"hello"))

    assert main(["get", f"{server.url}/users", "--json", *quick]) == 0

    told = json.loads(capsys.readouterr().out)
    seconds = told.pop("seconds")
    attempts = [(one["number"], one["kind"], one["reason"]) for one in told.pop("attempts")]
    statistics = told.pop("statistics")
    assert 0 < seconds < 5
    assert attempts == [(1, "original", "http_429"), (2, "retry", "success")]
    assert (statistics["attempts"], statistics["retries"], statistics["success"]) == (2, 1, True)
    assert told == {
        "version": 1,
        "method": "GET",
        "url": f"{server.url}/users",
        "status": 200,
        "reason": "Scripted",
        "protocol": "HTTP/1.1",
        "size": 5,
        "error": None,
    }


def test_the_policy_of_a_key_applies(
    serving: Serving, document: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """That of `--key`, else the default, else the only one."""
    name = document(
        '[default.retry]\nattempts = 2\n[default.retry.backoff]\ninitial = 0.001\n[policies."a.b"]\nattempt_timeout = 5\n'
    )
    server = serving(answer(503))

    assert main(["get", server.url, "--policy", name, "--key", "a.b"]) == 1
    assert "call a.b: http_503, 1 attempt, " in capsys.readouterr().out
    assert main(["get", server.url, "--policy", name]) == 1
    assert f"call {server.url}: http_503, 2 attempts, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[default]\ntimeout = 'x'\n", "the document is not valid, see: resilient check "),
        ('[policies."a.b"]\n[policies."c.d"]\n', "say whose policy with --key; there are a.b, c.d\n"),
        ("[default.retry]\nbudget = 'shared'\n", "no budget 'shared' is registered"),
    ],
)
def test_a_policy_that_cannot_be_used(
    text: str, told: str, document: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, before anything is sent."""
    assert main(["get", "http://127.0.0.1:1", "--policy", document(text)]) == 2
    assert told in capsys.readouterr().err


def test_either_family_will_do(serving: Serving, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx, or else httpx2; without both the command to install one is shown."""
    url = serving(answer()).url
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert main(["get", url]) == 0

    monkeypatch.setitem(sys.modules, "httpx2", None)
    capsys.readouterr()
    assert main(["get", url]) == 2
    assert capsys.readouterr().err == (
        'resilient get: it needs httpx or httpx2: python -m pip install "resilient-anyio[httpx]"\n'
    )


def test_a_terminal_shows_the_waterfall_while_it_grows(
    serving: Serving, quick: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place; at the end it stands there once, in colours."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    server = serving(answer(503), stall())
    path = Path(quick[1])
    path.write_text(path.read_text() + "[policies.'a.b']\nattempt_timeout = 0.15\n")

    assert main(["get", server.url, *quick]) == 3

    told = capsys.readouterr().out
    assert "\x1b[1A" in told
    assert "\x1b[31merror\x1b[0m" in told
    assert "1 attempt, " in told
