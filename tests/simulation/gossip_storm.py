"""What goes wrong in a simulated gossip cluster: a swarm drawn from a seed, and its storm.

Enters: a seed's generator, a world. Leaves: a world after some faults, none of them repaired.
Never: a check; those are in `gossip_checks.py`.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from noti.swim.core.events import StateReceived
from noti.swim.core.messages import Address
from noti.swim.core.packets import encode, encode_packet
from noti.swim.core.timing import SwimConfig
from tests.simulation.faults import choose, draw_weights
from tests.simulation.forgeries import STRANGER, Forgeries, real_ones
from tests.simulation.gossip_checks import GossipChecks
from tests.simulation.gossip_world import PORT, GossipMachine, GossipWorld, sealing_under

GOSSIP_FAULTS = (
    "crash",
    "restart",
    "leave",
    "move",
    "roll",
    "freeze",
    "thaw",
    "split",
    "isolate",
    "cut_pair",
    "cut_one_way",
    "block_udp",
    "mend",
    "lose_packets",
    "delay_packets",
    "duplicate_packets",
    "change_tags",
    "step_calendar",
    "forge",
    "flood",
    "forge_state",
    "replay",
)
"""Methods of `GossipStorm`."""

CALENDARS_AHEAD_S = (-1_700_000_000, -86_400 * 365, -3600, -5, 0, 0, 3600, 86_400 * 365 * 3)
"""How wrong calendars are: before the network has set it, a machine may believe it is 1970."""

CLOCKS_APART_S_MAX = 5
"""How wrong they are at most where strangers are heard: all agree again within twice that."""


@dataclass(frozen=True)
class GossipSwarm:
    """One seed's parameters."""

    size: int
    local: bool
    steps: int
    weights: dict[str, float]
    loss: float
    latency_s: tuple[float, float]
    clock_spread: float
    pause_max_s: float
    """Between two steps."""
    keyed: bool
    """Whether the cluster has a key …"""
    strangers_know_it: bool
    """… and so has whoever lies to it."""

    @classmethod
    def draw(cls, rng: random.Random) -> "GossipSwarm":
        size = rng.choice([3, 3, 3, 4, 5, 5, 7, 9, 9, 15, rng.randint(10, 40)])
        if rng.random() < 0.03:
            size = rng.randint(60, 100)
        return cls(
            size=size,
            local=rng.random() < 0.5,
            steps=rng.randint(10, 40) if size < 20 else rng.randint(4, 10),
            weights=draw_weights(rng, GOSSIP_FAULTS),
            loss=rng.choice([0.0, 0.0, 0.02, 0.1, 0.3]),
            latency_s=rng.choice([(0.0002, 0.002), (0.0002, 0.002), (0.001, 0.05)]),
            clock_spread=rng.choice([0.0, 0.001, 0.05]),
            pause_max_s=rng.choice([0.5, 3.0, 15.0]),
            keyed=rng.random() < 0.4,
            strangers_know_it=rng.random() < 0.5,
        )

    @property
    def strangers_are_heard(self) -> bool:
        return self.strangers_know_it or not self.keyed

    @property
    def config(self) -> SwimConfig:
        config = SwimConfig.local() if self.local else SwimConfig()
        return replace(config, members_max=128)


class GossipStorm:
    """Carries out what the swarm draws."""

    def __init__(
        self, world: GossipWorld, swarm: GossipSwarm, checks: GossipChecks, rng: random.Random
    ) -> None:
        self._world = world
        self._swarm = swarm
        self._checks = checks
        self._rng = rng
        self._forgeries = Forgeries(rng, list(world.machines))
        self._moves = 0
        self._strangers_sealing = world.sealing
        if not swarm.strangers_are_heard:
            guessed = rng.choice([None, rng.randbytes(32)])
            self._strangers_sealing = sealing_under(guessed, world.seed + 1)

    def blow(self) -> None:
        """Do all steps."""
        for _ in range(self._swarm.steps):
            kind = choose(self._rng, self._swarm.weights)
            action: Callable[[], str | None] = getattr(self, kind)
            done = action()
            if done is not None:
                self._world.timeline.note("storm", f"{kind} {done}")
                self._world.timeline.reach(kind)
            self._world.run(self._rng.uniform(0.0, self._swarm.pause_max_s))
            self._checks.check_packets()
            self._checks.check_members()
        self._checks.check_memory(self._any())

    def repair(self) -> None:
        """Mend all, and start whoever is down."""
        self._world.timeline.note("storm", "over: everything is repaired")
        self.mend()
        self.thaw()
        self._checks.note_loss()
        self._world.loss, self._world.duplicates = min(self._swarm.loss, 0.1), 0.0
        self._world.latency_s = self._swarm.latency_s
        self.restart()

    # Parts

    def _any(self) -> GossipMachine:
        return self._rng.choice(list(self._world.machines.values()))

    def _any_running(self) -> GossipMachine | None:
        sound = [machine for machine in self._world.machines.values() if machine.is_sound]
        return self._rng.choice(sound) if sound else None

    def _pair(self) -> tuple[str, str]:
        one, other = self._rng.sample(list(self._world.machines.values()), 2)
        return one.ip, other.ip

    def _separate(self, one: set[str], other: set[str]) -> None:
        for a in sorted(one):
            for b in sorted(other):
                self._world.cut(a, b)
                self._world.cut(b, a)

    # The faults

    def crash(self) -> str | None:
        machine = self._any()
        if machine.core is None:
            return None
        machine.crash()
        return machine.name

    def restart(self) -> str | None:
        down = [machine for machine in self._world.machines.values() if machine.core is None]
        for machine in down:
            machine.start()
        return ",".join(machine.name for machine in down) or None

    def leave(self) -> str | None:
        machine = self._any_running()
        if machine is None:
            return None
        machine.leave()
        return machine.name

    def move(self) -> str | None:
        """A pod starts again under its name, elsewhere; sometimes before anyone misses it."""
        machine = self._any()
        if machine.address in self._world.seeds:
            return None  # the operator's seeds would have to be changed, too
        if machine.core is not None:
            machine.crash()
        self._moves += 1
        self._world.run(self._rng.choice([1.5, 5.0, 60.0]))
        self._world.move(machine, f"10.1.{self._moves // 250}.{self._moves % 250 + 1}")
        machine.start()
        return f"{machine.name} to {machine.ip}"

    def roll(self) -> str:
        for machine in list(self._world.machines.values()):
            if machine.is_sound:
                if self._rng.random() < 0.5:
                    machine.leave()
                    self._world.run(2 * self._world.config.leave_s)
                if machine.core is not None:
                    machine.crash()
                self._world.run(self._rng.uniform(1.1, 3.0))
                machine.start()
        return "all"

    def freeze(self) -> str | None:
        machine = self._any_running()
        if machine is None:
            return None
        machine.freeze()
        return machine.name

    def thaw(self) -> str | None:
        frozen = [machine for machine in self._world.machines.values() if machine.frozen]
        for machine in frozen:
            machine.thaw()
        return ",".join(machine.name for machine in frozen) or None

    def split(self) -> str:
        ips = [machine.ip for machine in self._world.machines.values()]
        count = self._rng.randint(1, len(ips) - 1)
        one = set(self._rng.sample(ips, count))
        self._separate(one, set(ips) - one)
        return f"{count} from {len(ips) - count}"

    def isolate(self) -> str:
        alone = self._any().ip
        self._separate({alone}, {each.ip for each in self._world.machines.values()} - {alone})
        return alone

    def cut_pair(self) -> str:
        one, other = self._pair()
        self._separate({one}, {other})
        return f"{one} {other}"

    def cut_one_way(self) -> str:
        one, other = self._pair()
        self._world.cut(one, other)
        return f"{one} to {other}"

    def block_udp(self) -> str:
        alone = self._any().ip
        for machine in self._world.machines.values():
            if machine.ip != alone:
                self._world.cut_udp(alone, machine.ip)
        return f"of {alone}"

    def mend(self) -> str | None:
        broken = self._world.is_cut
        self._world.mend()
        return "all links" if broken else None

    def lose_packets(self) -> str:
        self._checks.note_loss()
        self._world.loss = self._rng.choice([0.0, 0.05, 0.3, 0.6])
        return f"{self._world.loss:.0%}"

    def delay_packets(self) -> str:
        self._world.latency_s = self._rng.choice([self._swarm.latency_s, (0.01, 0.08)])
        return str(self._world.latency_s)

    def duplicate_packets(self) -> str:
        self._world.duplicates = self._rng.choice([0.0, 0.1, 0.5])
        return f"{self._world.duplicates:.0%}"

    def change_tags(self) -> str | None:
        machine = self._any_running()
        if machine is None:
            return None
        machine.set_tags(machine.tags | {"version": str(self._rng.randrange(1000))})
        return machine.name

    def step_calendar(self) -> str:
        """It counts when the machine starts the next time."""
        machine = self._any()
        ahead_s = self._rng.choice(CALENDARS_AHEAD_S)
        if self._swarm.strangers_are_heard:
            # They can make a node say as much as its own clock allows, and those whose clocks are
            # behind that do not believe it yet, for as long as the clocks differ.
            ahead_s = max(-CLOCKS_APART_S_MAX, min(ahead_s, CLOCKS_APART_S_MAX))
        machine.wall_ahead_s = ahead_s
        return f"of {machine.name} by {machine.wall_ahead_s} s"

    # What strangers do

    def forge(self) -> str | None:
        return self._forge(self._rng.randint(1, 20), 1.0)

    def flood(self) -> str | None:
        return self._forge(self._rng.randint(100, 600), 0.01)

    def _forge(self, count: int, pause_max_s: float) -> str | None:
        for _ in range(count):
            to, victim = self._any_running(), self._any_running()
            if to is None or victim is None:
                return None
            believed = to.members().get(victim.name, victim.members()[victim.name])
            messages = self._forgeries.messages(believed, self._rng.randint(1, 3))
            source = self._rng.choice([victim.address, (STRANGER, PORT)])
            packet = encode_packet([encode(message) for message in messages])
            self._inject(to, self._strangers_sealing.seal_packet(packet), source)
            self._world.run(self._rng.uniform(0.0, pause_max_s))
        return f"{count} packets"

    def _inject(self, to: GossipMachine, payload: bytes, source: Address) -> None:
        self._checks.forged_at = self._world.now
        self._world.deliver(to, payload, source)

    def forge_state(self) -> str | None:
        to = self._any_running()
        if to is None or not self._swarm.strangers_are_heard:
            return None
        self._checks.note_forged_state(to)
        state = self._forgeries.state(real_ones(list(to.members().values())))
        to.step(StateReceived(state, (STRANGER, PORT)))
        return f"for {to.name}"

    def replay(self) -> str | None:
        """Packets that were seen before come again, anywhere."""
        recorded = list(self._world.recorded)
        if not recorded:
            return None
        count = self._rng.randint(1, 200)
        for payload, source in self._rng.choices(recorded, k=count):
            self._inject(self._any(), payload, source)
            self._world.run(self._rng.uniform(0.0, 0.05))
        return f"{count} packets"


def crash_some(world: GossipWorld, rng: random.Random) -> list[GossipMachine]:
    """Kill up to a third of the machines at one moment, one at least."""
    count = rng.randint(1, max(1, math.floor(len(world.machines) / 3)))
    victims = rng.sample(list(world.machines.values()), count)
    for machine in victims:
        machine.crash()
    return victims
