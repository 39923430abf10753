"""`resilient proxy`: a TCP proxy that plays faults, in front of any server."""

import argparse
import math
import re
from typing import Any, Final

import anyio

from resilient.cli.options import duration
from resilient.cli.screen import Unusable
from resilient.testing import Bandwidth, BlackHole, Drip, Fault, FaultProxy, Latency, Refuse, Reset, Sometimes, Truncate

__all__ = ("add_to",)

_BYTES: Final = {"": 1, "k": 1_000, "m": 1_000_000}


def add_to(commands: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "proxy",
        help="a TCP proxy that plays faults, in front of any server",
        description="Passes TCP connections on to a server and does to them what a bad network does. "
        "Bytes are counted and slowed down on the way from the server to the client. It runs until it is stopped.",
        epilog="example: resilient proxy --listen :8080 --to localhost:5432 --latency 200ms --jitter 50ms --share 0.3",
    )
    parser.add_argument("--listen", default=":0", metavar="[HOST]:PORT", help="where (default: a free port of 127.0.0.1)")
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="the server")
    parser.add_argument("--latency", type=duration, default=0.0, metavar="TIME", help="delay, e.g. 200ms or 1.5s")
    parser.add_argument("--jitter", type=duration, default=0.0, metavar="TIME", help="up to so much more")
    parser.add_argument("--bandwidth", type=_size, metavar="BYTES", help="bytes per second, e.g. 10k")
    parser.add_argument("--drip", type=duration, metavar="TIME", help="one byte at a time, so far apart")
    parser.add_argument("--reset-after", type=_size, metavar="BYTES", help="reset the connection after so many bytes")
    parser.add_argument("--truncate-after", type=_size, metavar="BYTES", help="close it in order after so many bytes")
    parser.add_argument("--black-hole-after", type=_size, metavar="BYTES", help="let nothing pass after so many bytes")
    parser.add_argument("--refuse", action="store_true", help="hold the port, and refuse all connections")
    parser.add_argument("--share", type=float, default=1.0, help="of the connections that meet these faults (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="fixes jitter and share (default: 0)")
    parser.add_argument("--for", dest="limit", type=duration, default=math.inf, metavar="TIME", help="stop after this time")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    listen_host, listen_port = _address("--listen", options.listen)
    host, port = _address("--to", options.to)
    try:
        proxy = FaultProxy(
            host or "127.0.0.1",
            port,
            *_faults(options),
            seed=options.seed,
            listen_host=listen_host or "127.0.0.1",
            listen_port=listen_port,
        )
        anyio.run(_serve, proxy, options.limit)
    except (OSError, TypeError, ValueError) as error:
        raise Unusable(str(error)) from error
    return 0


async def _serve(proxy: FaultProxy, limit: float) -> None:
    async with proxy:
        print(proxy, flush=True)
        with anyio.move_on_after(limit):
            await anyio.sleep_forever()
    print(f"{proxy.connections} connections")


def _faults(options: argparse.Namespace) -> list[Fault]:
    faults: list[Fault] = []
    if options.latency or options.jitter:
        faults.append(Latency(options.latency, options.jitter))
    if options.bandwidth is not None:
        faults.append(Bandwidth(options.bandwidth))
    if options.drip is not None:
        faults.append(Drip(1, options.drip))
    for kind, after in ((Reset, options.reset_after), (Truncate, options.truncate_after), (BlackHole, options.black_hole_after)):
        if after is not None:
            faults.append(kind(after))
    if options.refuse:
        faults.append(Refuse())
    if options.share != 1 and not faults:
        msg = f"--share {options.share:g}: of which fault? add one, such as --reset-after 0"
        raise Unusable(msg)
    return faults if options.share == 1 else [Sometimes(options.share, fault) for fault in faults]


def _address(option: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        msg = f"{option} {text!r}: expected HOST:PORT, e.g. localhost:8080"
        raise Unusable(msg)
    return host.strip("[]"), int(port)


def _size(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,15})([km]?)", text.lower())
    if found is None:
        msg = f"{text!r}: expected a number of bytes such as 1000 or 10k"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]) * _BYTES[found[2]]
