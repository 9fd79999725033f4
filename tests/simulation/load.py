"""More events than hubs can send: what publishers, browsers and the other nodes get of it.

Enters: a cluster that is whole. Leaves: an `AssertionError` when a hub was not spared, or the
others were held back for longer than they may be.
Never: another fault at the same time; the storm before has hubs that cannot follow, too.
"""

import math
import random
from collections.abc import Sequence
from typing import Final

import trio

from tests.simulation.machine import SimulatedNode
from tests.simulation.world import SimulatedCluster

EVENT_BYTES: Final = 40_000
EVENTS_PER_S: Final = 25
"""1 MB/s."""
SLOW_BYTES_PER_S: Final = 200_000.0
READERS: Final = 100
OVERLOADED_S: Final = 5.0
"""Unpaced, twice the bound."""
MEASURED_S: Final = 3.0
SETTLED_S: Final = 2.0
"""After a node is disregarded: what was held passes."""


async def overload_all(cluster: SimulatedCluster, rng: random.Random) -> None:
    """All hubs are too slow: no backlog reaches its bound, and what they can send comes."""
    _set(cluster.nodes, SLOW_BYTES_PER_S)
    before = len(cluster.checks.shown)
    await publish(cluster, rng, OVERLOADED_S)
    shown_bytes = (len(cluster.checks.shown) - before) * EVENT_BYTES
    peaks = {machine.name: machine.clients.sending.peak for machine in cluster.nodes}
    assert max(peaks.values()) < 1.0, f"a backlog reached its bound: {peaks}"
    assert shown_bytes > SLOW_BYTES_PER_S * OVERLOADED_S / 2, f"only {shown_bytes} bytes passed"
    cluster.timeline.reach("all hubs were overloaded together")


async def overload_one(cluster: SimulatedCluster, rng: random.Random) -> None:
    """One hub is slower than the others, which are held back for a bounded time."""
    _set(cluster.nodes, math.inf)
    _set([rng.choice(cluster.nodes)], SLOW_BYTES_PER_S)
    await _not_for_ever(cluster, rng)
    cluster.timeline.reach("one hub was overloaded")


async def lie(cluster: SimulatedCluster, rng: random.Random) -> None:
    """One hub always says that it is full."""
    _set(cluster.nodes, math.inf)
    rng.choice(cluster.nodes).clients.sending.lies = True
    await _not_for_ever(cluster, rng)
    cluster.timeline.reach("one hub lied")


async def _not_for_ever(cluster: SimulatedCluster, rng: random.Random) -> None:
    await publish(cluster, rng, cluster.settings.pacing_s + SETTLED_S)
    before = len(cluster.checks.shown)
    await publish(cluster, rng, MEASURED_S)
    share = (len(cluster.checks.shown) - before) / (EVENTS_PER_S * MEASURED_S)
    assert share > 0.7, f"one node holds back {1 - share:.0%} of all events"


async def publish(cluster: SimulatedCluster, rng: random.Random, seconds: float) -> None:
    """Publish large events to any node, whatever becomes of the ones before."""
    for _ in range(int(seconds * EVENTS_PER_S)):
        machine = rng.choice(cluster.nodes)
        cluster.nursery.start_soon(cluster.publish_to, machine, 1, EVENT_BYTES)
        await trio.sleep(1 / EVENTS_PER_S)


def _set(machines: Sequence[SimulatedNode], bytes_per_s: float) -> None:
    for machine in machines:
        sending = machine.clients.sending
        sending.bytes_per_s, sending.readers = bytes_per_s, READERS
        sending.lies, sending.peak = False, 0.0


async def bear(cluster: SimulatedCluster, name: str, rng: random.Random) -> None:
    """Carry out one load; then everybody can follow again. A node alone holds nobody back."""
    if len(cluster.nodes) < 2:
        name = "overload_all"
    cluster.timeline.note("load", name)
    await globals()[name](cluster, rng)
    for machine in cluster.nodes:
        sending = machine.clients.sending
        sending.bytes_per_s, sending.readers, sending.lies = math.inf, 0, False
