"""What a node costs that has nothing to do: its start, its processor time and its memory.

- start: a node alone, from `exec` to its first log line and to readiness 200, with an empty data
  directory and with a used one; the best of `rounds`, and the processor time of each. Beside it,
  an interpreter that imports trio and nothing else.
- idle: three nodes that read from a NATS server, without browsers and with 100: processor time as
  a share of one core, turns of the event loop a second (its voluntary context switches, those
  between waking and sleeping again), and memory (PSS: what is shared counts in parts). Beside
  them, three members of etcd.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.clusters import (
    ETCD_INSTALL,
    HOST,
    NODES,
    EtcdCluster,
    NotiCluster,
    NotiNode,
    Processes,
    etcd_binary,
    start_nats,
    until,
)
from tests.bench.report import Arguments, Report, tell

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SETTLE_S = 3.0
"""After a change, before idleness is measured: what it sets off has come to rest by then."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a node, in seconds."""

    first_line: float
    ready: float
    processor: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes have used so far."""

    processor_s: float
    switches: int
    pss_kb: int
    rss_kb: int
    at: float


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--rounds", type=int, default=5, help="starts, of which the best counts")
    arguments.add_argument("--seconds", type=float, default=20, help="of idleness")
    arguments.add_argument("--browsers", type=int, default=100, help="in all")
    arguments.add_argument("--parts", default="start,idle", help="start, idle")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    options = arguments.options(argv)
    report = Report("a node that has nothing to do", options.json)
    if "start" in options.parts.split(","):
        _starts(options, report)
    if "idle" in options.parts.split(","):
        _idleness(options, report)
    report.finish()


# --- start ----------------------------------------------------------------------------------------


def _starts(options: argparse.Namespace, report: Report) -> None:
    bare = min(_timed(sys.executable, "-c", "import trio") for _ in range(options.rounds))
    fresh, used = [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.directory) as name:
            fresh.append(_start(Path(name)))
            used.append(_start(Path(name)))
    for what, starts in (("empty", fresh), ("used", used)):
        name = f"start, {what} directory"
        first, ready = min(s.first_line for s in starts), min(s.ready for s in starts)
        processor = min(s.processor for s in starts)
        report.add(f"{name}: first log line", first * 1000, "ms", "import trio", bare[0] * 1000)
        report.add(f"{name}: ready", ready * 1000, "ms", "import trio", bare[0] * 1000)
        report.add(f"{name}: processor", processor * 1000, "ms", "import trio", bare[1] * 1000)
    for command in ("--help", "status --help", "run --help"):
        wall, processor = min(
            _timed(sys.executable, "-m", "noti", *command.split()) for _ in range(options.rounds)
        )
        report.add(f"noti {command}", wall * 1000, "ms", "import trio", bare[0] * 1000)
        report.add(
            f"noti {command}: processor", processor * 1000, "ms", "import trio", bare[1] * 1000
        )


def _timed(*command: str) -> tuple[float, float]:
    """Return how long a command takes, and its processor time, in seconds."""
    begun_at = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.monotonic() - begun_at, used.ru_utime + used.ru_stime


def _start(directory: Path) -> Start:
    node = NotiNode(1)
    command = [
        *(sys.executable, "-m", "noti", "run"),
        f"--data-dir={directory / 'data'}",
        f"--http-addr={HOST}:{node.http}",
        f"--gossip-addr={HOST}:{node.gossip}",
        f"--rpc-addr={HOST}:{node.rpc}",
        f"--ops-addr={HOST}:{node.ops}",
        "--gossip-profile=local",
    ]
    with Processes(directory) as processes:
        log = directory / "node.log"
        log.write_bytes(b"")
        begun_at = time.monotonic()
        process = processes.start("node", command)
        first_line = ready = 0.0
        while not ready:
            time.sleep(0.005)
            if not first_line and log.stat().st_size:
                first_line = time.monotonic() - begun_at
            if first_line and _is_ready(node):
                ready = time.monotonic() - begun_at
        processor = usage_of([process.pid]).processor_s
        process.terminate()
        process.wait()
        return Start(first_line, ready, processor)


def _is_ready(node: NotiNode) -> bool:
    status = node.status()
    return status is not None and bool(status["ready"])


# --- idleness -------------------------------------------------------------------------------------


def _idleness(options: argparse.Namespace, report: Report) -> None:
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        directory = Path(name)
        cluster = NotiCluster(them, directory, start_nats(them, directory))
        cluster.wait_until_whole()
        pids = [node.process.pid for node in cluster.nodes if node.process is not None]
        etcd, baseline = _etcd_usage(them, directory, options.seconds)
        _add(report, "no browsers", _rest(pids, options.seconds), etcd, baseline)
        for node in cluster.nodes:
            count = str(-(-options.browsers // NODES))
            readers = [
                sys.executable,
                "-m",
                "tests.bench.stream_readers",
                str(node.http),
                count,
                "-",
            ]
            them.start(f"readers{node.number}", readers)
        until("browsers are connected", lambda: _browsers(cluster) >= options.browsers)
        name = f"{options.browsers} browsers"
        _add(report, name, _rest(pids, options.seconds), etcd, baseline)


def _browsers(cluster: NotiCluster) -> int:
    return sum((node.status() or {"clients": 0})["clients"] for node in cluster.nodes)


def _etcd_usage(
    processes: Processes, directory: Path, seconds: float
) -> tuple[str, tuple[float, float, float, float] | None]:
    binary = etcd_binary()
    if binary is None:
        return f"etcd ({ETCD_INSTALL})", None
    members = EtcdCluster(processes, directory, binary)
    members.wait_for_leader()
    pids = [process.pid for process in processes.started("etcd")]
    used = _rest(pids, seconds)
    for process in processes.started("etcd"):
        process.terminate()
    return "etcd", used


def _rest(pids: Sequence[int], seconds: float) -> tuple[float, float, float, float]:
    """Wait; return the share of a core that all together used (%), turns of one each second, and
    PSS and RSS of one (MB)."""
    tell(f"idle for {seconds:g} s")
    time.sleep(SETTLE_S)
    before = usage_of(pids)
    time.sleep(seconds)
    after = usage_of(pids)
    elapsed = after.at - before.at
    return (
        100 * (after.processor_s - before.processor_s) / elapsed,
        (after.switches - before.switches) / elapsed / len(pids),
        after.pss_kb / 1024 / len(pids),
        after.rss_kb / 1024 / len(pids),
    )


def _add(
    report: Report,
    name: str,
    used: tuple[float, float, float, float],
    baseline: str,
    baseline_used: tuple[float, float, float, float] | None,
) -> None:
    labels = (
        ("processor of three nodes", "% of a core"),
        ("turns of a node", "1/s"),
        ("memory of a node, PSS", "MB"),
        ("memory of a node, RSS", "MB"),
    )
    for position, (label, unit) in enumerate(labels):
        other = None if baseline_used is None else baseline_used[position]
        report.add(f"idle, {name}: {label}", used[position], unit, baseline, other)


def usage_of(pids: Sequence[int]) -> Usage:
    """Return what these processes and their children have used until now."""
    processor = switches = pss = rss = 0
    for pid in [one for parent in pids for one in (parent, *_children(parent))]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        processor += int(fields[11]) + int(fields[12])
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            switches += _number("voluntary_ctxt_switches", status.read_text())
        memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss, rss = pss + _number("Pss", memory), rss + _number("Rss", memory)
    return Usage(processor / TICKS_PER_S, switches, pss, rss, time.monotonic())


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _number(name: str, text: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert found is not None, name
    return int(found[1])


if __name__ == "__main__":
    main()
