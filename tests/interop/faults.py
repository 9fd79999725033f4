"""Faults of a cluster, each of which an alert is for: made on the way in, and gone on the way out.

Enters: a stage. Leaves: trouble, for as long as the body lasts. Never: a look at the alert.
"""

import itertools
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import trio

from noti.kubernetes.api import CHECKERS
from tests.certificates.authority import Wanted, issue
from tests.interop.cluster import Cluster
from tests.interop.processes import (
    NodeProcess,
    children_running,
    web_workers_of,
    written,
)
from tests.interop.test_tls import Files
from tests.interop.traffic import MERCURE, Subscriber
from tests.kubernetes.stage import NS
from tests.kubernetes.test_process import OperatorProcess, Scene

CLIENTS_MAX = 20
NODES = ("node1", "node2", "node3")


@dataclass
class Stage:
    """What faults are made of."""

    cluster: Cluster
    files: Files
    kubernetes: Scene
    operator: OperatorProcess
    token: str
    settings: Path

    async def publish(self, node: NodeProcess) -> None:
        """Publish by HTTP at a node, whatever it answers."""
        async with httpx.AsyncClient(timeout=30) as http:
            await http.post(
                f"http://{written(node.http)}/.well-known/mercure",
                data={"topic": "news", "data": '{"user_id": 1}'},
                headers={"Authorization": f"Bearer {self.token}"},
            )

    def certificate_ends_in(self, days: int) -> None:
        """Give all nodes certificates that end then; they take them within seconds."""
        for name in NODES:
            wanted = Wanted(dns=(name,), ends=timedelta(days=days))
            target = Path(self.files.flags(name)[1]).parent
            issue(wanted, self.files.authority).write(target, "node")


@asynccontextmanager
async def repeated(action: Callable[[], Awaitable[object]], every_s: float) -> AsyncIterator[None]:
    """Do something again and again meanwhile."""

    async def forever() -> None:
        while True:
            await action()
            await trio.sleep(every_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(forever)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def killed(stage: Stage, count: int) -> AsyncIterator[None]:
    """Kill so many nodes, the leader first; they come back."""
    leader = await stage.cluster.leader()
    gone = [leader, *stage.cluster.others(leader)][:count]
    for node in gone:
        await node.kill()
    yield
    for node in gone:
        node.start()
    await stage.cluster.leader()


@asynccontextmanager
async def without_nats(stage: Stage) -> AsyncIterator[None]:
    await stage.cluster.nats.kill()
    yield
    await stage.cluster.nats.start()


@asynccontextmanager
async def without_quorum_published(stage: Stage) -> AsyncIterator[None]:
    async with killed(stage, 2):
        [left] = [node for node in stage.cluster.nodes if await node.status() is not None]
        async with repeated(lambda: stage.publish(left), 1):
            yield


@asynccontextmanager
async def garbage(stage: Stage) -> AsyncIterator[None]:
    async with repeated(stage.cluster.publisher.publish_garbage, 1):
        yield


@asynccontextmanager
async def stopped_writer(stage: Stage) -> AsyncIterator[None]:
    """As a disk that does not answer."""
    node = stage.cluster.nodes[0]
    [writer] = children_running(node.pid, b"disk_writer")
    os.kill(writer, signal.SIGSTOP)
    yield
    os.kill(writer, signal.SIGCONT)


@asynccontextmanager
async def slow_writer(stage: Stage) -> AsyncIterator[None]:
    [writer] = children_running(stage.cluster.nodes[0].pid, b"disk_writer")
    async with halting(writer):
        yield


@asynccontextmanager
async def busy_node(stage: Stage) -> AsyncIterator[None]:
    async with halting(stage.cluster.nodes[0].pid):
        yield


@asynccontextmanager
async def halting(process: int) -> AsyncIterator[None]:
    """Let a process run for moments only; shorter halts than elections take."""

    async def halt() -> None:
        os.kill(process, signal.SIGSTOP)
        with trio.CancelScope(shield=True):
            await trio.sleep(0.4)
            os.kill(process, signal.SIGCONT)

    async with repeated(halt, 0.15):
        yield


@asynccontextmanager
async def strangers_gossip(stage: Stage) -> AsyncIterator[None]:
    async def send() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.sendto(bytes(200), stage.cluster.nodes[0].gossip)

    async with repeated(send, 0.2):
        yield


@asynccontextmanager
async def strangers_call(stage: Stage) -> AsyncIterator[None]:
    """Without TLS, at the port of nodes."""

    async def call() -> None:
        async with await trio.open_tcp_stream(*stage.cluster.nodes[0].rpc) as stream:
            await stream.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

    async with repeated(call, 0.5):
        yield


@asynccontextmanager
async def halting_leaders(stage: Stage) -> AsyncIterator[None]:
    """Each leader falls silent for longer than an election takes."""

    async def depose() -> None:
        leader = await stage.cluster.leader()
        os.kill(leader.pid, signal.SIGSTOP)
        with trio.CancelScope(shield=True):
            await trio.sleep(1.2)
            os.kill(leader.pid, signal.SIGCONT)

    async with repeated(depose, 0.1):
        yield


@asynccontextmanager
async def invalid_settings(stage: Stage) -> AsyncIterator[None]:
    """Nodes read their file again by themselves, and keep what they had."""
    valid = stage.settings.read_text()
    stage.settings.write_text("nonsense = 1\n")
    yield
    stage.settings.write_text(valid)


@asynccontextmanager
async def ending_certificate(stage: Stage, days: int) -> AsyncIterator[None]:
    stage.certificate_ends_in(days)
    yield
    stage.files.renew()


@asynccontextmanager
async def crowd(stage: Stage) -> AsyncIterator[None]:
    """As many browsers at one node as it serves."""
    async with trio.open_nursery() as nursery:
        for _ in range(CLIENTS_MAX):
            nursery.start_soon(Subscriber(MERCURE, [stage.cluster.nodes[0].http]).run)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def dying_workers(stage: Stage) -> AsyncIterator[None]:
    async def kill() -> None:
        for worker in web_workers_of(stage.cluster.nodes[0].pid):
            os.kill(worker, signal.SIGKILL)

    async with repeated(kill, 5):
        yield


@asynccontextmanager
async def without_operator(stage: Stage) -> AsyncIterator[None]:
    await stage.operator.end(signal.SIGKILL)
    yield
    stage.operator.child.start()


@asynccontextmanager
async def missing_right(stage: Stage) -> AsyncIterator[None]:
    """The operator may not write what it finds; something to write comes again and again."""
    api, cluster = stage.kubernetes.server, stage.kubernetes.cluster
    ports = itertools.cycle((0, 8400))

    async def change() -> None:
        cluster.check(rpcPort=next(ports))

    api.forbidden = {("leaderstatuscheckers/status", "patch")}
    async with repeated(change, 0.5):
        yield
    api.forbidden = set()
    api.delete(CHECKERS, NS, cluster.name)


@asynccontextmanager
async def pods_missing(stage: Stage) -> AsyncIterator[None]:
    """The cluster that the operator looks after has no pods."""
    stage.kubernetes.cluster.found(0)
    yield
    stage.kubernetes.server.delete(CHECKERS, NS, stage.kubernetes.cluster.name)


FAULTS: Mapping[str, Callable[[Stage], AbstractAsyncContextManager[None]]] = {
    "NotiNodeIsDown": partial(killed, count=1),
    "NotiHasNoLeader": partial(killed, count=2),
    "NotiNodeIsNotReady": partial(killed, count=2),
    "NotiRejectsPublishers": without_quorum_published,
    "NotiIsGone": partial(killed, count=3),
    "NotiChangesLeaders": halting_leaders,
    "NotiRejectsSettings": invalid_settings,
    "NotiDiskHangs": stopped_writer,
    "NotiDiskIsSlow": slow_writer,
    "NotiIsBusy": busy_node,
    "NotiSourceIsNotRead": without_nats,
    "NotiRejectsMessages": garbage,
    "NotiRejectsGossip": strangers_gossip,
    "NotiRejectsNodes": strangers_call,
    "NotiCertificateEnds": partial(ending_certificate, days=7),
    "NotiCertificateEndsAtOnce": partial(ending_certificate, days=1),
    "NotiHasFewPlacesLeft": crowd,
    "NotiWebWorkersDie": dying_workers,
    "NotiOperatorIsGone": without_operator,
    "NotiOperatorFindsNoLeader": pods_missing,
    "NotiOperatorCannotWrite": missing_right,
}
"""What makes each alert fire; the others are fired by promtool only (tests/k8s/alert_cases.py)."""
