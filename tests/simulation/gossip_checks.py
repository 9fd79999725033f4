"""What must hold in every moment of a simulated gossip cluster, and what once it is at peace.

Enters: a world. Leaves: an `AssertionError` that says what does not hold.
Never: a look into a member's private parts, but for counting what it remembers.
"""

import gc
import math
import random
from types import FunctionType, ModuleType

from noti.swim.core.events import MemberChanged
from noti.swim.core.messages import Member, MemberState
from noti.swim.core.suspicion import suspicion_min_s
from noti.swim.core.timing import SwimConfig
from tests.simulation.gossip_world import GossipMachine, GossipWorld

LOSS_SOUND_MAX = 0.3
"""Up to this share of lost packets nobody may be taken for dead who is not: streams lose none, and
a suspect is pinged again and again."""

LOSS_FORGED_MAX = 0.0
"""The same while strangers say that members left or moved, which is verified by two pings."""

FORGED_S = 5.0
"""So long a forgery counts at most, before it is verified."""

INCARNATION_SOUND_MAX = 2**32 - 2**20
"""Nobody could object for long to what is said next."""

PACKETS_PER_S_MAX = 100
"""That a member sends by itself in one second: three at each gossip interval and as much again for
probes of its own and of others …"""

PACKETS_PER_MEMBER = 3
"""… for each other member, which may all be suspects at once …"""

PACKETS_PER_RECEIVED = 3
"""… and for each packet that came: its answer, a refutation, a ping to verify it."""

NEWCOMER_PINGS = 4
"""… and for each newcomer in a state that came, until it is given up."""

IDLE_PACKETS_PER_S_MAX = 6.0
"""Of a member at peace: its ping, an answer, in the mean nothing else; the rest is for chance."""

ITEMS_MAX = 60_000
"""Objects that a member may hold, whatever is forged: some hundred for each that it remembers."""


def grace_s(config: SwimConfig) -> float:
    """Return how long after a disturbance a member may still be taken for dead because of it."""
    return 3 * config.probe_interval_s


def detection_s(config: SwimConfig, members: int) -> float:
    """Return within which time all notice a crash, once it is quiet.

    Some rounds until someone probes it, the longest suspicion, and the time in which all hear that.
    """
    shortest_s = suspicion_min_s(config.suspicion_multiplier, members, config.probe_interval_s)
    longest_s = shortest_s * config.suspicion_max_multiplier
    rounds = 2 * min(members, 12)
    return 1.2 * (rounds * config.probe_interval_s + longest_s) + 10 * config.gossip_interval_s


def recovery_s(config: SwimConfig, members: int) -> float:
    """Return within which time all agree again, whatever was before: some pauses between dials."""
    exchange_s = config.push_pull_interval_s * (1 + max(0.0, math.ceil(math.log2(members / 32))))
    return 4 * config.reconnect_interval_s + 2 * exchange_s + detection_s(config, members)


class GossipChecks:
    """Watches a world."""

    def __init__(self, world: GossipWorld, *, strangers_are_heard: bool = True) -> None:
        self._world = world
        self._strangers_are_heard = strangers_are_heard
        self._counted_until = 0
        self._loss_was_high_at = -math.inf
        self.forged_at = -math.inf
        """When somebody forged something last."""
        self._found: set[tuple[str, int, str]] = set()
        """Who, since its start, has seen whom at its address."""
        world.changed = self._on_change

    def _on_change(self, viewer: GossipMachine, change: MemberChanged) -> None:
        member = change.member
        subject = self._world.machines.get(member.name)
        if subject is None:
            invented = f"{viewer.name} hears of {member.name} from a stranger without the key"
            assert self._strangers_are_heard, invented
            return
        believed = (viewer.name, viewer.boots, subject.ip)
        if believed not in self._found:
            # Whoever tells a node of a member first may be a liar; this is set right later.
            if member.state is MemberState.ALIVE and member.address == subject.address:
                self._found.add(believed)
            return
        if not self._must_see(viewer, subject):
            return
        if change.previous in (MemberState.DEAD, MemberState.LEFT) or change.forgotten:
            return  # since before
        assert member.state not in (MemberState.DEAD, MemberState.LEFT), (
            f"{viewer.name} takes {member.name} for {member.state.name.lower()}, and it is well"
        )
        assert member.address == subject.address, f"{viewer.name} sees {member.name} elsewhere"
        assert member.tags.get("id", "") in ("", subject.tags["id"]), (
            f"{viewer.name} takes another's identity for that of {member.name}"
        )

    def _must_see(self, viewer: GossipMachine, subject: GossipMachine) -> bool:
        """Whether nothing could excuse that one takes the other for dead."""
        if not (viewer.is_sound and subject.is_sound):
            return False
        self.note_loss()
        quiet_since = max(
            viewer.disturbed_at,
            subject.disturbed_at,
            self._world.connected_since(viewer, subject),
            self._loss_was_high_at,
        )
        return self._world.now - quiet_since > grace_s(self._world.config)

    def note_forged_state(self, to: GossipMachine) -> None:
        """Hear that somebody got a state full of members that were never there."""
        self.forged_at = self._world.now
        pings = NEWCOMER_PINGS * self._world.config.unacked_max
        for second in range(3):
            to.received[int(self._world.now) + second] += pings // PACKETS_PER_RECEIVED

    def note_loss(self) -> None:
        """Hear that the share of lost packets is about to change."""
        forged = self._world.now - self.forged_at < FORGED_S
        if self._world.loss > (LOSS_FORGED_MAX if forged else LOSS_SOUND_MAX):
            self._loss_was_high_at = self._world.now

    def check_packets(self) -> None:
        """No storm: what a member sends is bounded by what it knows and by what it receives."""
        second = int(self._world.now)
        for machine in self._world.machines.values():
            for past in range(max(self._counted_until, second - 60), second):
                own = PACKETS_PER_S_MAX + PACKETS_PER_MEMBER * len(self._world.machines)
                limit = own + PACKETS_PER_RECEIVED * machine.received[past]
                assert machine.sent[past] <= limit, (
                    f"{machine.name} sent {machine.sent[past]} packets in one second, "
                    f"and received {machine.received[past]}"
                )
        self._counted_until = second

    def check_members(self) -> None:
        """No list of members is longer than it may be."""
        for machine in self._world.machines.values():
            count = len(machine.members())
            assert count <= self._world.config.members_max, f"{machine.name} has {count} members"

    def check_memory(self, machine: GossipMachine) -> None:
        """What a member remembers is bounded."""
        if machine.core is not None:
            items = count_items(machine.core)
            assert items <= ITEMS_MAX, f"{machine.name} holds {items} objects"

    def check_idle(self, duration_s: float) -> None:
        """Let time pass; in peace hardly anything is sent."""
        running = [machine for machine in self._world.machines.values() if machine.is_sound]
        before = self._world.packets
        self._world.run(duration_s)
        rate = (self._world.packets - before) / len(running) / duration_s
        assert rate <= IDLE_PACKETS_PER_S_MAX, f"{rate:.1f} packets a second of an idle member"

    def why_not_settled(self) -> str | None:
        """Return where a belief differs from the truth, or None."""
        machines = self._world.machines
        views = {name: each.members() for name, each in machines.items() if each.is_sound}
        truths = {name: view[name] for name, view in views.items()}
        for viewer, view in views.items():
            for subject in machines.values():
                wrong = _why_wrong(subject, truths.get(subject.name), view.get(subject.name))
                if wrong is not None:
                    return f"{viewer} sees {subject.name} {wrong}"
            for name, member in view.items():
                if name not in machines and member.state is MemberState.ALIVE:
                    return f"{viewer} believes in {name}, which was never there"
        return None


def _why_wrong(subject: GossipMachine, truth: Member | None, member: Member | None) -> str | None:
    """Return in what a belief about a machine is wrong; the truth is what it says of itself."""
    if truth is None:
        present = member is not None and member.state in (MemberState.ALIVE, MemberState.SUSPECT)
        return "there, and it is not" if present else None
    if member is None or member.state is not MemberState.ALIVE:
        return "not alive, and it is" if member is None else member.state.name.lower()
    if member.address != truth.address:
        return f"at {member.address}"
    if member.tags != subject.tags:
        return f"with the tags {member.tags}"
    if member.incarnation != truth.incarnation:
        return f"with incarnation {member.incarnation} and not {truth.incarnation}"
    if truth.incarnation > INCARNATION_SOUND_MAX:
        return f"with incarnation {truth.incarnation}, and so will nothing be believed any more"
    return None


def count_items(root: object) -> int:
    """Return how many objects an object holds, directly or not."""
    seen = {id(root)}
    waiting = [root]
    while waiting:
        found, waiting = gc.get_referents(*waiting), []
        for each in found:
            shared = isinstance(each, type | ModuleType | FunctionType | random.Random)
            if not shared and id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)
    return len(seen)
