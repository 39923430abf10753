"""The command `proxy`: options become faults, and it runs."""

import argparse
import socket
import threading
from collections.abc import Iterator
from typing import Final

import pytest

from resilient.cli import main, proxy
from resilient.testing import Bandwidth, BlackHole, Drip, Fault, Latency, Refuse, Reset, Sometimes, Truncate

TO: Final = ("--to", "127.0.0.1:1")


def faults(*options: str) -> list[Fault]:
    parser = argparse.ArgumentParser()
    proxy.add_to(parser.add_subparsers())
    return proxy._faults(  # pyright: ignore[reportPrivateUsage]  what the options mean
        parser.parse_args(["proxy", *TO, *options])
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], []),
        (["--latency", "200ms"], [Latency(0.2)]),
        (["--latency", "1.5", "--jitter", "2m"], [Latency(1.5, 120)]),
        (["--jitter", "1s"], [Latency(0, 1)]),
        (["--bandwidth", "10k"], [Bandwidth(10_000)]),
        (["--drip", "10ms"], [Drip(1, 0.01)]),
        (["--reset-after", "1000"], [Reset(after=1000)]),
        (["--truncate-after", "0"], [Truncate()]),
        (["--black-hole-after", "1M"], [BlackHole(after=1_000_000)]),
        (["--refuse"], [Refuse()]),
        (["--reset-after", "5", "--share", "0.3"], [Sometimes(0.3, Reset(after=5))]),
    ],
)
def test_options_become_faults(options: list[str], expected: list[Fault]) -> None:
    """Times and sizes may have units."""
    assert faults(*options) == expected


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server that says hello to three who come."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            listener.settimeout(5)
            client, _ = listener.accept()
            with client:
                client.sendall(b"hello")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_it_runs_for_as_long_as_it_is_told(server: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where it listens and, at its end, how many came."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    got: list[bytes] = []

    def come() -> None:
        while not got:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                    got.append(client.recv(100))
            except ConnectionRefusedError:
                continue

    client = threading.Thread(target=come)
    client.start()
    status = main(
        ["proxy", "--listen", f"127.0.0.1:{port}", "--to", f"127.0.0.1:{server}", "--truncate-after", "3", "--for", "300ms"]
    )
    client.join()

    out = capsys.readouterr().out
    assert (status, got) == (0, [b"hel"])
    assert f"<FaultProxy on port {port} to 127.0.0.1:{server}: (Truncate(after=3),)" in out
    assert out.endswith("1 connections\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "nowhere"], "--to 'nowhere': expected HOST:PORT"),
        (["--to", "host:http"], "--to 'host:http': expected HOST:PORT"),
        (["--to", "http://host:80"], "--to 'http://host:80': expected HOST:PORT"),
        (["--to", "host:99999"], "port=99999 is out of range"),
        ([*TO, "--share", "0.5"], "--share 0.5: of which fault? add one"),
        ([*TO, "--share", "0.5", "--refuse"], "it cannot happen sometimes"),
        ([*TO, "--listen", "x"], "--listen 'x': expected HOST:PORT"),
        ([*TO, "--share", "2", "--reset-after", "1"], "share=2.0 is out of range"),
        ([*TO, "--bandwidth", "0"], "rate=0 is out of range"),
        ([*TO, "--seed", "-1"], "seed=-1 is out of range"),
    ],
)
def test_what_it_cannot_use_is_told_in_a_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit status is 2."""
    assert main(["proxy", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--latency", "soon"], ["--latency", "5k"], ["--reset-after", "5ms"], []])
def test_options_that_cannot_be_read_are_usage_errors(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As with every command."""
    with pytest.raises(SystemExit, match="2"):
        main(["proxy", *(TO if options else ()), *options])

    assert "usage: resilient proxy" in capsys.readouterr().err


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """In the words of the operating system."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status = main(["proxy", *TO, "--listen", f":{taken.getsockname()[1]}"])

    assert status == 2
    assert "in use" in capsys.readouterr().err
