"""The faults of the core layer's disks: slow, hung, lost, or of yesterday.

Disks that a majority needs are spared: they are lost one at a time, and only while everybody else
holds everything. What has to follow from a loss at once is checked.
"""

import copy
import random

from noti.raft.core.events import Role
from tests.simulation.core_world import Machine, StormyCluster

LED_AGAIN_WITHIN_S = 3.0
"""Two election timeouts until it is clear that the disk hangs, and one for somebody else to take
over; clocks may run fast or slow."""
CATCH_UP_S = 1.5
"""Some heartbeats, and whatever is late."""
RECOGNISED_WITHIN_S = 2.0
"""The next heartbeat shows that a voter has forgotten something."""


class DiskStorm:
    """See `Storm`."""

    def __init__(self, cluster: StormyCluster, rng: random.Random) -> None:
        self._cluster = cluster
        self._rng = rng
        self._number = 0

    def _any(self) -> Machine:
        present = [n for n in self._cluster.names if n not in self._cluster.gone]
        return self._cluster.nodes[self._rng.choice(present)]

    def _leader(self) -> Machine | None:
        leader = self._cluster.leader()
        if leader is None or self._cluster.machine_of(leader).frozen:
            return None
        return self._cluster.machine_of(leader)

    def _next(self) -> bytes:
        self._number += 1
        return b"%d" % self._number

    def _is_whole(self, leader: Machine) -> bool:
        """Whether one voter may lose its disk: all members hold everything, and nobody is gone."""
        cluster, status = self._cluster, leader.running.status()
        configuration = status.configuration
        members = [cluster.nodes[name] for name in configuration.members]
        return (
            not cluster.blocked
            and all(m.idle() and m.applied_index == status.last_index for m in members)
            and not configuration.outgoing
            and len(configuration.voters) >= 3
            and not cluster.gone.intersection(configuration.voters)
        )

    def _lose(self, machine: Machine) -> None:
        """Lose a disk permanently: nobody with that id returns."""
        if machine.core is not None:
            machine.crash()
        self._cluster.gone.add(machine.name)
        machine.disk = type(machine.disk)()

    # --- the faults -------------------------------------------------------------------------------

    def slow_disk(self) -> str:
        machine = self._any()
        machine.disk_delay_s = self._rng.choice([None, (0.0, 0.5), (0.2, 2.0)])
        return f"{machine.name} {machine.disk_delay_s or 'as usual'}"

    def wipe(self) -> str | None:
        """Lose a disk permanently, while everybody else has everything: one voter at a time."""
        cluster, leader = self._cluster, self._leader()
        if leader is None or not self._is_whole(leader):
            return None
        wiped = cluster.nodes[self._rng.choice(leader.running.status().configuration.voters)]
        self._lose(wiped)
        cluster.timeline.reach("a voter lost its disk")
        return wiped.name

    def hang_disk(self) -> str | None:
        """A cloud volume says nothing for 10 to 60 s: neither that it is done nor that it failed.

        When it is the leader's, and all others are well, one of them leads soon.
        """
        seconds = self._rng.uniform(10.0, 60.0)
        if self._rng.random() < 0.5:
            machine = self._any()
            machine.hang_disk(seconds)
            return f"{machine.name} for {seconds:.0f} s"
        with self._cluster.calm():
            self._cluster.run(CATCH_UP_S)
            leader = self._leader()
            if leader is None:
                return None
            well = self._others_are_well(leader)
            leader.hang_disk(seconds)
            if well:
                self._demand_another_leader(leader)
                self._cluster.timeline.reach("a leader's disk hung, and another one led in time")
        return f"{leader.name}, who leads, for {seconds:.0f} s"

    def _others_are_well(self, leader: Machine) -> bool:
        """Whether they could go on without it, and nothing else is in their way."""
        cluster, status = self._cluster, leader.running.status()
        others = [cluster.nodes[n] for n in status.configuration.members if n != leader.name]
        return (
            not cluster.blocked
            and all(m.idle() and m.disk_delay_s is None and not m.hangs() for m in others)
            and all(m.applied_index == status.last_index for m in others)
            and not status.configuration.outgoing
            and len(status.configuration.voters) >= 3
        )

    def _demand_another_leader(self, hung: Machine) -> None:
        """Whoever asks the leader, gets an answer: it has committed and applied what it took."""
        cluster, wanted = self._cluster, self._next()
        end = cluster.now + LED_AGAIN_WITHIN_S
        while True:
            leader = self._leader()
            if leader is not None and leader is not hung and not leader.hangs():
                if wanted in leader.applied:
                    return
                cluster.propose(leader, wanted)
            elif leader is not None:
                cluster.propose(leader, self._next())
            assert cluster.now < end, f"{hung.name}'s disk hangs, and nobody else leads"
            cluster.run(0.1)

    def restore_old_disk(self) -> str | None:
        """A voter comes back with the data directory of earlier: a restored backup.

        Its leader and itself see it at once; it ends, and comes back as a new node one day.
        """
        cluster = self._cluster
        with cluster.calm():
            cluster.run(CATCH_UP_S)
        leader = self._leader()
        if leader is None or not self._is_whole(leader):
            return None
        followers = [n for n in leader.running.status().configuration.voters if n != leader.name]
        machine = cluster.nodes[self._rng.choice(followers)]
        copied = machine.copied_disk
        if copied is None or copied.last_index() >= leader.matches().get(machine.name, 0):
            for other in cluster.nodes.values():
                other.copied_disk = copy.deepcopy(other.disk)
            return "later: all disks are copied now"
        with cluster.calm():
            machine.crash()
            cluster.run(self._rng.uniform(0.3, 2.0))
            if self._leader() is not leader:
                return None
            machine.disk = copied
            machine.copied_disk = None
            machine.forgets = True
            machine.start()
            self._demand_recognition(machine, leader)
        return machine.name

    def _demand_recognition(self, machine: Machine, leader: Machine) -> None:
        cluster, end = self._cluster, self._cluster.now + RECOGNISED_WITHIN_S
        term = leader.running.status().term
        while not (machine.outdated and machine.name in leader.forgetful):
            if leader.core is None or leader.running.status().role is not Role.LEADER:
                break
            if leader.running.status().term != term:
                break
            assert cluster.now < end, f"{machine.name} forgot what it had, and nobody says so"
            cluster.run(0.05)
        else:
            cluster.timeline.reach("an old data directory was recognised")
        self._lose(machine)
