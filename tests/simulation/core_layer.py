"""The Raft core alone, in virtual time, under a storm of faults: the layer for volume.

Enters: a seed. Leaves: an `Outcome`; the checks of `tests/raft/cluster.py` ran at every step.
Never: Trio, real time.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from noti.raft.changes import Change
from noti.raft.events import (
    Effect,
    Event,
    PeerConnected,
    PeerLost,
    Persist,
    Persisted,
    PersistSnapshot,
    ProposalAccepted,
    ProposalRejected,
    RaftConfig,
    ReadReady,
    ReadRequested,
    RestoreSnapshot,
    Role,
    RoleChanged,
    SendMessage,
)
from noti.raft.membership import Configuration
from noti.raft.messages import AppendRequest, AppendResponse, Message, SnapshotChunk, TimeoutNow
from tests.raft.cluster import Cluster, Node
from tests.simulation.faults import CoreSwarm, choose, draw_rate
from tests.simulation.outcome import Outcome, outcome_of
from tests.simulation.timeline import Timeline

HEALED_WITHIN_S = 30.0
"""After the repair: some elections of at most a second, and snapshots for whoever lags."""


class Machine(Node):
    """A node with a clock of its own rate, a disk that tears, and a process that can be frozen."""

    cluster: "StormyCluster"

    def __init__(self, cluster: "StormyCluster", name: str) -> None:
        super().__init__(cluster, name)
        rng = random.Random(f"{cluster.seed}:{name}:machine")
        self.rate = draw_rate(rng, cluster.swarm.clock_spread)
        self.disk_delay_s: tuple[float, float] | None = None
        self.frozen = False
        self._held: list[Event] = []
        self._pending: list[Persist | PersistSnapshot] = []
        self._writing = 0
        """How many of the pending orders the disk has begun with."""

    def now(self) -> float:
        return self.cluster.now * self.rate

    def world_time(self, own_time: float) -> float:
        # A little late, so that rounding cannot make it early, for ever.
        return own_time / self.rate + 1e-9

    def idle(self) -> bool:
        """Whether it runs and its disk has nothing to do."""
        return self.core is not None and not self.frozen and not self._pending

    def step(self, event: Event) -> None:
        if self.core is None:
            return
        if self.frozen:
            self._held.append(event)
            return
        super().step(event)

    def freeze(self) -> None:
        """SIGSTOP: the disk goes on, the process does not."""
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        held, self._held = self._held, []
        for event in held:
            self.step(event)

    def crash(self) -> None:
        """Kill -9 and a power cut: of what the disk was not done with, anything may be there."""
        rng, told = self.cluster.rng, self.cluster.timeline
        done = rng.randint(0, self._writing)
        for order in self._pending[:done]:
            self._write(order)
        if done < self._writing:
            told.reach("a write was lost in a crash")
            torn = self._pending[done]
            if isinstance(torn, Persist) and len(torn.entries) > 1:
                kept = torn.entries[: rng.randint(1, len(torn.entries) - 1)]
                self._write(Persist(torn.batch, torn.hard_state, kept))
                told.reach("a write was torn in a crash")
        if done:
            told.reach("a write was complete, and not reported, in a crash")
        self._pending.clear()
        self._writing = 0
        self._held.clear()
        self.frozen = False
        super().crash()

    def _write(self, order: Persist | PersistSnapshot) -> None:
        if isinstance(order, Persist):
            self.disk.write(order)
        else:
            self.disk.install(order.snapshot)

    def order_disk(self, order: Persist | PersistSnapshot) -> None:
        self._pending.append(order)
        if not self._writing:
            self._begin_write()

    def _begin_write(self) -> None:
        """Write all that waits at once, as the replica does; a snapshot goes alone."""
        snapshots = (
            n for n, order in enumerate(self._pending) if isinstance(order, PersistSnapshot)
        )
        self._writing = max(1, next(snapshots, len(self._pending)))
        delay_s = self.cluster.rng.uniform(*(self.disk_delay_s or self.cluster.disk_delay_s))
        self.cluster.later(delay_s, self._end_write, self.incarnation)

    def _end_write(self, incarnation: int) -> None:
        if incarnation != self.incarnation:
            return
        written, self._pending = self._pending[: self._writing], self._pending[self._writing :]
        self._writing = 0
        for order in written:
            self._write(order)
        if self._pending:
            self._begin_write()
        self.step(Persisted(written[-1].batch))

    def perform(self, effect: Effect) -> None:
        cluster, told = self.cluster, self.cluster.timeline
        match effect:
            case SendMessage():
                pass
            case RoleChanged(role, term, leader):
                told.note(self.name, f"{role.value} in term {term}, leader {leader or 'unknown'}")
                cluster.note_role(self, role)
            case RestoreSnapshot(snapshot):
                told.note(self.name, f"state replaced by a snapshot at {snapshot.index}")
                told.reach("a snapshot was installed")
                if len(cluster.delivered_chunks(self.name)) > 1:
                    told.reach("a snapshot came in several pieces")
                if self.running.status().configuration.outgoing:
                    told.reach("a snapshot was installed in a joint configuration")
            case Persist(entries=(first, *_)) if first.index <= self.disk.last_index():
                told.reach("entries were replaced by another leader's")
            case ProposalRejected(backlog_full=True):
                told.reach("a proposal was refused because the backlog was full")
            case ReadReady(request, index):
                assert index >= cluster.reads[request], "a read would miss what was committed"
                told.reach("a read was confirmed")
            case _:
                pass
        super().perform(effect)
        if isinstance(effect, RestoreSnapshot):
            cluster.check_state(self)


class StormyCluster(Cluster):
    """The world of the core layer."""

    node_type = Machine
    nodes: dict[str, Machine]  # type: ignore[assignment]

    def __init__(self, seed: int, swarm: CoreSwarm, show: Callable[[str], None] | None) -> None:
        self.swarm = swarm
        self.duplicates = swarm.duplicates
        self.timeline = Timeline(lambda: self.now, show)
        self.reads: dict[int, int] = {}
        """Request, and what was committed anywhere when it was made."""
        self.gone: set[str] = set()
        """Machines whose disk was lost: nobody with that id returns."""
        self._chunks: dict[str, list[int]] = {}
        self._last_leader = ""
        super().__init__(
            swarm.size,
            seed,
            snapshot_every=swarm.snapshot_every,
            keep_entries=swarm.keep_entries,
        )

    def config(self, name: str) -> RaftConfig:
        return RaftConfig(
            name,
            keep_entries=self.keep_entries,
            snapshot_chunk_bytes=self.swarm.chunk_bytes,
            append_bytes_max=self.swarm.append_bytes_max,
            in_flight_messages_max=self.swarm.in_flight_max,
            uncommitted_bytes_max=self.swarm.uncommitted_bytes_max,
        )

    def read(self, node: Node) -> int:
        request = next(self._requests)
        self.reads[request] = self._commit_max
        node.step(ReadRequested((request,)))
        return request

    def send(self, sender: str, to: str, message: Message) -> None:
        self._tell(sender, to, message)
        super().send(sender, to, message)
        duplicates = self.duplicates
        if duplicates and self.connected(sender, to) and self.rng.random() < duplicates:
            incarnations = (self.nodes[sender].incarnation, self.nodes[to].incarnation)
            again = partial(self.deliver, sender, to, incarnations, message)
            self.later(self.rng.uniform(0.0, self.swarm.late_s), again)
            self.timeline.reach("a message came twice")

    def _tell(self, sender: str, to: str, message: Message) -> None:
        name = type(message).__name__
        match message:
            case AppendRequest(entries=()) | AppendResponse(success=True):
                return
            case AppendRequest(entries=(first, *_)):
                what = f"entries {first.index}..{message.entries[-1].index}"
            case AppendResponse():
                what = f"refusal at {message.rejected_index}, hint {message.hint_index}"
            case TimeoutNow():
                what = "TimeoutNow"
                if self.blocked or self.loss:
                    self.timeline.reach("leadership was handed over under a broken network")
            case _:
                what = f"{name} {_brief(message)}"
        self.timeline.note(sender, f"> {to} {what} in term {message.term}")

    def deliver(
        self, sender: str, to: str, incarnations: tuple[int, int], message: Message
    ) -> None:
        if isinstance(message, SnapshotChunk):
            if message.offset == 0:
                self._chunks[to] = []
            self._chunks.setdefault(to, []).append(message.offset)
        super().deliver(sender, to, incarnations, message)

    def delivered_chunks(self, name: str) -> list[int]:
        return self._chunks.get(name, [])

    def note_role(self, machine: Machine, role: Role) -> None:
        told, configuration = self.timeline, machine.running.status().configuration
        if role is not Role.LEADER:
            return
        told.reach("a leader was elected")
        if self.blocked:
            told.reach("a leader was elected while a link was cut")
        if configuration.outgoing:
            told.reach("a leader was elected in a joint configuration")
        former = self.nodes.get(self._last_leader)
        if former is not None and former is not machine and former.frozen:
            told.reach("a frozen leader was replaced")
        self._last_leader = machine.name

    def check_state(self, machine: Machine) -> None:
        """Restored or replayed, the state is that of all commands committed so far, in order."""
        commands = [
            data
            for index, (_, data) in sorted(self._committed.items())
            if index <= machine.applied_index and data.isdigit()
        ]
        assert machine.applied == commands, f"{machine.name} has another state than its log says"

    def machine_of(self, node: Node) -> Machine:
        assert isinstance(node, Machine)
        return node


def _brief(message: Message) -> str:
    fields = ("last_index", "index", "offset", "granted", "pre", "transfer")
    told = [f"{field}={getattr(message, field)}" for field in fields if hasattr(message, field)]
    return " ".join(told)


class Storm:
    """Carries out what the swarm draws."""

    def __init__(self, cluster: StormyCluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._number = 0

    def blow(self) -> None:
        """Do all steps."""
        cluster, rng, swarm = self._cluster, self._rng, self._cluster.swarm
        for _ in range(swarm.steps):
            kind = choose(rng, swarm.weights)
            action: Callable[[], str | None] = getattr(self, kind)
            done = action()
            if done is not None:
                cluster.timeline.note("storm", f"{kind} {done}")
            for _ in range(rng.randrange(swarm.proposals_max + 1)):
                self._use()
            cluster.run(rng.uniform(0.0, swarm.pause_max_s))
            cluster.check_log_matching()

    def _use(self) -> None:
        """Somebody wants something of whoever believes to lead; there may be several."""
        leaders = self._believers()
        if leaders:
            self._ask(self._rng.choice(leaders), read=0.2)

    def _believers(self) -> list[Machine]:
        leaders = [
            machine
            for machine in self._cluster.nodes.values()
            if machine.core is not None
            and not machine.frozen
            and machine.running.status().role is Role.LEADER
        ]
        if len(leaders) > 1:
            self._cluster.timeline.reach("two nodes believed to lead")
        return leaders

    def _ask(self, leader: Machine, read: float) -> None:
        if self._rng.random() < read:
            self._cluster.read(leader)
        else:
            self._number += 1
            self._cluster.propose(leader, b"%d" % self._number)

    # --- parts ------------------------------------------------------------------------------------

    def _any(self) -> Machine:
        present = [n for n in self._cluster.names if n not in self._cluster.gone]
        return self._cluster.nodes[self._rng.choice(present)]

    def _pair(self) -> tuple[str, str]:
        names = self._cluster.names
        one = self._rng.choice(names)
        return one, self._rng.choice([name for name in names if name != one] or names)

    def _leader(self) -> Machine | None:
        leader = self._cluster.leader()
        if leader is None or self._cluster.machine_of(leader).frozen:
            return None
        return self._cluster.machine_of(leader)

    def _survivable(self, configuration: Configuration, change: Change) -> bool:
        """Whether those who still exist are a majority afterwards."""
        voters = (set(configuration.voters) | change.promote) - change.remove
        living = voters - self._cluster.gone
        return 2 * len(living) > len(voters)

    def _change(self, change: Change) -> str | None:
        leader = self._leader()
        if leader is None or not change:
            return None
        if not self._survivable(leader.running.status().configuration, change):
            return None
        request = self._cluster.change(leader, change)
        accepted = isinstance(leader.outcomes.get(request), ProposalAccepted)
        told = self._cluster.timeline
        joint = leader.core is not None and bool(leader.running.status().configuration.outgoing)
        if accepted and joint:
            told.reach("a joint configuration was entered")
            if self._cluster.blocked or self._cluster.loss:
                told.reach("a joint configuration was entered under a broken network")
        parts = {"add": change.add, "promote": change.promote, "remove": change.remove}
        what = " ".join(f"{name} {','.join(sorted(ids))}" for name, ids in parts.items() if ids)
        return f"{what} by {leader.name}: {'accepted' if accepted else 'refused'}"

    # --- the faults -------------------------------------------------------------------------------

    def crash(self) -> str | None:
        machine = self._any()
        if machine.core is None:
            return None
        machine.crash()
        return machine.name

    def restart(self) -> str | None:
        down = [
            machine
            for machine in self._cluster.nodes.values()
            if machine.core is None and machine.name not in self._cluster.gone
        ]
        for machine in down:
            machine.start()
        return ",".join(machine.name for machine in down) or None

    def isolate(self) -> str:
        name = self._any().name
        self._cluster.isolate(name)
        return name

    def depose(self) -> str | None:
        """Cut the leader off, and use whoever believes to lead until nobody does any more."""
        leader = self._leader()
        if leader is None:
            return None
        hears = self._rng.random() < 0.5
        for other in self._cluster.names:
            self._cluster.blocked.add((leader.name, other))
            if not hears:
                self._cluster.blocked.add((other, leader.name))
        for _ in range(self._rng.randint(40, 80)):
            for believer in self._believers():
                self._ask(believer, read=0.5)
            self._cluster.run(self._rng.uniform(0.0, 0.05))
        return f"{leader.name}, who {'still hears the others' if hears else 'hears nobody'}"

    def cut_one_way(self) -> str:
        sender, to = self._pair()
        self._cluster.blocked.add((sender, to))
        self._cluster.timeline.reach("a link was cut in one direction")
        return f"{sender} > {to}"

    def cut_pair(self) -> str:
        one, other = self._pair()
        self._cluster.blocked |= {(one, other), (other, one)}
        return f"{one} {other}"

    def mend(self) -> str | None:
        broken = bool(self._cluster.blocked) or self._cluster.loss > 0
        self._cluster.heal()
        return "all links" if broken else None

    def lose_messages(self) -> str:
        self._cluster.loss = self._rng.choice([0.01, 0.1, 0.3])
        return f"{self._cluster.loss:.0%}"

    def reset_stream(self) -> str:
        one, other = self._pair()
        for mine, theirs in ((one, other), (other, one)):
            machine = self._cluster.nodes[mine]
            self._cluster.later(0.001, machine.step, PeerLost(theirs))
            pause_s = self._rng.uniform(0.002, 0.3)
            self._cluster.later(pause_s, machine.step, PeerConnected(theirs))
        return f"{one} {other}"

    def transfer(self) -> str | None:
        leader = self._leader()
        if leader is None:
            return None
        self._cluster.transfer(leader)
        return f"from {leader.name}"

    def freeze(self) -> str | None:
        machine = self._rng.choice([self._leader() or self._any(), self._any()])
        if machine.core is None or machine.frozen:
            return None
        machine.freeze()
        return machine.name

    def thaw(self) -> str | None:
        frozen = [machine for machine in self._cluster.nodes.values() if machine.frozen]
        for machine in frozen:
            machine.thaw()
        return ",".join(machine.name for machine in frozen) or None

    def slow_disk(self) -> str:
        machine = self._any()
        machine.disk_delay_s = self._rng.choice([None, (0.0, 0.5), (0.2, 2.0)])
        return f"{machine.name} {machine.disk_delay_s or 'as usual'}"

    def roll(self) -> str:
        for name in list(self._cluster.names):
            machine = self._cluster.nodes[name]
            if machine.core is None or machine.frozen or name in self._cluster.gone:
                continue
            self._cluster.transfer(machine)
            self._cluster.run(self._rng.uniform(0.0, 1.0))
            machine.crash()
            self._cluster.run(self._rng.uniform(0.0, 1.0))
            machine.start()
        return "all nodes"

    def grow(self) -> str | None:
        leader = self._leader()
        if leader is None:
            return None
        members = leader.running.status().configuration.members
        strangers = [n for n in self._cluster.names if n not in {*members, *self._cluster.gone}]
        if not strangers and len(members) < 7:
            strangers = [self._cluster.add_machine().name]
        return self._change(Change(add=frozenset(strangers[:1])))

    def promote(self) -> str | None:
        leader = self._leader()
        learners = leader.running.status().configuration.learners if leader else ()
        living = [learner for learner in learners if learner not in self._cluster.gone]
        return self._change(Change(promote=frozenset(living[: self._rng.randint(1, 2)])))

    def shrink(self) -> str | None:
        leader = self._leader()
        if leader is None:
            return None
        members = leader.running.status().configuration.members
        return self._change(Change(remove=frozenset({self._rng.choice(members)})))

    def replace(self) -> str | None:
        """A learner takes a voter's seat in one joint change; it may be the leader's."""
        leader = self._leader()
        if leader is None:
            return None
        configuration = leader.running.status().configuration
        living = [n for n in configuration.learners if n not in self._cluster.gone]
        if not living:
            return self.grow()
        lost = sorted(self._cluster.gone.intersection(configuration.voters))
        removed = (lost or [self._rng.choice(configuration.voters)])[0]
        if removed == leader.name:
            self._cluster.timeline.reach("a leader was asked to remove itself")
        return self._change(Change(promote=frozenset(living[:1]), remove=frozenset({removed})))

    def wipe(self) -> str | None:
        """Lose a disk for ever, while everybody else has everything: one seat at a time."""
        cluster, leader = self._cluster, self._leader()
        if leader is None or cluster.blocked:
            return None
        status = leader.running.status()
        configuration = status.configuration
        members = [cluster.nodes[name] for name in configuration.members]
        healthy = all(
            member.idle() and member.applied_index == status.last_index for member in members
        )
        if not healthy or configuration.outgoing or len(configuration.voters) < 3:
            return None
        if cluster.gone.intersection(configuration.voters):
            return None
        wiped = cluster.nodes[self._rng.choice(configuration.voters)]
        wiped.crash()
        cluster.gone.add(wiped.name)
        wiped.disk = type(wiped.disk)()
        cluster.timeline.reach("a voter lost its disk")
        return wiped.name


def recover(cluster: StormyCluster) -> None:
    """Repair all that can be; a leader must come, and all members the same state, in time."""
    cluster.timeline.note("storm", "over: everything is repaired")
    cluster.heal()
    cluster.duplicates = 0.0  # as on a stream: a snapshot with a doubled piece is begun anew
    cluster.disk_delay_s, cluster.delay_s = (0.0005, 0.002), (0.001, 0.005)
    for machine in cluster.nodes.values():
        machine.disk_delay_s = None
        if machine.frozen:
            machine.thaw()
        if machine.core is None and machine.name not in cluster.gone:
            machine.start()
    deadline = cluster.now + HEALED_WITHIN_S
    last = b"1" + b"0" * 9

    def settled() -> bool:
        leader = cluster.leader()
        if leader is None:
            return False
        configuration = leader.running.status().configuration
        if configuration.outgoing:
            return False
        members = [cluster.nodes[n] for n in configuration.members if n not in cluster.gone]
        return all(member.applied[-1:] == [last] for member in members)

    while not settled():
        assert cluster.now < deadline, "no agreement in time although everything is repaired"
        leader = cluster.leader()
        if leader is not None and last not in leader.applied:
            cluster.propose(leader, last)
        cluster.run(0.5)
    leader = cluster.leader()
    assert leader is not None
    for name in leader.running.status().configuration.members:
        if name not in cluster.gone:
            cluster.check_state(cluster.nodes[name])
    cluster.check_log_matching()


def run_core(seed: int, show: Callable[[str], None] | None = None) -> Outcome:
    """Run one seed."""
    rng = random.Random(f"core:{seed}")
    swarm = CoreSwarm.draw(rng)
    cluster = StormyCluster(seed, swarm, show)

    def run() -> None:
        cluster.timeline.note("swarm", str(swarm))
        cluster.run(1.0)  # the first configuration is on every disk
        cluster.disk_delay_s, cluster.delay_s = swarm.disk_delay_s, swarm.delay_s
        Storm(cluster, rng).blow()
        recover(cluster)

    outcome = outcome_of("core", seed, cluster.timeline, run)
    outcome.virtual_s = cluster.now
    for sent in cluster.trace:
        cluster.timeline.mix(str(sent))
    outcome.trace_hash = cluster.timeline.digest()
    return outcome


def idle_core(seconds: float) -> StormyCluster:
    """Let three nodes do nothing but elect and stay together; for measuring."""
    calm = replace(
        CoreSwarm.draw(random.Random(0)), size=3, duplicates=0.0, clock_spread=0.0, snapshot_every=0
    )
    cluster = StormyCluster(0, calm, None)
    cluster.elect()
    cluster.run(seconds)
    return cluster
