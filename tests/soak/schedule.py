"""What goes wrong when: episodes of trouble, drawn from a seed, with calm between them.

Enters: a seed and how large and long it may be. Leaves: episodes, the same for the same input.
Never: trouble for more than a minority of the nodes at one time.

Kinds are dealt like cards: each comes once before any comes again, so that a run of two minutes
shows most of them and one of an hour all of them many times.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What happens."""

    KILL = "kill -9"
    PAUSE = "pause"
    HANG_WRITER = "hung disk"
    PARTITION = "partition"
    FULL_DISK = "full disk"
    KILL_WORKER = "kill -9 of a web worker"
    HANG_WORKER = "hung web worker"
    ROLL = "rolling restart"
    NATS = "NATS down"
    BURST_JETSTREAM = "burst through JetStream"
    BURST_RPC = "burst through gRPC"
    BURST_LARGE = "burst of large events through gRPC"


HARMFUL = {Kind.KILL, Kind.PAUSE, Kind.HANG_WRITER, Kind.PARTITION, Kind.FULL_DISK}
"""Kinds that take one node away; a rolling restart takes each, one after the other."""
WORKERS = {Kind.KILL_WORKER, Kind.HANG_WORKER}
"""Kinds that cost some browsers of one node a reconnection; the node itself goes on."""
BURSTS = {Kind.BURST_JETSTREAM, Kind.BURST_RPC, Kind.BURST_LARGE}
LARGE_EVENTS = 500
LARGE_BYTES = 20_000
"""Of a large one. All together fill a segment of the log (8 MiB), so that a full disk is met."""
NEED_NAMESPACES = {Kind.PARTITION, Kind.FULL_DISK}
LATE = {Kind.PAUSE, Kind.HANG_WRITER, Kind.PARTITION}
"""Kinds after which a node may go on with what it was asked for long ago. Events that were
published again elsewhere meanwhile are recognised as long as history holds them: it must be long.
"""

LEADER_SHARE = 0.5
"""Of the harmful faults; a leader's trouble is worth more than one in three."""
BURST_SHARE = 0.3
"""Of the episodes with other trouble that have a burst in them too."""


class Cut(Enum):
    """Which way no packet comes through between a node and all others."""

    BOTH = "both ways"
    OUT = "from it"
    IN = "to it"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    kind: Kind
    leads: bool = False
    """Whether it strikes the node that leads then; otherwise one of the others."""
    pick: float = 0.0
    """Which one of those that qualify, 0 to 1."""
    seconds: float = 0.0
    events: int = 0
    cut: Cut = Cut.BOTH

    def __str__(self) -> str:
        words = [self.kind.value]
        if self.kind in HARMFUL | WORKERS and self.kind is not Kind.FULL_DISK:
            words.append("of the leader" if self.leads else "of another node")
        if self.kind is Kind.PARTITION:
            words.append(self.cut.value)
        if self.seconds:
            words.append(f"for {self.seconds:.1f} s")
        if self.events:
            words.append(f"of {self.events} events")
        return " ".join(words)


@dataclass(frozen=True)
class Episode:
    """Faults that begin together, and the calm after the cluster is whole again."""

    faults: tuple[Fault, ...]
    calm_s: float


@dataclass(frozen=True)
class Size:
    """How hard a run may be."""

    nodes: int
    outage_s_max: float
    rpc_burst: int
    jetstream_burst: int
    calm_s_max: float
    kinds: tuple[Kind, ...]

    @property
    def minority(self) -> int:
        """How many nodes may be harmed at one time."""
        return (self.nodes - 1) // 2


def size_of(
    minutes: float,
    nodes: int,
    *,
    namespaces: bool,
    short_history: bool = False,
) -> Size:
    """Return what fits into a run: in a short one, outages and bursts are short."""
    without = set() if namespaces else NEED_NAMESPACES
    without = without | LATE if short_history else without
    kinds = tuple(kind for kind in Kind if kind not in without)
    if minutes >= 5:
        return Size(nodes, 30.0, 50_000, 2_000, 8.0, kinds)
    return Size(nodes, 6.0, 10_000, 2_000, 2.0, kinds)


def episodes(seed: int, size: Size) -> Iterator[Episode]:
    """Yield episodes for ever."""
    rng = random.Random(seed)
    deck: list[Kind] = []
    while True:
        if not deck:
            deck = list(size.kinds)
            rng.shuffle(deck)
        faults = [_fault(deck.pop(), rng, size)]
        if faults[0].kind in HARMFUL:
            # Of five nodes two may be in trouble, but only one of them leads.
            second = [kind for kind in (Kind.KILL, Kind.PAUSE) if kind in size.kinds]
            more = rng.choices(second, k=rng.randint(0, size.minority - 1))
            faults += [_fault(kind, rng, size, leads=False) for kind in more]
        if faults[0].kind is Kind.FULL_DISK:
            faults.append(_fault(Kind.BURST_LARGE, rng, size))
        elif faults[0].kind not in BURSTS and rng.random() < BURST_SHARE:
            faults.append(_fault(rng.choice(sorted(BURSTS, key=str)), rng, size))
        yield Episode(tuple(faults), rng.uniform(0.5, 1) * size.calm_s_max)


def _fault(kind: Kind, rng: random.Random, size: Size, *, leads: bool | None = None) -> Fault:
    leads = rng.random() < LEADER_SHARE if leads is None else leads
    pick, seconds = rng.random(), rng.uniform(1.0, size.outage_s_max)
    cut = rng.choice(list(Cut))
    match kind:
        case Kind.KILL_WORKER | Kind.HANG_WORKER:
            return Fault(kind, leads, pick)
        case Kind.KILL:
            return Fault(kind, leads, pick, seconds=min(seconds, 5.0))
        case Kind.PAUSE | Kind.HANG_WRITER:
            return Fault(kind, leads, pick, seconds=seconds)
        case Kind.PARTITION:
            return Fault(kind, leads, pick, seconds=seconds, cut=cut)
        case Kind.FULL_DISK:
            return Fault(kind, seconds=seconds)
        case Kind.NATS:
            return Fault(kind, seconds=min(seconds, 5.0))
        case Kind.ROLL:
            return Fault(kind)
        case Kind.BURST_JETSTREAM:
            return Fault(kind, events=size.jetstream_burst)
        case Kind.BURST_RPC:
            return Fault(kind, events=size.rpc_burst)
        case Kind.BURST_LARGE:
            return Fault(kind, events=LARGE_EVENTS)
