"""`noti operator` as a process: over HTTPS to an API server, over mutual TLS to real nodes."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from noti.address import Address
from noti.cli.children import Child
from noti.kubernetes.api import LEASES, PODS
from tests import promises
from tests.certificates.authority import client as client_certificate
from tests.http.stage import client
from tests.interop.processes import NodeProcess, get_json, run_to_end, written
from tests.interop.test_tls import Files
from tests.kubernetes.http_api import HttpApi, serving
from tests.kubernetes.memory_api import RIGHTS, ApiServer
from tests.kubernetes.stage import NS, Cluster, Nodes
from tests.ports import free_port

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STOP_S_MAX = 10.0
SETTLE_S_MAX = 30.0


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for another process's doing."""
    with trio.move_on_after(SETTLE_S_MAX):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)
        return
    raise AssertionError(f"waited {SETTLE_S_MAX:g} s in vain until {what}")


@dataclass
class OperatorProcess:
    """One `noti operator`."""

    child: Child
    ops: Address

    async def ready(self) -> bool:
        answer = await get_json(self.ops, "/readiness")
        return bool(answer and answer["ready"])

    async def until_ready(self, wanted: bool = True) -> None:
        with trio.fail_after(SETTLE_S_MAX):
            while await self.ready() is not wanted:  # noqa: ASYNC110
                await trio.sleep(0.05)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; return the exit status."""
        os.kill(self.child.pid, number)
        with trio.fail_after(STOP_S_MAX):
            return await self.child.wait()


@dataclass
class Scene:
    """An API server on a port, one cluster in it, and operators."""

    server: ApiServer
    http: HttpApi
    cluster: Cluster
    directory: Path
    nursery: trio.Nursery
    operators: list[OperatorProcess]

    def operate(self, identity: str, *flags: str) -> OperatorProcess:
        """Start an operator."""
        ops = ("127.0.0.1", free_port())
        command = [
            *(sys.executable, "-m", "noti", "operator", "--namespace", NS),
            *("--identity", identity, "--ops-addr", written(ops)),
            *flags,
        ]
        child = Child(identity, command, self.directory / f"{identity}.log")
        child.start()
        self.operators.append(OperatorProcess(child, ops))
        return self.operators[-1]

    @property
    def holder(self) -> str:
        leases = self.server.all(LEASES, NS)
        return leases[0]["spec"]["holderIdentity"] if leases else ""


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    server = ApiServer()
    with pytest.MonkeyPatch.context() as patch:
        async with serving(server, directory) as http, trio.open_nursery() as nursery:
            patch.setenv("KUBECONFIG", str(http.kubeconfig))
            cluster = Cluster(server, Nodes())
            there = Scene(server, http, cluster, directory, nursery, [])
            try:
                yield there
            except BaseException:
                for operator in there.operators:
                    print(operator.child.log.read_text())
                raise
            finally:
                with trio.CancelScope(shield=True):
                    for operator in there.operators:
                        await operator.child.stop(0)
            nursery.cancel_scope.cancel()
    assert set(server.asked) <= RIGHTS
    for operator in there.operators:
        assert http.token not in operator.child.log.read_text()


async def test_an_operator_survives_restarts_of_the_api_and_ends_with_status_zero(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as at:
        at.cluster.found(0)
        operator = at.operate("operator-a")
        await until(lambda: at.cluster.reason == "NoPods", "it works")
        await operator.until_ready()
        async with client(operator.ops) as http:
            await http.request("/metrics")
            text = await http.read_all()
        assert "noti_operator_holds_lease 1.0" in text
        assert (await get_json(operator.ops, "/liveness"))["status"] == "up"

        at.http.stop()
        at.cluster.check(rpcPort=0)
        await trio.lowlevel.checkpoint()
        await at.nursery.start(at.http.run)
        await until(lambda: at.cluster.reason == "SpecInvalid", "it is back")

        assert await operator.end() == 0
        assert at.holder == ""


async def test_a_token_that_is_not_accepted_is_reported_and_an_operator_is_not_ready(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as at:
        at.http.token = "another"
        operator = at.operate("operator-a")
        log = operator.child.log
        await until(lambda: "cannot get the lease" in log.read_text(), "it is told")
        await operator.until_ready(False)
        assert "401" in log.read_text()
        at.http.token = "s3cret-token-of-the-service-account"
        await operator.until_ready()
        assert await operator.end(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--tls-cert", "x.pem"], "--tls-cert, --tls-key and --tls-ca go together"),
        (["--ops-addr", "8080"], "is not host:port"),
        ([], "Configuration file /nowhere not found"),
    ],
)
def test_wrong_flags_are_reported_in_one_line(
    flags: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    ended = run_to_end(
        [
            sys.executable,
            "-m",
            "noti",
            "operator",
            "--namespace",
            NS,
            "--log-level",
            "error",
            *flags,
        ]
    )
    assert ended.returncode == 2
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


class RealNodes:
    """Three nodes with mutual TLS, each at an address of its own as pods have it."""

    def __init__(self, at: Scene) -> None:
        self._at = at
        self._port = free_port()
        self.nodes = [NodeProcess(f"noti-{number}", at.directory) for number in range(3)]
        self._tls = Files(at.directory, *(node.name for node in self.nodes))
        for number, node in enumerate(self.nodes):
            self._place(node, f"127.0.0.{number + 2}")
        self._operator = client_certificate("operator", self._tls.authority)

    def _place(self, node: NodeProcess, ip: str) -> None:
        """Others look for its RPCs where it gossips."""
        node.rpc, node.gossip = (ip, self._port), (ip, node.gossip[1])

    def start(self) -> None:
        """Start all, and put them into the API as pods that are ready."""
        self._at.cluster.found(3)
        self._at.cluster.check(rpcPort=self._port)
        for node in self.nodes:
            self._start(node)
            self._at.server.put(PODS, NS, node.name, status=ready_at(node.rpc[0]))

    def _start(self, node: NodeProcess) -> None:
        seeds = [part for one in self.nodes for part in ("--join", written(one.gossip))]
        node.start(*seeds, "--bootstrap-expect", "3", *self._tls.flags(node.name))

    def move(self, node: NodeProcess, ip: str) -> None:
        """Have a dead node's pod deleted and made again, with another address."""
        number = int(node.name[-1])
        self._at.cluster.delete_pod(number)
        self._place(node, ip)
        self._start(node)
        self._at.cluster.add_pod(number)
        self._at.server.put(PODS, NS, node.name, status=ready_at(ip))

    def called(self, name: str) -> NodeProcess:
        [found] = [node for node in self.nodes if node.name == name]
        return found

    async def leader(self, *, besides: str = "") -> str:
        """Wait until all that answer agree who leads."""
        with trio.fail_after(SETTLE_S_MAX):
            while True:
                asked = [node for node in self.nodes if node.name != besides]
                reports = [report for node in asked if (report := await node.status())]
                leaders = {report["leader"] for report in reports}
                if len(reports) >= 2 and len(leaders) == 1:
                    leader = leaders.pop()
                    if leader not in (None, besides):
                        return str(leader)
                await trio.sleep(0.02)

    async def until_labelled(self, *, dead: str = "") -> str:
        """Wait until labels say what the nodes say, and return the leader."""
        leader = await self.leader(besides=dead)
        names = [node.name for node in self.nodes]
        wanted = "".join("-" if one == dead else "L" if one == leader else "f" for one in names)
        await until(lambda: self._at.cluster.roles == wanted, f"labels are {wanted}")
        await until(lambda: self._at.cluster.status.get("leaderNode") == leader, "it is told")
        assert self._at.cluster.serving == {*names} - {leader, dead}
        return leader

    @property
    def operator_flags(self) -> list[str]:
        certificate, key = self._operator.write(self._at.directory, "operator")
        ca = self._at.directory / "nodes-ca.pem"
        ca.write_bytes(self._tls.authority.pem)
        return ["--tls-cert", str(certificate), "--tls-key", str(key), "--tls-ca", str(ca)]


def ready_at(ip: str) -> dict[str, object]:
    return {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]}


@asynccontextmanager
async def real_nodes(at: Scene) -> AsyncIterator[RealNodes]:
    real = RealNodes(at)
    try:
        real.start()
        yield real
    except BaseException:
        for node in real.nodes:
            print(f"--- {node.name}\n{node.last_lines()}")
        raise
    finally:
        with trio.CancelScope(shield=True):
            for node in real.nodes:
                await node.destroy()


@promises.LABELS_FOLLOW_LEADER
async def test_labels_follow_real_nodes_through_a_kill_and_a_change_of_operators(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as at, real_nodes(at) as real:
        first = at.operate("operator-a", *real.operator_flags)
        leader = await real.until_labelled()
        second = at.operate("operator-b", *real.operator_flags)
        await second.until_ready()

        await real.called(leader).kill()
        await real.until_labelled(dead=leader)

        assert await first.end() == 0
        await until(lambda: at.holder == "operator-b", "the other operator works")
        real.called(leader).start()
        await real.called(leader).until_up()
        await real.until_labelled()
        assert await second.end() == 0
        for operator in (first, second):
            assert "Traceback" not in operator.child.log.read_text()


async def test_labels_follow_real_nodes_through_a_pause_an_outage_and_a_move(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as at, real_nodes(at) as real:
        operator = at.operate("operator-a", *real.operator_flags)
        paused = await real.until_labelled()
        real.called(paused).signal(signal.SIGSTOP)
        await real.until_labelled(dead=paused)
        # It comes back believing that it leads, in a lower term.
        real.called(paused).signal(signal.SIGCONT)
        leader = await real.until_labelled()

        at.http.stop()
        await real.called(leader).kill()
        await real.leader(besides=leader)
        await at.nursery.start(at.http.run)
        await real.until_labelled(dead=leader)

        real.move(real.called(leader), "127.0.0.9")
        await real.called(leader).until_up()
        await real.until_labelled()

        for number in range(3):
            at.cluster.delete_pod(number)
        await until(lambda: at.cluster.reason == "NoPods", "all pods are gone")
        assert await operator.end() == 0
        assert "Traceback" not in operator.child.log.read_text()
