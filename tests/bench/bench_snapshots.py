"""How much commits notice of snapshots of a full history, and how long a restart with one takes.

One voter with a real log on disk and a full history, in this process: a commit at random moments,
with the node idle, and while a snapshot is taken and written, in turn. Beside it a task looks how
long the loop stands still. Then the log is opened again, as at a start.
"""

import argparse
import random
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from prometheus_client import REGISTRY

from noti.history.commands import Publish, SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.history.notification import Event, Notification
from noti.history.state_machine import HistoryStateMachine
from noti.history.store import Store, StoreDecoder, decode_store
from noti.raft.core.config import RaftConfig
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId, PeerMessage
from noti.raft.replica import Replica
from noti.raft.storage.disk import open_disk
from noti.raft.storage.wal import Wal
from noti.trio_clock import TrioClock
from tests.bench.report import Arguments, Report, quantile, tell

RATE = 100
"""Commits a second."""
BATCH = 200
"""Events in one command, while history is filled."""
LOOK_S = 0.001
NODE = "n1"


class Nobody:
    """Who neither shows nor hears anything: an audience and a messenger."""

    def publish(self, notifications: Sequence[Notification]) -> None:
        """See `HistoryObserver`."""

    def disconnect(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        subscriber: str | None = None,
    ) -> int:
        return 0

    def trim(self, oldest_seq: int, gone: Sequence[int]) -> None:
        """See `HistoryObserver`."""

    def reset(self, notifications: Sequence[Notification], oldest_seq: int) -> None:
        """See `HistoryObserver`."""

    def send(self, to: NodeId, message: PeerMessage) -> bool:
        """See `Messenger`."""
        return False

    def flush(self) -> None:
        """See `Messenger`."""

    def connected(self) -> frozenset[NodeId]:
        """See `Messenger`."""
        return frozenset()


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--events", type=int, default=100_000, help="that history holds")
    arguments.add_argument("--bytes", type=int, default=500, help="of data in each")
    arguments.add_argument("--seconds", type=float, default=6, help="for each turn")
    arguments.add_argument("--rounds", type=int, default=4, help="of both turns")
    arguments.add_argument("--directory", type=Path, help="where to write (default: /tmp)")
    options = arguments.options(argv)
    report = Report(f"history of {options.events:,} events of {options.bytes} B", options.json)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        trio.run(_measure, Path(directory), options, report)
        trio.run(_measure_start, Path(directory), report)
    report.finish()


@asynccontextmanager
async def _node(directory: Path) -> AsyncIterator[tuple[Replica, Store]]:
    """Run a cluster of one from what is in the directory."""
    async with open_disk(directory) as disk:
        wal, recovered = await Wal.open(disk)
        store = Store()
        if recovered.snapshot is not None:
            store.restore(decode_store(recovered.snapshot.pieces))
        clock = TrioClock()
        core = Raft(
            RaftConfig(NODE),
            recovered.hard_state,
            snapshot=recovered.snapshot,
            entries=recovered.tail,
            rng=random.Random(1),
            now=clock.now(),
            state_decoder=StoreDecoder,
        )
        size = recovered.snapshot.size_bytes if recovered.snapshot else 0
        state = HistoryStateMachine(store, Nobody())
        replica = Replica(core, wal, state, clock, snapshot_bytes=size)
        replica.bootstrap(Configuration("c", (NODE,)))
        async with trio.open_nursery() as nursery:
            await nursery.start(replica.run, Nobody())
            while not replica.is_ready_leader():
                await replica.wait_leadership_changed()
            yield replica, store
            nursery.cancel_scope.cancel()


async def _measure(directory: Path, options: argparse.Namespace, report: Report) -> None:
    async with _node(directory) as (replica, store):
        limits = HistoryLimits(count=options.events)
        await replica.propose(encode(SetLimits(limits)))
        await _fill(replica, options.events, options.bytes)
        tell(f"history holds {len(store.history()):,} events")
        idle: list[float] = []
        beside: list[float] = []
        still = stall = 0.0
        before = _pieces()
        for _ in range(options.rounds):  # in turn, so that what else the machine does hits both
            still = max(still, await _probe(replica, options.seconds, idle))
            replica._snapshots.count(2**40)
            stall = max(stall, await _probe(replica, options.seconds, beside))
        tell(f"{_pieces() - before:.0f} pieces of snapshots were encoded meanwhile")
    for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0)):
        values = quantile(beside, share) * 1000, quantile(idle, share) * 1000
        report.add(f"commit beside snapshots, {name}", values[0], "ms", "idle", values[1])
    report.add("loop stood still, longest", stall * 1000, "ms", "idle", still * 1000)


async def _fill(replica: Replica, events: int, size: int) -> None:
    data = "x" * size
    for first in range(0, events, BATCH):
        batch = tuple(
            Event(0, f"id-{number}", (f"topic/{number % 1000}",), data, 1)
            for number in range(first, min(first + BATCH, events))
        )
        await replica.propose(encode(Publish(batch)))


async def _probe(replica: Replica, seconds: float, durations: list[float]) -> float:
    """Note how long each commit took; return how long the loop stood still at most."""
    rng = random.Random(2)
    stalls: list[float] = []

    async def look() -> None:
        while True:
            due = time.perf_counter() + LOOK_S
            await trio.sleep(LOOK_S)
            stalls.append(time.perf_counter() - due)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        ends = time.perf_counter() + seconds
        while time.perf_counter() < ends:
            begun = time.perf_counter()
            event = Event(0, f"probe-{begun}", ("probe",), "x" * 200, 1)
            await replica.propose(encode(Publish((event,))))
            durations.append(time.perf_counter() - begun)
            # At random moments, so that no probe follows the beat of what else goes on.
            await trio.sleep(rng.expovariate(RATE))
        nursery.cancel_scope.cancel()
    return max(stalls)


def _pieces() -> float:
    return REGISTRY.get_sample_value("noti_raft_snapshot_piece_seconds_count") or 0.0


async def _measure_start(directory: Path, report: Report) -> None:
    begun, used = time.perf_counter(), time.process_time()
    async with _node(directory) as (_, store):
        took, used = time.perf_counter() - begun, time.process_time() - used
        report.add(f"start with {len(store.history()):,} events", took, "s")
        report.add("the processor's part of it", used, "s")


if __name__ == "__main__":
    main()
