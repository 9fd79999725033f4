"""Real clusters of real processes on loopback: three noti nodes with a NATS server, three etcd.

Each process ends with the benchmark that started it, even when that is killed.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from noti.cli.http import get_json
from noti.die_with_parent import dying_with_us
from noti.errors import NotiError
from tests.ports import free_port
from tests.publishing.nats.nats_server import SERVER

T = TypeVar("T")

HOST = "127.0.0.1"
NODES = 3
READY_WITHIN_S = 30.0
"""Three Python processes and an election, on a busy machine."""

ETCD_CACHE = Path(__file__).parents[2] / ".cache" / "etcd"
ETCD_INSTALL = "apt-get install etcd-server"


class Processes:
    """Child processes, each with its own log; all are killed at the end of the context."""

    def __init__(self, logs: Path, *, own_sessions: bool = True) -> None:
        """With `own_sessions` each gets a session, so that Ctrl-C is for the benchmark alone; Linux
        may share out processors by sessions (autogroup)."""
        self._logs = logs
        self._own_sessions = own_sessions
        self._started: list[subprocess.Popen[bytes]] = []
        self._names: list[str] = []

    def start(
        self, name: str, command: list[str], cpu: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command, on one processor if need be; its output goes to `NAME.log`."""
        with (self._logs / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                dying_with_us(*command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=self._own_sessions,
            )
        if cpu is not None:
            os.sched_setaffinity(process.pid, {cpu})  # before it can have started others
        self._started.append(process)
        self._names.append(name)
        return process

    def started(self, prefix: str) -> list[subprocess.Popen[bytes]]:
        """Return the processes whose names begin with `prefix`."""
        named = zip(self._names, self._started, strict=True)
        return [process for name, process in named if name.startswith(prefix)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._started:
            process.kill()
        for process in self._started:
            process.wait()


def start_nats(processes: Processes, directory: Path) -> str:
    """Start a NATS server with JetStream; return its URL when it listens."""
    port = free_port()
    command = [str(SERVER), "-js", "-a", HOST, "-p", str(port), "-sd", str(directory / "nats")]
    processes.start("nats", command)
    until("nats-server listens", lambda: listens(port))
    return f"nats://{HOST}:{port}"


@dataclass
class NotiNode:
    """One node: its ports stay the same over restarts."""

    number: int
    http: int = field(default_factory=free_port)
    gossip: int = field(default_factory=free_port)
    rpc: int = field(default_factory=free_port)
    ops: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return f"node{self.number}"

    def status(self) -> dict[str, Any] | None:
        """Return what the node says of itself; None when it does not answer."""
        try:
            status: dict[str, Any] = get_json(f"http://{HOST}:{self.ops}", "/status", 1.0)
        except NotiError:
            return None
        return status


class NotiCluster:
    """Three nodes that read from a NATS server."""

    def __init__(
        self,
        processes: Processes,
        directory: Path,
        nats_url: str,
        settings: Sequence[str] = (),
        program: Sequence[str] = ("-m", "noti"),
    ) -> None:
        """Start them; `program` is what Python runs for a node."""
        self._program = program
        self._settings = settings
        self._processes = processes
        self._directory = directory
        self._nats_url = nats_url
        self.nodes = [NotiNode(number) for number in range(1, NODES + 1)]
        for node in self.nodes:
            self.start(node)

    def start(self, node: NotiNode) -> None:
        """Start a node that does not run."""
        command = [
            *(sys.executable, *self._program, "run"),
            f"--name={node.name}",
            f"--data-dir={self._directory / node.name}",
            f"--http-addr={HOST}:{node.http}",
            f"--gossip-addr={HOST}:{node.gossip}",
            f"--rpc-addr={HOST}:{node.rpc}",
            f"--ops-addr={HOST}:{node.ops}",
            f"--bootstrap-expect={NODES}",
            "--gossip-profile=local",
            f"--nats-url={self._nats_url}",
            *(f"--join={HOST}:{other.gossip}" for other in self.nodes),
            *self._settings,
        ]
        node.process = self._processes.start(node.name, command)

    def wait_until_whole(self) -> NotiNode:
        """Return the leader, when all nodes are alive, follow it and have applied all of its log,
        and it reads from NATS."""
        return until("all nodes follow one leader", self._whole)

    def _whole(self) -> NotiNode | None:
        statuses = [node.status() for node in self.nodes]
        known = [status for status in statuses if status is not None and status["ready"]]
        leaders = [node for node, s in zip(self.nodes, statuses, strict=True) if _leads(s)]
        if len(known) < NODES or len(leaders) != 1:
            return None
        alive = all(m["state"] == "alive" for status in known for m in status["members"])
        agreed = {status["leader"] for status in known} == {leaders[0].name}
        caught_up = max(s["applied"] for s in known) - min(s["applied"] for s in known) < 100
        reading = any(status["source"]["state"] == "reading" for status in known)
        return leaders[0] if alive and agreed and caught_up and reading else None


@dataclass
class EtcdMember:
    """One member: its command, and so its ports, stay the same over restarts."""

    name: str
    client: int
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def status(self) -> dict[str, Any] | None:
        """Return what the member says of itself; None when it does not answer."""
        return _post_json(f"http://{HOST}:{self.client}/v3/maintenance/status", {})


class EtcdCluster:
    """Three members of etcd, with default settings as the Debian package has them and some more."""

    def __init__(
        self, processes: Processes, directory: Path, binary: Path, settings: Sequence[str] = ()
    ) -> None:
        self._processes = processes
        peers = [f"http://{HOST}:{free_port()}" for _ in range(NODES)]
        members = ",".join(f"etcd{number}={url}" for number, url in enumerate(peers))
        self.members: list[EtcdMember] = []
        for number in range(NODES):
            port = free_port()
            command = [
                *(str(binary), "--name", f"etcd{number}"),
                *("--data-dir", str(directory / f"etcd{number}")),
                *("--listen-client-urls", f"http://{HOST}:{port}"),
                *("--advertise-client-urls", f"http://{HOST}:{port}"),
                *("--listen-peer-urls", peers[number]),
                *("--initial-advertise-peer-urls", peers[number]),
                *("--initial-cluster", members),
                *("--initial-cluster-state", "new"),
                *("--log-level", "error"),
                *settings,
            ]
            self.members.append(EtcdMember(f"etcd{number}", port, command))
            self.start(self.members[-1])

    def start(self, member: EtcdMember) -> None:
        """Start a member that does not run."""
        member.process = self._processes.start(member.name, member.command)

    def wait_for_leader(self) -> int:
        """Return the client port of the leader."""
        return until("etcd has a leader", self._leader).client

    def wait_until_whole(self) -> EtcdMember:
        """Return the leader, when all members follow it and have applied all of its log."""
        return until("all members of etcd follow one leader", self._whole)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all members."""
        for member in self.members:
            assert member.process is not None
            member.process.send_signal(number)

    def _leader(self) -> EtcdMember | None:
        return next((member for member in self.members if _leads_etcd(member.status())), None)

    def _whole(self) -> EtcdMember | None:
        statuses = [member.status() for member in self.members]
        known = [status for status in statuses if status is not None]
        agreed = len({(s.get("leader"), s.get("raftAppliedIndex")) for s in known}) == 1
        if len(known) < NODES or not agreed:
            return None
        leaders = [m for m, s in zip(self.members, statuses, strict=True) if _leads_etcd(s)]
        return leaders[0] if leaders else None


def etcd_binary() -> Path | None:
    """Return the path of `etcd`, unpacking Debian's package when it is nowhere; None when that is
    impossible."""
    if installed := shutil.which("etcd"):
        return Path(installed)
    binary = ETCD_CACHE / "usr" / "bin" / "etcd"
    if not binary.exists() and shutil.which("apt-get"):
        ETCD_CACHE.mkdir(parents=True, exist_ok=True)
        # Unpacked, not installed: the package would start a server.
        subprocess.run(["apt-get", "download", "etcd-server"], cwd=ETCD_CACHE, capture_output=True)
        for package in ETCD_CACHE.glob("etcd-server_*.deb"):
            subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=ETCD_CACHE, check=True)
    return binary if binary.exists() else None


def _leads(status: Mapping[str, Any] | None) -> bool:
    return status is not None and status["role"] == "leader"


def _leads_etcd(status: Mapping[str, Any] | None) -> bool:
    return status is not None and status.get("leader") == status["header"]["member_id"]


def until(what: str, condition: Callable[[], T | None]) -> T:
    """Return the first result of `condition` that is not None or False."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise TimeoutError(f"not within {READY_WITHIN_S:g} s: {what}")


def listens(port: int) -> bool:
    """Tell whether something accepts connections on `port`."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _post_json(url: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
    request = urllib.request.Request(url, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=1) as answer:
            decoded: dict[str, Any] = json.loads(answer.read())
    except OSError:
        return None
    return decoded
