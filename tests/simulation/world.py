"""A cluster of whole nodes in one Trio run: the real tree, with everything outside it in memory.

Enters: a seed, faults. Leaves: a trace that the seed decides, and what browsers have seen.
Never: threads, asyncio, sockets, files, real time.
"""

import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from noti import node
from noti.config import Config
from noti.errors import PeerUnavailable, ProposalUncertain, StorageError
from noti.notifications.store import Store
from noti.ports import Address, Draft, Hello, Outcome, SourceMessage
from noti.raft.events import Status
from noti.raft.messages import PeerMessage
from noti.report import Report
from noti.rpc.generated.category.v1 import CategoryMessage
from noti.world import World
from tests.simulation.checks import Checks
from tests.simulation.clocks import MachineClock
from tests.simulation.faults import draw_rate
from tests.simulation.memory_clients import Browser, MemoryClients
from tests.simulation.memory_disk import MemoryDisk
from tests.simulation.memory_gossip import MemoryNet
from tests.simulation.memory_rpc import MemoryRpcNetwork, RpcHub
from tests.simulation.memory_source import MemorySource, MemoryStream
from tests.simulation.timeline import MACHINE, Timeline

VOTING = ("leader", "follower")
GARBAGE_SUBJECT = "jobs.noti.garbage"
"""Messages under this subject do not parse."""
PUBLISHER_WAIT_S = 12.0
RPC_PORT, GOSSIP_PORT, HTTP_PORT = 8400, 8401, 8402


@dataclass(frozen=True)
class Settings:
    """What is the same for all machines of one run."""

    history_size: int = 500
    browsers: int = 4
    vanish: float = 0.0
    away_max_s: float = 2.0
    slow_s: float = 0.0
    disk_latency_s: tuple[float, float] = (0.0002, 0.002)
    rpc_latency_s: tuple[float, float] = (0.0002, 0.002)
    packet_loss: float = 0.0
    clock_spread: float = 0.0
    log_limits: node.LogLimits = field(default_factory=lambda: node.LogLimits(segment_bytes=65_536))


class MemoryControl:
    """The operator's hand on one machine."""

    def __init__(self) -> None:
        self.leave: Callable[[float], Awaitable[None]] | None = None
        """Asks the process that runs."""

    async def serve(
        self,
        leave: Callable[[float], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `noti.ports.Control`."""
        self.leave = leave
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self.leave = None


class SimulatedNode:
    """One machine: its disk survives the process."""

    def __init__(self, cluster: "SimulatedCluster", number: int) -> None:
        self.cluster = cluster
        self.name = f"node{number}"
        self.host = f"10.0.0.{number}"
        rng = random.Random(f"{cluster.seed}:{self.name}:machine")
        spread = cluster.settings.clock_spread
        self.clock = MachineClock(draw_rate(rng, spread), offset_s=rng.uniform(0, 100_000 * spread))
        self.disk = self._new_disk()
        self.clients = self._new_clients()
        self.source = MemorySource(cluster.stream, self.clock)
        self.control = MemoryControl()
        self.report: Report | None = None
        self.scope = trio.CancelScope()
        self.crashed = False
        self.stranger = True
        """It belongs to no cluster yet, as far as anybody saw."""
        self.damaged = False
        """Its files were changed: it may refuse to start."""
        self._moves = 0
        self.stopped = trio.Event()
        self.stopped.set()

    def _new_disk(self) -> MemoryDisk:
        latency_s = self.cluster.settings.disk_latency_s
        return MemoryDisk(rng=self.cluster.rng, sleep=self.clock.sleep, latency_s=latency_s)

    def _new_clients(self) -> MemoryClients:
        return MemoryClients(
            (self.host, HTTP_PORT),
            self.cluster.settings.history_size,
            showed=partial(self.cluster.checks.node_showed, self.name),
            clock=self.clock,
        )

    @property
    def rpc(self) -> Address:
        return self.host, RPC_PORT

    @property
    def gossip(self) -> Address:
        return self.host, GOSSIP_PORT

    @property
    def up(self) -> bool:
        return self.report is not None

    @property
    def down(self) -> bool:
        """Its process has ended, or never was."""
        return self.stopped.is_set()

    def status(self) -> dict[str, object]:
        assert self.report is not None
        return self.report.status()

    def node_id(self) -> str:
        assert self.report is not None
        return self.report.hello().node_id

    def consensus(self) -> Status:
        assert self.report is not None
        return self.report._consensus.status()

    def store(self) -> Store:
        assert self.report is not None
        return self.report._store

    def leads(self) -> bool:
        return self.report is not None and self.report.is_leader()

    def is_stranger(self) -> bool:
        """Whether it belongs to no cluster, as far as can be seen."""
        if self.report is not None and self.report.hello().cluster_id:
            self.stranger = False
        return self.stranger

    def disk_is_idle(self) -> bool:
        return self.disk.idle and self.disk.watch is None

    def config(self) -> Config:
        return Config(
            name=self.name,
            data_dir=Path("/in-memory"),
            http_addr=(self.host, HTTP_PORT),
            gossip_addr=self.gossip,
            rpc_addr=self.rpc,
            join=tuple(other.gossip for other in self.cluster.nodes if other is not self),
            bootstrap_expect=self.cluster.founders,
            gossip_profile="local",
            history_size=self.cluster.settings.history_size,
        )

    @asynccontextmanager
    async def open_world(self, config: Config) -> AsyncIterator[World]:
        yield World(
            clock=self.clock,
            rng=random.Random(f"{self.cluster.seed}:{self.name}:{trio.current_time()}"),
            disk=self.disk,
            gossip=self.cluster.net.host(self.host),
            rpc=MemoryRpcNetwork(self.cluster.hub, self.rpc),
            clients=self.clients,
            source=self.source,
            control=self.control,
        )

    async def start(self) -> None:
        """Start the process; returns when the node is up, or has ended before it was."""
        self.cluster.note(f"start {self.name}")
        await self.cluster.nursery.start(self._live)

    async def _live(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.scope = trio.CancelScope()
        self.stopped = trio.Event()
        self.crashed = False
        MACHINE.set(self.name)
        started = False
        limits = self.cluster.settings.log_limits
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    run = partial(
                        node.run, self.config(), open_world=self.open_world, log_limits=limits
                    )
                    self._task = trio.lowlevel.current_task()
                    self.report = await nursery.start(run)
                    started = True
                    task_status.started()
        except* StorageError as errors:
            # What a dead process meets on its way out concerns nobody.
            if not (self.crashed or self.disk.failed or self.damaged):
                raise
            self.cluster.note(f"{self.name} ended: {leaves_of(errors)[0]}")
            self.cluster.timeline.reach("a node ended because of its disk")
        finally:
            self.report = None
            self._end_process()
        if not started:
            task_status.started()

    def _end_process(self) -> None:
        """What the process leaves: a disk, perhaps after a power cut, and no streams."""
        if self.disk.failed:
            self.disk = self.disk.crash()
        else:
            self.disk.finish()
        self.clients.cut()
        self.clients = self._new_clients()
        self.source = MemorySource(self.cluster.stream, self.clock)
        self.cluster.clients[self.cluster.nodes.index(self)] = self.clients
        self.stopped.set()

    def wipe(self) -> None:
        """Lose the disk of a stopped machine: it comes back as a new node under its old name."""
        self.cluster.note(f"wipe {self.name}")
        self.disk = self._new_disk()
        self.stranger = True
        self.damaged = False

    def move(self) -> None:
        """Give a stopped machine another address."""
        self._moves += 1
        number = self.host.rpartition(".")[2]
        self.host = f"10.0.{self._moves}.{number}"
        self.clients = self._new_clients()
        self.cluster.clients[self.cluster.nodes.index(self)] = self.clients
        self.cluster.note(f"move {self.name} to {self.host}")

    def flip_bit(self, rng: random.Random) -> str:
        """Change one bit of a stopped machine's files; return where."""
        name = rng.choice(sorted(self.disk.files))
        content = self.disk.files[name]
        at = rng.randrange(min(len(content), len(content.rstrip(b"\0")) + 64))
        content[at] ^= 1 << rng.randrange(8)
        self.damaged = True
        return f"at byte {at} of {name}"

    def freeze(self) -> None:
        """SIGSTOP: it takes nothing in, says nothing, and notices nothing of the time."""
        self.cluster.note(f"freeze {self.name}")
        self.clock.freeze()
        self.cluster.hub.freeze(self.rpc)
        self.cluster.net.silence(self.host)

    def thaw(self) -> None:
        """SIGCONT."""
        if self.clock.frozen:
            self.cluster.note(f"thaw {self.name}")
            self.cluster.net.unsilence(self.host)
            self.cluster.hub.thaw(self.rpc)
            self.clock.thaw()

    async def stop(self) -> None:
        """SIGTERM: an orderly stop, in time."""
        self.cluster.note(f"stop {self.name}")
        self.scope.cancel()
        with trio.fail_after(self.config().shutdown_deadline_s):
            await self.stopped.wait()

    async def crash(self, *, unnoticed: bool = False) -> None:
        """Kill -9, with writes lost as in a power cut, in no time; nobody hears what the tree still
        says. With `unnoticed` no stream is reset either.
        """
        if self.down or self.crashed:
            await self.stopped.wait()
            return
        self.cluster.note(f"crash {self.name}")
        self.crashed = True
        self.clients.cut()
        self.source.reachable = False
        self.thaw()
        self.cluster.net.silence(self.host)
        (self.cluster.hub.vanish if unnoticed else self.cluster.hub.kill)(self.rpc)
        self.disk = self.disk.crash()
        self.scope.cancel()
        # A dead process does not say goodbye, however its farewells are shielded.
        while not self.stopped.is_set():
            end_all_shields(self._task)
            await trio.lowlevel.checkpoint()
        self.cluster.net.unsilence(self.host)


def leaves_of(error: BaseException) -> list[BaseException]:
    """Return the errors in a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves_of(inner)]
    return [error]


def end_all_shields(task: trio.lowlevel.Task) -> None:
    """Let a cancellation from above reach all of a task and its descendants."""
    status: Any = task._cancel_status
    while status is not None:
        status._scope.shield = False
        status = status.parent
    for nursery in task.child_nurseries:
        for child in list(nursery.child_tasks):
            end_all_shields(child)


class SimulatedCluster:
    """The machines, the cables between them, NATS, and some browsers."""

    def __init__(
        self,
        nursery: trio.Nursery,
        seed: int,
        size: int = 3,
        settings: Settings | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.nursery = nursery
        self.settings = settings or Settings()
        self.timeline = timeline or Timeline(trio.current_time)
        self.checks = Checks(self.timeline.end)
        self.seed = seed
        self.size = size
        self.rng = random.Random(f"world:{seed}")
        world_clock = MachineClock()
        self.net = MemoryNet(
            self.rng,
            latency_s=self.settings.rpc_latency_s,
            loss=self.settings.packet_loss,
        )
        self.hub = RpcHub(self.rng, latency_s=self.settings.rpc_latency_s, trace=self.note)
        self.hub.watch = self._hear
        self.stream = MemoryStream(world_clock, trace=self.note)
        self.stream.removed = self._hear_acknowledged
        self.founders = size
        self.nodes: list[SimulatedNode] = []
        self.nodes = [SimulatedNode(self, number) for number in range(1, size + 1)]
        self.clients = [node.clients for node in self.nodes]
        self.browsers = [
            Browser(
                self.rng,
                f"browser{number}",
                self.checks,
                vanish=self.settings.vanish,
                away_max_s=self.settings.away_max_s,
                slow_s=self.settings.slow_s,
            )
            for number in range(1, self.settings.browsers + 1)
        ]
        self.outside = MemoryRpcNetwork(self.hub, ("192.0.2.1", 1))
        self.published = 0
        self.promised: set[int] = set()
        """Events that must be shown: those in the stream, and those of publishers who were told."""
        self.lost_at_source: set[int] = set()
        """Events that went with their stream before anybody acknowledged them."""

    @property
    def trace(self) -> list[str]:
        """All that was told so far."""
        return self.timeline.lines

    def note(self, line: str) -> None:
        self.timeline.note("world", line)

    def _hear(self, source: Address, peer: Hello, messages: Sequence[PeerMessage]) -> None:
        self.checks.said(peer.node_id, messages)
        told = " ".join(f"{type(m).__name__}{m.term}" for m in messages)
        self.timeline.mix(f"{source[0]} > {peer.name} {told}")

    def _hear_acknowledged(self, message: SourceMessage) -> None:
        if message.subject != GARBAGE_SUBJECT:
            self.checks.acknowledged(CategoryMessage.parse(message.payload).user_id)

    def trace_hash(self) -> str:
        """One text for all that happened, states of the nodes included."""
        states = [self._state_of(node) for node in self.nodes if node.up]
        seen = [str(browser.seen) for browser in self.browsers]
        text = "\n".join([self.timeline.digest(), *states, *seen])
        return hashlib.sha256(text.encode()).hexdigest()

    def _state_of(self, node: SimulatedNode) -> str:
        status = {**node.status(), "node": node.name}  # without the name of the machine below
        return str(status)

    async def start(self) -> None:
        async with trio.open_nursery() as nursery:
            for simulated in self.nodes:
                nursery.start_soon(simulated.start)
        for browser in self.browsers:
            self.nursery.start_soon(browser.run, self.clients)

    async def add_machine(self) -> SimulatedNode:
        """Start one more node; it knows the others and belongs to no cluster."""
        self.size += 1
        newcomer = SimulatedNode(self, self.size)
        self.nodes.append(newcomer)
        self.clients.append(newcomer.clients)
        await newcomer.start()
        return newcomer

    def voters(self) -> set[str]:
        """The names of the running nodes that vote; empty until all have heard of it."""
        leader = self.leader()
        views = {
            (status["voters"], status["changing_members"])
            for status in (simulated.status() for simulated in self.nodes if simulated.up)
        }
        if leader is None or len(views) > 1 or leader.status()["changing_members"]:
            return set()
        members = leader.status()["members"]
        roles = {m["node_id"]: m["role"] for m in members}  # type: ignore[attr-defined]
        own = {simulated.name: simulated.node_id() for simulated in self.nodes if simulated.up}
        return {name for name, node_id in own.items() if roles.get(node_id) in VOTING}

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.published += 1
            self.promised.add(self.published)
            message = CategoryMessage(user_id=self.published, category_from="a", category_to="b")
            self.stream.publish("jobs.noti.b", bytes(message))

    async def publish_to(self, machine: SimulatedNode, attempts: int) -> None:
        """Be a publisher who gives an event to one node, and to others while he is in doubt."""
        self.published += 1
        number = self.published
        data = f'{{"user_id":{number},"category_from":"a","category_to":"b"}}'
        draft = Draft(("jobs.noti.b",), data, id=f"publisher-{number}")
        for attempt in range(attempts):
            outcome: Outcome | None = None
            with trio.move_on_after(PUBLISHER_WAIT_S), suppress(PeerUnavailable):
                outcome = await self.outside.publish(machine.rpc, [draft])
            match outcome:
                case tuple():
                    self.timeline.reach("a publisher was told that an event is committed")
                    self.checks.acknowledged(number)
                    self.promised.add(number)
                    return
                case None | ProposalUncertain():
                    self.timeline.reach("a publisher was left in doubt")
                case _ if attempt == 0:
                    self.timeline.reach("a publisher was refused")
                    self.checks.refuses(number)
                    return
            await trio.sleep(self.rng.uniform(0.0, 1.0))
            machine = self.rng.choice(self.nodes)

    def recreate_stream(self) -> None:
        """Delete the stream with all that is in it, and make it again."""
        self.lost_at_source |= {
            CategoryMessage.parse(message.payload).user_id
            for message in self.stream.pending()
            if message.subject != GARBAGE_SUBJECT
        }
        self.stream.recreate()

    def missing(self) -> list[str]:
        """Events that should be shown and are not."""
        expected = self.promised - self.lost_at_source
        return [f"event {number}" for number in sorted(expected - self.checks.numbers)]

    def check_nothing_is_missing(self) -> None:
        """All that was published is shown, and nothing else."""
        assert not self.missing()
        assert self.checks.numbers <= set(range(1, self.published + 1))

    def connected(self) -> bool:
        """Whether all cables are whole."""
        return not (self.net.is_cut() or self.hub.is_cut_somewhere())

    def mend(self) -> None:
        """Repair all cables."""
        self.net.heal()
        self.hub.heal()

    def leader(self) -> SimulatedNode | None:
        leaders = [node for node in self.nodes if node.report and node.report.is_leader()]
        if not leaders:
            return None
        return max(leaders, key=lambda node: int(str(node.status()["term"])))

    async def wait_for(self, condition: Callable[[], object], within_s: float = 30.0) -> None:
        """Look every 10 virtual ms; raises `TooSlowError` after `within_s`."""
        with trio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110 - conditions over several nodes
                await trio.sleep(0.01)

    async def wait_leader(self) -> SimulatedNode:
        await self.wait_for(self.leader)
        leader = self.leader()
        assert leader is not None
        self.note(f"leader {leader.name}")
        return leader

    def last_seqs(self) -> set[int]:
        return {node.clients.feed.newest_seq for node in self.nodes if node.up}

    async def wait_everything_seen(self) -> None:
        """Return when every live node and every browser has all that was published."""
        await self.wait_for(lambda: self.last_seqs() == {self.published})
        await self.wait_for(
            lambda: all(len(browser.seen) >= self.published for browser in self.browsers)
        )

    def check_browsers(self) -> None:
        """Each browser has seen every event once, in order, without a gap."""
        for browser in self.browsers:
            numbers = [int(text.split('"user_id":')[1].split(",")[0]) for text in browser.seen]
            assert numbers == list(range(1, self.published + 1)), numbers
            assert browser.gaps == 0
