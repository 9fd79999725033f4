"""Does to the cluster what the schedule says.

No process stays stopped and no cut stays, also when cancelled.
"""

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from tests.bench.load.mark import EVENT_BYTES
from tests.publishing.nats.nats_server import NatsServer
from tests.soak.browsers import Browsers
from tests.soak.cluster import SoakCluster, SoakNode
from tests.soak.network import small_disk_full
from tests.soak.publishers import Feed, RpcFeed
from tests.soak.schedule import BURSTS, HARMFUL, LARGE_BYTES, WORKERS, Cut, Episode, Fault, Kind

WHOLE_S_MAX = 60.0
"""After trouble ended, all nodes serve again within this."""
REPLACED_S_MAX = 90.0
"""For a web worker; a node gives a hung one 5 s of its own running time, or 60 s to one that has
not served anybody yet."""
AFTERMATH_S = 5.0
"""Streams of a node in trouble may end a little later than its trouble."""
STANDSTILL_S_MAX = 20.0
"""Browsers may need longer for a burst than publishers, as long as they come closer meanwhile."""
FOLLOW_S_MAX = 240.0
"""A burst is some ten million deliveries, which share two processors with what publishes them."""
BURST_S_MAX = 120.0
HELD_S_MAX = 10.0
"""A node that was killed may be starting for as long, with its history."""


class Trouble:
    """Carries out faults on one cluster."""

    def __init__(
        self,
        cluster: SoakCluster,
        nats: NatsServer,
        jetstream: Sequence[Feed],
        rpc: RpcFeed,
        browsers: Browsers,
        behind_max: int,
        say: Callable[[str], None],
    ) -> None:
        """While the slowest of the browsers is more than `behind_max` events behind, nothing more
        is done."""
        self._browsers = browsers
        self._behind_max = behind_max
        self.broken: list[str] = []
        """Promises that were seen broken meanwhile."""
        self._harmed: list[tuple[str, float, float]] = []
        """Which node was in trouble from when until when, and a little longer."""
        self._cluster = cluster
        self._nats = nats
        self._jetstream = jetstream
        self._rpc = rpc
        self._say = say
        self._begun = 0.0

    async def run(self, episode: Episode) -> None:
        """Carry out an episode; returns after its calm."""
        await self._until_followed()
        nodes = await self._targets(episode)
        self._begun = time.monotonic()
        async with trio.open_nursery() as nursery:
            for fault, node in zip(episode.faults, nodes, strict=True):
                nursery.start_soon(self._carry_out, fault, node)
        begun = time.monotonic()
        if not await self._cluster.until_whole(WHOLE_S_MAX):
            what = " and ".join(map(str, episode.faults))
            self._break(f"the cluster was not whole again {WHOLE_S_MAX:g} s after: {what}")
        self._say(f"whole again after {time.monotonic() - begun:.1f} s")
        for node in nodes:
            if node is not None:
                self._harmed.append((node.name, self._begun, time.monotonic() + AFTERMATH_S))
        await trio.sleep(episode.calm_s)

    async def _until_followed(self) -> None:
        """Wait until no browser is so far behind that it could fall off history in a burst."""
        begun = closer_at = trio.current_time()
        least = self._browsers.behind_in_all()
        while self._browsers.behind() > self._behind_max:
            await trio.sleep(0.1)
            now, behind = trio.current_time(), self._browsers.behind_in_all()
            if behind < least:
                least, closer_at = behind, now
            if now - closer_at > STANDSTILL_S_MAX:
                self._break(f"browsers came no closer: {self._browsers.slowest()}")
                return
            if now - begun > FOLLOW_S_MAX:
                self._break(f"browsers did not follow: {self._browsers.slowest()}")
                return

    def was_harmed(self, name: str, at: float) -> bool:
        """Whether a node was in trouble, or had been right before."""
        return any(who == name and begin <= at <= end for who, begin, end in self._harmed)

    async def _targets(self, episode: Episode) -> list[SoakNode | None]:
        """Choose different nodes for all faults that need one."""
        leader = await self._cluster.leader()
        free = list(self._cluster.nodes)
        targets: list[SoakNode | None] = []
        for fault in episode.faults:
            target = None
            if fault.kind is Kind.FULL_DISK:
                target = self._cluster.nodes[-1]
            elif fault.kind in WORKERS:
                having = [node for node in self._cluster.nodes if node.setup.workers]
                target = leader if fault.leads else None
                if target not in having:
                    target = having[int(fault.pick * len(having))]
            elif fault.kind in HARMFUL:
                others = [node for node in free if node is not leader]
                if len(self._cluster.nodes) > 3:
                    others = [node for node in others if node is not self._cluster.nodes[-1]]
                target = others[int(fault.pick * len(others))]
                if fault.leads and leader in free:
                    target = leader
            if target in free:
                free.remove(target)
            targets.append(target)
        return targets

    async def _carry_out(self, fault: Fault, node: SoakNode | None) -> None:
        name = node.name if node else ""
        self._say(f"{fault}{f': {name}' if name else ''}")
        match fault.kind:
            case Kind.NATS:
                await self._nats_down(fault.seconds)
            case Kind.ROLL:
                await self._roll()
            case Kind.BURST_JETSTREAM | Kind.BURST_RPC | Kind.BURST_LARGE:
                await self._burst(fault)
            case Kind.KILL_WORKER | Kind.HANG_WORKER:
                assert node is not None
                await self._harm_worker(fault, node)
            case _:
                assert node is not None
                await self._harm(fault, node)

    async def _harm(self, fault: Fault, node: SoakNode) -> None:
        match fault.kind:
            case Kind.KILL:
                node.held = True
                node.signal(signal.SIGKILL, "kill -9")
                await trio.sleep(fault.seconds)
                node.held = False
            case Kind.PAUSE:
                async with _stopped(node.process.pid):
                    await trio.sleep(fault.seconds)
            case Kind.HANG_WRITER:
                writer = node.writer()
                if writer is not None:
                    async with _stopped(writer):
                        await trio.sleep(fault.seconds)
            case Kind.PARTITION:
                await self._partition(fault, node)
            case Kind.FULL_DISK:
                await self._full_disk(fault, node)
            case _:
                raise AssertionError(fault)

    async def _harm_worker(self, fault: Fault, node: SoakNode) -> None:
        """Kill or stop one; the node must put another one into its place by itself."""
        there = node.workers()
        if not there:
            self._break(f"{node.name} has no web worker")
            return
        victim = there[int(fault.pick * len(there))]
        os.kill(victim, signal.SIGKILL if fault.kind is Kind.KILL_WORKER else signal.SIGSTOP)
        begun = time.monotonic()
        with trio.move_on_after(REPLACED_S_MAX):
            while victim in node.workers() or len(node.workers()) < node.setup.workers:  # noqa: ASYNC110
                await trio.sleep(0.05)
            self._say(f"{node.name} replaced it after {time.monotonic() - begun:.1f} s")
            return
        self._break(f"{node.name} did not replace worker {victim} in {REPLACED_S_MAX:g} s: {fault}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGCONT)

    async def _partition(self, fault: Fault, node: SoakNode) -> None:
        own = node.machine
        others = [one.machine for one in self._cluster.nodes if one is not node]
        assert own is not None
        pairs = [(own, other) for other in others if other and fault.cut is not Cut.IN]
        pairs += [(other, own) for other in others if other and fault.cut is not Cut.OUT]
        for source, target in pairs:
            await source.cut(target)
        try:
            await trio.sleep(fault.seconds)
        finally:
            with trio.CancelScope(shield=True):
                for source, target in pairs:
                    await source.mend(target)

    async def _full_disk(self, fault: Fault, node: SoakNode) -> None:
        directory = str(node.data_dir.parent)
        node.disk_full = node.held = True
        try:
            await small_disk_full(directory, full=True)
            await trio.sleep(fault.seconds)
        finally:
            with trio.CancelScope(shield=True):
                await small_disk_full(directory, full=False)
            node.held = False
        await trio.sleep(1)  # what failed meanwhile has ended the node by now
        node.disk_full = False

    async def _nats_down(self, seconds: float) -> None:
        await self._nats.kill()
        await trio.sleep(seconds)
        await self._nats.start()

    async def _roll(self) -> None:
        for node in self._cluster.nodes:
            begun, ends = time.monotonic(), len(node.exits)
            node.signal(signal.SIGTERM, "rolling restart")
            with trio.move_on_after(HELD_S_MAX * 2):
                while len(node.exits) == ends:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            if len(node.exits) == ends or node.exits[-1].status != "exit status 0":
                last = node.exits[-1].status if len(node.exits) > ends else "nothing"
                self._break(f"{node.name} was told to stop and answered with {last}")
            if not await self._cluster.until_whole(WHOLE_S_MAX):
                self._break(f"not whole {WHOLE_S_MAX:g} s after the restart of {node.name}")
            self._harmed.append((node.name, begun, time.monotonic() + AFTERMATH_S))

    async def _burst(self, fault: Fault) -> None:
        assert fault.kind in BURSTS
        feeds = self._jetstream if fault.kind is Kind.BURST_JETSTREAM else [self._rpc]
        size = LARGE_BYTES if fault.kind is Kind.BURST_LARGE else EVENT_BYTES
        ends = [(feed, feed.burst(fault.events // len(feeds), size)) for feed in feeds]
        begun = time.monotonic()
        with trio.move_on_after(BURST_S_MAX):
            while any(feed.acknowledged < end for feed, end in ends):  # noqa: ASYNC110
                await trio.sleep(0.05)
            rate = fault.events / (time.monotonic() - begun)
            self._say(f"{fault}: acknowledged, {rate:.0f}/s")
            return
        self._break(f"{fault} took more than {BURST_S_MAX:g} s")

    def _break(self, what: str) -> None:
        self.broken.append(what)
        self._say(f"BROKEN: {what}")


@asynccontextmanager
async def _stopped(pid: int) -> AsyncIterator[None]:
    """Stop a process for the time of the body; it may have ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
