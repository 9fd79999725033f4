"""One machine of a simulated cluster: disk and clock survive, the node comes and goes.

Enters: what becomes of its process and its disk. Leaves: the real node tree, with all that
is outside it in memory. Never: threads, sockets, files, real time; chooses what goes wrong.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from pydantic import SecretStr

from noti import node
from noti.address import Address
from noti.config import Config
from noti.errors import LevelUnsupported, StorageError
from noti.history.levels import SUPPORTED
from noti.history.store import Store
from noti.membership.ports import CarryOut
from noti.raft.core.events import TransferRequested
from noti.raft.core.status import Status
from noti.status import Report
from noti.stream_settings import StreamSettings, SubjectSettings
from noti.world import World
from tests.simulation.clocks import MachineClock
from tests.simulation.faults import draw_rate
from tests.simulation.memory_clients import SECRET, MemoryClients
from tests.simulation.memory_disk import Files, MemoryDisk
from tests.simulation.memory_rpc import MemoryRpcNetwork
from tests.simulation.memory_source import MemorySource
from tests.simulation.sending import Sending
from tests.simulation.timeline import MACHINE

if TYPE_CHECKING:
    from tests.simulation.world import SimulatedCluster

RPC_PORT, GOSSIP_PORT, HTTP_PORT = 8400, 8401, 8402
HUB_BOUND_BYTES = 2 * 1024 * 1024
"""Twice what a command may hold."""


STREAMS = {
    name: StreamSettings(name=name, subjects=(SubjectSettings.model_validate(how),))
    for name, how in {
        "jobs": {"subject": "jobs.noti.>", "decoder": "category"},
        "texts": {"subject": "texts.*", "decoder": "text", "topic": "jobs.noti.{2}"},
    }.items()
}
"""What there may be in a run, and how it is read."""


class Broken(Exception):
    """A part of a node failed, for no reason that a node knows."""


async def _tell_nobody(_answer: Mapping[str, object]) -> None:
    raise AssertionError("an order to leave has no answer but its end")


class MemoryControl:
    """The operator's hand on one machine."""

    def __init__(self) -> None:
        self.breaks = trio.Event()
        """Once it is set, this part of the node fails."""
        self.leave: Callable[[float], Awaitable[None]] | None = None
        """Asks the process that runs."""

    async def serve(
        self,
        carry_out: CarryOut,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """See `noti.membership.ports.Control`."""

        async def leave(within_s: float) -> None:
            await carry_out({"leave_within_s": within_s}, _tell_nobody)

        self.leave = leave
        task_status.started()
        try:
            await self.breaks.wait()
            raise Broken("planted")
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
        sizes = cluster.settings.history_sizes
        self._history_size = sizes[number % len(sizes)]
        self.disk = self._new_disk()
        self.clients = self._new_clients()
        self.sources = self._new_sources()
        self.control = MemoryControl()
        self.report: Report | None = None
        self.scope = trio.CancelScope()
        self.crashed = False
        self.stranger = True
        """It belongs to no cluster yet, as far as anybody saw."""
        self.damaged = False
        """Its files were changed: it may refuse to start."""
        self.supports = SUPPORTED
        """The level of the release that its next process is of."""
        self.end_reason = ""
        """Why it could not start, or go on, the last time."""
        self._fell_as = ""
        self._moves = 0
        self._doom: _CrashAtStep | None = None
        self.stopped = trio.Event()
        self.stopped.set()

    def _new_disk(self) -> MemoryDisk:
        latency_s = self.cluster.settings.disk_latency_s
        disk = MemoryDisk(rng=self.cluster.rng, sleep=self.clock.sleep, latency_s=latency_s)
        disk.happened = self.cluster.timeline.reach
        return disk

    def _new_sources(self) -> dict[str, MemorySource]:
        return {one.name: MemorySource(one, self.clock) for one in self.cluster.streams}

    @property
    def source(self) -> MemorySource:
        """Its way to the first stream."""
        return self.sources[self.cluster.stream.name]

    def _new_clients(self) -> MemoryClients:
        return MemoryClients(
            (self.host, HTTP_PORT),
            showed=partial(self.cluster.hear_shown, self),
            clock=self.clock,
            sending=Sending(self.cluster.settings.hub_sends_bytes_per_s, HUB_BOUND_BYTES),
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
        return self.report._identity.node_id

    def consensus(self) -> Status:
        assert self.report is not None
        return self.report._replica.status()

    def store(self) -> Store:
        assert self.report is not None
        return self.report._store

    def hand_over(self) -> None:
        """Have it ask another one to lead."""
        assert self.report is not None
        replica: Any = self.report._replica
        replica._put(TransferRequested())

    def examine(self) -> None:
        """Have it look what ails it and how full all are, as whenever somebody asks for its status,
        of which the rest takes five times as long."""
        assert self.report is not None
        self.report._replica.troubles()
        self.report._intake.pressures()

    def leads(self) -> bool:
        if self.report is None:
            return False
        replica: Any = self.report._replica  # a status takes ten times as long, for each look
        return bool(replica.is_ready_leader())

    def falls(self) -> bool:
        """Whether it is about to end, because a part of it failed."""
        return self._fell_as in self.cluster.checks.fallen

    def is_stranger(self) -> bool:
        """Whether it belongs to no cluster, as far as can be seen."""
        if self.report is not None and self.consensus().configuration.cluster_id:
            self.stranger = False
        return self.stranger

    def disk_is_idle(self) -> bool:
        return self.disk.idle and self.disk.watch is None and self._doom is None

    def config(self) -> Config:
        return Config(
            name=self.name,
            data_dir=Path("/in-memory"),
            http_addr=(self.host, HTTP_PORT),
            gossip_addr=self.gossip,
            gossip_insecure=True,
            rpc_addr=self.rpc,
            join=tuple(other.gossip for other in self.cluster.nodes if other is not self),
            bootstrap_expect=self.cluster.founders,
            gossip_profile="local",
            history_size=self._history_size,
            history_per_topic=self.cluster.settings.history_per_topic,
            topics_max=self.cluster.settings.topics_max,
            nats_url="nats://127.0.0.1:4222",
            nats_streams=tuple(STREAMS[stream.name] for stream in self.cluster.streams),
            publisher_jwt_key=SecretStr(SECRET),
            voters_max=self.cluster.settings.voters_max,
            pacing_s=self.cluster.settings.pacing_s,
            log_memory_bytes=self.cluster.settings.log_memory_bytes,
            subscriptions=self.cluster.settings.subscriptions,
        )

    @asynccontextmanager
    async def open_world(self, config: Config) -> AsyncIterator[World]:
        rng = random.Random(f"{self.cluster.seed}:{self.name}:{trio.current_time()}")
        yield World(
            clock=self.clock,
            rng=rng,
            make_id=lambda: "".join(f"{int(rng.uniform(0, 16)):x}" for _ in range(16)),
            disk=self.disk,
            gossip=self.cluster.net.host(self.host),
            rpc=MemoryRpcNetwork(self.cluster.hub, self.rpc),
            clients=self.clients,
            sources=self.sources,
            control=self.control,
            supports=self.supports,
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
        except* Broken:
            self.cluster.timeline.reach("a node fell")
        except* LevelUnsupported as errors:
            self.end_reason = str(leaves_of(errors)[0])
            self.cluster.note(f"{self.name} ended: {self.end_reason}")
        except* StorageError as errors:
            # What a dead process meets on its way out concerns nobody.
            if not (self.crashed or self.disk.failed or self.damaged):
                raise
            self.end_reason = str(leaves_of(errors)[0])
            assert "\n" not in self.end_reason, f"not one clear line: {self.end_reason}"
            self.cluster.note(f"{self.name} ended: {self.end_reason}")
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
        self.sources = self._new_sources()
        self.control = MemoryControl()
        self.cluster.checks.fallen.pop(self._fell_as, None)
        self.cluster.clients[self.cluster.nodes.index(self)] = self.clients
        self.stopped.set()

    def fall(self, lingers_s: float) -> None:
        """Let a part of the running node fail; the end of its browsers' streams takes so long."""
        self.cluster.note(f"break a part of {self.name}")
        self._fell_as = self.node_id()
        self.cluster.checks.fallen[self._fell_as] = self.consensus().term
        self.clients.lingers_s = lingers_s
        self.control.breaks.set()

    def wipe(self) -> None:
        """Lose the disk of a stopped machine: it comes back as a new node under its old name."""
        self.cluster.note(f"wipe {self.name}")
        self.disk = self._new_disk()
        self.stranger = True
        self.damaged = False

    def restore(self, files: Files) -> None:
        """Give a stopped machine the files that somebody copied from its disk earlier."""
        self.cluster.note(f"restore {self.name}")
        self.disk = self._new_disk()
        self.disk.files = files
        self.damaged = True

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
        stopped = self.stopped  # of this process: somebody may start the next one meanwhile
        if not (self.down or self.crashed):
            self.cut_off(unnoticed=unnoticed)
        # A dead process sends nothing more, however its cleanup is shielded.
        while not stopped.is_set():
            end_all_shields(self._task)
            await trio.lowlevel.checkpoint()
        self.cluster.net.unsilence(self.host)

    def cut_off(self, *, unnoticed: bool = False) -> None:
        """Be dead for the world from now on, whatever the process still does; then `crash`."""
        self.cluster.note(f"crash {self.name}")
        self.crashed = True
        self.clients.cut()
        for source in self.sources.values():
            source.reachable = False
        self.thaw()
        self.cluster.net.silence(self.host)
        (self.cluster.hub.vanish if unnoticed else self.cluster.hub.kill)(self.rpc)
        self.disk = self.disk.crash()
        self.scope.cancel()

    def crash_at_step(self, steps: int) -> None:
        """Die after so many more steps of its tasks: at any await, among others that go on."""
        self.spare()
        self._doom = _CrashAtStep(self, steps)
        trio.lowlevel.add_instrument(self._doom)

    def spare(self) -> None:
        """Let it not die by `crash_at_step`, nor in a change of its disk."""
        self.disk.watch = None
        if self._doom is not None:
            trio.lowlevel.remove_instrument(self._doom)
            self._doom = None


class _CrashAtStep(trio.abc.Instrument):
    """Counts the steps of one machine's tasks."""

    def __init__(self, machine: SimulatedNode, steps: int) -> None:
        self._machine = machine
        self._steps = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        machine = self._machine
        if task.context.get(MACHINE) != machine.name or machine.down or machine.crashed:
            return
        self._steps -= 1
        if self._steps <= 0:
            machine.spare()
            machine.cluster.timeline.reach("a node died at an await")
            machine.cut_off()
            machine.cluster.nursery.start_soon(machine.crash)


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
