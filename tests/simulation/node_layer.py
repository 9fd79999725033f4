"""Whole nodes under a storm of faults, in virtual time: the layer for everything around the core.

Enters: a seed. Leaves: an `Outcome`; what nodes said, showed and acknowledged, and what browsers
saw, was checked as it happened (`checks.py`), and once all is repaired the cluster came to rest.
Never: real time, threads; a fault that no majority survives: disks are lost one at a time, and only
while everybody else holds everything.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import trio

from noti.node import LogLimits
from noti.notifications.store import Store
from tests.simulation.deterministic import run_deterministically
from tests.simulation.faults import NodeSwarm, choose
from tests.simulation.outcome import Outcome, outcome_of
from tests.simulation.timeline import Timeline
from tests.simulation.world import GARBAGE_SUBJECT, Settings, SimulatedCluster, SimulatedNode

LEADER_WITHIN_S = 20.0
"""After the repair: gossip finds everybody again, streams are dialed, some elections."""
HEALED_WITHIN_S = 90.0
"""After the repair: a lost voter's seat is given away after 15 s, browsers come back from 30 s."""
END_WITHIN_S = 9.0
"""After its disk failed: as after a signal to stop."""
READ_WITHIN_S = 5.0
REST_WITHIN_S = 3.0
LONG_HISTORY = 2000
"""More events than a run has."""
MACHINES_MAX = 6

GARBAGE = (
    b"",
    b"\x08",  # cut in the middle of a field
    b"\x12\x05ab",  # shorter than it says
    b"\x12\x01\xff",  # not UTF-8
    b"\x0a\x01a",  # text where a number belongs
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x98\x06\x01",  # nothing that we know
)


class Storm:
    """Carries out what the swarm draws."""

    def __init__(self, cluster: SimulatedCluster, swarm: NodeSwarm, rng: random.Random) -> None:
        self._cluster = cluster
        self._swarm = swarm
        self._rng = rng
        self._lost: set[str] = set()
        """Ids of nodes whose disk was lost; nobody with these returns."""

    async def blow(self) -> None:
        """Do all steps."""
        cluster, rng, swarm = self._cluster, self._rng, self._swarm
        for _ in range(swarm.steps):
            kind = choose(rng, swarm.weights)
            done = await getattr(self, kind)()
            if done is not None:
                cluster.timeline.note("storm", f"{kind} {done}")
                cluster.timeline.reach(kind)
            for _ in range(rng.randrange(3)):
                cluster.publish(rng.randrange(swarm.publishes_max + 1))
                self._publish_somewhere()
                self._read_somewhere()
                await trio.sleep(rng.uniform(0.0, swarm.pause_max_s / 3))
            self._look()

    def _publish_somewhere(self) -> None:
        """To a node, instead of the source. Repeating is safe while history holds the id."""
        attempts = 3 if self._swarm.history_size >= LONG_HISTORY else 1
        for _ in range(self._rng.randrange(3)):
            machine = self._rng.choice(self._cluster.nodes)
            self._cluster.nursery.start_soon(self._cluster.publish_to, machine, attempts)

    def _read_somewhere(self) -> None:
        machines = [machine for machine in self._cluster.nodes if machine.up]
        if machines and self._rng.random() < 0.5:
            self._cluster.nursery.start_soon(read, self._cluster, self._rng.choice(machines))

    def _look(self) -> None:
        """Compare what can be compared at any time."""
        cluster = self._cluster
        leaders = [machine for machine in cluster.nodes if machine.leads()]
        if len(leaders) > 1:
            cluster.timeline.reach("two nodes believed to lead")
        if leaders and any(m.clock.frozen for m in leaders) and len(leaders) > 1:
            cluster.timeline.reach("a frozen leader was replaced")
        compare_stores(cluster)

    # --- choices ----------------------------------------------------------------------------------

    def _any(self) -> SimulatedNode:
        """One machine; the leader more often than others."""
        leader = self._cluster.leader()
        if leader is not None and self._rng.random() < 0.3:
            return leader
        return self._rng.choice(self._cluster.nodes)

    def _running(self) -> SimulatedNode | None:
        machine = self._any()
        return machine if machine.up and not machine.crashed and not machine.clock.frozen else None

    def _pair(self) -> tuple[SimulatedNode, SimulatedNode] | None:
        if len(self._cluster.nodes) < 2:
            return None
        one, other = self._rng.sample(self._cluster.nodes, 2)
        return one, other

    def _may_lose_a_disk(self) -> bool:
        """Whether all are up, connected and equal, and no other loss is still to be made good."""
        cluster, leader = self._cluster, self._cluster.leader()
        if leader is None or not cluster.connected() or not self._may_be_strange():
            return False
        states = {
            (status.commit_index, status.last_index, status.applied_index, status.configuration)
            for status in (machine.consensus() for machine in cluster.nodes if machine.up)
        }
        configuration = leader.consensus().configuration
        return (
            all(machine.up and not machine.clock.frozen for machine in cluster.nodes)
            and len(states) == 1
            and all(commit == last == applied for commit, last, applied, _ in states)
            and not configuration.outgoing
            and len(configuration.voters) >= 3
            and not self._lost.intersection(configuration.voters)
            and all(machine.disk_is_idle() for machine in cluster.nodes)
        )

    async def _may_soon_lose_a_disk(self) -> bool:
        """Give a cluster that is whole the time to come to rest."""
        cluster = self._cluster
        if cluster.connected() and all(m.up and not m.clock.frozen for m in cluster.nodes):
            with suppress(trio.TooSlowError):
                await cluster.wait_for(self._may_lose_a_disk, REST_WITHIN_S)
        return self._may_lose_a_disk()

    def _may_be_strange(self) -> bool:
        """Whether there can be one more node without a cluster, and they could still not found one
        of their own.
        """
        cluster = self._cluster
        strangers = sum(machine.is_stranger() for machine in cluster.nodes)
        return cluster.founders == 1 or strangers + 1 < cluster.founders

    # --- processes and machines -------------------------------------------------------------------

    async def crash(self) -> str | None:
        machine = self._any()
        if not machine.up:
            return None
        unnoticed = self._rng.random() < 0.3
        await machine.crash(unnoticed=unnoticed)
        return f"{machine.name}{' unnoticed' if unnoticed else ''}"

    async def crash_at_disk_operation(self) -> str:
        """The next start, or the running process, dies in the middle of a change of the disk."""
        machine = self._any()
        at = machine.disk.operations + self._rng.randint(0, 12)

        def watch(number: int) -> None:
            if number == at:
                self._cluster.timeline.reach("a node died in the middle of a change of its disk")
                self._cluster.nursery.start_soon(machine.crash)

        machine.disk.watch = watch
        return f"{machine.name} at {at}"

    async def crash_everybody(self) -> str:
        for machine in self._cluster.nodes:
            await machine.crash()
        await trio.sleep(self._rng.uniform(0.0, 2.0))
        if self._rng.random() < 0.3:
            for machine in self._cluster.nodes:
                machine.move()
            self._cluster.timeline.reach("all came back under other addresses")
        await self.restart()
        return "all machines"

    async def restart(self) -> str | None:
        down = [machine for machine in self._cluster.nodes if machine.down]
        for machine in down:
            await start_again(machine)
        return ",".join(machine.name for machine in down) or None

    async def roll(self) -> str:
        for machine in list(self._cluster.nodes):
            if machine.up and not machine.clock.frozen:
                await machine.stop()
                await trio.sleep(self._rng.uniform(0.0, 1.0))
                await start_again(machine)
                await trio.sleep(self._rng.uniform(0.0, 2.0))
        return "all nodes"

    async def stop(self) -> str | None:
        machine = self._running()
        if machine is None:
            return None
        await machine.stop()
        return machine.name

    async def freeze(self) -> str | None:
        machine = self._running()
        if machine is None:
            return None
        machine.freeze()
        return machine.name

    async def thaw(self) -> None:
        for machine in self._cluster.nodes:
            machine.thaw()

    async def move(self) -> str | None:
        """A machine comes back under another address."""
        machine = self._any()
        await machine.crash(unnoticed=self._rng.random() < 0.5)
        machine.move()
        await start_again(machine)
        return machine.name

    async def wipe(self) -> str | None:
        if not await self._may_soon_lose_a_disk():
            return None
        machine = self._rng.choice(self._cluster.nodes)
        self._lost.add(machine.node_id())
        await machine.crash()
        machine.wipe()
        await trio.sleep(self._rng.uniform(0.0, 20.0))
        await start_again(machine)
        self._cluster.timeline.reach("a node lost its disk")
        return machine.name

    async def flip_bit(self) -> str | None:
        """Whatever a disk does to its files is refused at the start, or harms nothing."""
        if not await self._may_soon_lose_a_disk():
            return None
        machine = self._rng.choice(self._cluster.nodes)
        before, node_id = machine.consensus(), machine.node_id()
        await machine.stop()
        where = machine.flip_bit(self._rng)
        await machine.start()
        if not machine.up:
            self._cluster.timeline.reach("a flipped bit was refused")
            self._lost.add(node_id)
            machine.wipe()
            await start_again(machine)
        elif machine.node_id() == node_id:
            after = machine.consensus()
            assert (after.term, after.last_index) >= (before.term, before.last_index), (
                f"{machine.name} forgot something durable after a bit was flipped {where}"
            )
        else:
            self._lost.add(node_id)
        machine.damaged = False
        return f"{machine.name} {where}"

    async def grow(self) -> str | None:
        if len(self._cluster.nodes) >= MACHINES_MAX or not self._may_be_strange():
            return None
        if self._cluster.leader() is None:
            return None
        machine = await self._cluster.add_machine()
        return machine.name

    # --- disks ------------------------------------------------------------------------------------

    async def fail_disk(self) -> str:
        machine = self._any()
        if self._rng.random() < 0.3:
            machine.disk.fail_reads = True
            return f"{machine.name} at the next read"
        machine.disk.fail_next(self._rng.randint(0, 10))
        return f"{machine.name} at one of the next changes"

    async def fill_disk(self) -> str:
        machine = self._any()
        machine.disk.full = not machine.disk.full
        return f"{machine.name} {'full' if machine.disk.full else 'has room again'}"

    async def slow_disk(self) -> str:
        machine = self._any()
        usual = self._swarm.disk_latency_s
        machine.disk.latency_s = self._rng.choice([usual, (0.0, 0.3), (0.1, 1.0)])
        return f"{machine.name} {machine.disk.latency_s}"

    # --- network ----------------------------------------------------------------------------------

    async def isolate(self) -> str:
        machine = self._any()
        for other in self._cluster.nodes:
            if other is not machine:
                self._cut(machine, other)
        return machine.name

    async def cut_pair(self) -> str | None:
        pair = self._pair()
        if pair is None:
            return None
        self._cut(*pair)
        return f"{pair[0].name} {pair[1].name}"

    def _cut(self, one: SimulatedNode, other: SimulatedNode) -> None:
        self._cluster.net.block(one.host, other.host)
        fault = self._rng.choice(["stall", "drop"])
        self._cluster.hub.partition(one.rpc, other.rpc, fault)  # type: ignore[arg-type]

    async def cut_one_way(self) -> str | None:
        pair = self._pair()
        if pair is None:
            return None
        sender, to = pair
        self._cluster.net.block_one_way(sender.host, to.host)
        fault = self._rng.choice(["stall", "drop"])
        self._cluster.hub.partition(sender.rpc, to.rpc, fault, one_way=True)  # type: ignore[arg-type]
        return f"{sender.name} > {to.name}"

    async def mend(self) -> None:
        self._cluster.mend()

    async def lose_packets(self) -> str:
        net = self._cluster.net
        net.loss, net.duplicates = self._rng.choice([(0.05, 0.0), (0.3, 0.1), (0.0, 0.5)])
        return f"{net.loss:.0%} lost, {net.duplicates:.0%} twice"

    async def delay_messages(self) -> str:
        hub, usual = self._cluster.hub, self._swarm.rpc_latency_s
        hub.latency_s = self._rng.choice([usual, (0.02, 0.2), (0.1, 0.6)])
        return str(hub.latency_s)

    async def reset_stream(self) -> str | None:
        pair = self._pair()
        if pair is None:
            return None
        self._cluster.hub.reset(pair[0].rpc, pair[1].rpc)
        return f"{pair[0].name} {pair[1].name}"

    # --- the source -------------------------------------------------------------------------------

    async def stop_source(self) -> str:
        stream = self._cluster.stream
        (stream.stop if stream.up else stream.start)()
        return "goes on" if stream.up else "stops"

    async def cut_source(self) -> str:
        machine = self._any()
        machine.source.reachable = not machine.source.reachable
        return f"for {machine.name} {'mended' if machine.source.reachable else 'cut'}"

    async def redeliver(self) -> str:
        self._cluster.stream.begin()
        return "all that is not acknowledged"

    async def recreate_stream(self) -> str:
        self._cluster.recreate_stream()
        return "empty"

    async def lose_acks(self) -> str:
        share = self._rng.choice([0.0, 0.2, 1.0])
        self._cluster.stream.loses = lambda: self._rng.random() < share
        return f"{share:.0%}"

    async def publish_garbage(self) -> str:
        for _ in range(self._rng.randint(1, 3)):
            self._cluster.stream.publish(GARBAGE_SUBJECT, self._rng.choice(GARBAGE))
        return "some"


async def start_again(machine: SimulatedNode) -> None:
    """Start a machine; one whose disk is broken may end at once."""
    if machine.down:
        with trio.fail_after(30):
            await machine.start()


async def read(cluster: SimulatedCluster, machine: SimulatedNode) -> None:
    """A consistent read shows all that was shown anywhere before it was asked for."""
    report, clients, shown = machine.report, machine.clients, len(cluster.checks.shown)
    assert report is not None
    with trio.move_on_after(READ_WITHIN_S) as patience:
        await report.barrier()
    if not patience.cancelled_caught and machine.report is report and not machine.crashed:
        assert clients.feed.newest_seq >= shown, (
            f"{machine.name} answered a read with {clients.feed.newest_seq} of {shown}"
        )
        cluster.timeline.reach("a read was confirmed")


def compare_stores(cluster: SimulatedCluster) -> None:
    """Equally far nodes have equal stores, and a snapshot of a store is all of it."""
    for machine in cluster.nodes:
        if machine.up:
            store = machine.store()
            cluster.checks.store_is(
                machine.name, store.last_seq, store.history_size, store.digest()
            )
            restored = Store()
            restored.restore(store.snapshot())
            cluster.checks.snapshot_is_whole(machine.name, store, restored)


def repair(cluster: SimulatedCluster, swarm: NodeSwarm) -> None:
    """Repair all that can be; processes are still to be started."""
    cluster.mend()
    cluster.net.loss = cluster.net.duplicates = 0.0
    cluster.hub.latency_s = (0.0002, 0.002)
    cluster.stream.loses = lambda: False
    if not cluster.stream.up:
        cluster.stream.start()
    for machine in cluster.nodes:
        machine.thaw()
        machine.disk.watch = None
        machine.disk.full = machine.disk.fail_reads = False
        machine.disk.fail_next(None)
        machine.disk.latency_s = (0.0002, 0.002)
        machine.source.reachable = True
    for browser in cluster.browsers:
        browser.vanish, browser.away_max_s, browser.slow_s = 0.0, 1.0, 0.0


async def recover(cluster: SimulatedCluster, swarm: NodeSwarm) -> None:
    """Repair everything; in time there is a leader, and everybody has everything."""
    cluster.timeline.note("storm", "over: everything is repaired")
    repair(cluster, swarm)
    await trio.sleep(0.5)  # what was to die in a fault dies now
    with in_time(cluster.timeline, END_WITHIN_S, "a node outlived its disk"):
        await cluster.wait_for(
            lambda: all(machine.down or not machine.disk.failed for machine in cluster.nodes),
            END_WITHIN_S,
        )
    for machine in cluster.nodes:
        await start_again(machine)
    with in_time(cluster.timeline, LEADER_WITHIN_S, "no leader"):
        await cluster.wait_for(cluster.leader, LEADER_WITHIN_S)
    cluster.publish(3)
    with in_time(cluster.timeline, HEALED_WITHIN_S, "no agreement", partial(_who_lags, cluster)):
        await cluster.wait_for(lambda: not _who_lags(cluster), HEALED_WITHIN_S)
    compare_stores(cluster)
    cluster.check_nothing_is_missing()
    if any(browser.gaps for browser in cluster.browsers):
        cluster.timeline.reach("a browser was told of a gap")


def _who_lags(cluster: SimulatedCluster) -> list[str]:
    """What is still to come until the cluster is at rest."""
    leader = cluster.leader()
    if leader is None:
        return ["no leader"]
    complaints = cluster.missing()
    newest = len(cluster.checks.shown)
    configuration = leader.consensus().configuration
    if configuration.outgoing:
        complaints.append("a joint configuration")
    ids = {machine.node_id() for machine in cluster.nodes if machine.up}
    complaints += [f"seat of {gone}" for gone in configuration.voters if gone not in ids]
    for machine in cluster.nodes:
        if not machine.up or machine.store().last_seq < newest:
            complaints.append(machine.name)
    for browser in cluster.browsers:
        if browser.position is None or browser.position < newest:
            complaints.append(browser.name)
    return complaints


@contextmanager
def in_time(
    timeline: Timeline, seconds: float, complaint: str, detail: Callable[[], object] = str
) -> Iterator[None]:
    """Make a failure of liveness say what is missing."""
    try:
        yield
    except trio.TooSlowError:
        told = f"{complaint} within {seconds:.0f} s although all is repaired: {detail()}"
        timeline.end(told)
        raise AssertionError(told) from None


def settings_of(swarm: NodeSwarm) -> Settings:
    """Return what the swarm means for the world."""
    return Settings(
        history_size=swarm.history_size,
        browsers=swarm.browsers,
        vanish=swarm.vanish,
        away_max_s=swarm.away_max_s,
        slow_s=swarm.slow_s,
        disk_latency_s=swarm.disk_latency_s,
        rpc_latency_s=swarm.rpc_latency_s,
        packet_loss=swarm.packet_loss,
        clock_spread=swarm.clock_spread,
        log_limits=LogLimits(
            snapshot_every_entries=swarm.snapshot_every_entries,
            keep_entries=swarm.keep_entries,
            segment_bytes=swarm.segment_bytes,
        ),
    )


def run_nodes(seed: int, show: Callable[[str], None] | None = None) -> Outcome:
    """Run one seed."""
    rng = random.Random(f"nodes:{seed}")
    swarm = NodeSwarm.draw(rng)
    now = 0.0

    def time() -> float:
        nonlocal now
        now = trio.current_time()
        return now

    timeline = Timeline(time, show)
    hashes: list[str] = []

    async def main() -> None:
        timeline.note("swarm", str(swarm))
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed, swarm.size, settings_of(swarm), timeline)
            await cluster.start()
            await cluster.wait_leader()
            await Storm(cluster, swarm, rng).blow()
            await recover(cluster, swarm)
            hashes.append(cluster.trace_hash())
            nursery.cancel_scope.cancel()

    def run() -> None:
        with timeline.capture_logs():
            run_deterministically(seed, main)

    outcome = outcome_of("nodes", seed, timeline, run)
    outcome.virtual_s = now
    outcome.trace_hash = (hashes or [timeline.digest()])[0][:32]
    return outcome


def idle_nodes(seconds: float) -> None:
    """Let three whole nodes do nothing but elect and stay together; for measuring."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 0)
            await cluster.start()
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    with Timeline(trio.current_time).capture_logs():
        run_deterministically(0, main)
