"""What goes wrong in a run: a swarm, in which each seed draws its own kinds and strengths.

Enters: a seed's generator. Leaves: which faults, how often, how strong.
Never: a fault that no majority could survive; each layer sees to that where it carries them out.

Drawing the weights anew for each seed, and many of them as zero, reaches states that a uniform mix
never does: a thousand snapshots without a crash, or nothing but crashes (swarm testing, Groce and
others 2012).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.memory_stream import Retention

CORE_FAULTS = (
    "crash",
    "restart",
    "isolate",
    "depose",
    "cut_one_way",
    "cut_pair",
    "mend",
    "lose_messages",
    "delay_messages",
    "reset_stream",
    "transfer",
    "freeze",
    "thaw",
    "slow_disk",
    "hang_disk",
    "restore_old_disk",
    "roll",
    "grow",
    "promote",
    "shrink",
    "replace",
    "wipe",
)
"""What the core layer can do; methods of `core_storm.Storm`."""

NODE_FAULTS = (
    "crash",
    "crash_at_disk_operation",
    "crash_at_await",
    "crash_everybody",
    "move_everybody",
    "restart",
    "fail_disk",
    "fill_disk",
    "slow_disk",
    "hang_disk",
    "restore_old_disk",
    "isolate",
    "cut_one_way",
    "cut_pair",
    "mend",
    "lose_packets",
    "delay_messages",
    "reset_stream",
    "freeze",
    "thaw",
    "ask_a_zombie",
    "step_wall_clock",
    "roll",
    "stop",
    "break_a_part",
    "move",
    "wipe",
    "flip_bit",
    "stray_write",
    "refuse_to_read",
    "grow",
    "stop_source",
    "cut_source",
    "redeliver",
    "recreate_stream",
    "lose_acks",
    "publish_garbage",
    "break_library",
    "flap_while_the_source_opens",
)
"""What the node layer can do; methods of the `Faults` in process_faults.py and its neighbours."""

SOURCE_FAULTS = ("refuse_messages", "hold_acks", "expire_messages")
"""What it can do beside these. Drawn by themselves, so that the stories of seeds stay."""

FOUNDING_FAULTS = (
    "crash",
    "crash_at_disk_operation",
    "crash_at_await",
    "restart",
    "fail_disk",
    "fill_disk",
    "slow_disk",
    "isolate",
    "cut_one_way",
    "cut_pair",
    "mend",
    "lose_packets",
    "delay_messages",
    "reset_stream",
    "freeze",
    "thaw",
    "step_wall_clock",
    "stop",
    "move",
)
"""What a cluster survives that is only being founded. Not the loss of a disk: nobody would know
that there had been a promise on it."""

SELDOM_POSSIBLE = {
    "flip_bit": 5.0,
    "stray_write": 8.0,
    "refuse_to_read": 4.0,
    "wipe": 3.0,
    "restore_old_disk": 4.0,
    "hang_disk": 2.0,
    "fail_disk": 2.0,
    "ask_a_zombie": 3.0,
    "cut_one_way": 4.0,
    "lose_acks": 4.0,
    "break_library": 4.0,
    "refuse_messages": 4.0,
    "hold_acks": 6.0,
    "expire_messages": 8.0,
    "stop": 4.0,
    "replace": 2.0,
    "promote": 2.0,
}
"""More weight for what needs a whole cluster, or to meet something else by chance."""

RETENTIONS: tuple[Retention, ...] = ("workqueue", "interest", "limits")

LOADS = ("overload_all", "overload_one", "lie")
"""Functions of load.py."""

ALWAYS = {"restart": 2.0, "mend": 1.5, "thaw": 1.0}
"""Repairs are never drawn as zero: a cluster that stays broken reaches nothing rare."""


def draw_weights(rng: random.Random, kinds: Sequence[str]) -> dict[str, float]:
    """Return how likely each kind is; about half of them are left out."""
    weights = {kind: rng.choice([0.0, 0.3, 1.0, 3.0]) * rng.random() for kind in kinds}
    for kind in kinds:
        if rng.random() < 0.3:
            weights[kind] = 0.0
        weights[kind] *= SELDOM_POSSIBLE.get(kind, 1.0)
        weights[kind] = max(weights[kind], ALWAYS.get(kind, 0.0))
    return weights


def choose(rng: random.Random, weights: dict[str, float]) -> str:
    """Return one kind."""
    return rng.choices(list(weights), list(weights.values()))[0]


def draw_rate(rng: random.Random, spread: float) -> float:
    """Return how fast a clock runs."""
    return rng.uniform(1 - spread, 1 + spread)


@dataclass(frozen=True)
class CoreSwarm:
    """One seed's parameters for the core layer."""

    size: int
    steps: int
    weights: dict[str, float]
    snapshot_every: int
    keep_entries: int
    log_memory_bytes: int
    stale_reads: float
    """How likely a read from disk yields the older of two entries that were written there."""
    chunk_bytes: int
    append_bytes_max: int
    in_flight_max: int
    uncommitted_bytes_max: int
    disk_delay_s: tuple[float, float]
    delay_s: tuple[float, float]
    duplicates: float
    stragglers: float
    """How likely a message leaves the order of its stream."""
    late_s: float
    """A duplicate, or a straggler, arrives up to so much after it was sent."""
    clock_spread: float
    proposals_max: int
    """Per step."""
    pause_max_s: float
    """Between two steps."""

    @classmethod
    def draw(cls, rng: random.Random) -> "CoreSwarm":
        return cls(
            size=rng.choice([1, 2, 3, 3, 3, 3, 4, 5, 5]),
            steps=rng.randint(20, 80),
            weights=draw_weights(rng, CORE_FAULTS),
            snapshot_every=rng.choice([0, 3, 7, 20]),
            keep_entries=rng.choice([0, 3, 1000]),
            chunk_bytes=rng.choice([7, 64, 512 * 1024]),
            append_bytes_max=rng.choice([8, 64, 1024 * 1024]),
            in_flight_max=rng.choice([1, 4, 64]),
            uncommitted_bytes_max=rng.choice([24, 64 * 1024 * 1024, 64 * 1024 * 1024]),
            disk_delay_s=rng.choice([(0.0005, 0.002), (0.001, 0.1), (0.0, 0.4)]),
            delay_s=rng.choice([(0.001, 0.005), (0.001, 0.08), (0.03, 0.2)]),
            duplicates=rng.choice([0.0, 0.0, 0.05, 0.5]),
            stragglers=rng.choice([0.0, 0.0, 0.02, 0.2]),
            late_s=rng.choice([0.01, 0.3, 3.0]),
            clock_spread=rng.choice([0.0, 0.02, 0.1]),
            proposals_max=rng.choice([1, 3, 12]),
            pause_max_s=rng.choice([0.05, 0.4, 1.5]),
            log_memory_bytes=rng.choice([0, 300, 1500, 32 * 1024 * 1024]),
            stale_reads=rng.choice([0.0, 0.0, 0.1, 0.5]),
        )


def draw_history_sizes(rng: random.Random) -> tuple[int, ...]:
    """Return one size for all machines, or as many as there are at most."""
    sizes = [5, 30, 200, 2000, 2000]
    return tuple(rng.choice(sizes) for _ in range(rng.choice([1, 1, 5])))


@dataclass(frozen=True)
class NodeSwarm:
    """One seed's parameters for the node layer."""

    size: int
    founding_steps: int
    """Faults while the machines start for the first time; 0: they start in peace."""
    steps: int
    weights: dict[str, float]
    history_sizes: tuple[int, ...]
    """Of the machines in turn."""
    snapshot_every_bytes: int
    keep_entries: int
    keep_bytes: int
    log_memory_bytes: int
    segment_bytes: int
    disk_latency_s: tuple[float, float]
    rpc_latency_s: tuple[float, float]
    packet_loss: float
    clock_spread: float
    publishes_max: int
    """Per step."""
    pause_max_s: float
    """Between two steps."""
    browsers: int
    vanish: float
    """How likely a browser goes away after each piece of news."""
    away_max_s: float
    slow_s: float
    """How long a browser takes for each piece of news, at most."""
    hub_sends_bytes_per_s: float
    """What waits for clients that read, beyond that, is what hubs tell the leader of."""
    pacing_s: float
    load: str | None
    """One of `load.LOADS`, for the cluster that was repaired."""
    subscriptions: bool = False
    """Whether all nodes know who is subscribed."""
    token_s: float = 0.0
    """How long browsers' tokens are good for."""
    retention: Retention = "workqueue"
    """Of the source's stream."""
    second_retention: Retention | None = None
    """Of another stream that is read beside it."""
    history_per_topic: int = 0
    """How many events of each topic outlive the rest …"""
    topics_max: int = 10_000
    """… and of how many topics; there are three."""

    @classmethod
    def draw(cls, rng: random.Random) -> "NodeSwarm":
        # Drawn from another generator, as the stories of the other seeds are to stay as they are.
        # The first number of its state is the same for every seed.
        other = random.Random(f"other:{rng.getstate()[1][1]}")
        return cls(
            subscriptions=other.random() < 0.3,
            token_s=other.choice([0.0, 5.0, 30.0]),
            retention=other.choice(RETENTIONS),
            history_per_topic=other.choice([0, 0, 1, 3]),
            topics_max=other.choice([2, 10_000]),
            second_retention=other.choice([None, None, *RETENTIONS]),
            size=rng.choice([1, 3, 3, 3, 3, 5]),
            founding_steps=rng.choice([0, 0, 0, 4, 12]),
            steps=rng.randint(5, 25),
            weights=draw_weights(rng, NODE_FAULTS) | draw_weights(other, SOURCE_FAULTS),
            history_sizes=draw_history_sizes(rng),
            snapshot_every_bytes=rng.choice([1000, 5000, 10_000_000]),
            keep_entries=rng.choice([0, 5, 10_000]),
            segment_bytes=rng.choice([600, 4096, 65_536]),
            disk_latency_s=rng.choice([(0.0002, 0.002), (0.001, 0.03)]),
            rpc_latency_s=rng.choice([(0.0002, 0.002), (0.001, 0.03)]),
            packet_loss=rng.choice([0.0, 0.0, 0.05, 0.2]),
            clock_spread=rng.choice([0.0, 0.02, 0.1]),
            publishes_max=rng.choice([1, 5, 20]),
            pause_max_s=rng.choice([0.3, 1.5, 4.0]),
            browsers=rng.choice([2, 4, 8]),
            vanish=rng.choice([0.0, 0.02, 0.2]),
            away_max_s=rng.choice([1.0, 5.0, 30.0]),
            slow_s=rng.choice([0.0, 0.0, 0.5, 5.0]),
            hub_sends_bytes_per_s=rng.choice([math.inf, math.inf, 100.0, 5_000.0]),
            pacing_s=rng.choice([1.0, 3.0]),
            load=rng.choice([None, None, None, *LOADS]),
            keep_bytes=rng.choice([0, 2000, 64 * 1024 * 1024]),
            log_memory_bytes=rng.choice([0, 0, 2000, 32 * 1024 * 1024]),
        )
