"""`just monitoring`: a real Prometheus watches three real nodes, and an operator, through faults.

First each query of the dashboard must find data. Then one fault after the other is made, and ended:
its alert must fire, and rest again. Ranges and waits of the rules are shortened to seconds, and
nothing else of them is changed.
"""

import base64
import itertools
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import jwt
import trio
import yaml

from noti.cli.children import Child
from noti.kubernetes.api import CHECKERS
from tests.certificates.authority import Wanted, issue
from tests.interop.cluster import Cluster, running_cluster
from tests.interop.processes import (
    HOST,
    NodeProcess,
    children_running,
    stable_port,
    web_workers_of,
    written,
)
from tests.interop.test_tls import Files
from tests.interop.traffic import MERCURE, Subscriber
from tests.k8s.dashboard import queries
from tests.k8s.prometheus import program
from tests.k8s.rendering import CHART
from tests.kubernetes.stage import NS
from tests.kubernetes.test_process import OperatorProcess, Scene, scene

RANGE_S = 20
WAIT_S = 4
"""What stands for the minutes of the rules."""
FIRES_WITHIN_S = 60.0
CLIENTS_MAX = 20
NODES = ("node1", "node2", "node3")


class Prometheus:
    """A server that scrapes nodes and an operator every second."""

    def __init__(self, path: Path, directory: Path, nodes: Sequence[str], operator: str) -> None:
        self.address = written((HOST, stable_port()))
        rules = []
        for file in sorted((CHART / "rules").glob("*.yaml")):
            rules.append(directory / file.name)
            rules[-1].write_text(shortened(file.read_text()))
        scraped = {"noti": list(nodes), "noti-operator": [operator]}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(file) for file in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": targets}]}
                for job, targets in scraped.items()
            ],
        }
        (directory / "prometheus.yaml").write_text(yaml.safe_dump(config))
        command = [
            *(str(path), f"--config.file={directory / 'prometheus.yaml'}"),
            *(f"--storage.tsdb.path={directory / 'series'}", "--log.level=warn"),
            f"--web.listen-address={self.address}",
        ]
        self.child = Child("prometheus", command, directory / "prometheus.log")

    async def ask(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of each series that an expression has now."""
        async with httpx.AsyncClient() as http:
            url = f"http://{self.address}/api/v1/query"
            answer = (await http.get(url, params={"query": expression})).json()
        assert answer["status"] == "success", answer
        return [series["metric"] for series in answer["data"]["result"]]

    async def firing(self) -> set[str]:
        """Return the alerts that fire now."""
        found = await self.ask('ALERTS{alertstate="firing"}')
        return {labels["alertname"] for labels in found}

    async def until(self, alert: str, *, fires: bool) -> float | None:
        """Wait until an alert fires, or rests; return after how many seconds, None if never."""
        began = time.monotonic()
        while time.monotonic() - began < FIRES_WITHIN_S:
            if (alert in await self.firing()) is fires:
                return time.monotonic() - began
            await trio.sleep(0.5)
        return None


def shortened(rules: str) -> str:
    """Return rules that look at seconds where these look at minutes."""
    rules = re.sub(r"\[\d+[mh]\]", f"[{RANGE_S}s]", rules)
    return re.sub(r"^( +for:) \d+[mh]$", rf"\1 {WAIT_S}s", rules, flags=re.MULTILINE)


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


async def without_data(prometheus: Prometheus) -> list[str]:
    """Return the queries of the dashboard that find nothing."""
    empty = []
    for query in queries():
        expression = query.expression.replace("$__rate_interval", f"{RANGE_S}s")
        expression = expression.replace("$job", "noti").replace("$namespace", ".*")
        if not await prometheus.ask(expression.replace("$instance", ".*")):
            empty.append(f"{query}: {query.expression}")
    return empty


async def rehearse(stage: Stage, prometheus: Prometheus, alerts: Sequence[str]) -> list[str]:
    """Make faults; return what went otherwise than it should."""
    problems = []
    for alert in alerts:
        async with FAULTS[alert](stage):
            fired = await prometheus.until(alert, fires=True)
            others = sorted(await prometheus.firing() - {alert})
        rested = await prometheus.until(alert, fires=False)
        print(f"{alert}: {_in(fired, 'fires')}, {_in(rested, 'rests')}; beside it: {others}")
        if fired is None or rested is None:
            problems.append(alert)
    return problems


def _in(seconds: float | None, what: str) -> str:
    return f"never {what}" if seconds is None else f"{what} after {seconds:.0f} s"


@asynccontextmanager
async def staged(directory: Path) -> AsyncIterator[Stage]:
    """Run three nodes under load, with all that has metrics, and an operator."""
    files = Files(directory, *NODES)
    keys = directory / "gossip.keys"
    keys.write_text(base64.b64encode(bytes(range(32))).decode())
    keys.chmod(0o600)
    secret = "a secret of at least thirty-two bytes"
    (directory / "jwt.key").write_text(secret)
    settings = directory / "noti.toml"
    settings.write_text("sse_heartbeat_s = 10.0\n")
    flags = [
        *("--config", str(settings)),
        *("--gossip-key-file", str(keys), "--publisher-jwt-key-file", str(directory / "jwt.key")),
        *("--web-workers", "1", "--subscriptions", "--sse-clients-max", str(CLIENTS_MAX)),
    ]
    token = jwt.encode({"mercure": {"publish": ["*"]}}, secret, "HS256")
    async with (
        running_cluster(directory, lambda name: [*files.flags(name), *flags]) as cluster,
        scene(directory) as kubernetes,
    ):
        operator = kubernetes.operate("operator")
        yield Stage(cluster, files, kubernetes, operator, token, settings)


async def main(alerts: Sequence[str]) -> int:
    """Run it all; return the exit status."""
    path = program("prometheus")
    if path is None:
        print("NOT RUN: it needs Prometheus: apt-get install prometheus", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory(prefix="noti-monitoring-") as name:
        directory = Path(name)
        async with staged(directory) as stage:
            nodes = [written(node.ops) for node in stage.cluster.nodes]
            prometheus = Prometheus(path, directory, nodes, written(stage.operator.ops))
            prometheus.child.start()
            try:
                await trio.sleep(5)
                for node in stage.cluster.nodes:
                    await stage.publish(node)
                stage.kubernetes.cluster.found(0)
                await trio.sleep(RANGE_S)
                empty = await without_data(prometheus)
                print(f"{len(queries())} queries of the dashboard, {len(empty)} without data")
                print("\n".join(empty))
                stage.kubernetes.server.delete(CHECKERS, NS, stage.kubernetes.cluster.name)
                problems = await rehearse(stage, prometheus, alerts)
                await trio.sleep(RANGE_S + WAIT_S)
                left = await prometheus.firing()
                print(f"fire in the end, without a fault: {sorted(left) or 'none'}")
            finally:
                with trio.CancelScope(shield=True):
                    await prometheus.child.stop(5)
    return 1 if empty or problems or left else 0


if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1:] or list(FAULTS)))
