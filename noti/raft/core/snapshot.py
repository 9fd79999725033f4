"""Snapshots in pieces: cut for sending, joined on arrival.

Enters: a snapshot, or the pieces of one. Leaves: pieces, or the snapshot, or an objection to it.
Never: what is inside; that is for the state machine to judge.
"""

from collections.abc import Callable, Iterator

from noti.raft.core.messages import Message, NodeId, Snapshot, SnapshotChunk

SNAPSHOT_BYTES_MAX = 1024 * 1024 * 1024
"""A larger announced size is garbage: history is a few thousand notifications."""


def cut_snapshot(
    snapshot: Snapshot, *, sender: NodeId, term: int, chunk_bytes: int
) -> Iterator[SnapshotChunk]:
    """Yield the pieces in order; an empty snapshot is one empty piece."""
    for offset in range(0, max(len(snapshot.data), 1), chunk_bytes):
        yield SnapshotChunk(
            sender=sender,
            term=term,
            index=snapshot.index,
            snapshot_term=snapshot.term,
            configuration=snapshot.configuration,
            offset=offset,
            data=snapshot.data[offset : offset + chunk_bytes],
            total=len(snapshot.data),
        )


class SnapshotAssembly:
    """The pieces of one snapshot that have arrived so far."""

    def __init__(self, flaw_in_state: Callable[[bytes], str | None]) -> None:
        """Start with nothing. `flaw_in_state` tells why a state cannot be restored, or None."""
        self._flaw_in_state = flaw_in_state
        self._first: SnapshotChunk | None = None
        self._data = bytearray()

    def objection(self, message: Message) -> str | None:
        """Return why the snapshot that this piece makes whole must not replace what is here.

        Once it is on disk the log before it is gone, so this is asked first; changes nothing.
        """
        if not isinstance(message, SnapshotChunk):
            return None
        begun = b"" if message.offset == 0 else bytes(self._data)
        fits = message.offset == 0 or (self._first and self._continues(self._first, message))
        if not fits or len(begun) + len(message.data) < message.total:
            return None
        flaw = self._flaw_in_state(begun + message.data)
        return flaw and f"a snapshot at {message.index} that does not decode: {flaw}"

    def add(self, chunk: SnapshotChunk) -> Snapshot | None:
        """Take the next piece; return the snapshot when it is whole.

        A piece out of place drops what was collected: the leader sends the whole again.
        """
        if chunk.offset == 0:
            self._first, self._data = chunk, bytearray()
        first = self._first
        if first is None or not self._continues(first, chunk):
            self.clear()
            return None
        self._data += chunk.data
        if len(self._data) < chunk.total:
            return None
        data = bytes(self._data)
        self.clear()
        return Snapshot(chunk.index, chunk.snapshot_term, chunk.configuration, data)

    def clear(self) -> None:
        """Forget the pieces collected so far."""
        self._first, self._data = None, bytearray()

    def _continues(self, first: SnapshotChunk, chunk: SnapshotChunk) -> bool:
        same = (first.sender, first.index, first.snapshot_term, first.total) == (
            chunk.sender,
            chunk.index,
            chunk.snapshot_term,
            chunk.total,
        )
        fits = len(self._data) + len(chunk.data) <= chunk.total <= SNAPSHOT_BYTES_MAX
        return same and fits and chunk.offset == len(self._data)
