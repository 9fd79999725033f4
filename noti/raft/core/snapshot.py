"""Snapshots in pieces: numbered for sending, decoded one after the other on arrival.

Enters: a snapshot, or the pieces of one. Leaves: pieces, or the snapshot with its decoded state, or
what is invalid in it. Never: what is inside; the state machine decodes it, once.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from noti.errors import LevelUnsupported, MessageInvalid
from noti.raft.core.events import RestoreSnapshot
from noti.raft.core.messages import NodeId, Snapshot, SnapshotChunk

SNAPSHOT_BYTES_MAX = 1024 * 1024 * 1024
"""A larger announced size is invalid: history has at most 256 MiB of data by default, and four
times as much is left for what is around the data, and for those who set more."""

PIECE_BYTES = 256 * 1024
"""How large a piece is, about: encoding or decoding one takes a millisecond or two, in which the
node does nothing else."""


class StateDecoder(Protocol):
    """Makes a state of a snapshot's pieces, given in order."""

    def feed(self, piece: bytes) -> None:
        """Take the next piece; raises `MessageInvalid`."""

    def finish(self) -> object:
        """Return what the state machine restores; raises `MessageInvalid`."""


class WholeDecoder:
    """Decodes only when all pieces are there: for a state that is small."""

    def __init__(self, decode: Callable[[bytes], object] = bytes) -> None:
        """`decode` takes all pieces, joined; it may raise `MessageInvalid`."""
        self._decode = decode
        self._pieces: list[bytes] = []

    def feed(self, piece: bytes) -> None:
        """Keep the next piece."""
        self._pieces.append(piece)

    def finish(self) -> object:
        """Decode all pieces; raises what `decode` does."""
        return self._decode(b"".join(self._pieces))


def split(data: bytes, piece_bytes: int = PIECE_BYTES) -> tuple[bytes, ...]:
    """Return what was encoded as a whole as pieces; nothing is one empty piece."""
    starts = range(0, max(len(data), 1), piece_bytes)
    return tuple(data[start : start + piece_bytes] for start in starts)


def chunks_of(
    snapshot: Snapshot, *, sender: NodeId, term: int, offset: int = 0
) -> Iterator[SnapshotChunk]:
    """Yield the messages with the pieces, in order, from the one that begins at `offset` on."""
    total = snapshot.size_bytes
    begins = 0
    for piece in snapshot.pieces:
        if begins >= offset:
            place = snapshot.index, snapshot.term, snapshot.configuration
            yield SnapshotChunk(sender, term, *place, begins, piece, total)
        begins += len(piece)


class SnapshotAssembly:
    """The pieces of one snapshot that have arrived so far, and what they say.

    Costs, until the last piece is there: the pieces, and the state that the decoder makes of them.
    """

    def __init__(self, new_decoder: Callable[[], StateDecoder]) -> None:
        """Start with nothing; `new_decoder` begins with the decoding of a snapshot."""
        self._new_decoder = new_decoder
        self._last: SnapshotChunk | None = None
        self._pieces: list[bytes] = []
        self.size = 0
        """Bytes of the pieces."""
        self._decoder: StateDecoder | None = None
        self._whole: RestoreSnapshot | None = None

    def find_invalid(self, message: SnapshotChunk, term: int) -> str | None:
        """Take a piece of a snapshot; return why it must not replace what is here, if so.

        Once a snapshot is on disk the log before it is gone, so this comes before anything else. A
        piece of a term before `term` changes nothing. One out of place drops what was collected:
        the leader sends the whole again.
        """
        if message.term < term:
            return None
        if message.offset == 0:
            self.clear()
        elif not self._continues(message):
            self.clear()
            return None
        if message.total > SNAPSHOT_BYTES_MAX:
            return None
        try:
            self._add(message)
        except (MessageInvalid, LevelUnsupported) as error:
            self.clear()
            return f"a snapshot at {message.index} that does not decode: {error}"
        return None

    def take(self) -> RestoreSnapshot | None:
        """Return the snapshot, with its decoded state, once it is whole."""
        if self._whole is None:
            return None
        whole = self._whole
        self.clear()
        return whole

    def clear(self, term: int | None = None) -> None:
        """Forget the pieces collected so far; with `term`, if they are of an older one."""
        if term is None or (self._last is not None and self._last.term < term):
            self._last, self._pieces, self.size = None, [], 0
            self._decoder = self._whole = None

    def _add(self, chunk: SnapshotChunk) -> None:
        decoder = self._decoder or self._new_decoder()
        decoder.feed(chunk.data)
        self._pieces.append(chunk.data)
        self._decoder, self._last = decoder, chunk
        self.size += len(chunk.data)
        if self.size == chunk.total:
            place = chunk.index, chunk.snapshot_term, chunk.configuration
            snapshot = Snapshot(*place, tuple(self._pieces))
            self._whole = RestoreSnapshot(snapshot, decoder.finish())

    def _continues(self, chunk: SnapshotChunk) -> bool:
        last = self._last
        if last is None or self._whole is not None or chunk.offset != self.size or not chunk.data:
            return False
        of_last = (last.sender, last.term, last.index, last.snapshot_term, last.total)
        of_this = (chunk.sender, chunk.term, chunk.index, chunk.snapshot_term, chunk.total)
        return of_last == of_this
