"""A cluster in Kubernetes as an operator sees it: objects in the API, nodes that answer."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import trio

from noti.address import Address
from noti.errors import PeerUnavailable
from noti.kubernetes.api import CHECKERS, EVENTS, LEASES, PODS, STATEFUL_SETS
from noti.kubernetes.labels import ROLE_LABELS, SERVE_LABEL
from noti.kubernetes.objects import Object
from noti.kubernetes.operator import Operator, OperatorConfig
from noti.kubernetes.reconciling import Surroundings
from noti.rpc.answers import NodeRole, RoleName
from tests.kubernetes.memory_api import RIGHTS, ApiServer, MemoryApi

NS = "shop"
PORT = 8400
SETTLE_S_MAX = 120.0


async def until(condition: Callable[[], bool], what: str = "it is so") -> None:
    """Wait for something that nobody announces."""
    with trio.move_on_after(SETTLE_S_MAX):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)
        return
    raise AssertionError(f"waited {SETTLE_S_MAX:g} s in vain until {what}")


@dataclass
class Nodes:
    """Nodes that say what they are told to say; `noti.kubernetes.role_queries.RoleSource`."""

    roles: dict[str, NodeRole] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    failures: dict[str, int] = field(default_factory=dict)
    """So many questions fail by chance."""
    addresses: dict[str, Address] = field(default_factory=dict)

    async def ask(self, to: Address, name: str) -> NodeRole:
        self.addresses[name] = to
        await trio.sleep(0.003)
        if self.failures.get(name):
            self.failures[name] -= 1
            raise PeerUnavailable("the connection was old")
        if name in self.hanging:
            await trio.sleep_forever()
        if name in self.dead or name not in self.roles:
            raise PeerUnavailable(f"cannot reach {to[0]}:{to[1]}: connection refused")
        return self.roles[name]

    def forget(self, to: Address, name: str) -> None:
        """Nothing is kept."""

    def say(self, name: str, role: RoleName, term: int, leader: str = "") -> None:
        self.roles[name] = NodeRole(name, role, term, leader)

    def elect(self, leader: str, term: int, *followers: str) -> None:
        """Have one lead, and the others know it."""
        self.say(leader, "leader", term, leader)
        for name in followers:
            self.say(name, "follower", term, leader)


class Cluster:
    """A stateful set with its pods, and the checker for it."""

    def __init__(self, server: ApiServer, nodes: Nodes, name: str = "noti") -> None:
        self.server = server
        self.nodes = nodes
        self.name = name
        self._ip = 0

    def found(self, replicas: int = 3) -> None:
        """Make everything, as `helm install` does; the first leads in term 1."""
        self.scale(replicas)
        for number in range(replicas):
            self.add_pod(number)
        self.check()
        if replicas:
            self.nodes.elect(self.pod(0), 1, *(self.pod(n) for n in range(1, replicas)))

    def scale(self, replicas: int) -> None:
        """Ask for so many pods, which are the test's to make."""
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": self.name}}}
        self.server.put(STATEFUL_SETS, NS, self.name, spec=spec)

    def check(self, **spec: object) -> None:
        """Make the LeaderStatusChecker, or change it."""
        whole = {"statefulSetName": self.name, "namespace": NS, "rpcPort": PORT, "localDev": False}
        self.server.put(CHECKERS, NS, self.name, spec={**whole, **spec})

    def pod(self, number: int) -> str:
        return f"{self.name}-{number}"

    def add_pod(self, number: int, *, ready: bool = True, owned: bool = True) -> None:
        """Have a new pod come up, with an address of its own."""
        self._ip += 1
        uid = self.server.read(STATEFUL_SETS, NS, self.name)["metadata"]["uid"]
        owner = {"kind": "StatefulSet", "name": self.name, "uid": uid, "controller": True}
        self.server.put(
            PODS,
            NS,
            self.pod(number),
            metadata={
                "labels": {"app": self.name},
                "ownerReferences": [owner] if owned else [],
            },
            status=self._status(f"10.0.0.{self._ip}", ready),
        )

    def set_ready(self, number: int, ready: bool) -> None:
        ip = self.server.read(PODS, NS, self.pod(number))["status"]["podIP"]
        self.server.put(PODS, NS, self.pod(number), status=self._status(ip, ready))

    def delete_pod(self, number: int) -> None:
        self.server.delete(PODS, NS, self.pod(number))

    @staticmethod
    def _status(ip: str, ready: bool) -> Object:
        return {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]}

    def labels(self, number: int) -> dict[str, str]:
        labels: dict[str, str] = self.server.read(PODS, NS, self.pod(number))["metadata"]["labels"]
        return labels

    @property
    def pods(self) -> list[Object]:
        """Its pods, by name."""
        pods = {pod["metadata"]["name"]: pod for pod in self.server.all(PODS, NS)}
        return [pods[name] for name in sorted(pods) if name.rpartition("-")[0] == self.name]

    @property
    def roles(self) -> str:
        """What the role labels say: `L` leads, `f` follows, `-` neither; by number."""
        told = []
        for pod in self.pods:
            old, new = (pod["metadata"]["labels"].get(label) for label in ROLE_LABELS)
            told.append("?" if old != new else {"leader": "L", "follower": "f", None: "-"}[old])
        return "".join(told)

    @property
    def serving(self) -> set[str]:
        """To which pods the follower service sends browsers."""
        return {
            pod["metadata"]["name"]
            for pod in self.pods
            if pod["metadata"]["labels"].get(SERVE_LABEL) == "true"
        }

    @property
    def status(self) -> Object:
        status: Object = self.server.read(CHECKERS, NS, self.name).get("status") or {}
        return status

    @property
    def reason(self) -> str:
        """The reason of the condition Ready, empty before there is one."""
        found = {one["type"]: one for one in self.status.get("conditions", ())}
        return found["Ready"]["reason"] if found else ""

    @property
    def events(self) -> list[str]:
        """Reasons of the events about this checker."""
        return [
            event["reason"]
            for event in self.server.all(EVENTS, NS)
            if event["involvedObject"]["name"] == self.name
        ]


@dataclass
class Stage:
    """An API server, nodes, one cluster, operators."""

    server: ApiServer
    nodes: Nodes
    cluster: Cluster
    nursery: trio.Nursery
    operators: dict[str, Operator] = field(default_factory=dict)
    scopes: dict[str, trio.CancelScope] = field(default_factory=dict)
    apis: dict[str, MemoryApi] = field(default_factory=dict)

    def operate(self, identity: str = "operator-a", *checkers: str) -> Operator:
        """Start an operator."""
        api = self.apis[identity] = MemoryApi(self.server)
        around = Surroundings(
            api,
            self.nodes,
            random.Random(identity),
            identity,
            lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=trio.current_time()),
        )
        operator = Operator(OperatorConfig(NS, identity, checkers=frozenset(checkers)), around)
        self.operators[identity] = operator
        self.scopes[identity] = scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await operator.run()

        self.nursery.start_soon(run)
        return operator

    def working(self) -> list[str]:
        return [name for name, operator in self.operators.items() if operator.works]

    @property
    def holder(self) -> str:
        holder: str = self.server.read(LEASES, NS, "noti-operator")["spec"]["holderIdentity"]
        return holder


@asynccontextmanager
async def stage(replicas: int = 3) -> AsyncIterator[Stage]:
    """A cluster whose first node leads in term 1; in the end, only the Role's rights were used."""
    server, nodes = ApiServer(), Nodes()
    cluster = Cluster(server, nodes)
    cluster.found(replicas)
    async with trio.open_nursery() as nursery:
        yield Stage(server, nodes, cluster, nursery)
        nursery.cancel_scope.cancel()
    assert set(server.asked) <= RIGHTS
