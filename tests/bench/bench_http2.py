"""Streams over HTTP/2 against the same number over HTTPS/1.1: a front end, its hub, a publisher.

One process on a processor of its own serves both in turns; deliveries are counted by the hub.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.bench_topics import LOAD_CPU, SERVER_CPU, running
from tests.bench.report import Arguments, Report, tell
from tests.certificates.authority import Wanted, authority, issue

HOST = "127.0.0.1"


def main(argv: Sequence[str] | None = None) -> None:
    options = _arguments().options(argv)
    report = Report("streams over TLS, one processor for the server", options.json)
    os.sched_setaffinity(0, {LOAD_CPU})
    connections, streams = options.connections, options.streams
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        root = authority()
        ca = directory / "ca.pem"
        ca.write_bytes(root.pem)
        pair = issue(Wanted(dns=("localhost",), ips=(HOST,)), root).write(directory, "server")
        over_1 = measure(options, pair, ca, connections * streams, 0)
        over_2 = measure(options, pair, ca, connections, streams)
    what = f"{connections} connections of {streams} streams"
    for figure in ("deliveries/s", "deliveries/CPU s"):
        report.add(what, over_2[figure], figure, "HTTPS/1.1", over_1[figure])
    report.finish()


def _arguments() -> Arguments:
    arguments = Arguments(__doc__)
    arguments.add_argument("--connections", type=int, default=20)
    arguments.add_argument("--streams", type=int, default=10, help="on each connection")
    arguments.add_argument("--seconds", type=float, default=3, help="for each round")
    arguments.add_argument("--rounds", type=int, default=2)
    return arguments


def measure(
    options: argparse.Namespace, pair: tuple[Path, Path], ca: Path, connections: int, streams: int
) -> dict[str, float]:
    """Return the best round."""
    readers = connections * max(1, streams)
    with server(pair) as there:
        assert there.stdin is not None
        assert there.stdout is not None
        port = int(there.stdout.readline())
        with clients(port, connections, streams, ca):
            found = []
            for _ in range(options.rounds):
                there.stdin.write(f"1 {readers} {options.seconds}\n")
                there.stdin.flush()
                told = json.loads(there.stdout.readline())
                assert told["delivered"] == told["published"] * readers, "each event, once"
                found.append(
                    {
                        "deliveries/s": told["delivered"] / told["seconds"],
                        "deliveries/CPU s": told["delivered"] / told["cpu_s"],
                    }
                )
                tell(f"{connections} connections, {streams or 'HTTPS/1.1'}: {found[-1]}")
    return max(found, key=lambda figures: figures["deliveries/CPU s"])


@contextmanager
def server(pair: tuple[Path, Path]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.bench.topic_server", *map(str, pair)]
    yield from running(command, SERVER_CPU)


@contextmanager
def clients(port: int, connections: int, streams: int, ca: Path) -> Iterator[None]:
    numbers = map(str, (port, connections, streams))
    command = [sys.executable, "-m", "tests.bench.http2_clients", *numbers, str(ca)]
    for process in running(command, LOAD_CPU):
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield


if __name__ == "__main__":
    main()
