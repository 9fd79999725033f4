"""What a publisher sends and what a browser sees.

Enters: nothing. Leaves: the values `Event` (not yet ordered) and `Notification` (numbered by the
store).
Never: encoding for disk or wire, I/O, clocks.

Both are named tuples, as every node makes one of each for every event: a frozen dataclass takes
four times as long to make.
"""

from typing import NamedTuple


class Event(NamedTuple):
    """Something that happened, as the leader wrote it into a command; not numbered yet."""

    source_seq: int
    """Sequence in the source's stream; strictly increasing within one stream. 0 for an event that
    came from a publisher, not from a stream."""
    id: str
    """Publisher's id if it gave one, otherwise made by the leader.

    Short, ASCII, no control characters.
    """
    topics: tuple[str, ...]
    """First is canonical. For JetStream: the subject."""
    data: str
    """What a browser gets: for category messages one line of JSON."""
    created_ms: int
    """Wall time in milliseconds since 1970 at which the publisher made it."""


class Notification(NamedTuple):
    """An event in its final place: the same `seq` on every node."""

    seq: int
    """1, 2, 3, … without gaps, in commit order."""
    id: str
    topics: tuple[str, ...]
    data: str
    created_ms: int
