"""Snapshots in pieces: cut for sending, joined on arrival.

Enters: a snapshot, or the pieces of one. Leaves: pieces, or the snapshot with its decoded state, or
what is invalid in it. Never: what is inside; the state machine decodes it, once.
"""

from collections.abc import Callable, Iterator

from noti.errors import MessageInvalid
from noti.raft.core.events import RestoreSnapshot
from noti.raft.core.messages import Message, NodeId, Snapshot, SnapshotChunk

SNAPSHOT_BYTES_MAX = 1024 * 1024 * 1024
"""A larger announced size is invalid: history is a few thousand notifications."""


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

    def __init__(self, decode_state: Callable[[bytes], object]) -> None:
        """Start with nothing.

        `decode_state` makes of a snapshot's data what the state machine restores, or raises
        `MessageInvalid`.
        """
        self._decode_state = decode_state
        self._first: SnapshotChunk | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._whole: RestoreSnapshot | None = None
        """What the piece that was just looked at makes whole."""

    def find_invalid(self, message: Message) -> str | None:
        """Return why the snapshot that this piece makes whole must not replace what is here.

        Once it is on disk the log before it is gone, so this is called first, and before `add`.
        """
        self._whole = None
        if not isinstance(message, SnapshotChunk) or not self._completes(message):
            return None
        before = self._pieces if message.offset else ()
        data = b"".join((*before, message.data))
        try:
            state = self._decode_state(data)
        except MessageInvalid as error:
            return f"a snapshot at {message.index} that does not decode: {error}"
        place = message.index, message.snapshot_term
        self._whole = RestoreSnapshot(Snapshot(*place, message.configuration, data), state)
        return None

    def add(self, chunk: SnapshotChunk) -> RestoreSnapshot | None:
        """Take the next piece; return the snapshot, with its decoded state, when it is whole.

        A piece out of place drops what was collected: the leader sends the whole again.
        """
        whole, self._whole = self._whole, None
        if chunk.offset == 0:
            self.clear()
            self._first = chunk
        if whole is not None or not self._continues(chunk):
            self.clear()
            return whole
        self._pieces.append(chunk.data)
        self._size += len(chunk.data)
        return None

    def clear(self) -> None:
        """Forget the pieces collected so far."""
        self._first, self._pieces, self._size = None, [], 0

    def _completes(self, chunk: SnapshotChunk) -> bool:
        begins = chunk.offset == 0 and chunk.total <= SNAPSHOT_BYTES_MAX
        fits = begins or self._continues(chunk)
        return fits and chunk.offset + len(chunk.data) == chunk.total

    def _continues(self, chunk: SnapshotChunk) -> bool:
        first = self._first
        if first is None or chunk.offset != self._size:
            return False
        same = (first.sender, first.index, first.snapshot_term, first.total) == (
            chunk.sender,
            chunk.index,
            chunk.snapshot_term,
            chunk.total,
        )
        return same and self._size + len(chunk.data) <= chunk.total <= SNAPSHOT_BYTES_MAX
