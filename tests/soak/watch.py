"""Looks at the nodes once a second: memory, open files, and whom they closed for being slow.

No counter goes back when a node starts again.
"""

import os
import time
from dataclasses import dataclass, field

import h11
import trio

from noti.address import Address
from noti.errors import LocalError
from tests.bench.load.processes import resident_bytes
from tests.http.stage import client
from tests.soak.cluster import SoakNode

EVERY_S = 1.0
ANSWER_S_MAX = 2.0
CLOSED = 'noti_streams_clients_closed_total{reason="'
NOT_SLOW = {"disconnected", "aged", "shed", "drained"}
"""Reasons that have nothing to do with how fast a client reads; all others do."""


@dataclass(frozen=True)
class Sample:
    """One look at one node."""

    at: float
    node: str
    memory_bytes: int
    files: int


@dataclass
class Watch:
    """All samples of a run."""

    samples: list[Sample] = field(default_factory=list)
    closed: dict[str, int] = field(default_factory=dict)
    """Streams that nodes closed, by reason, over all their lives."""

    async def run(self, nodes: list[SoakNode]) -> None:
        """Look until cancelled."""
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(self._watch, node)

    async def _watch(self, node: SoakNode) -> None:
        before: dict[str, int] = {}
        pid = 0
        while True:
            if pid != node.process.pid:
                pid, before = node.process.pid, {}
            self._measure(node)
            counted = await closed_counts(node.ops)
            for reason, count in counted.items():
                self.closed[reason] = self.closed.get(reason, 0) + count - before.get(reason, 0)
            before = counted or before
            await trio.sleep(EVERY_S)

    def _measure(self, node: SoakNode) -> None:
        family = node.family()
        try:
            memory = resident_bytes(family)
            files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in family)  # noqa: PTH208
        except (LocalError, FileNotFoundError):
            return  # it ends right now
        if family:
            self.samples.append(Sample(time.monotonic(), node.name, memory, files))


async def closed_counts(address: Address) -> dict[str, int]:
    """Return a node's counters of closed streams by reason; none when it does not answer."""
    with trio.move_on_after(ANSWER_S_MAX):
        try:
            async with client(address) as http:
                await http.request("/metrics")
                return parsed(await http.read_all())
        except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError):
            return {}
    return {}


def parsed(metrics: str) -> dict[str, int]:
    """Return the counters of closed streams in what a node tells Prometheus."""
    lines = [line for line in metrics.splitlines() if line.startswith(CLOSED)]
    return {
        line.removeprefix(CLOSED).partition('"')[0]: int(float(line.rpartition(" ")[2]))
        for line in lines
    }
