"""Events of 200 bytes over HTTP/1.1: three nodes, beside three etcd and one Centrifugo.

Real processes on loopback, with their data on the same disk, one server after the other and then
again; a figure is the median. A publisher keeps its connection, and sends its next event when the
last one is answered. Noti is asked at its leader and at a follower; it answers when a majority has
the event on disk, and so does etcd (puts over gRPC, at its leader). Centrifugo's HTTP API with its
memory engine keeps nothing on disk. Everything shares the machine's processors, clients included.
"""

import argparse
import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from noti.authorization.signing import TokenDraft, signed_token
from noti.http.forms import FORM
from tests.bench.bench_raft import EVENT_BYTES, WARM_UP_S, Measured, measure_etcd, medians
from tests.bench.clusters import (
    ETCD_INSTALL,
    NotiCluster,
    Processes,
    listens,
    start_nats,
    until,
)
from tests.bench.http_load import load
from tests.bench.report import Arguments, Report, tell
from tests.ports import free_port

CENTRIFUGO_INSTALL: Final = "go install github.com/centrifugal/centrifugo/v6@latest"
KEY: Final = b"a key of at least 32 bytes, for a benchmark"
DATA: Final = "x" * EVENT_BYTES


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--publishers", default="1,64,256", help="numbers of publishers")
    arguments.add_argument("--seconds", type=float, default=3.0, help="for each number")
    arguments.add_argument("--rounds", type=int, default=3, help="servers of each kind, in turns")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    options = arguments.options(argv)
    report = Report("events of 200 bytes over HTTP/1.1, one machine", options.json)
    publishers = [int(number) for number in options.publishers.split(",")]
    noti: list[dict[str, Measured]] = []
    etcd: list[dict[str, Measured]] = []
    centrifugo: list[dict[str, Measured]] = []
    for round_ in range(1, options.rounds + 1):
        tell(f"round {round_} of {options.rounds}")
        noti.append(_measure_noti(publishers, options))
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            etcd.append(runner.run(measure_etcd(publishers, options)))
        centrifugo.append(_measure_centrifugo(publishers, options))
    baselines = (
        ("etcd", ETCD_INSTALL, medians(etcd)),
        ("Centrifugo", CENTRIFUGO_INSTALL, medians(centrifugo)),
    )
    for name, ours in medians(noti).items():
        counterpart = name.partition(", ")[2]
        for baseline, install, theirs in baselines:
            _add_figures(report, name, ours, baseline, install, theirs.get(counterpart))
    report.finish()


def _add_figures(
    report: Report,
    name: str,
    ours: Measured,
    baseline: str,
    install: str,
    theirs: Measured | None,
) -> None:
    called = baseline if theirs else f"{baseline} (not installed: {install})"
    report.add(name, ours.rate, "events/s", called, theirs.rate if theirs else None)
    report.add(f"{name}, p50", ours.p50_ms, "ms", called, theirs.p50_ms if theirs else None)
    report.add(f"{name}, p99", ours.p99_ms, "ms", called, theirs.p99_ms if theirs else None)


def _measure_noti(publishers: Sequence[int], options: argparse.Namespace) -> dict[str, Measured]:
    draft = TokenDraft(publish=["*"], issued_at=time.time())
    token = signed_token(draft, KEY, "the key", None)
    body = urlencode({"topic": "bench", "data": DATA}).encode()
    request = _request("/.well-known/mercure", f"Authorization: Bearer {token}", FORM, body)
    measured: dict[str, Measured] = {}
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        key_file = Path(name, "key")
        key_file.write_bytes(KEY)
        settings = [f"--publisher-jwt-key-file={key_file}"]
        cluster = NotiCluster(them, Path(name), start_nats(them, Path(name)), settings)
        leader = cluster.wait_until_whole()
        follower = next(node for node in cluster.nodes if node is not leader)
        for role, node in (("leader", leader), ("follower", follower)):
            assert node.process is not None
            for number in publishers:
                cpu_s = _processor_s(node.process.pid)
                way = f"at the {role}, {number} publishers"
                measured[way] = _measure(
                    f"noti, at the {role}", node.http, request, number, options.seconds
                )
                events = max(1, measured[way].rate * (options.seconds + WARM_UP_S))
                cpu_us = 1e6 * (_processor_s(node.process.pid) - cpu_s) / events
                tell(f"... of which {cpu_us:,.0f} us of a processor are this node's for an event")
    return measured


def _measure_centrifugo(
    publishers: Sequence[int], options: argparse.Namespace
) -> dict[str, Measured]:
    binary = shutil.which("centrifugo") or shutil.which(str(Path.home() / "go/bin/centrifugo"))
    if binary is None:
        return {}
    port = free_port()
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        config = Path(name, "config.json")
        settings = {
            "http_server": {"address": "127.0.0.1", "port": str(port)},
            "http_api": {"key": "bench"},
            "log": {"level": "error"},
        }
        config.write_text(json.dumps(settings))
        them.start("centrifugo", [binary, "-c", str(config)])
        until("centrifugo listens", lambda: listens(port))
        body = json.dumps({"channel": "bench", "data": {"text": DATA}}).encode()
        request = _request("/api/publish", "X-API-Key: bench", "application/json", body)
        return {
            f"{number} publishers": _measure("Centrifugo", port, request, number, options.seconds)
            for number in publishers
        }


def _request(path: str, credentials: str, content_type: str, body: bytes) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: bench",
        credentials,
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def _processor_s(pid: int) -> float:
    """Return what a process has taken of the processors, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _measure(name: str, port: int, request: bytes, publishers: int, seconds: float) -> Measured:
    got = load(port, request, publishers, WARM_UP_S, seconds)
    tell(
        f"{name}, {publishers} publishers: {got.rate:,.0f} events/s, p50 {got.p50_ms:.2f} ms, "
        f"p99 {got.p99_ms:.2f} ms (the client took {got.client_share:.0%} of a core)"
    )
    return Measured(got.rate, got.p50_ms, got.p99_ms)


if __name__ == "__main__":
    main()
