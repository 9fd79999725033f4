"""The faults of the core layer, carried out one after the other.

There is never a fault that no majority survives; disks are left to `core_disk_storm.py`.
"""

from collections.abc import Callable

from noti.raft.core.events import PeerConnected, PeerLost, ProposalAccepted, Role
from noti.raft.core.membership import Change, Configuration
from tests.simulation.core_disk_storm import DiskStorm
from tests.simulation.core_world import Machine
from tests.simulation.faults import choose


class Storm(DiskStorm):
    """Carries out what the swarm draws."""

    def blow(self) -> None:
        """Do all steps."""
        cluster, rng, swarm = self._cluster, self._rng, self._cluster.swarm
        for _ in range(swarm.steps):
            kind = choose(rng, swarm.weights)
            action: Callable[[], str | None] = getattr(self, kind)
            done = action()
            if done is not None:
                cluster.timeline.note("storm", f"{kind} {done}")
                cluster.timeline.reach(kind)
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
            self._cluster.propose(leader, self._next())

    # --- parts ------------------------------------------------------------------------------------

    def _pair(self) -> tuple[str, str]:
        names = self._cluster.names
        one = self._rng.choice(names)
        return one, self._rng.choice([name for name in names if name != one] or names)

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
        timeline = self._cluster.timeline
        joint = leader.core is not None and bool(leader.running.status().configuration.outgoing)
        if accepted and joint:
            timeline.reach("a joint configuration was entered")
            if self._cluster.blocked or self._cluster.loss:
                timeline.reach("a joint configuration was entered under a broken network")
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

    def delay_messages(self) -> str:
        cluster = self._cluster
        cluster.delay_s = self._rng.choice([cluster.swarm.delay_s, (0.02, 0.2), (0.1, 0.6)])
        return str(cluster.delay_s)

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
        """A learner replaces a voter in one joint change; it may be the leader."""
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
