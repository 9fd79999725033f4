"""An entry is encoded once in the whole cluster, by its leader, and all logs hold those bytes."""

import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import trio

from noti.raft.core.messages import Entry, PeerMessage
from noti.raft.core.records import scan_records
from noti.raft.storage.segments import read_segment, segment_sequence
from noti.rpc.codec import decode_messages, encode_messages
from tests.simulation.deterministic import run_deterministically
from tests.simulation.machine import SimulatedNode
from tests.simulation.world import SimulatedCluster

ENTRY_FIELDS = "<BQQB"
"""Type, index, term and kind: whoever encodes an entry packs them."""
EVENTS = 100


def through_the_codec(messages: Sequence[PeerMessage]) -> Sequence[PeerMessage]:
    return [message for frame in encode_messages(messages) for message in decode_messages(frame)]


@contextmanager
def counted_encodings() -> Iterator[list[str]]:
    """Note where entries are encoded, whatever function does so."""
    found: list[str] = []

    def watch(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in ("pack", "pack_into"):
            packer = called.__self__
            if isinstance(packer, struct.Struct) and packer.format == ENTRY_FIELDS:
                found.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(before)


def records_of(machine: SimulatedNode, after: int) -> list[bytes]:
    """Return the records of the entries in a machine's log file."""
    return [
        entry.record
        for name, data in sorted(machine.disk.files.items())
        if (sequence := segment_sequence(name)) is not None
        for frame in read_segment(sequence, bytes(data)).frames
        for _, entry in scan_records(frame.records)
        if isinstance(entry, Entry) and entry.index > after
    ]


def test_cluster_of_three_encodes_each_entry_once() -> None:
    async def main() -> tuple[int, list[str], list[list[bytes]]]:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1)
            cluster.hub.wire = through_the_codec
            await cluster.start()
            leader = await cluster.wait_leader()
            await cluster.wait_for(lambda: sum(c.clients for c in cluster.clients) == 4)
            before = leader.consensus().last_index
            with counted_encodings() as encodings:
                for _ in range(EVENTS):
                    cluster.publish()
                    await trio.sleep(0.05)
                await cluster.wait_everything_seen()
            entries = leader.consensus().last_index - before
            logs = [records_of(machine, before) for machine in cluster.nodes]
            nursery.cancel_scope.cancel()
        return entries, encodings, logs

    entries, encodings, logs = run_deterministically(1, main)
    assert entries >= EVENTS // 2, "they were not all proposed together"
    assert encodings == ["new_entry"] * entries
    assert [len(log) for log in logs] == [entries] * 3
    assert logs[0] == logs[1] == logs[2]
